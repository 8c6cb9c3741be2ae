"""What the demo page says of a palette, as HTML: swatches with their reasons, a mock cover, downloads, genres typed by hand."""

import base64
import difflib
from html import escape, unescape

import numpy as np
from cover import MAX_TITLE, draw_cover, draw_sheet, to_png, writable
from palette import Swatch, because, palette, to_css, to_json

from tagwright.hues import Reason, genre_parts

MAX_GENRES, MAX_GENRE = 50, 200  # typed by hand; the latter in characters
GENRES_SHOWN = 3  # behind a colour
SUGGESTIONS = 3

CSS = """
.palette { margin-top: 1.25rem; }
.palette h2 { font-size: 1.15rem; font-weight: 600; margin: 0 0 .5rem; }
.palette .book { display: grid; grid-template-columns: 11rem 1fr; gap: 1.25rem; align-items: start; margin: .75rem 0; }
.palette .book img { width: 100%; height: auto; margin: 0; border-radius: 3px; box-shadow: 0 2px 10px rgb(0 0 0 / .35); }
.palette .files { display: flex; flex-wrap: wrap; gap: .5rem; margin: .75rem 0 0; }
.palette .files a { border: 1px solid currentcolor; border-radius: 6px; padding: .3rem .75rem; color: inherit; }
.palette .files a:hover { background: var(--background-fill-secondary); }
.palette ul { display: grid; gap: .5rem; list-style: none; margin: .75rem 0 0; padding: 0; }
.palette .swatch { display: grid; grid-template-columns: 11rem 1fr; gap: 1.25rem; align-items: center; margin: 0; }
.palette .chip { display: block; border-radius: 6px; padding: .55rem .8rem; box-shadow: inset 0 0 0 1px #80808059; }
.palette .chip b, .palette .chip code { display: block; color: inherit; background: none; padding: 0; border: 0; }
.palette .chip b { font-weight: 600; }
.palette .why { overflow-wrap: anywhere; }
.palette .why span { display: block; }
.palette .genres { margin-bottom: 1rem; }
.palette .genres li { overflow-wrap: anywhere; margin: 0; }
@media (max-width: 56rem) {
  .palette .book { grid-template-columns: 8.5rem 1fr; }
  .palette .swatch { grid-template-columns: 1fr; gap: .25rem; }
  .palette .chip { display: flex; justify-content: space-between; }
  .palette .why { padding-bottom: .5rem; }
}
"""


def palette_of_text(labels: list[str], scores: np.ndarray, is_given: np.ndarray, reasons: dict[str, Reason], title: str,
                    way: str | None) -> str:
    """The palette of a text with these scores, (labels,), of which those that reached their thresholds are given, (labels,).
    `way` is how the labels stand for colours, the manifest's `hues`."""
    order = scores.argsort()[::-1]
    if found := palette({labels[index]: float(scores[index]) for index in order if is_given[index]}, reasons, way):
        return section(found, title)
    for index in order:
        if found := palette({labels[index]: float(scores[index])}, reasons, way):
            short = "No label given has colours" if is_given.any() else "No label reaches its threshold"
            return section(found, title, f"{short}; this palette is that of the best-scored label with colours, "
                                         f"{labels[index]} ({100 * scores[index]:.0f} %).")
    return section([], title, "None of this model’s labels has colours.")


def palette_of_genres(typed: str, reasons: dict[str, Reason], title: str) -> str:
    """The palette of genres typed by hand, or what is wrong with them. Each genre is explained."""
    paths = [path.strip() for path in unescape(typed).replace("\n", ";").split(";") if genre_parts(path)]
    if not paths:
        return section([], title, "No genre yet: type one or more, with a semicolon between them.")
    if long := [path for path in paths if len(path) > MAX_GENRE]:
        return section([], title, f"A genre has {len(long[0]):,} characters; please shorten it to at most {MAX_GENRE}.")
    genres = list(dict.fromkeys(genre for path in paths for genre in genre_parts(path)))
    if len(genres) > MAX_GENRES:
        return section([], title, f"These are {len(genres):,} genres; please type at most {MAX_GENRES}.")
    told = "".join(f"<li>{escape(explain(genre, reasons))}</li>" for genre in genres)
    found = palette(dict.fromkeys(paths, 1.0), reasons)
    return section(found, title, "" if found else "None of these genres has colours.", f'<ul class="genres">{told}</ul>')


def explain(genre: str, reasons: dict[str, Reason]) -> str:
    """A typed genre's colours and why it has them; of one that the map does not know, the nearest names in it."""
    if genre in reasons:
        return str(reasons[genre])
    near = difflib.get_close_matches(genre, reasons, SUGGESTIONS)
    guess = f"; did you mean {' or '.join(near)}?" if near else ""
    return f"{genre}: no hues (not among the {len(reasons):,} genres of this model’s data and table of hues{guess})"


def section(swatches: list[Swatch], title: str, note: str = "", explained: str = "") -> str:
    """The palette as HTML, below a note and explanations, which are HTML already."""
    parts = [f'<p class="note message" role="status">{escape(note)}</p>' if note else "", explained]
    if swatches:
        parts += [book(swatches, title), "<ul>", *map(row, swatches), "</ul>"]
    return f'<section class="palette"><h2>Cover colours</h2>{"".join(parts)}</section>'


def book(swatches: list[Swatch], title: str) -> str:
    """The mock cover and the downloads, which are in the page itself: no file lies on the server."""
    shown = f"Mock cover of “{title[:MAX_TITLE]}”" if title else "Mock cover"
    without = " Its font lacks letters of the title." if title and not writable(title) else ""
    cover = draw_cover(swatches, title)
    names = ", ".join(swatch.name for swatch in swatches)
    files = [("CSS", "text/css", to_css(swatches).encode("utf8")),
             ("JSON", "application/json", to_json(swatches, title).encode("utf8", "replace")),
             ("PNG", "image/png", to_png(draw_sheet(cover, swatches)))]
    links = "".join(f'<a download="palette.{name.lower()}" href="{data_url(kind, content)}">{name}</a>'
                    for name, kind, content in files)
    source = data_url("image/png", to_png(cover))
    return (f'<div class="book"><img alt="{escape(f"{shown} in {names}")}" src="{source}"><div>A mock cover in these colours, '
            f'the most fitting first.{without}<div class="files">{links}</div></div></div>')


def row(swatch: Swatch) -> str:
    why = "".join(f"<span>{escape(because(reason))}</span>" for reason in swatch.genres[:GENRES_SHOWN])
    if (more := swatch.genre_count - GENRES_SHOWN) > 0:
        why += f"<span>and {more:,} more</span>"
    return (f'<li class="swatch"><span class="chip" style="background:{swatch.hex};color:{swatch.ink}"><b>{swatch.name}</b>'
            f'<code>{swatch.hex}</code></span><span class="why">{why}</span></li>')


def data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
