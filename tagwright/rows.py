"""Reads a csv, tsv, jsonl, parquet or txt file as a stream: first its columns and number of rows, then the rows as tables.

A row that cannot be read comes with its line and the reason, and does not stop the reading; `dataset.py`, which reads
training data, is stricter.
"""

import contextlib
import csv
import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from tagwright.errors import TagwrightError

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".txt": "txt"}
MAX_CELL = 10_000_000  # characters of a CSV cell: beyond it a quote was opened and never closed
UNREADABLE = "(unreadable)"  # stands for the columns of a row that has none
JSON_TEXT = None  # the type of a JSON Lines column whose values are of several kinds, or objects: they are held as JSON
IS_JSON = {b"form": b"json"}  # marks such a column in a table
TYPES = {"str": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "texts": pa.list_(pa.string())}


@dataclass
class Source:
    """A file: its form, the types of its columns (Arrow's, or JSON_TEXT), and how many rows it has, readable or not."""

    path: Path
    form: str
    columns: dict[str, pa.DataType | None]
    rows: int

    def schema(self) -> pa.Schema:
        return pa.schema([pa.field(name, pa.string(), metadata=IS_JSON) if kind is JSON_TEXT else pa.field(name, kind)
                          for name, kind in self.columns.items()])


class Rows(NamedTuple):
    """Rows that follow each other: how many were read, the lines on which the readable ones begin and the table of these, and
    the others as {"line", "reason", "detail", "row"}."""

    read: int
    lines: list[int]
    table: pa.Table
    rejected: list[dict]


class _Row(NamedTuple):
    line: int
    cells: dict
    reason: str = ""  # why it cannot be read; "" where it can
    detail: str = ""


def scan(path: Path) -> Source:
    """A file's columns and number of rows. A text file is read once for that; of JSON Lines this tells the columns' types.

    Raises TagwrightError for a file that cannot be read, is of no known form, or has no readable row.
    """
    form = FORMATS.get(path.suffix.lower())
    if form is None:
        raise TagwrightError(f"{path}: the ending must be one of {', '.join(FORMATS)}")
    with _faults_named(path):
        if form == "parquet":
            with pq.ParquetFile(path) as file:
                schema, count = file.schema_arrow, file.metadata.num_rows
            _check_names(path, schema.names)
            return Source(path, form, dict(zip(schema.names, schema.types, strict=True)), count)
        kinds: dict[str, set[str]] = {}
        count, first = 0, None
        for row in tqdm(_read(path, form), desc="read", unit=" rows", disable=None, leave=False):
            count += 1
            if row.reason:
                first = first or row
                continue
            for name, value in row.cells.items():
                known = kinds.setdefault(name, set())
                if value is not None:
                    known.add(_kind(value))
    if not kinds:
        raise TagwrightError(f"{path}: none of its {count:,} rows can be read; line {first.line}: {first.reason} {first.detail}"
                             if first else f"{path}: the file holds no rows")
    return Source(path, form, {name: _type(kind) for name, kind in kinds.items()}, count)


def read_tables(source: Source, size: int, start: int = 0) -> Iterator[Rows]:
    """All rows in order, `size` at a time, readable or not; of a parquet file those from row `start` (from 0) on. Raises
    TagwrightError where the file cannot be read further."""
    with _faults_named(source.path):
        if source.form == "parquet":
            line = start + 1
            for table in _parquet_tables(source.path, size, start):
                yield _sound_rows(table, line)
                line += len(table)
            return
        rows = _read(source.path, source.form)
        while chunk := list(islice(rows, size)):
            good = [row for row in chunk if not row.reason]
            arrays = [_array([row.cells.get(name) for row in good], kind) for name, kind in source.columns.items()]
            rejected = [{"line": row.line, "reason": row.reason, "detail": row.detail, "row": row.cells}
                        for row in chunk if row.reason]
            yield Rows(len(chunk), [row.line for row in good], pa.Table.from_arrays(arrays, schema=source.schema()), rejected)


def as_dicts(table: pa.Table) -> list[dict]:
    """A table's rows, with what is held as JSON decoded."""
    held_as_json = [field.name for field in table.schema if field.metadata == IS_JSON]
    rows = table.to_pylist()
    for row in rows:
        row |= {name: json.loads(row[name]) for name in held_as_json if row[name] is not None}
    return rows


def _parquet_tables(path: Path, size: int, start: int) -> Iterator[pa.Table]:
    with pq.ParquetFile(path, buffer_size=1 << 20) as file:  # buffered: no column is in memory as a whole
        group, skip = 0, start  # a file can be entered only where a row group begins; what lies before `start` is thrown away
        while group < file.num_row_groups and skip >= file.metadata.row_group(group).num_rows:
            skip -= file.metadata.row_group(group).num_rows
            group += 1
        table = file.schema_arrow.empty_table()
        for batch in file.iter_batches(size, row_groups=range(group, file.num_row_groups)):
            rest, skip = batch.slice(min(skip, len(batch))), max(0, skip - len(batch))
            table = pa.concat_tables([table, pa.Table.from_batches([rest])]) if len(table) else pa.Table.from_batches([rest])
            if len(table) >= size:
                yield table.slice(0, size)
                table = table.slice(size)
        if len(table):
            yield table


