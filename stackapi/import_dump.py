"""Import the questions of a public Stack Exchange data dump into the item store.

    python stackapi/import_dump.py scifi.stackexchange.com.7z
    python stackapi/import_dump.py scifi.stackexchange.com/Posts.xml

Posts.xml is parsed while it is read or unpacked, and never lies unpacked on the disk. Every batch of questions is one
transaction, which also notes how many rows were read, so a run may be killed at any moment and the next one goes on there.
"""

import hashlib
import io
import json
import lzma
import os
import re
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Annotated, BinaryIO
from xml.parsers import expat

import typer
from py7zr import SevenZipFile, WriterFactory
from py7zr.exceptions import ArchiveError, CrcError, PasswordRequired
from tqdm import tqdm

from tagwright.errors import Paused, TagwrightError, run
from tagwright.stackexchange import question_url, split_site
from tagwright.store import MAX_RAW, Item, ItemStore, Rejected, Work
from tagwright.text import parse_labels

CHUNK = 2**20  # bytes given to the parser at once: with each it reads an unfinished row from its beginning again
BATCH, BATCH_SIZE = 2000, 8_000_000  # questions and characters stored in one transaction
MAX_BODY = 1_000_000  # characters of one question; the sites themselves allow 30,000
MAX_GAP = 64_000_000  # bytes without the end of a row, all of which the parser would hold in memory
FIELDS = {"Id", "Title", "Body", "Tags", "Score", "CreationDate"}
HOST = re.compile(r"[a-z0-9-]+(\.[a-z0-9-]+)*\.(com|net)")
OTHER_KINDS = {b"pk": "a zip archive", b"<!doctype html": "a web page", b"<html": "a web page"}
METHODS = {"LZMA", "LZMA2", "BZip2", "DEFLATE", "COPY"}  # Python's own; that for PPMd crashes where the data is damaged
DAMAGED = (ArchiveError, lzma.LZMAError, zlib.error, OSError, EOFError)  # what these and py7zr raise, and reading itself


class Fault(Exception):
    """A text, what is wrong in a Posts.xml, and a number, at which of its bytes."""


class Posts:
    """Takes a Posts.xml in pieces and stores its questions in batches, except those of the first `done` rows."""

    def __init__(self, store: ItemStore, work: Work, base: str, done: int):
        self._store, self._work, self._base, self._done = store, work, base, done
        self.bytes = self.rows = self.questions = self._size = self._gap = 0
        self.refused: Counter[str] = Counter()
        self.tags: set[str] = set()
        self._items: list[Item] = []
        self._rejected: list[Rejected] = []
        self._parser = expat.ParserCreate()
        self._parser.StartDoctypeDeclHandler = self._doctype
        self._parser.StartElementHandler = self._root

    def feed(self, data: bytes | bytearray, last: bool = False) -> None:
        """Parse the next piece. Raises Fault where it is malformed, and what the store raises."""
        before = self.rows
        try:
            self._parser.Parse(data, last)
        except expat.ExpatError as error:
            words = expat.ErrorString(error.code)
            if last:
                raise Fault(f"it ends too early ({words}), as an incomplete download does", self.bytes) from None
            raise Fault(words, self._parser.ErrorByteIndex) from None
        self.bytes += len(data)
        self._gap = 0 if self.rows > before else self._gap + len(data)
        if self._gap > MAX_GAP:
            raise Fault(f"more than {MAX_GAP:,} bytes without the end of a row", self.bytes)

    def save(self) -> None:
        """Store the batch in hand, unless an earlier run did."""
        if self.rows > self._done:
            read = {"rows": self.rows, "questions": self.questions}
            self._store.progress(self._work, read, self._items, self._rejected, "dump")
        self._items, self._rejected, self._size = [], [], 0

    def _doctype(self, *_) -> None:
        # Only a DOCTYPE defines entities, of which a few lines can unfold to gigabytes.
        raise Fault("it has a DOCTYPE, which no dump has", self._parser.CurrentByteIndex)

    def _root(self, name: str, _) -> None:
        if name != "posts":
            raise Fault(f"it holds <{name}>, not <posts>: another table of a dump, or none", self._parser.CurrentByteIndex)
        self._parser.StartElementHandler = self._row

    def _row(self, name: str, row: dict[str, str]) -> None:
        if name != "row":
            return
        if self.rows == self._done:  # the batch in hand is stored, and what follows is not
            self.save()
        self.rows += 1
        if row.get("PostTypeId") != "1":
            return
        try:
            item = read_item(row, self._work.site, self._base)
        except ValueError as error:
            reason = ": ".join(str(error).split(": ")[:2])  # without the value, so that equal reasons can be counted
            key = row["Id"] if is_id(row.get("Id", "")) else f"row {self.rows}"
            self._rejected.append(Rejected(key, reason, json.dumps(row, ensure_ascii=False)[:MAX_RAW]))
            self.refused[reason] += 1
        else:
            self._items.append(item)
            self.tags.update(item.tags)
            self.questions += 1
            self._size += len(item.body)
        if len(self._items) + len(self._rejected) >= BATCH or self._size >= BATCH_SIZE:
            self.save()


