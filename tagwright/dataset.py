"""From a raw file to a clean, split data set, with a record of every row that was dropped and why.

`clean()` writes `train.parquet`, `validation.parquet`, `test.parquet` (columns `line`, `text`, `labels`),
`labels.json`, `rejected.jsonl` and `run.json`; `Dataset.load()` reads them back. Where a task has a test file of its
own, the `line` of a test row is one of that file, and that of any other row one of the main file.

Where the labels stand for colours (`labels.hues`) it also writes the map, `hues.json`, and the column `hues`: the colours of
all of a row's genres, too rare ones included, which is the truth that predicted genres and predicted colours are both judged
by. For the same reason rows are chosen and split by their genres even where the colours then take the genres' place.
"""

import csv
import difflib
import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from iterstrat.ml_stratifiers import MultilabelStratifiedShuffleSplit
from tqdm.auto import tqdm

from tagwright import hues
from tagwright.errors import TagwrightError
from tagwright.rows import MAX_CELL
from tagwright.stage import Stage, read_record, write_json
from tagwright.task import Task
from tagwright.text import parse_labels, plain, text_of

SPLITS = ("train", "validation", "test")
FORMATS = {".csv": "csv", ".tsv": "tsv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet",
           ".txt": "fasttext"}
LABEL_FAULTS = ("unreadable labels", "unknown label", "several labels")
MIN_ROWS = 10
MAX_UNREADABLE = 0.5  # share of unreadable rows above which the file, or the task, not the row, must be wrong


@dataclass
class Row:
    """One raw row on its way: `line` is its line (CSV, JSON Lines, fastText) or row number (parquet) in `file`, from 1.
    A row of a published test set (`is_test`) stays as it is."""

    line: int
    raw: dict
    text: str = ""
    labels: list[str] = field(default_factory=list)
    file: str = ""
    is_test: bool = False
    hues: list[str] | None = None  # None: the task has to do with no colours


@dataclass
class Dataset:
    """A cleaned data set. Each split is a data frame with columns `line`, `text`, `labels` (a list), and `hues` (a list) where
    the task is about colours."""

    labels: list[str]
    train: pd.DataFrame
    validation: pd.DataFrame
    test: pd.DataFrame
    record: dict

    @classmethod
    def load(cls, folder: Path, task: str = "TASK") -> "Dataset":
        """Read what `clean()` wrote; raises TagwrightError, naming the command, where it is missing."""
        made_by = f"tagwright clean {task}"
        record = read_record(folder, made_by)
        try:
            labels = json.loads((folder / "labels.json").read_text(encoding="utf8"))
            return cls(labels, *(pd.read_parquet(folder / f"{split}.parquet") for split in SPLITS), record)
        except (OSError, ValueError, pa.ArrowException) as error:
            raise TagwrightError(f"{folder}: damaged ({error}); make it again with `{made_by} --force`") from None

    def targets(self, frame: pd.DataFrame) -> np.ndarray:
        """The label indicator matrix of a split: float32, (rows, labels)."""
        column = {label: index for index, label in enumerate(self.labels)}
        matrix = np.zeros((len(frame), len(self.labels)), dtype=np.float32)
        for row, labels in enumerate(frame["labels"]):
            matrix[row, [column[label] for label in labels]] = 1
        return matrix


