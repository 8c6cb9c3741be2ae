"""A model is a folder, with one writer and one reader.

`tagwright.json`, the manifest, holds what tagging needs (labels, thresholds, text template, length), what the model
scored, and the sha256 of every other file; it carries a checksum of itself. Standard library only. `run.json`, the
record of the stage that made the folder, is no part of the model and is not covered.
"""

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tagwright.errors import TagwrightError

MANIFEST = "tagwright.json"
CARD = "README.md"
NOT_COVERED = {MANIFEST, "run.json"}
FORMAT = 1
CARD_SCORES = {  # what a reader is told: key in the metrics -> its name
    "multilabel": {"p_at_1": "P@1", "r_at_5": "R@5", "micro_f1": "micro-F1", "macro_f1": "macro-F1"},
    "multiclass": {"accuracy": "accuracy", "macro_f1": "macro-F1"},
}
NETWORKS = {  # file -> what it is
    "model.safetensors": "PyTorch (transformers)",
    "onnx/model.onnx": "ONNX fp32",
    "onnx/model_quantized.onnx": "ONNX int8",
    "onnx/model_q4.onnx": "ONNX 4-bit",
}


@dataclass
class Manifest:
    """What a model folder says of itself. `thresholds` and `labels` run in the order of the model's outputs; `html` and
    `damaged_html` are those of the fields that held HTML in the training data, which was made plain text; `added` are those of
    the labels that the model was not trained on, added by name, with their descriptions ("" where there is none); `hues` tells
    how the labels stand for colours: as genres, which the folder's `hues.json` gives colours ("mapped"), as the colours
    themselves ("predicted"), or not at all (None); `attribution` and `licence` are those of the training data; `data` is the
    `content_id` of the data set that it was trained on a part of."""

    task: str
    title: str
    kind: str
    labels: list[str]
    thresholds: list[float]
    fields: list[str]
    template: str
    max_length: int  # tokens, the special ones included
    pad_id: int
    encoder: str
    html: list[str] = field(default_factory=list)
    damaged_html: list[str] = field(default_factory=list)
    added: dict[str, str] = field(default_factory=dict)
    hues: str | None = None
    examples: list[dict[str, str]] = field(default_factory=list)
    attribution: str | None = None
    licence: str | None = None
    data: str | None = None
    metrics: dict = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)  # path -> sha256
    format: int = FORMAT
    checksum: str = ""


def write_bundle(folder: Path, manifest: Manifest) -> None:
    """Write the model card and the manifest; every other file must already be there."""
    manifest.files = {name: _sha256(folder / name) for name in _covered(folder) if name != CARD}
    (folder / CARD).write_text(model_card(manifest), encoding="utf8")
    manifest.files[CARD] = _sha256(folder / CARD)
    (folder / MANIFEST).write_bytes(_sealed(asdict(manifest)))


def read_bundle(folder: Path) -> Manifest:
    """The manifest of a model folder whose every file is as it was written.

    Files that the manifest does not list (a hub's own, say) are left alone. Raises TagwrightError naming the file that is
    missing or changed.
    """
    path = folder / MANIFEST
    try:
        content = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise TagwrightError(f"{folder}: no model folder (it has no {MANIFEST}); `tagwright quantize` makes one") from None
    manifest = read_manifest(content, path)
    present = _covered(folder)
    for name, expected in manifest.files.items():
        if name not in present:
            raise TagwrightError(f"{folder / name}: missing from the model folder")
        if _sha256(folder / name) != expected:
            raise TagwrightError(f"{folder / name}: changed since the model was written (sha256 differs)")
    return manifest


def added_labels(folder: Path) -> dict[str, str]:
    """The labels that were added by name to a model folder, with their descriptions; none where there is no whole one."""
    try:
        return read_bundle(folder).added
    except TagwrightError:
        return {}


def read_manifest(content: bytes, place: Path | str) -> Manifest:
    """A manifest from its bytes; raises TagwrightError, naming the `place` that they are from, where they are not as they
    were written."""
    try:
        values = json.loads(content)
        manifest = Manifest(**values)
        sealed = _sealed(values)
    except (ValueError, TypeError, RecursionError) as error:
        raise TagwrightError(f"{place}: damaged, or written by another version: {error}") from None
    if manifest.format != FORMAT:
        raise TagwrightError(f"{place}: format {manifest.format}, this version reads {FORMAT}")
    if content != sealed:
        raise TagwrightError(f"{place}: changed since it was written (its checksum does not fit)")
    return manifest


