"""Raw rows from elsewhere: members of an archive, and files behind an s3:// or https:// address.

Archives and addresses are strangers'. Of an archive only the members that were asked for are written, under their own names
in one folder; an address's file appears when it is whole. All raise TagwrightError, naming the place, for whatever is wrong.
"""

import gzip
import hashlib
import json
import os
import re
import stat
import tarfile
import time
import tomllib
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple
from urllib.parse import urlsplit

from tagwright.errors import TagwrightError
from tagwright.remote import bytes_bar, s3_client, s3_errors
from tagwright.stage import full_disk_named, sha256, write_json

SCHEMES = ("https", "http", "s3")
ENDINGS = {".zip": "zip", ".tar": "tar", ".tar.gz": "tar.gz", ".tgz": "tar.gz"}
MAGIC = {b"PK\3\4": "zip", b"\x1f\x8b": "tar.gz"}  # of archives whose address has no ending
MAX_BYTES = 2_000_000_000  # of a download, of a member, and of all that a .tar.gz holds
MAX_RATIO = 200  # unpacked to packed; text reaches 10, and deflate at most 1,032
SMALL = 10_000_000  # bytes; what unpacks to no more may have any ratio
MAX_ENTRIES = 100_000
CHUNK = 1 << 20  # bytes
MAX_REDIRECTS = 5
TIMEOUT = 30  # seconds without a byte


# --- the catalogue -----------------------------------------------------------------------------------------------


class Published(NamedTuple):
    """A public data set of the catalogue. `sha256` is None where it is not known."""

    url: str
    licence: str
    sha256: str | None


def catalogued(catalogue: Path, name: str) -> Published:
    """An entry of `data/catalog.toml`."""
    try:
        entries = tomllib.loads(catalogue.read_text(encoding="utf8"))
    except (OSError, ValueError) as error:
        raise TagwrightError(f"{catalogue}: cannot be read: {error}") from None
    if name not in entries:
        raise TagwrightError(f"{catalogue}: no data set {name!r}; it has {', '.join(entries)}")
    return Published(entries[name]["url"], entries[name]["licence"], entries[name].get("sha256"))


# --- files, folders, archives ------------------------------------------------------------------------------------


def is_address(place: str) -> bool:
    return "://" in place


def files_in(place: Path, names: list[str], unpacked: Path) -> list[Path]:
    """The files of these names in a folder or, unpacked into a folder of its own below `unpacked`, in an archive. Any other
    file is itself the one file, if one is asked for.

    Raises TagwrightError for a name that is not there, or that an archive has twice.
    """
    if len(set(names)) < len(names):
        raise TagwrightError(f"{place}: the training and the test rows must be in files of different names, not both in "
                             f"{names[0]!r}")
    if place.is_dir():
        if missing := [name for name in names if not (place / name).is_file()]:
            raise TagwrightError(f"{place}: no file {missing[0]!r}; name the folder that holds {' and '.join(names)}")
        return [place / name for name in names]
    kind = _kind(place)
    if kind is not None:
        return _unpack(place, kind, names, unpacked)
    if len(names) > 1:
        raise TagwrightError(f"{place}: one file, and the task needs {' and '.join(names)}; give a folder or an archive that "
                             "has them")
    return [place]


def _kind(file: Path) -> str | None:
    for ending, kind in ENDINGS.items():
        if file.name.lower().endswith(ending):
            return kind
    try:
        with file.open("rb") as content:
            start = content.read(4)
    except OSError as error:
        raise TagwrightError(f"{file}: cannot be read: {error.strerror}") from None
    return next((kind for magic, kind in MAGIC.items() if start.startswith(magic)), None)


class _Entry(NamedTuple):
    name: str  # as the archive has it
    size: int  # bytes, unpacked
    fault: str  # why it may not be unpacked; "" where it may
    is_folder: bool
    read: Callable[[], BinaryIO]


def _unpack(archive: Path, kind: str, names: list[str], unpacked: Path) -> list[Path]:
    """Each member is looked for by its file name, in whatever folder of the archive. The folder that is written is named by
    the archive's content, so that each is unpacked once."""
    try:
        folder = unpacked / f"{archive.name}-{sha256(archive)[:12]}"
    except OSError as error:
        raise TagwrightError(f"{archive}: cannot be read: {error.strerror}") from None
    files = [folder / name for name in names]
    if all(file.is_file() for file in files):
        return files
    with _archive_faults(archive), (_zip if kind == "zip" else _tar)(archive, kind) as entries:
        for entry in entries:
            _check_entry(archive, entry)
        chosen = [_only(archive, entries, name) for name in names]
        _make(folder)
        for entry, file in zip(chosen, files, strict=True):
            with entry.read() as content:
                _write(file, iter(partial(content.read, CHUNK), b""), f"{archive}: {entry.name}")
    return files