def clean(task: Task, raw_path: Path, out_dir: Path, force: bool = False) -> dict:
    """Clean and split the rows of `raw_path`, and of the task's test file if it has one, into `out_dir`; returns the run
    record.

    Raises TagwrightError for a file that is not UTF-8, is truncated, lacks a field the task needs, or has no row left.
    """
    test_path = task.test_path()
    settings = task.model_dump(include={"name", "kind", "source", "input", "labels", "split"})
    inputs = [raw_path, *([test_path] if test_path else []), *([hues.TABLE] if _reads_table(task) else [])]
    stage = Stage("clean", out_dir, inputs, settings)
    if not force and (record := stage.unchanged()):
        return record
    rejects = Rejects()
    source = task.source
    rows = _usable_rows(task, raw_path, source.member or source.path, rejects)
    if test_path:
        test_rows = _usable_rows(task, test_path, source.test_member or source.test_path, rejects)
        rows += test_rows
    else:
        test_rows = _position_test_rows(task, raw_path, rows)
    for row in test_rows:
        row.is_test = True
    read = len(rows) + len(rejects.entries)
    rows = merge_duplicates(rows, task.split.near_duplicate, rejects, unite=task.kind == "multilabel")
    reasons = _read_genres(task, rows) if _reads_table(task) else {}
    labels, rare = _choose_labels(task, rows)
    rows = [row for row in rows if _keep_frequent(row, labels, rejects)]
    if len(rows) < MIN_ROWS:
        raise TagwrightError(f"{raw_path}: only {len(rows)} of {read} rows are left after cleaning ({rejects.summary()}); "
                             "too few to train on")
    _check_labels(raw_path, list(labels))
    splits = _split(task, raw_path, rows, labels)
    if task.labels.hues == "predicted":
        rare = _put_hues_for_genres(task, splits, rejects)
        _check_parts(raw_path, splits, rejects)
    learnable = Counter(label for split in ("train", "validation") for row in splits[split] for label in row.labels)
    labels = sorted(learnable, key=lambda label: (-learnable[label], label))
    _check_labels(raw_path, labels)
    unseen = _drop_unseen_labels(splits, learnable, rejects)
    _check_parts(raw_path, splits, rejects)

    with stage.writing() as folder:
        for name, part in splits.items():
            _write_parquet(folder / f"{name}.parquet", part)
        write_json(folder / "labels.json", labels)
        if task.labels.hues:
            hues.save_map(reasons, folder / hues.MAP)
        with (folder / "rejected.jsonl").open("w", encoding="utf8") as file:
            for entry in sorted(rejects.entries, key=lambda entry: (entry["file"], entry["line"])):
                file.write(_json_line(entry) + "\n")
        stage.record |= {
            "rows": {"read": read, "kept": sum(map(len, splits.values())), "rejected": rejects.counts()}
            | {name: len(part) for name, part in splits.items()},
            "labels": {"kept": len(labels), "rare": len(rare), "only_in_test": len(unseen),
                       "per_row": round(sum(learnable.values()) / len(splits["train"] + splits["validation"]), 3)},
        }
    return stage.record


class Rejects:
    """Every refused row with its file, its line, its reason and the row itself. `file` is that of rows just being read."""

    def __init__(self, file: str = ""):
        self.file = file
        self.entries: list[dict] = []

    def add(self, row: Row, reason: str, detail: str = "") -> None:
        file = row.file or self.file
        self.entries.append({"file": file, "line": row.line, "reason": reason, "detail": detail, "row": row.raw})

    def counts(self) -> dict[str, int]:
        return dict(Counter(entry["reason"] for entry in self.entries).most_common())

    def summary(self) -> str:
        return ", ".join(f"{count} × {reason}" for reason, count in self.counts().items()) or "none rejected"


# --- reading -----------------------------------------------------------------------------------------------------


def _usable_rows(task: Task, path: Path, name: str, rejects: Rejects) -> list[Row]:
    """The rows of one file that have a text and labels; `name` is what the task calls the file."""
    found = Rejects(name)
    rows = [row for row in tqdm(read_rows(task, path, found), desc="clean", unit=" rows", disable=None)
            if _prepare(task, row, found)]
    for row in rows:
        row.file = name
    _check_readable(path, len(rows) + len(found.entries), found)
    rejects.entries += found.entries
    return rows


def read_rows(task: Task, path: Path, rejects: Rejects) -> Iterator[Row]:
    """The raw rows of a file; rows that cannot be read go to `rejects`.

    Raises TagwrightError where the file itself is at fault: unknown format, not UTF-8, truncated, a field missing.
    """
    form = task.source.format or FORMATS.get(path.suffix.lower())
    if form is None:
        raise TagwrightError(f"{path}: the ending tells no format; set source.format to one of {sorted(set(FORMATS.values()))}")
    if task.source.columns and form not in ("csv", "tsv"):
        raise TagwrightError(f"{path}: source.columns is for CSV and TSV files; {form} files name their own fields")
    if form == "fasttext":
        yield from _read_fasttext(task, path)
    elif form == "parquet":
        yield from _read_parquet(task, path)
    elif form == "json":
        yield from _read_json(task, path, rejects)
    elif form == "jsonl":
        yield from _read_jsonl(task, path, rejects)
    else:
        yield from _read_csv(task, path, "\t" if form == "tsv" else ",", rejects)