def _sound_rows(table: pa.Table, first: int) -> Rows:
    """Rows of a parquet file, the first of which has the number `first`, without those whose text is no UTF-8: Arrow does not
    look when it reads."""
    lines = range(first, first + len(table))
    try:
        table.validate(full=True)
        return Rows(len(table), list(lines), table, [])
    except pa.ArrowInvalid:
        sound, rejected = [], []
        for index, line in enumerate(lines):
            try:
                table.slice(index, 1).to_pylist()
                sound.append(index)
            except UnicodeDecodeError as error:
                rejected.append({"line": line, "reason": "not UTF-8", "detail": str(error), "row": {}})
        return Rows(len(table), [lines[index] for index in sound], table.take(pa.array(sound, pa.int64())), rejected)


def to_json(value) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)


@contextlib.contextmanager
def _faults_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise TagwrightError(f"{path}: cannot be read: {error.strerror or error}") from None
    except pa.ArrowException as error:
        raise TagwrightError(f"{path}: not readable (truncated, or changed meanwhile?): {error}") from None


def _check_names(path: Path, names: list[str]) -> list[str]:
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        raise TagwrightError(f"{path}: two columns are called {doubled[0]!r}")
    return names


# --- text files --------------------------------------------------------------------------------------------------


def _read(path: Path, form: str) -> Iterator[_Row]:
    with path.open("rb") as file:
        lines = ((number, raw.decode("utf-8-sig" if number == 1 else "utf8", "surrogateescape"))
                 for number, raw in enumerate(file, 1))
        if form == "txt":
            yield from _read_txt(lines)
        elif form == "jsonl":
            yield from _read_jsonl(lines)
        else:
            yield from _read_csv(path, lines, "\t" if form == "tsv" else ",")


def _read_txt(lines: Iterable[tuple[int, str]]) -> Iterator[_Row]:
    for number, line in lines:
        line = line.rstrip("\r\n")
        yield _Row(number, {"text": line}) if _is_utf8(line) else _unreadable(number, line, "not UTF-8")


def _read_jsonl(lines: Iterable[tuple[int, str]]) -> Iterator[_Row]:
    for number, line in lines:
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
            # a JSON escape can spell half a character, which no file can hold
            sound = _is_utf8(line) and ("\\u" not in line or _is_utf8(to_json(cells)))
        except (ValueError, RecursionError) as error:
            yield _unreadable(number, line, "not JSON", str(error))
            continue
        if not isinstance(cells, dict):
            yield _unreadable(number, line, "not a JSON object")
        else:
            yield _Row(number, cells) if sound else _unreadable(number, line, "not UTF-8")


def _read_csv(path: Path, lines: Iterator[tuple[int, str]], delimiter: str) -> Iterator[_Row]:
    """Rows as the header names their cells. After one that is not CSV, reading goes on with the line after that on which it
    begins, so that a stray quote costs its own line and not the rest of the file."""
    csv.field_size_limit(MAX_CELL)
    header: list[str] = []
    again: deque[tuple[int, str]] = deque()  # lines to be read once more
    taken: list[tuple[int, str]] = []  # those of the row being read

    def feed() -> Iterator[str]:
        while line := again.popleft() if again else next(lines, None):
            taken.append(line)
            yield line[1]

    reader = csv.reader(feed(), delimiter=delimiter, strict=True)
    while True:
        taken.clear()
        reason = detail = ""
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            reason, detail = "not CSV", str(error)
            again.extendleft(reversed(taken[1:]))
            del taken[1:]
            reader = csv.reader(feed(), delimiter=delimiter, strict=True)
        else:
            if not cells:  # an empty line
                continue
            if header and len(cells) != len(header):
                reason, detail = "wrong number of cells", f"{len(cells)}, where the header has {len(header)}"
        number, raw = taken[0][0], "".join(line for _, line in taken)
        if not _is_utf8(raw):
            reason, detail = "not UTF-8", ""
        if header:
            yield _unreadable(number, raw, reason, detail) if reason else _Row(number, dict(zip(header, cells, strict=True)))
        elif reason:
            raise TagwrightError(f"{path}: line {number}, which should name the columns: {reason} {detail}")
        else:
            header = _check_names(path, cells)


def _unreadable(number: int, line: str, reason: str, detail: str = "") -> _Row:
    return _Row(number, {UNREADABLE: line.rstrip("\r\n")}, reason, detail)


def _is_utf8(text: str) -> bool:
    """False where bytes that are no UTF-8 were read (they become lone surrogates)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# --- the types of JSON Lines -------------------------------------------------------------------------------------


def _kind(value) -> str:
    if isinstance(value, list):
        return "texts" if all(isinstance(item, str) for item in value) else "json"
    kind = type(value).__name__
    return "json" if kind == "dict" or (kind == "int" and not -(2**63) <= value < 2**63) else kind


def _type(kinds: set[str]) -> pa.DataType | None:
    if not kinds:
        return pa.string()
    if kinds == {"int", "float"}:
        return pa.float64()
    return TYPES.get(*kinds, JSON_TEXT) if len(kinds) == 1 else JSON_TEXT


def _array(values: list, kind: pa.DataType | None) -> pa.Array:
    if kind is JSON_TEXT:
        return pa.array([None if value is None else to_json(value) for value in values], pa.string())
    if kind == pa.float64():  # whole numbers may be among them
        values = [None if value is None else float(value) for value in values]
    return pa.array(values, kind)