def _only(archive: Path, entries: list[_Entry], name: str) -> _Entry:
    found = [entry for entry in entries if _base(entry.name) == name and not entry.is_folder]
    if not found:
        others = [entry.name for entry in entries if not entry.is_folder]
        more = f" and {len(others) - 10} more" if len(others) > 10 else ""
        raise TagwrightError(f"{archive}: no member {name!r}; it has {', '.join(others[:10]) or 'none'}{more}")
    if len(found) > 1:
        raise TagwrightError(f"{archive}: two members are called {name!r}: {found[0].name} and {found[1].name}")
    if found[0].fault:
        raise TagwrightError(f"{archive}: {found[0].name}: {found[0].fault}")
    if found[0].size > MAX_BYTES:
        raise TagwrightError(f"{archive}: {found[0].name}: {found[0].size / 1e9:.1f} GB; at most {MAX_BYTES / 1e9:.0f} GB are "
                             "unpacked")
    return found[0]


def _check_entry(archive: Path, entry: _Entry) -> None:
    """An archive that has a name which leads elsewhere, or a link, is refused as a whole: it was made to do harm."""
    path = PurePosixPath(entry.name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or re.match("[A-Za-z]:", entry.name):
        raise TagwrightError(f"{archive}: {entry.name!r} leads out of the archive's folder")
    if entry.fault.startswith("a link"):
        raise TagwrightError(f"{archive}: {entry.name}: {entry.fault}")


def _base(name: str) -> str:
    return PurePosixPath(name.replace("\\", "/")).name


@contextmanager
def _zip(archive: Path, kind: str) -> Iterator[list[_Entry]]:
    with zipfile.ZipFile(archive) as file:
        infos = file.infolist()
        _check_count(archive, len(infos))
        yield [_Entry(info.filename, info.file_size, _zip_fault(info), info.is_dir(), partial(file.open, info))
               for info in infos]


def _zip_fault(info: zipfile.ZipInfo) -> str:
    if stat.S_ISLNK(info.external_attr >> 16):
        return "a link, which is not followed"
    if info.flag_bits & 1:
        return "encrypted; unpack it, and give the folder"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "packed otherwise than by deflate; pack it anew"
    if info.file_size > max(SMALL, MAX_RATIO * info.compress_size):
        return f"{info.compress_size:,} bytes that unpack to {info.file_size:,}: no table of rows is packed so well"
    return ""


@contextmanager
def _tar(archive: Path, kind: str) -> Iterator[list[_Entry]]:
    limit = min(MAX_BYTES, max(SMALL, MAX_RATIO * archive.stat().st_size))
    opened = gzip.open if kind == "tar.gz" else open
    with opened(archive, "rb") as raw, tarfile.open(fileobj=_Measured(raw), mode="r:") as file:
        entries = []
        for info in file:
            _check_count(archive, len(entries))
            if kind == "tar.gz" and info.offset_data + info.size > limit:
                raise TagwrightError(f"{archive}: {info.name}: above {limit:,} bytes, the most for an archive of its size")
            read = partial(file.extractfile, info)
            entries.append(_Entry(info.name, info.size, _tar_fault(info), info.isdir(), read))
        while kind == "tar.gz" and raw.read(CHUNK):  # behind the last member: the checksum stands at gzip's own end
            if raw.tell() > limit:
                raise TagwrightError(f"{archive}: above {limit:,} bytes, the most for an archive of its size")
        yield entries


def _tar_fault(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "a link, which is not followed"
    return "" if info.isreg() and not info.issparse() else "no plain file"


class _Measured:
    """A tar's bytes. tarfile reads a header of any announced size at once; here none is larger than a piece of a member."""

    def __init__(self, raw: BinaryIO):
        self.raw, self.seek, self.tell = raw, raw.seek, raw.tell

    def read(self, size: int) -> bytes:
        if size > CHUNK:
            raise tarfile.ReadError(f"a header of {size:,} bytes")
        return self.raw.read(size)


def _check_count(archive: Path, count: int) -> None:
    if count > MAX_ENTRIES:
        raise TagwrightError(f"{archive}: more than {MAX_ENTRIES:,} members")


@contextmanager
def _archive_faults(archive: Path) -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TagwrightError(f"{archive}: no archive that can be read (truncated, or something else?): {error}") from None
    except (NotImplementedError, ValueError) as error:  # a version of the format, or a header, that makes no sense
        raise TagwrightError(f"{archive}: no archive that can be read: {error}") from None
    except OSError as error:
        raise TagwrightError(f"{archive}: cannot be read: {error.strerror or error}") from None


# --- downloads ---------------------------------------------------------------------------------------------------


def fetch(address: str, folder: Path, checksum: str | None = None, force: bool = False) -> Path:
    """The file behind an s3://, https:// or http:// address, downloaded into `folder` under its own name unless it is there
    already; `force` downloads it anew. `NAME.fetched.json` beside it says whence and when it came, with its sha256.

    Raises TagwrightError where it cannot be had whole, is larger than MAX_BYTES, or has another sha256 than `checksum`;
    nothing is left of it then. A file of that name that was put there by hand is never replaced.
    """
    shown, name = _parts(address)
    file, note = folder / name, folder / f"{name}.fetched.json"
    source = hashlib.sha256(address.encode()).hexdigest()  # of the address with its query, which may be a secret
    known = _note(note)
    if file.exists() and not known:
        raise TagwrightError(f"{file}: lies where {shown} would be downloaded to; give it as the place of the rows, or move it "
                             "away")
    same = known.get("source") == source and (checksum is None or known.get("sha256") == checksum)
    if same and not force and file.is_file() and file.stat().st_size == known.get("bytes"):
        return file
    _make(folder)
    digest = hashlib.sha256()

    def measured(pieces: Iterator[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            digest.update(piece)
            yield piece

    def approve(size: int) -> None:
        if checksum is not None and digest.hexdigest() != checksum:
            raise TagwrightError(f"{shown}: its sha256 is {digest.hexdigest()}, and {checksum} was expected; it is not kept")
        file.unlink(missing_ok=True)  # first, so that no note ever speaks of another file
        write_json(note, {"address": shown, "source": source, "bytes": size, "sha256": digest.hexdigest(),
                          "fetched": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())})

    with (_from_s3 if address.startswith("s3://") else _from_web)(address, shown) as pieces:
        _write(file, measured(pieces), shown, approve)
    return file


def _parts(address: str) -> tuple[str, str]:
    """An address as it may be shown, without its query, and the name of its file."""
    try:
        parts = urlsplit(address)
        host = parts.hostname
    except ValueError as error:
        raise TagwrightError(f"{address}: no address: {error}") from None
    if parts.scheme not in SCHEMES or not host:
        raise TagwrightError(f"{address}: give https://host/file, s3://bucket/key, a file or a folder")
    if "@" in parts.netloc:
        raise TagwrightError(f"{parts.scheme}://…@{host}: an address may hold no password; give the downloaded file")
    name = re.sub(r"[^A-Za-z0-9._-]", "_", parts.path.rpartition("/")[2]).lstrip(".")[:100]
    if not name:
        raise TagwrightError(f"{address}: names no file; an address ends in a file's name")
    return f"{parts.scheme}://{parts.netloc}{parts.path}", name


def _note(note: Path) -> dict:
    try:
        known = json.loads(note.read_text(encoding="utf8"))
    except (OSError, ValueError):  # none, or damaged
        return {}
    return known if isinstance(known, dict) else {}


@contextmanager
def _from_s3(address: str, shown: str) -> Iterator[Iterator[bytes]]:
    bucket, _, key = address.removeprefix("s3://").partition("/")
    client = s3_client(shown)
    with s3_errors(shown, f"{shown}: there is no such object"):
        reply = client.get_object(Bucket=bucket, Key=key)
        with closing(reply["Body"]) as body:
            yield _counted(body.iter_chunks(CHUNK), shown, reply["ContentLength"])


@contextmanager
def _from_web(address: str, shown: str) -> Iterator[Iterator[bytes]]:
    import httpx

    headers = {"Accept-Encoding": "identity"}  # the file itself is wanted, and its size known
    try:
        with (httpx.Client(timeout=TIMEOUT, follow_redirects=True, max_redirects=MAX_REDIRECTS) as client,
              client.stream("GET", address, headers=headers) as reply):
            if reply.status_code != 200:
                raise TagwrightError(f"{shown}: its server answers {reply.status_code}")
            if address.startswith("https:") and reply.url.scheme != "https":
                raise TagwrightError(f"{shown}: leads to {reply.url.host} without encryption")
            yield _counted(reply.iter_raw(CHUNK), shown, int(reply.headers.get("content-length", 0)))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise TagwrightError(f"{shown}: cannot be downloaded: {error}") from None


def _counted(pieces: Iterator[bytes], shown: str, announced: int) -> Iterator[bytes]:
    """The pieces, beside a bar of how many of the announced bytes (0: unknown) have come."""
    if announced > MAX_BYTES:
        raise TagwrightError(f"{shown}: {announced / 1e9:.1f} GB; at most {MAX_BYTES / 1e9:.0f} GB are taken")
    with bytes_bar("download", announced or None) as bar:
        for piece in pieces:
            bar.update(len(piece))
            yield piece


# --- writing -----------------------------------------------------------------------------------------------------


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TagwrightError(f"{folder}: cannot be written: {error.strerror}") from None


def _write(file: Path, pieces: Iterator[bytes], what: str, approve: Callable[[int], None] = lambda size: None) -> None:
    """Write a file whole or not at all: it appears when `approve`, which is given its bytes, has raised nothing."""
    unfinished, size = file.with_name(f".{file.name}.{os.getpid()}.partial"), 0
    try:
        with full_disk_named(file.parent), unfinished.open("wb") as content:
            for piece in pieces:
                if (size := size + len(piece)) > MAX_BYTES:
                    raise TagwrightError(f"{what}: more than {MAX_BYTES / 1e9:.0f} GB, the most that is taken")
                content.write(piece)
            content.flush()
            os.fsync(content.fileno())
        approve(size)
        os.replace(unfinished, file)
    finally:
        unfinished.unlink(missing_ok=True)