def _lines(path: Path) -> Iterator[str]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            try:
                yield raw.decode("utf-8-sig" if number == 1 else "utf8")
            except UnicodeDecodeError as error:
                raise TagwrightError(f"{path}: line {number}, byte {error.start + 1}: not UTF-8 ({error.reason}); "
                                     "save the file as UTF-8") from None


def _read_csv(task: Task, path: Path, delimiter: str, rejects: Rejects) -> Iterator[Row]:
    csv.field_size_limit(MAX_CELL)
    reader = csv.DictReader(_lines(path), task.source.columns, delimiter=delimiter, strict=True, restkey=None)
    try:
        _check_fields(task, path, reader.fieldnames or [])
        for number, cells in enumerate(reader):
            row = Row(reader.line_num, cells)
            if number == 0 and task.source.columns and _same_names(cells.values(), task.source.columns):  # a header after all
                continue
            if None in cells or None in cells.values():
                cells["(extra cells)"] = cells.pop(None, [])
                rejects.add(row, "unreadable row", f"not {len(reader.fieldnames)} cells, as the header has")
            else:
                yield row
    except csv.Error as error:
        hint = " (an opening quote is never closed: is the file truncated?)" if "end of data" in str(error) else ""
        raise TagwrightError(f"{path}: line {reader.reader.line_num}: {error}{hint}") from None


def _same_names(first: Iterable, second: Iterable) -> bool:
    """Whether columns are called the same, whatever the case, spaces and underscores of their names."""
    plain = [[re.sub(r"[\s_]", "", str(name)).casefold() for name in names] for names in (first, second)]
    return plain[0] == plain[1]


def _read_jsonl(task: Task, path: Path, rejects: Rejects) -> Iterator[Row]:
    seen: set[str] = set()
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        try:
            raw = json.loads(line)
        except (ValueError, RecursionError) as error:
            if not line.endswith("\n"):
                raise TagwrightError(f"{path}: line {number}: the last line ends in the middle of a JSON object; "
                                     "the file looks truncated") from None
            rejects.add(Row(number, {"(line)": line[:1000]}), "unreadable row", f"not JSON: {error}")
            continue
        if not isinstance(raw, dict):
            rejects.add(Row(number, {"(line)": raw}), "unreadable row", "not a JSON object")
            continue
        seen.update(raw)
        yield Row(number, raw)
    if seen:
        _check_fields(task, path, sorted(seen))


def _read_json(task: Task, path: Path, rejects: Rejects) -> Iterator[Row]:
    """A list of objects, or an object whose `items` is one, as the Stack Exchange API answers; rows count from 1."""
    try:
        content = json.loads("".join(_lines(path)))
    except (ValueError, RecursionError) as error:
        raise TagwrightError(f"{path}: not JSON (truncated?): {error}") from None
    items = content.get("items") if isinstance(content, dict) else content
    if not isinstance(items, list):
        raise TagwrightError(f"{path}: neither a list of objects nor an object with such a list as its 'items'")
    rows = [Row(number, item) for number, item in enumerate(items, 1) if isinstance(item, dict)]
    for number, item in enumerate(items, 1):
        if not isinstance(item, dict):
            rejects.add(Row(number, {"(item)": item}), "unreadable row", "not a JSON object")
    if rows:
        _check_fields(task, path, sorted({name for row in rows for name in row.raw}))
    yield from rows


def _read_parquet(task: Task, path: Path) -> Iterator[Row]:
    try:
        table = pq.read_table(path)
        raw_rows = table.to_pylist()
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise TagwrightError(f"{path}: not a readable parquet file (truncated?): {error}") from None
    _check_fields(task, path, table.column_names)
    for number, raw in enumerate(raw_rows, 1):
        yield Row(number, raw)


