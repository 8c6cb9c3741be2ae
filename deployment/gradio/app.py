"""The demo page: type a text, see its labels. Runs locally and as a Hugging Face Space.

The model folder is `--model`, else `$TAGWRIGHT_MODEL`, else `model/` beside this file.
"""

import argparse
import html
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

import gradio as gr  # noqa: E402 - reads the variable above when it is imported
import palette_page  # noqa: E402
from palette import read_map  # noqa: E402

from tagwright.decisions import decide  # noqa: E402
from tagwright.errors import TagwrightError  # noqa: E402
from tagwright.hues import MAP, Reason  # noqa: E402
from tagwright.tagger import Tagger  # noqa: E402

MAX_CHARACTERS = 20_000  # of all fields together
NEXT_BEST = 4  # labels not given that are shown greyed

CSS = """
.tags { display: grid; gap: .45rem; margin: .25rem 0 .75rem; }
.tag { display: grid; grid-template-columns: minmax(7rem, 2fr) 3fr 3.2rem; gap: .75rem; align-items: center; }
.tag .name { font-weight: 600; overflow-wrap: anywhere; }
.tag .track { background: var(--neutral-200); border-radius: 4px; height: .8rem; overflow: hidden; }
.tag .bar { background: #2563eb; height: 100%; }
.tag .score { text-align: right; font-variant-numeric: tabular-nums; }
.next .name { font-weight: 400; }
.next { opacity: .6; }
.next .bar { background: #6b7280; }
.note { opacity: .75; margin: .25rem 0; }
.message { border-left: 4px solid #d97706; padding: .4rem .75rem; }
.dark .tag .track { background: var(--neutral-700); }
"""


def answer(tagger: Tagger, values: list[str], reasons: dict[str, Reason] | None = None) -> str:
    """The result as HTML: bars for the labels given, the next best greyed, the time it took, and with a map of hues the
    palette."""
    fields = dict(zip(tagger.manifest.fields, (value or "" for value in values), strict=True))
    length = sum(map(len, fields.values()))
    if not any(value.strip() for value in fields.values()):
        return message(f"Nothing to tag yet: type a {tagger.manifest.fields[0]} first, or click one of the examples.")
    if length > MAX_CHARACTERS:
        return message(f"That is {length:,} characters; please shorten it to at most {MAX_CHARACTERS:,}.")
    started = time.perf_counter()
    scores = tagger.scores([fields])[0]
    milliseconds = 1000 * (time.perf_counter() - started)
    order = scores.argsort()[::-1]
    is_given = decide(scores[None], tagger.thresholds, tagger.manifest.kind)[0]
    given = [index for index in order if is_given[index]]
    others = [index for index in order if not is_given[index]][:NEXT_BEST]
    one = tagger.manifest.kind == "multiclass"
    parts = [
        bars(tagger, scores, given, "tags given") if given else note("No label reaches its threshold for this text."),
        note("Next best:" if one else "Next best, below their thresholds:"), bars(tagger, scores, others, "tags next"),
        note(f"Tagged in {milliseconds:.1f} ms among {len(tagger.labels)} labels on this computer's CPU."),
    ]
    if reasons is not None:
        title = fields.get(title_field(tagger.manifest.fields), "").strip()
        parts += [palette_page.palette_of_text(tagger.labels, scores, is_given, reasons, title, tagger.manifest.hues)]
    return "".join(parts)


def answer_genres(tagger: Tagger, values: list[str], typed: str, reasons: dict[str, Reason]) -> str:
    """The palette of genres typed by hand as HTML, with the title from the page's boxes."""
    fields = dict(zip(tagger.manifest.fields, (value or "" for value in values), strict=True))
    length = len(typed) + sum(map(len, fields.values()))
    if length > MAX_CHARACTERS:
        return message(f"That is {length:,} characters; please shorten it to at most {MAX_CHARACTERS:,}.")
    return palette_page.palette_of_genres(typed, reasons, fields.get(title_field(tagger.manifest.fields), "").strip())


