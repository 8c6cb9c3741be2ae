"""A stage turns files into one folder, all or nothing, and leaves `run.json` there.

The folder is written under a temporary name and renamed at the end, so whatever interrupts a stage (Ctrl-C, a full
disk, a crash), the next run finds either the whole result or none. `run.json` holds a fingerprint of the inputs and
settings and of the library's code; a stage whose fingerprint has not changed is skipped.
"""

import contextlib
import ctypes
import errno
import fcntl
import gc
import hashlib
import json
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from tagwright import __version__
from tagwright.errors import Busy, TagwrightError

RECORD = "run.json"
# Modules that compute nothing a stage writes.
NO_STAGE = {"cli.py", "pipeline.py", "plots.py", "tuning.py",
            "store.py", "stackexchange.py", "bookshop.py", "markup.py", "pages.py", "book_pages.py", "browser.py", "crawler.py",
            "collecting.py", "merging.py", "export.py", "bulk.py", "cluster.py", "places.py", "publishing.py",
            "remote.py", "sources.py"}
PACKAGES = ["torch", "transformers", "tokenizers", "fastai", "ohmeow-blurr", "onnx", "onnxruntime", "scikit-learn", "numpy"]


class Stage:
    """One run of one stage.

    `inputs` are files, or folders written by an earlier stage; `settings` is anything JSON can hold. The usual shape::

        stage = Stage("clean", out_dir, inputs=[raw_path], settings={...})
        if record := stage.unchanged():
            return record
        with stage.writing() as folder:
            ...  # write into folder, fill stage.record
        return stage.record
    """

    def __init__(self, name: str, out_dir: Path, inputs: list[Path], settings: dict):
        self.name, self.out_dir = name, Path(out_dir)
        recover(self.out_dir)
        self.started = time.time()
        inputs = [content_id(path) for path in inputs]
        self.record = {"stage": name, "settings": settings, "inputs": inputs}
        self.made_of = {"stage": name, "code": _code_id(), "settings": settings, "inputs": inputs}
        self.fingerprint = hashlib.sha256(json.dumps(self.made_of, sort_keys=True, default=str).encode()).hexdigest()

    def unchanged(self) -> dict | None:
        """The record of an earlier run with the same inputs and settings whose files are all still there, else None."""
        try:
            record = json.loads((self.out_dir / RECORD).read_text(encoding="utf8"))
        except (OSError, ValueError):  # not there, or damaged
            return None
        if not isinstance(record, dict) or record.get("fingerprint") != self.fingerprint:
            return None
        whole = all(_size(self.out_dir / name) == entry["bytes"] for name, entry in record["files"].items())
        return record | {"skipped": True} if whole else None

    def need_space(self, needed: int) -> None:
        """Raise TagwrightError now, and not after an hour of work, where the disk has less than `needed` bytes free."""
        place = next(folder for folder in [self.out_dir.absolute(), *self.out_dir.absolute().parents] if folder.exists())
        free = shutil.disk_usage(place).free
        if free < needed:
            raise TagwrightError(f"{self.name} will write {needed / 1e6:.0f} MB to {self.out_dir}, but its disk has only "
                                 f"{free / 1e6:.0f} MB free; free some, or choose another place with --work")

    @contextlib.contextmanager
    def writing(self) -> Iterator[Path]:
        """A temporary folder that becomes `out_dir` when the block ends well, with its record, and else vanishes."""
        with replacing(self.out_dir) as partial:
            yield partial
            self._finish(partial)

    def _finish(self, folder: Path) -> None:
        self.record |= {
            "fingerprint": self.fingerprint,
            "seconds": round(time.time() - self.started, 1),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "commit": _commit(),
            "versions": package_versions(),
            "files": listing(folder),
        }
        write_json(folder / RECORD, self.record)


class BeingWritten(TagwrightError):
    """Another process is writing the folder."""