def _read_fasttext(task: Task, path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), 1):
        words = line.split()
        is_label = [word.startswith("__label__") for word in words] + [False]
        count = is_label.index(False)  # labels lead the line
        labels = [word.removeprefix("__label__") for word in words[:count]]
        yield Row(number, {task.labels.field: labels, task.input.fields[0]: " ".join(words[count:])})


def _check_fields(task: Task, path: Path, present: list[str]) -> None:
    for name, key in [(name, "input.fields") for name in task.input.fields] + [(task.labels.field, "labels.field")]:
        if name not in present:
            nearest = difflib.get_close_matches(name, [str(field) for field in present], n=1)
            meant = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise TagwrightError(f"{path}: no field {name!r}, which {task.file.name} names in {key}{meant} "
                                 f"It has: {', '.join(map(str, present)) or 'none'}")


def _check_readable(path: Path, read: int, rejects: Rejects) -> None:
    if not read:
        raise TagwrightError(f"{path}: the file holds no rows")
    faults = [entry for entry in rejects.entries if entry["reason"] in ("unreadable row", *LABEL_FAULTS)]
    if len(faults) > MAX_UNREADABLE * read:
        first = faults[0]
        raise TagwrightError(f"{path}: {len(faults)} of {read} rows cannot be read; the first is line {first['line']}: "
                             f"{first['reason']}: {first['detail']}")


# --- one row -----------------------------------------------------------------------------------------------------


def _prepare(task: Task, row: Row, rejects: Rejects) -> bool:
    """Fill in the row's text and labels; False where it has none, or they cannot be read."""
    row.text = text_of(row.raw, task.input)
    if not row.text:
        rejects.add(row, "no text")
        return False
    for name in task.input.required:
        if not plain(row.raw.get(name), name in task.input.html, name in task.input.damaged_html):
            rejects.add(row, "no text", f"{name} is empty")
            return False
    try:
        row.labels = parse_labels(row.raw.get(task.labels.field), task.labels.format)
    except ValueError as error:
        rejects.add(row, "unreadable labels", f"{task.labels.field}: {error}")
        return False
    if task.labels.format == "paths":
        row.labels = list(dict.fromkeys(genre for path in row.labels for genre in hues.genre_parts(path)))
    if not row.labels:
        rejects.add(row, "no labels")
        return False
    if names := task.labels.names:
        if unknown := [label for label in row.labels if label not in names]:
            rejects.add(row, "unknown label", f"{task.labels.field}: {unknown[0][:60]!r} is not in labels.names")
            return False
        row.labels = list(dict.fromkeys(names[label] for label in row.labels))
    if task.kind == "multiclass" and len(row.labels) > 1:
        hint = "" if task.labels.format == "single" else '; labels.format = "single" takes a whole cell for one label'
        rejects.add(row, "several labels", f"{task.labels.field}: {', '.join(row.labels)[:60]}{hint}")
        return False
    return True


# --- duplicates --------------------------------------------------------------------------------------------------


def merge_duplicates(rows: list[Row], threshold: float, rejects: Rejects, unite: bool) -> list[Row]:
    """One row, the first, for each group of exact or near duplicates. If `unite`, its labels are the union of theirs;
    otherwise they are its own, and a twin with others is refused as one that contradicts. Rows of a published test set stay
    as they are, and it is their training twins that go."""
    kept = []
    for index, twin in find_twins(rows, threshold):
        if twin is None:
            kept.append(index)
            continue
        first, second = rows[twin], rows[index]
        detail = f"of line {first.line}" + (f" of {first.file}" if first.file != second.file else "")
        if not unite and first.labels != second.labels:
            detail += f", which it contradicts: {', '.join(second.labels)} here, {', '.join(first.labels)} there"
        rejects.add(second, "duplicate" if first.text == second.text else "near duplicate", detail)
        if unite and not first.is_test:
            first.labels = list(dict.fromkeys(first.labels + second.labels))
    return [rows[index] for index in sorted(kept)]