def model_card(manifest: Manifest) -> str:
    """The folder's README.md in the Hugging Face Hub's form."""
    one = manifest.kind == "multiclass"
    example = json.dumps(manifest.examples[0] if manifest.examples else "a text", ensure_ascii=False)
    lines = [
        "---", "license: apache-2.0", "pipeline_tag: text-classification",
        f"tags: [{'multi-class' if one else 'multi-label'}, tagwright]", "---", "",
        f"# {_plain(manifest.title)}", "",
        f"Gives a text the fitting {'one' if one else 'ones'} of {len(manifest.labels)} labels. "
        f"Encoder: {_plain(manifest.encoder)}; at most {manifest.max_length} tokens are read. "
        f"Fields: {_plain(', '.join(manifest.fields))}.", "",
        "In Python:", "",
        "```python", "from tagwright.tagger import Tagger", "",
        'tagger = Tagger.load("path/to/this/folder")', f"tagger.tag([{example}])", "```", "",
        "In JavaScript, in Node or in a page (the package in Tagwright's `deployment/browser`):", "",
        "```js", 'import { Tagger } from "tagwright";', "",
        'const tagger = await Tagger.load("path/to/this/folder");', f"await tagger.tag([{example}]);", "```", "",
    ]
    if networks := [f"| `{file}` | {what} |" for file, what in NETWORKS.items() if file in manifest.files]:
        lines += ["## Files", "", "| file | format |", "|---|---|", *networks, ""]
    if manifest.hues:
        lines += ["`hues.json` says which CSS colours a genre stands for, and why; this model's labels are "
                  + ("genres." if manifest.hues == "mapped" else "such colours."), ""]
    scored = {name: scores for name, scores in manifest.metrics.items() if "micro_f1" in scores}
    if rows := [(name, scores) for name, scores in scored.items() if name != "validation" or len(scored) == 1]:
        shown = CARD_SCORES[manifest.kind]
        if [*scored] == ["validation"]:
            what = f"Scores on the validation rows, which chose the best epoch{'.' if one else ' and the thresholds.'}"
        else:
            what = "Scores on test rows." if one else "Scores on test rows; thresholds were chosen on validation rows."
        lines += ["## Scores", "", what, "",
                  f"| model | {' | '.join(shown.values())} |", "|---" * (1 + len(shown)) + "|"]
        lines += [f"| {name} | {' | '.join(f'{scores[key]:.3f}' for key in shown)} |" for name, scores in rows]
        lines += [""]
    if manifest.added:
        lines += ["Added by name, without examples to learn from, and so less sure (the scores above are without them):", ""]
        lines += [f"- {_plain(label)}{f': {_plain(text)}' if text else ''}" for label, text in manifest.added.items()] + [""]
    lines += [
        "## Training data", "", _plain(manifest.attribution or "Its task file does not say where the data is from."), "",
        "## Limits", "",
        "It knows only these labels, and plain texts like the ones it was trained on; take HTML out first.", "",
        "## Licence", "", f"Weights: Apache-2.0. {_encoder_licence(manifest.encoder)}", "",
        f"Training data: {_plain(manifest.licence or 'not stated in its task file')}. Its terms may bind the use of the "
        "weights too.", "",
    ]
    return "\n".join(lines)


def _encoder_licence(encoder: str) -> str:
    if "all-minilm-l6-v2" in encoder.lower():
        return "So is the encoder that they were trained from, all-MiniLM-L6-v2."
    return f"The encoder that they were trained from, {_plain(encoder)}, has a licence of its own."


def _plain(text: str) -> str:
    """A user's text as one line in which Markdown finds no markup."""
    return re.sub(r"([\\`*<>|\[\]])", r"\\\1", " ".join(text.split()))


def _sealed(values: dict) -> bytes:
    """A manifest's values as bytes, with the checksum of those same bytes without it."""
    blank = json.dumps(values | {"checksum": ""}, indent=1, ensure_ascii=False)
    checksum = hashlib.sha256(blank.encode("utf8")).hexdigest()
    return json.dumps(values | {"checksum": checksum}, indent=1, ensure_ascii=False).encode("utf8")


def _covered(folder: Path) -> list[str]:
    files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    return sorted(name for name in files if name not in NOT_COVERED)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
