"""Importing data dumps: whole, damaged and hostile ones, in both packings; and being stopped at any moment."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import zipfile
from html import escape
from pathlib import Path

import py7zr
import pytest
from py7zr import SevenZipFile

from benchmarks.import_dump import measure, write_posts
from stackapi import import_dump as script
from stackapi.import_dump import import_dump
from tagwright.errors import Paused, TagwrightError
from tagwright.store import ItemStore, Work

ROOT = Path(__file__).resolve().parent.parent
BEER = Path(os.environ.get("TAGWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data")) / "beer_dump" / "Posts.xml"
COPY, LZMA2, BZIP2, DEFLATE = ([{"id": id} | extra] for id, extra in (
    (py7zr.FILTER_COPY, {}), (py7zr.FILTER_LZMA2, {"preset": 1}), (py7zr.FILTER_BZIP2, {}), (py7zr.FILTER_DEFLATE, {})))
GOOD = {"Id": "7", "PostTypeId": "1", "CreationDate": "2014-01-21T20:26:05.383", "Score": "-2", "Title": "Fish & <chips>?",
        "Body": "<p>Fish &amp; \"chips\"\n東京</p>\n", "Tags": "<fish><c++>"}
BOMB = "<!DOCTYPE posts [<!ENTITY a0 'ha'>" + "".join(
    f"<!ENTITY a{number + 1} '{f'&a{number};' * 10}'>" for number in range(12)) + "]><posts>&a12;</posts>"
# The command, with small batches: many transactions in a short time
COMMAND = [sys.executable, "-c", "from stackapi import import_dump as script; script.BATCH = 50; script.run(script.app)"]


def row(**fields: str | None) -> str:
    """A row like GOOD, but for `fields`; None leaves one out."""
    pairs = {name: value for name, value in (GOOD | fields).items() if value is not None}
    return "  <row " + " ".join(f'{name}="{escape(value)}"'.replace("\n", "&#xA;") for name, value in pairs.items()) + " />\n"


def write(path: Path, *rows: str, root: str = "posts") -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(f'<?xml version="1.0" encoding="utf-8"?>\n<{root}>\n{"".join(rows)}</{root}>', encoding="utf-8-sig")
    return path


def pack(path: Path, filters: list, **members: Path) -> Path:
    with SevenZipFile(path, "w", filters=filters) as archive:
        for name, file in members.items():
            archive.write(file, name.replace("__", "/").replace("_", "."))
    return path


def contents(store: ItemStore, site: str = "site") -> tuple[list, list]:
    return list(store.items(site)), store.rejected(site)


def fresh(folder: Path, path: Path, error: str | None = None) -> tuple[ItemStore, dict | str]:
    """A new store into which a dump was imported, and the counts, or the error, which must match `error`."""
    store = ItemStore(folder / f"{time.monotonic_ns()}.sqlite")
    if error is None:
        return store, import_dump(path, "site", store)
    with pytest.raises(TagwrightError, match=error) as caught:
        import_dump(path, "site", store)
    assert not store.count_work("site", "dump").get("taken"), "the work was not given back"
    return store, str(caught.value)


@pytest.fixture(scope="module")
def posts(tmp_path_factory) -> Path:
    """A dump of about 7,500 posts."""
    path = tmp_path_factory.mktemp("posts") / "Posts.xml"
    write_posts(path, 8)
    return path


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    """A dump of about 300 posts."""
    path = tmp_path_factory.mktemp("few") / "Posts.xml"
    write_posts(path, 0.3, seed=1)
    return path


@pytest.fixture(scope="module")
def truth(posts, tmp_path_factory) -> tuple[list, list]:
    """What an undisturbed import of `posts` gives."""
    return contents(fresh(tmp_path_factory.mktemp("truth"), posts)[0])


# --- what is read -------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not BEER.exists(), reason=f"{BEER} is not there")
def test_a_real_dump(tmp_path):
    store, counts = fresh(tmp_path, BEER)
    assert (counts["rows"], counts["questions"], counts["tags"], counts["refused"]) == (2354, 663, 155, {})
    items = list(store.items("site"))
    assert len(items) == 663
    assert items[0].title == "What is a citra hop, and how does it differ from other hops?"
    assert items[0].body.startswith("<p>I was offered a beer")
    assert items[0].body.endswith("</p>\n")
    assert (items[0].id, items[0].tags, items[0].score, items[0].created) == ("1", ["hops"], 18, 1390335965)


@pytest.mark.parametrize("tags", ["<fish><c++>", "|fish|c++|"])
def test_every_field_is_taken_as_it_is(tmp_path, tags):
    path = write(tmp_path / "Posts.xml", row(Tags=tags, ContentLicense="CC BY-SA 4.0"))
    store, counts = fresh(tmp_path, path)
    item, = store.items("site")
    assert (item.id, item.title, item.body, item.tags) == ("7", GOOD["Title"], GOOD["Body"], ["fish", "c++"])
    assert (item.score, item.created, item.source) == (-2, 1390335965, "dump")
    assert item.url == "https://site.stackexchange.com/questions/7"
    assert counts["rows"] == counts["questions"] == 1


def test_the_generated_dump_is_read_whole(tmp_path, few):
    text = few.read_text(encoding="utf-8-sig")
    store, counts = fresh(tmp_path, few)
    assert [item.id for item in store.items("site")] == re.findall(r'Id="(\d+)" PostTypeId="1"', text)
    assert counts["rows"] == text.count("<row ") == counts["questions"] + counts["others"]
    newer = re.sub(r'Tags="&lt;(.*?)&gt;"', lambda tags: f'Tags="|{tags[1].replace("&gt;&lt;", "|")}|"', text)
    assert newer != text
    other, _ = fresh(tmp_path, file_of(tmp_path / "Posts.xml", newer.encode()))
    assert list(other.items("site")) == list(store.items("site"))


def test_other_posts_are_counted_and_not_kept(tmp_path):
    path = write(tmp_path / "Posts.xml", row(), row(Id="8", PostTypeId="2"), row(Id="9", PostTypeId=None, Title=None))
    store, counts = fresh(tmp_path, path)
    assert (store.count("site"), counts["rows"], counts["questions"], counts["others"]) == (1, 3, 1, 2)


def test_wrong_rows_are_refused_with_their_reason(tmp_path):
    wrong = [
        ({"Title": None}, "Title: missing"), ({"Title": "  "}, "title: empty"), ({"Body": None}, "Body: missing"),
        ({"Body": "x" * 1_000_001}, "Body: more than 1,000,000 characters"), ({"Tags": None}, "Tags: missing"),
        *(({"Tags": tags}, "Tags: neither <a><b> nor |a|b|") for tags in ("", "fish", "<a", "<>", "||", "<a>b", "['a']")),
        *(({"Score": score}, "Score: not a number") for score in ("", "many", "1.5", "1_0", "٣")),
        ({"Score": "9999999999"}, "score: out of range"), ({"CreationDate": "1900-01-01T00:00:00"}, "created: out of range"),
        *(({"CreationDate": date}, "CreationDate: no date and time") for date in ("", "2014-13-01T00:00:00", "yesterday")),
    ]
    rows = [row(**{"Id": str(number)} | fields) for number, (fields, _) in enumerate(wrong, 1)]
    rows += [row(Id="0x1"), row(Id="١"), row(Id=None), row(Id="1" * 19), row(Id="500")]
    store, counts = fresh(tmp_path, write(tmp_path / "Posts.xml", *rows))
    expected = {str(number): reason for number, (_, reason) in enumerate(wrong, 1)}
    expected |= {f"row {len(wrong) + at}": "Id: missing" if at == 3 else "Id: not a number" for at in (1, 2, 3, 4)}
    rejected = store.rejected("site")
    assert {entry.key: entry.reason for entry in rejected} == expected
    assert json.loads(next(entry.raw for entry in rejected if entry.key == "1"))["Score"] == "-2"
    assert [item.id for item in store.items("site")] == ["500"]
    assert sum(counts["refused"].values()) == len(wrong) + 4
    assert counts["refused"]["Score: not a number"] == 5


def test_a_huge_attribute(tmp_path):
    started = time.monotonic()
    store, counts = fresh(tmp_path, write(tmp_path / "Posts.xml", row(), row(Id="8", Extra="x" * 20_000_000), row(Id="9")))
    assert [item.id for item in store.items("site")] == ["7", "8", "9"]
    assert time.monotonic() - started < 10


def test_an_endless_attribute_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "MAX_GAP", 3_000_000)
    path = write(tmp_path / "Posts.xml", row(), row(Id="8", Extra="x" * 8_000_000), row(Id="9"))
    store, _ = fresh(tmp_path, path, "more than 3,000,000 bytes without the end of a row: byte .*, row 2")
    assert store.count("site") == 1


# --- archives -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("filters", [LZMA2, BZIP2, DEFLATE, COPY])
def test_an_archive_gives_what_its_xml_gives(tmp_path, posts, truth, filters):
    store, counts = fresh(tmp_path, pack(tmp_path / "site.7z", filters, Posts_xml=posts))
    assert contents(store) == truth
    assert counts["questions"] == len(truth[0])


@pytest.mark.parametrize("name", ["Posts_xml", "dump__site__Posts_xml"])
def test_only_the_member_posts_xml_is_read(tmp_path, few, name):
    other = write(tmp_path / "other" / "Posts.xml", row(Id="999999"))
    archive = pack(tmp_path / "site.7z", LZMA2, Comments_xml=other, OldPosts_xml=other, **{name: few}, Posts_xml_bak=other)
    with SevenZipFile(archive, "a", filters=BZIP2) as more:  # a block of its own, as 7-Zip makes for BZip2
        more.write(other, "Users.xml")
    assert contents(fresh(tmp_path, archive)[0]) == contents(fresh(tmp_path, few)[0])


def test_a_member_in_a_block_of_its_own(tmp_path, few):
    archive = pack(tmp_path / "site.7z", BZIP2, Users_xml=write(tmp_path / "Users.xml", root="users"))
    with SevenZipFile(archive, "a", filters=BZIP2) as more:
        more.write(few, "Posts.xml")
    assert contents(fresh(tmp_path, archive)[0]) == contents(fresh(tmp_path, few)[0])


@pytest.mark.parametrize("filters", [LZMA2, BZIP2, DEFLATE])
def test_a_damaged_archive_keeps_what_was_before_the_fault(tmp_path, posts, truth, filters):
    archive = pack(tmp_path / "site.7z", filters, Posts_xml=posts)
    whole = archive.read_bytes()
    at = len(whole) - 80_000
    assert at > 2**20  # beyond what the key looks at, so that the repaired file is taken for the same one
    archive.write_bytes(whole[:at] + bytes(200) + whole[at + 200:])
    store, error = fresh(tmp_path, archive, r"site\.7z: .*: byte [\d,]+ of Posts.xml, row [\d,]+\. The [\d,]+ questions before")
    found = re.search(r"byte ([\d,]+) of Posts.xml, row ([\d,]+)\. The ([\d,]+) questions", error)
    byte, line, kept = (int(number.replace(",", "")) for number in found.groups())
    assert kept == store.count("site") > len(truth[0]) / 3
    assert line > kept
    assert byte > posts.stat().st_size / 3
    items = list(store.items("site"))
    assert items[:kept * 9 // 10] == truth[0][:kept * 9 // 10]
    archive.write_bytes(whole)
    assert import_dump(archive, "site", store)["questions"] == len(truth[0])
    assert contents(store) == truth


def test_a_wrong_checksum_is_told_and_mended_by_a_whole_file(tmp_path, posts, truth):
    archive = pack(tmp_path / "site.7z", COPY, Posts_xml=posts)
    whole = archive.read_bytes()
    at = whole.index(b"PostTypeId=\"1\"", 2**21)
    at = whole.index(b";p&gt;", at) + 6  # a letter of its body
    archive.write_bytes(whole[:at] + b"X" + whole[at + 1:])
    store, error = fresh(tmp_path, archive, "checksum is wrong.*download it again")
    assert store.count("site") == len(truth[0])
    assert contents(store) != truth
    archive.write_bytes(whole)
    import_dump(archive, "site", store)
    assert contents(store) == truth


def test_the_parsers_faults_come_out_of_an_archive_undisguised(tmp_path, few):
    broken = tmp_path / "Posts.xml"
    broken.write_bytes(few.read_bytes()[:100_000])
    _, plain = fresh(tmp_path, broken, "too early")
    _, packed = fresh(tmp_path, pack(tmp_path / "site.7z", LZMA2, Posts_xml=broken), "too early")
    assert plain.removeprefix(str(broken)) == packed.removeprefix(str(tmp_path / "site.7z"))
    write(broken, row(), root="users")
    fresh(tmp_path, pack(tmp_path / "site.7z", LZMA2, Posts_xml=broken), "it holds <users>")


# --- faults -------------------------------------------------------------------------------------------------------


def test_a_truncated_file_keeps_every_row_before_its_end(tmp_path, few, monkeypatch):
    whole = few.read_bytes()
    cut = tmp_path / "Posts.xml"
    rng = random.Random(4)
    starts = [rng.randrange(100, len(whole)) for _ in range(16)] + [60, whole.index(b"<row"), len(whole) - 8, len(whole) - 1]
    for at in starts:
        monkeypatch.setattr(script, "CHUNK", rng.choice([997, 65536, 2**20]))
        cut.write_bytes(whole[:at])
        complete = re.findall(rb"<row [^>]*/>", whole[:at])
        store, error = fresh(tmp_path, cut, f"too early .*: byte {at:,} of Posts.xml, row {len(complete) + 1:,}\\.")
        ids = [re.search(rb'Id="(\d+)"', entry)[1].decode() for entry in complete if b'PostTypeId="1"' in entry]
        assert [item.id for item in store.items("site")] == ids
        assert f"The {len(ids):,} questions before it are kept" in error


@pytest.mark.parametrize(("bad", "words"), [
    (b'Body="&nbsp;"', "undefined entity"), (b'Body="\xff"', "not well-formed"), (b'Body="x', "not well-formed"),
    (b'Body="&#xD800;"', "reference to invalid character number"), (b'Body="\x00"', "not well-formed"),
    (b'Body="<p>"', "not well-formed"), (b'Body="" Body=""', "duplicate attribute"),
])
def test_a_malformed_row_keeps_every_row_before_it(tmp_path, monkeypatch, bad, words):
    monkeypatch.setattr(script, "CHUNK", 4096)
    rows = [row(Id=str(number), PostTypeId=str(1 + number % 2)) for number in range(1, 301)]
    path = write(tmp_path / "Posts.xml", *rows)
    whole = path.read_bytes()
    start = whole.index(b'<row Id="201"')
    at = whole.index(b"Body=", start)
    path.write_bytes(whole[:at] + bad + b" " + whole[whole.index(b"Tags=", at):])
    store, error = fresh(tmp_path, path, f"{words}.*row 201\\. The 100 questions before it are kept")
    byte = int(re.search(r"byte ([\d,]+) of", error)[1].replace(",", ""))
    assert start <= byte <= at + len(bad) + 20
    if bad[6:7] in (b"\xff", b"\x00"):
        assert byte == at + 6
    assert [item.id for item in store.items("site")] == [str(number) for number in range(2, 201, 2)]
    path.write_bytes(whole)
    import_dump(path, "site", store)
    assert store.count("site") == 150


def test_a_repaired_file_goes_on_behind_the_rows_that_were_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(script, "key_of", lambda path, file: "the same")
    path = write(tmp_path / "Posts.xml", row(Id="1"), row(Id="2"))
    path.write_bytes(path.read_bytes().replace(b'Id="2"', b'Id="&x;"'))
    store, _ = fresh(tmp_path, path, "undefined entity.*row 2. The 1 questions")
    write(path, row(Id="1", Title="Not read again"), row(Id="2"), row(Id="3"))
    assert import_dump(path, "site", store)["questions"] == 3
    assert [item.title for item in store.items("site")] == [GOOD["Title"]] * 3


@pytest.mark.parametrize("text", [BOMB, '<!DOCTYPE posts SYSTEM "file:///etc/passwd"><posts></posts>',
                                  f'<?xml version="1.0"?>\n{BOMB}'])
def test_a_doctype_is_refused_at_once(tmp_path, text):
    path = tmp_path / "Posts.xml"
    path.write_text(text, encoding="utf8")
    started = time.monotonic()
    _, error = fresh(tmp_path, path, "DOCTYPE.*, row 1. The 0 questions")
    assert text.index("<!DOCTYPE") < int(re.search(r"byte (\d+) of", error)[1]) < text.index("<posts>")
    assert time.monotonic() - started < 1


def not_there(folder: Path, few: Path) -> Path:
    return folder / "Posts.xml"


def a_folder(folder: Path, few: Path) -> Path:
    return folder


def an_empty_file(folder: Path, few: Path) -> Path:
    return file_of(folder / "site.7z", b"")


def a_zip(folder: Path, few: Path) -> Path:
    with zipfile.ZipFile(folder / "site.7z", "w") as archive:
        archive.write(few, "Posts.xml")
    return folder / "site.7z"


def a_web_page(folder: Path, few: Path) -> Path:
    return file_of(folder / "site.7z", b"\n<!DOCTYPE HTML><html><h1>503 Slow Down</h1></html>")


def a_text(folder: Path, few: Path) -> Path:
    return file_of(folder / "Posts.xml", b"Id,Title\n1,Fish\n")


def another_table(folder: Path, few: Path) -> Path:
    return write(folder / "Users.xml", '<row Id="1" />', root="users")


def no_posts(folder: Path, few: Path) -> Path:
    return pack(folder / "site.7z", LZMA2, Users_xml=few, posts_xml=few)


def two_posts(folder: Path, few: Path) -> Path:
    return pack(folder / "site.7z", LZMA2, a__Posts_xml=few, b__Posts_xml=few)


def an_incomplete_archive(folder: Path, few: Path) -> Path:
    return file_of(folder / "site.7z", pack(folder / "whole.7z", LZMA2, Posts_xml=few).read_bytes()[:20_000])


def the_start_of_an_archive(folder: Path, few: Path) -> Path:
    return file_of(folder / "site.7z", pack(folder / "whole.7z", LZMA2, Posts_xml=few).read_bytes()[:10])


def a_damaged_index(folder: Path, few: Path) -> Path:
    whole = pack(folder / "whole.7z", LZMA2, Posts_xml=few).read_bytes()
    return file_of(folder / "site.7z", whole[:-40] + bytes(40))


def a_decompressor_that_crashes(folder: Path, few: Path) -> Path:
    return pack(folder / "site.7z", [{"id": py7zr.FILTER_PPMD, "order": 6, "mem": 24}], Posts_xml=few)


def a_password(folder: Path, few: Path) -> Path:
    with SevenZipFile(folder / "site.7z", "w", password="secret") as archive:
        archive.write(few, "Posts.xml")
    return folder / "site.7z"


def file_of(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(("build", "words"), [
    (not_there, "Posts.xml: No such file"), (a_folder, "Is a directory; give a Posts.xml"), (an_empty_file, "empty; download"),
    (a_zip, "a zip archive, not a dump"), (a_web_page, "a web page, not a dump"), (a_text, "neither XML nor a .7z.*Id,Title"),
    (another_table, "it holds <users>, not <posts>"), (no_posts, "no Posts.xml in it, but Users.xml, posts.xml"),
    (two_posts, "2 Posts.xml in it"), (an_incomplete_archive, "an incomplete download, 20,000 of [0-9,]+ bytes; download it"),
    (the_start_of_an_archive, "incomplete download, 10 of 32"), (a_damaged_index, "index is damaged.*download it again"),
    (a_decompressor_that_crashes, "packed with PPMd; unpack it yourself"), (a_password, "packed with 7zAES"),
])
def test_what_is_no_dump_is_told_by_what_it_is(tmp_path, few, build, words):
    store, _ = fresh(tmp_path, build(tmp_path, few), words)
    assert store.count("site") == 0


# --- the site -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "site"), [
    ("scifi.stackexchange.com.7z", "scifi"), ("stackoverflow.com-Posts.7z", "stackoverflow"),
    ("es.stackoverflow.com.7z", "es.stackoverflow"), ("meta.stackexchange.com/Posts.xml", "meta.stackexchange"),
    ("mathoverflow.net/Posts.xml", "mathoverflow.net"),
])
def test_the_site_is_told_by_the_name(name, site):
    assert script.split_site(script.site_from(Path(name)))[0] == site


@pytest.mark.parametrize("name", ["Posts.xml", "beer_dump/Posts.xml", "scifi.7z", "v1.2/Posts.xml"])
def test_a_name_without_a_site_asks_for_it(name):
    with pytest.raises(TagwrightError, match="give it with --site"):
        script.site_from(Path(name))


# --- run again, run twice, stopped --------------------------------------------------------------------------------


def test_a_finished_import_is_not_done_again(tmp_path, few):
    store, first = fresh(tmp_path, few)
    second = import_dump(few, "site", store)
    assert second["earlier"]
    assert (second["rows"], second["questions"]) == (first["rows"], first["questions"])
    assert not import_dump(few, "site", store, again=True)["earlier"]
    assert store.count("site") == first["questions"]
    empty = write(tmp_path / "Posts.xml")
    assert [import_dump(empty, "site", store)["earlier"], import_dump(empty, "site", store)["questions"]] == [False, 0]


def test_a_file_that_another_process_imports_is_refused(tmp_path, few):
    store = ItemStore(tmp_path / "items.sqlite")
    with few.open("rb") as file:
        store.add([Work("site", "dump", script.key_of(few, file), payload={"rows": 0, "questions": 0})])
    works = store.claim("site", "dump")
    for again in (False, True):
        with pytest.raises(TagwrightError, match="another process is importing it"):
            import_dump(few, "site", store, again)
    store.release(works)
    assert import_dump(few, "site", store)["questions"]


def interrupted_import(path: Path, store: ItemStore, monkeypatch, batches: int) -> int:
    """Import until so many batches are stored, then press Ctrl-C; returns how many rows the work's note tells."""
    progress, left = store.progress, iter(range(batches))

    def counted(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        progress(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(store, "progress", counted)
        with pytest.raises(Paused, match=f"stopped: {50 * batches} questions of .* are saved; run the same command") as caught:
            import_dump(path, "site", store)
    assert caught.value.code == 130
    return next(work.payload["rows"] for work, state in store.work("site", "dump") if state == "todo")


def test_an_interrupted_import_goes_on_where_it_was(database_url, few, monkeypatch):
    monkeypatch.setattr(script, "BATCH", 50)
    store, undisturbed = ItemStore(database_url), ItemStore(f"{few}.sqlite")
    import_dump(few, "site", undisturbed, again=True)
    rows = interrupted_import(few, store, monkeypatch, batches=2)
    assert store.count("site") == 100
    notes, progress = [], store.progress

    def noting(work, note, *rest):
        notes.append(note)
        progress(work, note, *rest)

    monkeypatch.setattr(store, "progress", noting)
    counts = import_dump(few, "site", store)
    assert notes[0]["rows"] > rows  # nothing was stored anew
    assert contents(store) == contents(undisturbed)
    assert counts["questions"] == undisturbed.count("site")
    store._engine.dispose()


def test_two_dumps_of_a_site_do_not_disturb_one_another(tmp_path, few, monkeypatch):
    monkeypatch.setattr(script, "BATCH", 50)
    store = ItemStore(tmp_path / "items.sqlite")
    rows = interrupted_import(few, store, monkeypatch, batches=1)
    assert import_dump(write(tmp_path / "Posts.xml", row(Id="1000000")), "site", store)["questions"] == 1
    (waiting, state), = [(work, state) for work, state in store.work("site", "dump") if state != "done"]
    assert (waiting.payload["rows"], state) == (rows, "todo")
    import_dump(few, "site", store)
    assert store.count_work("site", "dump") == {"done": 2}


def start(path: Path, database: Path) -> subprocess.Popen:
    return subprocess.Popen([*COMMAND, path, "--site", "site", "--db", database], cwd=ROOT, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True)


def wait_for(store: ItemStore, rows: int, process: subprocess.Popen) -> None:
    """Wait until the import has noted that so many rows are read."""
    while not any(work.payload["rows"] >= rows for work, _ in store.work("site", "dump")):
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)


def test_an_import_killed_at_any_moment_ends_as_an_undisturbed_one(tmp_path, posts, truth):
    rng = random.Random(5)
    store = ItemStore(tmp_path / "items.sqlite")
    for rows in sorted(rng.randrange(6500) for _ in range(5)):
        process = start(posts, tmp_path / "items.sqlite")
        wait_for(store, rows, process)
        time.sleep(rng.random() / 100)
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it had ended before"
        noted = next(work.payload for work, _ in store.work("site", "dump"))
        assert store.count("site") == noted["questions"]
    process = start(posts, tmp_path / "items.sqlite")
    output, errors = process.communicate()
    assert process.returncode == 0, errors
    assert f"{len(truth[0]):,} questions stored" in output
    assert contents(store) == truth


def test_ctrl_c_ends_with_one_line_and_what_is_saved(tmp_path, posts, truth):
    store = ItemStore(tmp_path / "items.sqlite")
    process = start(posts, tmp_path / "items.sqlite")
    wait_for(store, 2000, process)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    _, errors = process.communicate(timeout=5)
    assert time.monotonic() - started < 5
    assert process.returncode == 130
    assert errors == f"stopped: {store.count('site'):,} questions of Posts.xml are saved; run the same command again to go on\n"
    assert store.count_work("site", "dump") == {"todo": 1}
    import_dump(posts, "site", store)
    assert contents(store) == truth


def test_ctrl_c_within_a_transaction_waits_for_its_end(tmp_path, few, monkeypatch):
    monkeypatch.setattr(script, "BATCH", 50)
    store = ItemStore(tmp_path / "items.sqlite")
    save = store._save

    def signalled(*arguments):
        signal.raise_signal(signal.SIGINT)
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(store, "_save", signalled)
        with pytest.raises(Paused, match="stopped: 50 questions of Posts.xml are saved"):
            import_dump(few, "site", store)
    assert store.count("site") == 50
    import_dump(few, "site", store)
    assert contents(store) == contents(fresh(tmp_path, few)[0])


def test_the_command_tells_its_counts_and_its_errors_in_one_line(tmp_path, few):
    def command(*arguments) -> tuple[int, str, str]:
        script = ROOT / "stackapi" / "import_dump.py"
        done = subprocess.run([sys.executable, script, *arguments, "--db", tmp_path / "items.sqlite"], capture_output=True,
                              text=True, cwd=tmp_path)
        return done.returncode, done.stdout, done.stderr

    dump = file_of(tmp_path / "scifi.stackexchange.com.7z", pack(tmp_path / "a.7z", LZMA2, Posts_xml=few).read_bytes())
    code, output, errors = command(dump)
    assert (code, errors) == (0, "")
    assert re.fullmatch(r"scifi: \d+ rows read, \d+ questions stored in .*, refused: none, \d+ different tags, "
                        r"\d+\.\d s, [\d,]+ posts a second\n", output)
    code, output, errors = command(dump)
    assert (code, errors) == (0, "")
    assert re.search(r"imported already: \d+ questions of \d+ posts; --again does it anew\n$", output)
    code, output, errors = command(few)
    assert (code, output) == (2, "")
    assert re.fullmatch(r"error: .*give it with --site, as in --site scifi\n", errors)


def test_rate_and_memory(tmp_path):
    path = tmp_path / "Posts.xml"
    counts = write_posts(path, 40, seed=3)
    archive = pack(tmp_path / "site.7z", LZMA2, Posts_xml=path)
    for dump in (path, archive):
        measured = measure(dump, counts["posts"])
        assert counts["posts"] / measured["cpu_seconds"] > 7500  # by the processor's time: the machine may be busy
        assert measured["peak_mb"] < 150