def find_twins(rows: list[Row], threshold: float) -> Iterator[tuple[int, int | None]]:
    """Each row's index, those of test rows first, with that of the first row before it of which it is an exact or near
    duplicate; None where there is none, and for test rows. A row that has a twin is not itself one to others.

    Two texts are near duplicates where the Jaccard similarity of their word 3-shingles is at least `threshold`. Found
    exactly, not by hashing: two such sets must share one of their rarest few shingles (the prefix filter of
    Bayardo, Ma and Srikant, "Scaling up all pairs similarity search", WWW 2007).
    """
    shingles = [_shingles(row.text) for row in rows]
    frequency = Counter(shingle for each in shingles for shingle in each)
    order = sorted(range(len(rows)), key=lambda index: not rows[index].is_test)  # stable: test rows first
    holders: dict[int, list[int]] = defaultdict(list)  # rare shingle -> kept rows that have it in their prefix
    for index in tqdm(order, desc="find duplicates", unit=" rows", disable=None):
        own = shingles[index]
        # The rarest come first, so those that no other text has; they can lead to no twin and are only counted.
        shared = sorted(sorted(shingle for shingle in own if frequency[shingle] > 1), key=frequency.get)
        prefix = shared[: max(0, len(shared) - math.ceil(threshold * len(own)) + 1)]
        twin = None if rows[index].is_test else next(
            (other for other in sorted({other for shingle in prefix for other in holders[shingle]})
             if len(own & shingles[other]) >= threshold * len(own | shingles[other])), None)
        if twin is None:
            for shingle in prefix:
                holders[shingle].append(index)
        yield index, twin


def _shingles(text: str) -> set[int]:
    words = re.findall(r"[^\W_]+", text.casefold()) or [text]
    return set(map(hash, zip(words, words[1:], words[2:], strict=False))) or {hash(tuple(words))}


# --- genres and colours ------------------------------------------------------------------------------------------


def _reads_table(task: Task) -> bool:
    return task.labels.hues is not None or task.labels.format == "paths"


def _read_genres(task: Task, rows: list[Row]) -> dict[str, hues.Reason]:
    """Give each row its `hues`, where the task is about them, and take what says too little from its labels. Returns the map of
    hues."""
    table = hues.read_table()
    reasons = hues.build_map((genre for row in rows for genre in row.labels), _embed, table) if task.labels.hues else {}
    vague = {genre for genre, reason in table.items() if not reason.hues} if task.labels.format == "paths" else set()
    for row in rows:
        if task.labels.hues:
            row.hues = list(hues.hues_of(row.labels, reasons))
        row.labels = [genre for genre in row.labels if genre not in vague] or row.labels
    return reasons


def _embed(names: list[str]) -> np.ndarray:
    from tagwright.model import embed_names  # here: torch takes seconds to import, and few tasks have genres to embed

    return embed_names(hues.ENCODER, names)


def _put_hues_for_genres(task: Task, splits: dict[str, list[Row]], rejects: Rejects) -> set[str]:
    """Make each row's hues its labels, but for those too rare to learn, which are returned."""
    rows = [row for part in splits.values() for row in part]
    for row in rows:
        row.labels = list(row.hues)
    frequent, rare = _frequent_labels(task, [row.labels for row in rows])
    for name, part in splits.items():
        splits[name] = [row for row in part
                        if _keep_frequent(row, frequent, rejects, "only rare hues" if row.hues else "no hues")]
    return rare


# --- labels and splits -------------------------------------------------------------------------------------------


def _choose_labels(task: Task, rows: list[Row]) -> tuple[set[str], set[str]]:
    """The labels that are frequent enough to learn, and the others; each row is left its most telling ones."""
    labels, rare = _frequent_labels(task, [row.labels for row in rows])
    if task.labels.most_telling is None:
        return labels, rare
    counts = Counter(label for row in rows for label in row.labels)
    while True:
        chosen = [sorted(labels.intersection(row.labels), key=lambda label: (counts[label], label))[: task.labels.most_telling]
                  for row in rows]
        frequent, _ = _frequent_labels(task, chosen)
        if frequent == labels:
            break
        rare |= labels - frequent  # most rows that had them have more telling ones; without them the choice is another
        labels = frequent
    for row, telling in zip(rows, chosen, strict=True):
        row.labels = [label for label in row.labels if label in telling]
    return labels, rare