def title_field(fields: list[str]) -> str | None:
    """The field that holds a text's title: the one of that name, else the first of several, for a lone one is the text
    itself."""
    return "title" if "title" in fields else fields[0] if len(fields) > 1 else None


def bars(tagger: Tagger, scores, indices, css_class: str) -> str:
    rows = "".join(
        f'<div class="tag"{tooltip(tagger, index)}><span class="name">'
        f'{html.escape(tagger.labels[index])}</span><span class="track"><span class="bar" style="display:block;'
        f'width:{100 * scores[index]:.1f}%"></span></span><span class="score">{100 * scores[index]:.0f} %</span></div>'
        for index in indices)
    return f'<div class="{css_class}">{rows}</div>'


def tooltip(tagger: Tagger, index: int) -> str:
    return "" if tagger.manifest.kind == "multiclass" else f' title="threshold {tagger.thresholds[index]:.2f}"'


def note(text: str) -> str:
    return f'<p class="note">{html.escape(text)}</p>'


def message(text: str) -> str:
    return f'<p class="message" role="status">{html.escape(text)}</p>'


def build_page(tagger: Tagger, reasons: dict[str, Reason] | None = None) -> gr.Blocks:
    """The page for one model: a box for each of its input fields, and with a map of hues one for genres."""
    manifest = tagger.manifest
    title = title_field(manifest.fields)
    what = "the best label" if manifest.kind == "multiclass" else "every fitting label"
    with gr.Blocks(title=f"Tagwright: {manifest.title}", analytics_enabled=False) as page:
        gr.Markdown(f"# {manifest.title}\nType a text as a visitor of the site would; {what} appears with "
                    f"its score. At most {manifest.max_length} tokens (about {manifest.max_length * 3 // 4} words) are read.")
        with gr.Row():
            with gr.Column():
                boxes = [gr.Textbox(label=name.capitalize(), lines={title: 1, "body": 7}.get(name, 3), elem_id=f"field-{name}",
                                    max_lines=20, autofocus=number == 0) for number, name in enumerate(manifest.fields)]
                button = gr.Button("Tag it", variant="primary", elem_id="tag-it")
                if reasons is not None:
                    genres = gr.Textbox(label="Or genres, for their colours alone", elem_id="genres",
                                        placeholder="Fiction > Romance; horror")
                    colour = gr.Button("Show their colours", elem_id="show-colours")
            with gr.Column():  # on a phone it goes below the boxes
                result = gr.HTML(elem_id="result", label="Labels", show_label=False)
        events = [button.click, *(box.submit for box in boxes)]
        for event in events:
            event(lambda *values: answer(tagger, list(values), reasons), boxes, result, api_visibility="private")
        if reasons is not None:
            for event in (colour.click, genres.submit):
                event(lambda *values: answer_genres(tagger, list(values[:-1]), values[-1] or "", reasons), [*boxes, genres],
                      result, api_visibility="private")
        if manifest.examples:
            gr.Examples([[example.get(name, "") for name in manifest.fields] for example in manifest.examples], boxes,
                        outputs=result, fn=lambda *values: answer(tagger, list(values), reasons), run_on_click=True,
                        cache_examples=False)
    return page


def main() -> None:
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=Path(os.environ.get("TAGWRIGHT_MODEL", here / "model")))
    parser.add_argument("--host", default=None, help="address to listen on (default: this machine only)")
    parser.add_argument("--port", type=int, default=None, help="default: 7860, or the next free one")
    arguments = parser.parse_args()
    try:
        tagger = Tagger.load(arguments.model)
        reasons = read_map(arguments.model) if MAP in tagger.manifest.files else None
    except TagwrightError as error:
        sys.exit(f"error: {error}")
    page = build_page(tagger, reasons)
    css = CSS if reasons is None else CSS + palette_page.CSS
    page.launch(server_name=arguments.host, server_port=arguments.port, css=css, theme=gr.themes.Default(primary_hue="blue"))


if __name__ == "__main__":
    main()
