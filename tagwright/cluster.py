"""Tags parquet files where one machine is too small: on the cores of a Ray cluster, or of this machine, by Ray Data.

Each input file gives one output file of the same name, with what `bulk.py` gives: the same columns, tags and scores, and
`<output>.rejected.jsonl` beside it for the rows without a text.

The unit of work is a piece: PIECE_ROWS rows of one file that follow each other. So one huge file keeps as many workers busy
as many small ones do, and none is ever read whole. Ray's tasks get only a piece's place and return only its counts; the rows
go from the input to the hidden folder `.tagwright` in the output's folder and from there into the output, which appears
when it is whole. So Ray's object store stays empty, and a killed run loses the pieces that were in work. Every machine must
therefore see the model, the input and the output under the same paths. A piece can begin in the middle of a row group, and
what lies before it there is decoded in vain: that costs a few hundredths of the time that tagging takes, and spares a pass
over the file that would cut it up.

An output says in its own metadata, under the key `tagwright`, of which input (its size and time of change), model and
settings it was made; a run makes only those that are not there or say something else. The folder of a file's pieces is named
after the same, so that no run, nor what a killed one has left running, can mix its pieces with those of another job.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import socket
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
from tqdm.auto import tqdm

from tagwright import __version__
from tagwright.bulk import (
    BATCH_SIZE,
    CHUNK_ROWS,
    CHUNKS_A_GROUP,
    how_to_read,
    json_line,
    own_columns,
    read_chunks,
    read_part,
    tagged,
)
from tagwright.bundle import Manifest, read_bundle
from tagwright.errors import TagwrightError
from tagwright.rows import Source, scan
from tagwright.stage import alone, full_disk_named
from tagwright.tagger import Tagger, cores

PIECE_ROWS = CHUNK_ROWS * CHUNKS_A_GROUP  # a row group of the output; some seconds of a core's time
WORK = ".tagwright"  # in the output's folder: the pieces, while there are any
MADE_OF = b"tagwright"  # the key in an output's metadata
OBJECT_STORE_BYTES = 256 << 20  # of a local run, which keeps next to nothing there
REACHED_WITHIN = 10  # seconds
MAX_FAULTS = 5  # files that the closing error names


@dataclass
class _File:
    """An input on its way: `made_of` is what its output will be made of, `schema` that of the output, `parts` the folder of
    its pieces, and `left` those of them that are not there yet."""

    path: Path
    out: Path
    made_of: dict
    schema: pa.Schema
    rows: int
    parts: Path
    left: set[Path] = field(init=False)

    def __post_init__(self):
        self.left = {part for part in self.pieces if not part.exists()}

    @cached_property
    def pieces(self) -> dict[Path, int]:
        """Where each piece goes, in the order of the rows, and how many rows of the input it is."""
        return {self.parts / f"{start:012}.parquet": min(PIECE_ROWS, self.rows - start)
                for start in range(0, self.rows, PIECE_ROWS)}


def tag_parquet(model: Path, source: Path, out: Path, text: str | None = None, address: str | None = None) -> dict:
    """Tag the rows of `source`, a parquet file or a folder of such (and of folders of such), with a model folder into files of
    the same names in the folder `out`. The text is the model's fields, from the columns of these names, or the column `text`
    alone. `address` is that of a Ray cluster, as Ray takes it (None: this machine's cores).

    Returns counts: `files`, `skipped` (files that an earlier run had finished), `rows`, `written` and `rejected` (reason ->
    rows) of the others, `resumed` (their rows that an earlier run had tagged), and `seconds`. Raises TagwrightError, before
    any work, where there is no parquet file, a file lacks the columns, `out` and `source` lie in each other, or the cluster
    is not reached; and in the end, naming them, where files could not be read, when all others are done.
    """
    started = time.monotonic()
    model, source, out = model.absolute(), source.absolute(), out.absolute()  # workers run elsewhere
    manifest = read_bundle(model)
    names = _inputs(source, out)
    counts = {"files": len(names), "skipped": 0, "rows": 0, "written": 0, "rejected": Counter(), "resumed": 0}
    faults: dict[Path, str] = {}
    with alone(out / WORK, "tagwright bulk"), full_disk_named(out):
        files = _plan(names, manifest, text, out / WORK, faults)
        counts["skipped"] = len(names) - len(files) - len(faults)
        _clear(out / WORK, keep={file.parts for file in files})
        try:
            _tag_files(files, (model, manifest.checksum, text), address, counts, faults)
        except OSError as error:
            raise TagwrightError(f"{out}: stopped; what is tagged is kept: {error}") from None
        if faults:
            shown = "; ".join(list(faults.values())[:MAX_FAULTS]) + ("; …" if len(faults) > MAX_FAULTS else "")
            raise TagwrightError(f"{len(faults)} of {len(names)} files could not be tagged, the others are done: {shown}")
        shutil.rmtree(out / WORK, ignore_errors=True)  # a network's disk keeps the open lock file
    return counts | {"seconds": round(time.monotonic() - started, 1)}


# --- what there is to do -----------------------------------------------------------------------------------------


def _inputs(source: Path, out: Path) -> dict[Path, Path]:
    """The files to tag, each with the path of its output."""
    here, there = source.resolve(), out.resolve()
    if source.is_file():
        if there == here.parent:
            raise TagwrightError(f"{out}: the input lies there; name another folder for the output")
        return {source: out / source.name}
    if here in (there, *there.parents) or there in here.parents:
        raise TagwrightError(f"{out}: it and the input, {source}, lie one in the other; name another folder for the output")
    names = [path.relative_to(source) for path in sorted(source.rglob("*.parquet")) if path.is_file()]
    # other programs that write such folders keep their own files under names that begin so
    names = [name for name in names if not any(part[0] in "._" for part in name.parts)]
    if not names:
        raise TagwrightError(f"{source}: no parquet file is there")
    return {source / name: out / name for name in names}


def _plan(names: dict[Path, Path], manifest: Manifest, text: str | None, work: Path, faults: dict[Path, str]) -> list[_File]:
    """The files whose outputs are not there yet; those that cannot be read go, with the reason, to `faults`."""
    files = []
    for path, out in tqdm(names.items(), desc="look", unit=" files", disable=None, leave=False):
        try:
            source = scan(path)
            state = _state(path)
        except (TagwrightError, OSError) as error:
            faults[path] = str(error)
            continue
        reading, own = how_to_read(source, manifest, text), own_columns(source)
        made_of = {"input": state, "model": manifest.checksum, "columns": reading.columns, "text": text,
                   "piece_rows": PIECE_ROWS, "batch_size": BATCH_SIZE,
                   "versions": {"tagwright": __version__, "onnxruntime": onnxruntime.__version__}}
        if _made_of(out) == made_of:
            continue
        job = hashlib.sha256(json.dumps([str(out), made_of]).encode()).hexdigest()[:32]
        files.append(_File(path, out, made_of, _schema(source, own), source.rows, work / job))
    return files


def _state(path: Path) -> dict:
    status = path.stat()
    return {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def _made_of(out: Path) -> dict | None:
    try:
        return json.loads(pq.read_schema(out).metadata[MADE_OF])
    except (OSError, pa.ArrowException, TypeError, KeyError, ValueError):  # not there, damaged, or not ours
        return None


def _clear(work: Path, keep: set[Path]) -> None:
    """Make the folders for the pieces, and remove those of other jobs."""
    for rest in work.iterdir():
        if rest.is_dir() and rest not in keep:
            shutil.rmtree(rest)
    for folder in keep:
        folder.mkdir(exist_ok=True)


# --- tagging -----------------------------------------------------------------------------------------------------


def _tag_files(files: list[_File], worker: tuple, address: str | None, counts: dict, faults: dict[Path, str]) -> None:
    """Tag the pieces that are left, by workers made of `worker`, and make a file's output as soon as none is; a file that
    cannot be read to its end, or changes meanwhile, goes to `faults`."""
    by_folder = {file.parts: file for file in files}
    left = [(file, part) for file in files for part in sorted(file.left)]
    counts["rows"] = sum(file.rows for file in files)
    counts["resumed"] = counts["rows"] - sum(file.pieces[part] for file, part in left)
    with tqdm(total=counts["rows"], initial=counts["resumed"], desc="tag", unit=" rows", smoothing=0, disable=None) as bar:
        for file in files:
            if not file.left:
                _join(file, counts, faults)
        if not left:
            return
        with _ray(address):
            for done in _tag_pieces([{"path": str(file.path), "part": str(part)} for file, part in left], worker):
                if done["end"]:
                    raise TagwrightError(done["end"])
                part = Path(done["part"])
                file = by_folder[part.parent]
                file.left.remove(part)
                bar.update(file.pieces[part])
                if done["fault"]:
                    faults[file.path] = done["fault"]
                elif not file.left and file.path not in faults:
                    _join(file, counts, faults)


def _tag_pieces(pieces: list[dict], worker: tuple) -> Iterator[dict]:
    """Tag the pieces on all cores that Ray has; gives each back, in any order, as a worker returns it."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # they count tasks; ours counts rows
    workers = min(int(ray.cluster_resources().get("CPU", 1)), len(pieces))
    todo = ray.data.from_items(pieces, override_num_blocks=len(pieces))  # each piece is a task
    return todo.map(_Worker, fn_constructor_args=worker, num_cpus=1,
                    compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=1)).iter_rows()