def _frequent_labels(task: Task, rows: list[list[str]]) -> tuple[set[str], set[str]]:
    """Of the rows' labels those that enough rows have, and the others."""
    counts = Counter(label for labels in rows for label in labels)
    least = max(task.labels.min_rows, task.labels.min_share * len(rows))
    frequent = {label for label, count in counts.items() if count >= least}
    return frequent, set(counts) - frequent


def _check_labels(path: Path, labels: list[str]) -> None:
    if len(labels) < 2:
        raise TagwrightError(f"{path}: only one label, {labels[0]!r}, is left after cleaning: nothing to tell apart")


def _keep_frequent(row: Row, labels: set[str], rejects: Rejects, reason: str = "only rare labels") -> bool:
    row.labels = [label for label in row.labels if label in labels]
    if not row.labels:
        rejects.add(row, reason)
    return bool(row.labels)


def _check_parts(path: Path, splits: dict[str, list[Row]], rejects: Rejects) -> None:
    if empty := next((name for name, part in splits.items() if not part), None):
        raise TagwrightError(f"{path}: no {empty} row is left after cleaning ({rejects.summary()})")


def _position_test_rows(task: Task, path: Path, rows: list[Row]) -> list[Row]:
    """What a split by position sets aside for the test: the last `test_rows` usable rows."""
    if task.split.by != "position":
        return []
    if len(rows) < task.split.test_rows + MIN_ROWS:
        raise TagwrightError(f"{path}: split.test_rows is {task.split.test_rows}, but only {len(rows)} rows are usable, "
                             f"and at least {MIN_ROWS} must be left to train on")
    return rows[-task.split.test_rows :]


def _split(task: Task, path: Path, rows: list[Row], labels: set[str]) -> dict[str, list[Row]]:
    test = [row for row in rows if row.is_test]
    rest = [row for row in rows if not row.is_test]
    if len(rest) < MIN_ROWS:
        raise TagwrightError(f"{path}: only {len(rest)} rows are left besides the test rows; too few to train on")
    if task.split.by == "stratified":
        rest, test = _stratified(rows, labels, task.split.test, task.split.seed)
    train, validation = _stratified(rest, labels, task.split.validation, task.split.seed)
    return {"train": train, "validation": validation, "test": test}


def _stratified(rows: list[Row], labels: set[str], share: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Iterative stratification (Sechidis, Tsoumakas and Vlahavas 2011): each label's rows are shared out alike."""
    column = {label: index for index, label in enumerate(sorted(labels))}
    matrix = np.zeros((len(rows), len(column)), dtype=int)
    for index, row in enumerate(rows):
        matrix[index, [column[label] for label in row.labels]] = 1
    splitter = MultilabelStratifiedShuffleSplit(n_splits=1, test_size=share, random_state=seed)
    large, small = next(splitter.split(matrix, matrix))
    return [rows[index] for index in sorted(large)], [rows[index] for index in sorted(small)]


def _drop_unseen_labels(splits: dict[str, list[Row]], learnable: Counter, rejects: Rejects) -> set[str]:
    """A label that only test rows have can neither be learned nor scored; rows left without a label go with it."""
    unseen = {label for row in splits["test"] for label in row.labels} - set(learnable)
    splits["test"] = [row for row in splits["test"] if _keep_frequent(row, set(learnable), rejects)]
    return unseen


def _write_parquet(path: Path, rows: list[Row]) -> None:
    schema = pa.schema({"line": pa.int64(), "text": pa.string(), "labels": pa.list_(pa.string())})
    columns = {"line": [row.line for row in rows], "text": [row.text for row in rows], "labels": [row.labels for row in rows]}
    if any(row.hues is not None for row in rows):
        schema = schema.append(pa.field("hues", pa.list_(pa.string())))
        columns["hues"] = [row.hues for row in rows]
    pq.write_table(pa.table(columns, schema=schema), path)


def _json_line(entry: dict) -> str:
    # lone surrogates, which JSON can spell but UTF-8 can not, stay escaped
    return json.dumps(entry, ensure_ascii=False, default=str).encode("utf8", "backslashreplace").decode("utf8")