def read_item(row: dict[str, str], site: str, base: str) -> Item:
    """A question's row as an item; raises ValueError with the field at fault."""
    if missing := FIELDS - row.keys():
        raise ValueError(f"{min(missing)}: missing")
    if not is_id(row["Id"]):
        raise ValueError("Id: not a number")
    if not re.fullmatch("-?[0-9]{1,10}", row["Score"]):
        raise ValueError("Score: not a number")
    if len(row["Body"]) > MAX_BODY:
        raise ValueError(f"Body: more than {MAX_BODY:,} characters")
    try:
        created = datetime.fromisoformat(row["CreationDate"] + "Z")  # UTC, though dumps do not say so
    except ValueError:
        raise ValueError("CreationDate: no date and time") from None
    return Item(site, row["Id"], question_url(base, row["Id"]), row["Title"], row["Body"], read_tags(row["Tags"]),
                int(row["Score"]), int(created.timestamp()), "dump")


def read_tags(cell: str) -> list[str]:
    """The tags in a cell, which older dumps spell `<a><b>` and newer ones `|a|b|`; raises ValueError where it has none."""
    form = {"<": "angle", "|": "pipe"}.get(cell[:1])
    with suppress(ValueError):
        if form and (tags := parse_labels(cell, form)):
            return tags
    raise ValueError("Tags: neither <a><b> nor |a|b|")


def is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18


def import_dump(path: Path, site: str | None, store: ItemStore, again: bool = False) -> dict:
    """Import the questions of a Posts.xml, or of the one in a .7z, and return the counts; `earlier` is true where that was
    done before. `site` is a name, a host or an address, None where the file's or folder's name tells it.

    Raises TagwrightError for what is no dump of posts, one that is damaged (all before the fault is kept), one that another
    process is importing, and where the store fails; Paused at Ctrl-C.
    """
    started = time.monotonic()
    try:
        file = path.open("rb")
    except OSError as error:
        raise TagwrightError(f"{path}: {error.strerror}; give a Posts.xml or a site's .7z") from None
    with file:
        member = find_posts(path, file)
        name, base = split_site(site or site_from(path))
        work = Work(name, "dump", key_of(path, file), payload={"rows": 0, "questions": 0})
        if again:
            store.forget(name, "dump", work.key)
        known = claim(store, work, path)
        if known is None:
            return {"site": name, "earlier": True, **noted(store, work)}
        posts = Posts(store, work, base, 0 if again else known["rows"])
        finished = False
        try:
            with tqdm(desc=name, total=path.stat().st_size, unit="B", unit_scale=True, disable=None) as bar:
                read(file, member, posts, lambda: bar.update(file.tell() - bar.n))
            store.finish([work])
            finished = True
        except Fault as fault:
            posts.save()
            kept = noted(store, work)["questions"]
            if member:  # damage in an archive shows late: what was read before may be wrong too, and shall be read again
                store.progress(work, work.payload, [], [], "dump")
            text, byte = fault.args
            raise TagwrightError(f"{path}: {text}: byte {byte:,} of Posts.xml, row {posts.rows + 1:,}. "
                                 f"The {kept:,} questions before it are kept") from None
        except KeyboardInterrupt:
            raise Paused(f"stopped: {noted(store, work)['questions']:,} questions of {path.name} are saved; "
                         "run the same command again to go on", code=130) from None
        finally:
            if not finished:
                with suppress(TagwrightError):  # if the store has failed, that is the error to tell
                    store.release([work])
    others = posts.rows - posts.questions - posts.refused.total()
    return {"site": name, "earlier": False, "rows": posts.rows, "questions": posts.questions, "others": others,
            "refused": dict(posts.refused), "tags": len(posts.tags), "seconds": time.monotonic() - started}


