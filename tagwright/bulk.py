"""Tags every row of a file of any size: read as a stream, tagged on all cores, written whole or not at all, and taken up
again after a kill.

Fields that held HTML in the training data are taken to hold it here too, and become plain text as they did there; a column
named by `text` is plain text.

The output has a row for every row that could be read, in the input's order: the input's columns, `line` (where the row
begins in the input, from 1; of a parquet file the row's number), `tags` (its labels, best first) and `scores` (theirs).
Where the input has a column of such a name already, ours is called `tagwright_tags`, and so on. CSV holds lists as JSON.
Rows that cannot be read, or hold no text, are in `<output>.rejected.jsonl`, each with its line and the reason.

A chunk of rows is the unit of work: once tagged it is a file in the hidden folder `.<output>.parts`, which goes when the
output is there. What a chunk holds depends on the input alone, so a run that finds such a folder tags only what is missing.
"""

import csv
import difflib
import json
import os
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from tagwright import __version__
from tagwright.bundle import Manifest
from tagwright.errors import TagwrightError
from tagwright.rows import Source, as_dicts, read_tables, scan, to_json
from tagwright.stage import alone, full_disk_named, sha256, write_json
from tagwright.tagger import Tagger, cores
from tagwright.text import plain, text_of

CHUNK_ROWS = 1024  # few enough to keep every core busy to the end, many enough to batch by length
CHUNKS_A_GROUP = 8  # chunks that make one row group of a parquet file
BATCH_SIZE = 16  # for one thread: more tokens at once no longer fit into its cache
OWN_COLUMNS = {"line": pa.int64(), "tags": pa.list_(pa.string()), "scores": pa.list_(pa.float64())}


@dataclass
class Reading:
    """How a row becomes a text: as `form`, a model's manifest, says, from those of its fields that the file has, `columns`; or,
    where `form` is None, the one column is the text."""

    columns: list[str]
    form: Manifest | None

    def text(self, cells: dict) -> str:
        """The text of a row, "" where it has none."""
        return plain(cells[self.columns[0]]) if self.form is None else text_of(cells, self.form)


@dataclass
class Chunk:
    """CHUNK_ROWS rows on their way; `lines`, `table` (the input's columns) and `texts` are those that can be tagged."""

    number: int
    rows: int
    lines: list[int]
    table: pa.Table
    texts: list[str]
    rejected: list[dict]


def tag_file(model: Path, path: Path, out: Path, text: str | None = None,
             progress: Callable[[int, int | None], None] = lambda done, total: None) -> dict:
    """Tag the rows of `path` (csv, tsv, jsonl, parquet, or txt: one text a line) with a model folder into `out` (parquet, csv
    or jsonl). The text is the model's fields, from the columns of these names, or the column `text` alone. `progress` is told
    after each chunk how many rows are done, of how many if that is known; what it raises ends the run, to be resumed.

    Returns counts: `rows` read, `written`, `rejected` (reason -> rows), `resumed` (rows that an earlier run had tagged); and
    `fields_missing` and `seconds`. Raises TagwrightError where a file cannot be read or written, is of no known form, lacks
    the columns, or changes meanwhile; what was tagged until then is kept for the next run.
    """
    started = time.monotonic()
    if out.suffix not in WRITERS:
        raise TagwrightError(f"{out}: the ending must be one of {', '.join(WRITERS)}")
    if out.exists() and path.exists() and out.samefile(path):
        raise TagwrightError(f"{out}: is the input; choose another name for the output")
    tagger = Tagger.load(model, threads=1)  # one thread a chunk and as many chunks as cores: they never wait for each other
    state = _state(path)
    source = scan(path)
    reading = how_to_read(source, tagger.manifest, text)
    own = own_columns(source)
    job = {"input": sha256(path), "model": tagger.manifest.checksum, "columns": reading.columns, "text": text,
           "types": str(source.schema()), "chunk_rows": CHUNK_ROWS, "batch_size": BATCH_SIZE,
           "versions": {"tagwright": __version__, "onnxruntime": onnxruntime.__version__}}
    parts = out.with_name(f".{out.name}.parts")
    with alone(parts, "tagwright tag"), full_disk_named(out):
        _begin(parts, job)
        counts = _tag_chunks(tagger, source, read_chunks(source, reading), own, parts, progress)
        if _state(path) != state:
            raise TagwrightError(f"{path}: changed while it was read; run the same command again")
        _join(source, parts, counts.pop("chunks"), own, out)
        shutil.rmtree(parts, ignore_errors=True)  # a network's disk keeps the open lock file
    missing = [name for name in reading.form.fields if name not in reading.columns] if reading.form else []
    return counts | {"fields_missing": missing, "seconds": round(time.monotonic() - started, 1)}