class _Worker:
    """A process on one core of the cluster, which loads the model once and tags piece after piece."""

    def __init__(self, model: Path, checksum: str, text: str | None):
        self.model, self.checksum, self.text = model, checksum, text

    def __call__(self, piece: dict) -> dict:
        """Tag a piece; returns it with `fault`, why its file cannot be read, and `end`, why the run must end; "" where nothing
        is wrong. (What is raised here comes out of Ray with remarks of its own.)"""
        done, part = piece | {"fault": "", "end": ""}, Path(piece["part"])
        try:
            tagger = self.tagger
        except TagwrightError as error:
            return done | {"end": f"on {socket.gethostname()}: {error}"}
        try:
            self._tag(tagger, Path(piece["path"]), part)
        except TagwrightError as error:
            return done | {"fault": str(error)}
        except OSError as error:
            return done | {"end": f"{part}: cannot be written on {socket.gethostname()}: {error}"}
        return done

    @cached_property  # and not the constructor's work, whose faults Ray hides behind an actor's death
    def tagger(self) -> Tagger:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"  # or it would take every core
        tagger = Tagger.load(self.model, threads=1)
        if tagger.manifest.checksum != self.checksum:
            raise TagwrightError(f"{self.model}: is another model than where the command was given")
        return tagger

    def _tag(self, tagger: Tagger, path: Path, part: Path) -> None:
        source = scan(path)
        own = own_columns(source)
        chunks = read_chunks(source, how_to_read(source, tagger.manifest, self.text), start=int(part.stem))
        rejected = []
        with _whole(part, part.parent) as partial:
            with pq.ParquetWriter(partial, _schema(source, own)) as writer:
                for chunk in islice(chunks, CHUNKS_A_GROUP):
                    writer.write_table(tagged(tagger, chunk, own))
                    rejected += chunk.rejected
            if rejected:  # there before the piece is
                with _whole(_rejected_of(part), part.parent) as lines:
                    lines.write_text("".join(map(json_line, rejected)), encoding="utf8")