def find_posts(path: Path, file: BinaryIO) -> str | None:
    """The name of the Posts.xml in a .7z, None in XML. Raises TagwrightError, saying what was found, for anything else."""
    head, size = file.read(32), path.stat().st_size
    file.seek(0)
    if not head:
        raise TagwrightError(f"{path}: empty; download it again")
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if kind := next((kind for start, kind in OTHER_KINDS.items() if text.startswith(start)), None):
        raise TagwrightError(f"{path}: {kind}, not a dump; give a Posts.xml or a site's .7z")
    if text.startswith(b"<"):
        return None
    if not head.startswith(b"7z\xbc\xaf\x27\x1c"):
        raise TagwrightError(f"{path}: neither XML nor a .7z: it begins with {head[:16]!r}")
    ending = 32 + int.from_bytes(head[12:20], "little") + int.from_bytes(head[20:28], "little")
    if size < ending:  # the index, which tells what is where, is the end of the file
        raise TagwrightError(f"{path}: an incomplete download, {size:,} of {ending:,} bytes; download it again")
    try:
        with SevenZipFile(file) as archive:
            names, methods = archive.getnames(), set(archive.archiveinfo().method_names)
    except DAMAGED as error:
        raise TagwrightError(f"{path}: its index is damaged ({error}); download it again") from None
    except PasswordRequired:
        names, methods = [], {"a password"}
    if strange := methods - METHODS:
        raise TagwrightError(f"{path}: packed with {', '.join(strange)}; unpack it yourself and give its Posts.xml")
    found = [name for name in names if PurePosixPath(name).name == "Posts.xml"]
    if len(found) != 1:
        raise TagwrightError(f"{path}: {len(found) or 'no'} Posts.xml in it, but {', '.join(names[:10]) or 'nothing'}")
    return found[0]


def read(file: BinaryIO, member: str | None, posts: Posts, step: Callable[[], None]) -> None:
    """Give a Posts.xml, or that member of a .7z, to `posts` in pieces, calling `step` after each. Raises Fault."""
    def feed(data: bytes | bytearray) -> None:
        posts.feed(data)
        step()

    try:
        if member:
            with SevenZipFile(file) as archive:  # given a file, not a path, it starts no threads
                archive.extract(targets=[member], factory=Sink(feed))
        else:
            while data := file.read(CHUNK):
                feed(data)
    except CrcError:
        raise Fault("its checksum is wrong, so something in it is damaged; download it again", posts.bytes) from None
    except DAMAGED as error:
        raise Fault(f"it cannot be read any further ({error})", posts.bytes) from None
    posts.feed(b"", last=True)
    posts.save()


class Sink(io.RawIOBase, WriterFactory):
    """Hands what py7zr unpacks, and would write to a file, to a function."""

    def __init__(self, write: Callable[[bytes], None]):
        self.write = write

    def create(self, filename: str) -> "Sink":
        return self


def site_from(path: Path) -> str:
    """The host that a dump's name, or that of its folder, is."""
    for name in (path.stem.removesuffix("-Posts").lower(), path.resolve().parent.name.lower()):
        if HOST.fullmatch(name):
            return name
    raise TagwrightError(f"{path}: its name does not tell the site; give it with --site, as in --site scifi")


def key_of(path: Path, file: BinaryIO) -> str:
    """What tells a file from others without reading all of it."""
    digest = hashlib.sha256(file.read(2**20)).hexdigest()
    file.seek(0)
    return f"{os.fsencode(path.name).decode(errors='replace')[:100]} {path.stat().st_size} {digest}"


def claim(store: ItemStore, work: Work, path: Path) -> dict | None:
    """Take the work: what an earlier run noted of it, None where that finished it. TagwrightError where another has it."""
    store.add([work])
    if mine := store.claim(work.site, "dump", key=work.key):
        return mine[0].payload
    if {known.key: state for known, state in store.work(work.site, "dump")}[work.key] == "done":
        return None
    raise TagwrightError(f"{path}: another process is importing it into {store.name}")


def noted(store: ItemStore, work: Work) -> dict:
    """What the store knows of the work: how many rows were read, and how many questions are stored."""
    return next(known.payload for known, _ in store.work(work.site, "dump") if known.key == work.key)


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    path: Annotated[Path, typer.Argument(metavar="DUMP", help="A site's .7z, or a Posts.xml.")],
    site: Annotated[str | None, typer.Option(help="The site: scifi, superuser, es.stackoverflow.",
                                             show_default="by the file's or folder's name")] = None,
    db: Annotated[str | None, typer.Option(help="SQLite file, or mysql+pymysql://user:password@host/database.",
                                           show_default="$TAGWRIGHT_DB or data/collected/items.sqlite")] = None,
    again: Annotated[bool, typer.Option("--again", help="Import it anew, even if that was done.")] = False,
) -> None:
    """Import the questions of a Stack Exchange data dump into the item store."""
    store = ItemStore(db)
    counts = import_dump(path, site, store, again)
    if counts["earlier"]:
        print(f"{path}: imported already: {counts['questions']:,} questions of {counts['rows']:,} posts; --again does it anew")
        return
    refused = ", ".join(f"{count:,} {reason}" for reason, count in Counter(counts["refused"]).most_common())
    print(f"{counts['site']}: {counts['rows']:,} rows read, {counts['questions']:,} questions stored in {store.name}, "
          f"refused: {refused or 'none'}, {counts['tags']:,} different tags, {counts['seconds']:.1f} s, "
          f"{counts['rows'] / max(counts['seconds'], 0.001):,.0f} posts a second")


if __name__ == "__main__":
    run(app)