def how_to_read(source: Source, form: Manifest, text: str | None) -> Reading:
    """The columns of `source` that make a row's text: those that a model's manifest `form` names, or the one called `text`.
    Raises TagwrightError where there are none."""
    if source.form == "txt":
        text = text or "text"
    names, fields = list(source.columns), [text] if text else form.fields
    if columns := [name for name in fields if name in names]:
        return Reading(columns, None if text else form)
    nearest = difflib.get_close_matches(fields[0], names, n=1)
    meant = f"; did you mean {nearest[0]!r}?" if nearest else ""
    hint = "" if text else ", which the model reads; name the column that holds the text with --text"
    raise TagwrightError(f"{source.path}: no column {' or '.join(map(repr, fields))}{hint}{meant} (it has: {', '.join(names)})")


def own_columns(source: Source) -> dict[str, pa.DataType]:
    """The columns that the output has beside those of `source`, by the names that they can have there; raises TagwrightError
    where those are taken as well."""
    own = {f"tagwright_{name}" if name in source.columns else name: kind for name, kind in OWN_COLUMNS.items()}
    if taken := set(own) & set(source.columns):
        raise TagwrightError(f"{source.path}: the output needs the names of its columns {', '.join(sorted(taken))}: "
                             "rename them")
    return own


def _state(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise TagwrightError(f"{path}: cannot be read: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


# --- tagging -----------------------------------------------------------------------------------------------------


def read_chunks(source: Source, reading: Reading, start: int = 0) -> Iterator[Chunk]:
    """The file's rows, CHUNK_ROWS at a time, with their texts; rows without a text are rejected. `start` as in read_tables."""
    for number, (count, lines, table, rejected) in enumerate(read_tables(source, CHUNK_ROWS, start)):
        texts = [reading.text(cells) for cells in as_dicts(table.select(reading.columns))]
        if blank := [index for index, text in enumerate(texts) if not text]:
            rejected = rejected + [{"line": lines[index], "reason": "no text", "detail": "", "row": row}
                                   for index, row in zip(blank, table.take(blank).to_pylist(), strict=True)]
            rejected.sort(key=lambda entry: entry["line"])
            kept = [index for index, text in enumerate(texts) if text]
            table = table.take(pa.array(kept, pa.int64()))
            lines, texts = [lines[index] for index in kept], [texts[index] for index in kept]
        yield Chunk(number, count, lines, table, texts, rejected)


def _begin(parts: Path, job: dict) -> None:
    """Keep the chunks that are there if they are of the same job, else remove them."""
    record = parts / "job.json"
    try:
        if json.loads(record.read_text(encoding="utf8")) == job:
            return
    except (FileNotFoundError, ValueError):  # none yet, or a torn one
        pass
    record.unlink(missing_ok=True)
    for part in parts.glob("*.parquet"):
        part.unlink()
    write_json(record, job)


def _tag_chunks(tagger: Tagger, source: Source, chunks: Iterator[Chunk], own: dict, parts: Path,
                progress: Callable[[int, int | None], None]) -> dict:
    """Tag the chunks that are not there yet, on all cores; the rejected rows are written anew by every run."""
    counts = {"rows": 0, "written": 0, "rejected": Counter(), "resumed": 0, "chunks": 0}
    done = min(source.rows, CHUNK_ROWS * len(list(parts.glob("*.parquet"))))
    running: deque = deque()
    with (ThreadPoolExecutor(cores()) as pool, (parts / "rejected.jsonl").open("w", encoding="utf8") as rejected,
          tqdm(total=source.rows, initial=done, desc="tag", unit=" rows", smoothing=0, disable=None) as bar):
        try:
            for chunk in chunks:
                counts["chunks"] += 1
                counts["rows"] += chunk.rows
                counts["written"] += len(chunk.lines)
                counts["rejected"].update(entry["reason"] for entry in chunk.rejected)
                rejected.writelines(json_line(entry) for entry in chunk.rejected)
                part = _part(parts, chunk.number)
                if part.exists():
                    counts["resumed"] += len(chunk.lines)
                    continue
                running.append((pool.submit(_tag_chunk, tagger, chunk, own, part), chunk.rows))
                if len(running) > 2 * cores():  # bounds the memory: reading is quicker than tagging
                    done += _await(running, bar)
                    progress(done, source.rows)
            while running:
                done += _await(running, bar)
                progress(done, source.rows)
        finally:
            pool.shutdown(cancel_futures=True)
    return counts


def _await(running: deque, bar: tqdm) -> int:
    """Wait for the oldest chunk; returns its rows."""
    future, rows = running.popleft()
    future.result()
    bar.update(rows)
    return rows


def _tag_chunk(tagger: Tagger, chunk: Chunk, own: dict[str, pa.DataType], part: Path) -> None:
    table = tagged(tagger, chunk, own)
    partial = part.with_suffix(".partial")
    with partial.open("wb") as file:
        pq.write_table(table, file)
        file.flush()
        os.fsync(file.fileno())  # before the renaming: a chunk that is there is whole, after a power cut too
    os.replace(partial, part)


def tagged(tagger: Tagger, chunk: Chunk, own: dict[str, pa.DataType]) -> pa.Table:
    """The chunk's table with its lines, tags and scores in the columns `own`."""
    tags = tagger.tag(chunk.texts, BATCH_SIZE)
    labels, scores = ([[pair[at] for pair in row] for row in tags] for at in (0, 1))
    columns = [chunk.lines, labels, [[round(score, 4) for score in row] for row in scores]]
    table = chunk.table
    for (name, kind), values in zip(own.items(), columns, strict=True):
        table = table.append_column(name, pa.array(values, kind))
    return table


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:09}.parquet"


# --- writing -----------------------------------------------------------------------------------------------------


def _join(source: Source, parts: Path, chunks: int, own: dict[str, pa.DataType], out: Path) -> None:
    """Write the chunks as one file, which appears under its name when it is whole, and beside it the rejected rows."""
    schema = pa.schema([*source.schema(), *own.items()])
    numbers = range(chunks)
    groups = (pa.concat_tables([read_part(_part(parts, number), schema) for number in numbers[first : first + CHUNKS_A_GROUP]])
              for first in tqdm(numbers[::CHUNKS_A_GROUP], desc="write", unit=" groups", disable=None, leave=False))
    partial = parts / f"whole{out.suffix}"
    WRITERS[out.suffix](partial, schema, groups)
    with partial.open("rb+") as written:
        os.fsync(written.fileno())  # before the chunks go
    rejected = out.with_name(f"{out.name}.rejected.jsonl")
    if (parts / "rejected.jsonl").stat().st_size:
        os.replace(parts / "rejected.jsonl", rejected)
    else:
        rejected.unlink(missing_ok=True)  # an earlier run's
    os.replace(partial, out)


def read_part(path: Path, schema: pa.Schema) -> pa.Table:
    """The table in a file of tagged rows with the types of `schema`; raises TagwrightError, naming it, where it is damaged."""
    try:
        return pq.read_table(path).cast(schema)
    except pa.ArrowException as error:
        raise TagwrightError(f"{path}: damaged ({error}); remove it and run the same command again") from None


def _write_parquet(path: Path, schema: pa.Schema, groups: Iterator[pa.Table]) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        for group in groups:
            writer.write_table(group)


def _write_csv(path: Path, schema: pa.Schema, groups: Iterator[pa.Table]) -> None:
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(schema.names)
        for group in groups:
            writer.writerows([to_json(cell) if isinstance(cell, list | dict) else cell for cell in row.values()]
                             for row in group.to_pylist())


def _write_jsonl(path: Path, schema: pa.Schema, groups: Iterator[pa.Table]) -> None:
    with path.open("w", encoding="utf8") as file:
        for group in groups:
            file.writelines(to_json(row) + "\n" for row in as_dicts(group))


def json_line(entry: dict) -> str:
    # bytes that are no UTF-8, read as lone surrogates, stay visible as escapes
    return to_json(entry).encode("utf8", "backslashreplace").decode("utf8") + "\n"


WRITERS = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}