def _join(file: _File, counts: dict, faults: dict[Path, str]) -> None:
    """Write a file's pieces as its output, which appears under its name when it is whole, and beside it the rejected rows."""
    if _state(file.path) != file.made_of["input"]:
        faults[file.path] = f"{file.path}: changed while it was read; run the same command again"
        return
    file.out.parent.mkdir(parents=True, exist_ok=True)
    schema = file.schema.with_metadata({MADE_OF: json.dumps(file.made_of)})
    with _whole(file.out, file.parts) as partial:
        with pq.ParquetWriter(partial, schema) as writer:
            for part in file.pieces:
                table = read_part(part, schema)
                writer.write_table(table, row_group_size=PIECE_ROWS)
                counts["written"] += len(table)
        rejected = [_rejected_of(part) for part in file.pieces if _rejected_of(part).exists()]
        if rejected:
            with _whole(_rejected_of(file.out), file.parts) as lines, lines.open("wb") as whole:
                for part in rejected:
                    for line in part.read_bytes().splitlines(keepends=True):
                        counts["rejected"][json.loads(line)["reason"]] += 1
                        whole.write(line)
        else:
            _rejected_of(file.out).unlink(missing_ok=True)  # an earlier run's
    shutil.rmtree(file.parts)


def _schema(source: Source, own: dict[str, pa.DataType]) -> pa.Schema:
    return pa.schema([*source.schema(), *own.items()])


def _rejected_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.rejected.jsonl")


@contextlib.contextmanager
def _whole(path: Path, folder: Path) -> Iterator[Path]:
    """A new file in `folder` to write, which becomes `path` when the block ends well."""
    partial = folder / f"{uuid.uuid4().hex}.partial"  # no other's: Ray may begin a piece again elsewhere
    yield partial
    with partial.open("rb+") as written:
        os.fsync(written.fileno())  # before the renaming: what is there is whole, after a power cut too
    os.replace(partial, path)


# --- Ray ---------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _ray(address: str | None) -> Iterator[None]:
    """A connection to the cluster, or to one of this machine's own cores, for the block."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray's makers are told nothing
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # its faults come as exceptions too
    try:
        import ray
        import ray.data  # noqa: F401
    except ImportError:
        raise TagwrightError('Ray Data is not installed: pip install "ray[data]"') from None
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)  # it logs what it raises, with its own insides
    if address:
        _knock(address)
        os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "1")  # one attempt, 40 s, at what answers but is no Ray
        cluster = {"address": address}
    else:
        cluster = {"address": "local", "num_cpus": cores(), "include_dashboard": False,
                   "object_store_memory": OBJECT_STORE_BYTES}
    on_sigterm = signal.getsignal(signal.SIGTERM)
    try:
        try:
            ray.init(**cluster, log_to_driver=False, logging_level=logging.CRITICAL)
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            hint = " (one that asks for a token needs RAY_AUTH_MODE=token here too)" if address else ""
            raise TagwrightError(f"{address or 'this machine'}: Ray cannot be used: {error}{hint}") from None
        signal.signal(signal.SIGTERM, on_sigterm)  # Ray's own would end the process at once
        yield
    except ray.exceptions.RayError as error:
        raise TagwrightError(f"Ray ended the work; what is tagged is kept, and the same command goes on: {error}") from error
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise TagwrightError where nothing listens at `address` (host:port, with or without ray://): Ray tries for minutes, and
    does not say what is wrong. Other addresses are left to Ray."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdecimal():
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACHED_WITHIN).close()
    except OSError as error:
        raise TagwrightError(f"{address}: no Ray cluster is reached there: {error.strerror or error}") from None