@contextlib.contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes `folder` when the block ends well and vanishes when it does not; raises BeingWritten
    where another process is writing `folder`."""
    with _partial(folder) as partial, full_disk_named(folder):
        yield partial
        _replace(partial, folder)


def recover(folder: Path) -> None:
    """Put back a folder that a kill in the middle of its replacement has left moved aside."""
    if folder.with_name(f".{folder.name}.old").exists() and not folder.exists():
        with contextlib.suppress(BeingWritten), _partial(folder):  # being written: it is between the renamings at this moment
            pass


@contextlib.contextmanager
def _partial(folder: Path) -> Iterator[Path]:
    """The empty temporary folder beside `folder`, for one process at a time: it is its own lock, which the system gives back
    however a process ends."""
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        partial.mkdir(parents=True, exist_ok=True)
        held = os.open(partial, os.O_RDONLY)
    except OSError as error:
        raise TagwrightError(f"{folder}: cannot be written: {error.strerror}: {error.filename}") from None

    def ours() -> bool:  # and not renamed by who held it before, or by ourselves, and perhaps made anew by another
        return partial.exists() and os.path.samestat(os.fstat(held), partial.stat())

    try:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked = ours()
        except BlockingIOError:
            locked = False
        if not locked:
            raise BeingWritten(f"{folder}: another process is writing it; try again when that has ended")
        _put_back(folder)
        for rest in partial.iterdir():  # of a run that was killed
            shutil.rmtree(rest) if rest.is_dir() else rest.unlink()
        try:
            yield partial
        finally:
            if ours():
                shutil.rmtree(partial, ignore_errors=True)
    finally:
        os.close(held)


def _put_back(folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    if old.exists() and not folder.exists():
        os.rename(old, folder)


@contextlib.contextmanager
def alone(folder: Path, command: str) -> Iterator[None]:
    """Hold the folder's lock, which the system gives back however a process ends; raises TagwrightError where another
    process, which runs the same `command`, holds it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise TagwrightError(f"{folder}: cannot be written: {error.strerror}") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Busy(f"{folder}: another `{command}` is at work there") from None
        yield


@contextlib.contextmanager
def full_disk_named(place: Path) -> Iterator[None]:
    """Make a TagwrightError of a disk that fills up while `place` is written."""
    try:
        yield
    except Exception as error:
        # Every writer (Arrow, safetensors, protobuf) wraps a full disk in an exception of its own.
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
            raise TagwrightError(f"no space left on the disk that holds {place.resolve()}; "
                                 "free some and run the same command again") from error
        raise


def release_memory() -> None:
    """Give what an ended stage no longer needs back to the system; glibc alone would keep a gigabyte after training."""
    gc.collect()
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def read_record(folder: Path, made_by: str) -> dict:
    """The `run.json` of a folder; raises TagwrightError, naming the command that makes it, where there is none."""
    path = Path(folder) / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf8"))
    except OSError:
        raise TagwrightError(f"{folder}: not there, or not finished; make it with `{made_by}`") from None
    except ValueError as error:
        raise TagwrightError(f"{path}: damaged ({error}); make it again with `{made_by}`") from None
    if not isinstance(record, dict) or "files" not in record:
        raise TagwrightError(f"{path}: damaged (no list of files); make it again with `{made_by}`")
    return record


def write_json(path: Path, value) -> None:
    """Write readable UTF-8 JSON with a final line end; who reads it meanwhile finds the old one, or the new one, whole."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", encoding="utf8") as file:
        file.write(json.dumps(value, indent=2, ensure_ascii=False, default=str) + "\n")
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def listing(folder: Path) -> dict[str, dict]:
    """Size and checksum of every file in a stage's folder but its record, by the file's path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / RECORD)
    return {str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256(path)} for path in files}


def content_id(path: Path) -> str:
    """What a file or a folder (a stage's, or any other) holds, as one hash; times and places do not count."""
    if not path.is_dir():
        return sha256(path)
    record = path / RECORD
    files = json.loads(record.read_text(encoding="utf8"))["files"] if record.is_file() else listing(path)
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _code_id() -> str:
    """One hash of the library's code, so that a changed library runs its stages again."""
    modules = sorted(path for path in Path(__file__).parent.glob("*.py") if path.name not in NO_STAGE)
    return hashlib.sha256(b"".join(path.read_bytes() for path in modules)).hexdigest()


def _replace(source: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    try:
        os.rename(source, target)
    except BaseException:
        _put_back(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def package_versions() -> dict[str, str]:
    """The versions that a result depends on: Python's, this library's and those of the packages installed."""
    found = {"python": platform.python_version(), "tagwright": __version__}
    for package in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _commit() -> str | None:
    here = Path(__file__).parent
    try:
        result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True)
    except FileNotFoundError:  # no git on this machine
        return None
    return result.stdout.strip() if result.returncode == 0 else None
