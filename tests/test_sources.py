"""Rows from archives, from addresses and from the embedded sample: each gives the rows of the plain files, or one clear error
and nothing that looks whole."""

import csv
import gzip
import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pandas as pd
import pydantic
import pytest
from conftest import ROOT, write_task
from local_server import LocalServer, QuietHandler
from s3 import S3
from service import training
from service.jobs_api import TrainRequest, uploaded_task

from tagwright import sources
from tagwright import task as tasks
from tagwright.dataset import SPLITS, Dataset, clean
from tagwright.errors import TagwrightError
from tagwright.pipeline import Folders
from tagwright.task import Task

SAMPLE = ROOT / "data" / "sample" / "ag_news"
REAL = Path(os.environ.get("TAGWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data")) / "ag_news"
HEADER = "Class Index,Title,Description\n"
SCRIPT = Path(sys.executable).parent / "tagwright"


@pytest.fixture(autouse=True)
def nothing_is_here(tmp_path, monkeypatch):
    """No rows but those that a test makes, and no downloads into the checkout."""
    monkeypatch.setenv("TAGWRIGHT_RAW", str(tmp_path / "raw"))
    monkeypatch.setenv("TAGWRIGHT_SHARED_DATA", str(tmp_path / "shared"))


@pytest.fixture
def news(tmp_path) -> Task:
    """AG's news as shipped, but with an address that leads nowhere."""
    text = (ROOT / "tasks" / "ag_news.toml").read_text(encoding="utf8")
    (tmp_path / "tasks").mkdir()
    file = tmp_path / "tasks" / "ag_news.toml"
    file.write_text(text.replace('catalog = "ag_news"', 'url = "http://127.0.0.1:9/ag_news_csv.tgz"')
                    .replace('"data/sample', f'"{ROOT}/data/sample'), encoding="utf8")
    return Task.load(file)


def zipped(path: Path, members: dict[str, bytes], how: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", how) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return path


def tarred(path: Path, members: dict[str, bytes | tarfile.TarInfo]) -> Path:
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as file:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                file.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    return path


def plain(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in ("train.csv", "test.csv")}


def as_kaggle_has_it(content: bytes) -> bytes:
    """With a header, and quotes only where they are needed."""
    out = io.StringIO(HEADER, newline="")
    out.seek(0, io.SEEK_END)
    csv.writer(out, lineterminator="\n").writerows(csv.reader(io.StringIO(content.decode(), newline="")))
    return out.getvalue().encode()


def rows_of(task: Task, folder: Path) -> list[tuple]:
    """Split, text and label of each row; a header may not be among those read."""
    record = clean(task, task.raw_path(), folder)
    assert set(record["rows"]["rejected"]) <= {"duplicate", "near duplicate"}
    data = Dataset.load(folder)
    return [(split, text, *labels) for split in SPLITS
            for text, labels in zip(getattr(data, split)["text"], getattr(data, split)["labels"], strict=True)]


def archives(folder: Path, files: dict[str, bytes]) -> list[Path]:
    headed = {name: as_kaggle_has_it(content) for name, content in files.items()}
    inside = {f"ag_news_csv/{name}": content for name, content in files.items()} | {"ag_news_csv/readme.txt": b"train.csv\n"}
    return [zipped(folder / "archive.zip", headed), zipped(folder / "bare.zip", files),
            tarred(folder / "ag_news_csv.tgz", inside), tarred(folder / "news.tar.gz", headed),
            tarred(folder / "news.tar", inside)]


def refusal(task: Task) -> str:
    with pytest.raises(TagwrightError) as error:
        task.raw_path()
    return str(error.value)


def left(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- archives ----------------------------------------------------------------------------------------------------


def test_every_archive_gives_the_rows_of_the_plain_files(news, tmp_path):
    expected = rows_of(news.with_data(str(SAMPLE)), tmp_path / "plain")
    assert len(expected) == 200
    for archive in archives(tmp_path, plain(SAMPLE)):
        assert rows_of(news.with_data(str(archive)), tmp_path / f"of-{archive.name}") == expected, archive.name


def test_the_real_news_are_the_same_from_every_archive(news, tmp_path):
    if not REAL.is_dir():
        pytest.skip(f"AG's news are not at {REAL}")
    test = (REAL / "test.csv").read_bytes()
    with (REAL / "train_20k.csv").open(encoding="utf8", newline="") as file:
        train = list(csv.reader(file))[1::8]
    out = io.StringIO(newline="")
    csv.writer(out, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows(train)
    files = {"train.csv": out.getvalue().encode(), "test.csv": test}
    (tmp_path / "plain").mkdir()
    for name, content in files.items():
        (tmp_path / "plain" / name).write_bytes(content)
    expected = rows_of(news.with_data(str(tmp_path / "plain")), tmp_path / "out")
    assert sum(split == "test" for split, *_ in expected) == 7600
    assert sum("\\" in text or " #39;" in text for _, text, _ in expected) <= 1
    for archive in archives(tmp_path, files)[:3]:
        assert rows_of(news.with_data(str(archive)), tmp_path / f"of-{archive.name}") == expected, archive.name


def test_the_archive_is_found_where_the_task_says_and_so_are_its_unpacked_files(news, tmp_path):
    (tmp_path / "raw" / "ag_news").mkdir(parents=True)
    for name, content in plain(SAMPLE).items():
        (tmp_path / "raw" / "ag_news" / name).write_bytes(content)
    assert news.raw_path() == tmp_path / "raw" / "ag_news" / "train.csv"
    archive = zipped(tmp_path / "raw" / "ag_news" / "archive.zip", plain(SAMPLE))
    assert news.raw_path().parent.name.startswith("archive.zip-")
    assert news.test_path().read_bytes() == (SAMPLE / "test.csv").read_bytes()
    archive.unlink()
    (tmp_path / "raw" / "ag_news" / "test.csv").unlink()
    assert "archive.zip" in refusal(news)


def test_an_archive_needs_no_ending(news, tmp_path):
    for archive in archives(tmp_path, plain(SAMPLE))[:3]:
        bare = archive.rename(tmp_path / f"download{archive.stem}")
        assert news.with_data(str(bare)).raw_path().is_file()


def test_a_task_without_members_finds_its_file_in_an_archive(tmp_path):
    line = b"__label__a one\n"
    task = Task.load("cooking").with_data(str(tarred(tmp_path / "c.tar.gz", {"./cooking.stackexchange.txt": line,
                                                                             "./cooking.stackexchange.id": b"x"})))
    assert task.raw_path().read_bytes() == line


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def linked_zip(path: Path) -> Path:
    info = zipfile.ZipInfo("train.csv")
    info.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(info, "/etc/passwd")
        file.writestr("test.csv", "x")
    return path


def encrypted(path: Path) -> Path:
    """A zip whose members are marked as encrypted, in both of their headers."""
    content = bytearray(zipped(path, plain(SAMPLE)).read_bytes())
    for mark, offset in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(mark)
        while at >= 0:
            content[at + offset] |= 1
            at = content.find(mark, at + 4)
    path.write_bytes(content)
    return path


def cut(path: Path, share: float = 0.6) -> Path:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def lying_zip(path: Path) -> Path:
    """A zip that announces fewer bytes than it holds."""
    content = zipped(path, {"train.csv": b"1,a,b\n" * 50_000, "test.csv": b"1,a,b\n"}).read_bytes()
    path.write_bytes(content.replace((300_000).to_bytes(4, "little"), (3_000).to_bytes(4, "little")))
    return path


def huge_header(path: Path) -> Path:
    """A .tar.gz whose extended header is announced with 1.5 GB."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 1_500_000_000
    with gzip.open(path, "wb") as file:
        file.write(info.tobuf(tarfile.USTAR_FORMAT) + bytes(100_000))
    return path


BOMB = bytes(30_000_000)
HOSTILE = {
    "up": (lambda p: zipped(p / "a.zip", {"../train.csv": b"x", "test.csv": b"x"}), "leads out of the archive's folder"),
    "up in a tar": (lambda p: tarred(p / "a.tgz", {"a/../../train.csv": b"x", "test.csv": b"x"}), "leads out of"),
    "another up": (lambda p: zipped(p / "a.zip", plain(SAMPLE) | {"..\\evil": b"x"}), "leads out of the archive's folder"),
    "absolute": (lambda p: tarred(p / "a.tar", {"/etc/train.csv": b"x", "test.csv": b"x"}), "leads out of"),
    "a drive": (lambda p: zipped(p / "a.zip", plain(SAMPLE) | {"C:/evil": b"x"}), "leads out of the archive's folder"),
    "symlink": (lambda p: tarred(p / "a.tgz", {"a": link("train.csv", tarfile.SYMTYPE, "/etc/passwd"), "test.csv": b"x"}),
                "a link"),
    "hard link": (lambda p: tarred(p / "a.tar", {"test.csv": b"x", "a": link("train.csv", tarfile.LNKTYPE, "test.csv")}),
                  "a link"),
    "link beside": (lambda p: tarred(p / "a.tgz", plain(SAMPLE) | {"a": link("more", tarfile.SYMTYPE, "/etc")}), "a link"),
    "symlink in a zip": (lambda p: linked_zip(p / "a.zip"), "a link"),
    "device": (lambda p: tarred(p / "a.tgz", {"a": link("train.csv", tarfile.CHRTYPE, ""), "test.csv": b"x"}), "no plain file"),
    "folder": (lambda p: tarred(p / "a.tgz", {"a": link("train.csv", tarfile.DIRTYPE, ""), "test.csv": b"x"}), "no member"),
    "bomb": (lambda p: zipped(p / "a.zip", {"train.csv": BOMB, "test.csv": b"x"}), "unpack to 30,000,000"),
    "bomb in a tar": (lambda p: tarred(p / "a.tgz", {"train.csv": BOMB, "test.csv": b"x"}), "above 10,000,000 bytes"),
    "bomb beside": (lambda p: tarred(p / "a.tgz", {"bomb": BOMB, "train.csv": b"x", "test.csv": b"x"}), "above 10,000,000"),
    "header": (lambda p: huge_header(p / "a.tgz"), "a header of 1,5"),
    "lies": (lambda p: lying_zip(p / "a.zip"), "no archive that can be read"),
    "two": (lambda p: zipped(p / "a.zip", {"a/train.csv": b"x", "b/train.csv": b"y", "test.csv": b"x"}),
            "two members are called 'train.csv': a/train.csv and b/train.csv"),
    "two in a tar": (lambda p: tarred(p / "a.tgz", {"a/train.csv": b"x", "train.csv": b"y", "test.csv": b"x"}), "two members"),
    "none": (lambda p: zipped(p / "a.zip", {"training.csv": b"x", "test.csv": b"x"}),
             "no member 'train.csv'; it has training.csv, test.csv"),
    "encrypted": (lambda p: encrypted(p / "a.zip"), "encrypted"),
    "bzip2": (lambda p: zipped(p / "a.zip", plain(SAMPLE), zipfile.ZIP_BZIP2), "deflate"),
    "cut zip": (lambda p: cut(zipped(p / "a.zip", plain(SAMPLE))), "truncated"),
    "cut tgz": (lambda p: cut(tarred(p / "a.tgz", plain(SAMPLE))), "truncated"),
    "cut tar": (lambda p: cut(tarred(p / "a.tar", plain(SAMPLE))), "truncated"),
    "empty": (lambda p: cut(zipped(p / "a.zip", {"train.csv": b"x"}), 0), "truncated"),
    "a page": (lambda p: (p / "a.zip").write_text("<html>Please log in</html>") and p / "a.zip", "no archive that can be read"),
    "not a tar": (lambda p: (p / "a.csv.gz").write_bytes(gzip.compress(b"1,a,b\n")) and p / "a.csv.gz", "no archive that can"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_or_damaged_archive_is_one_clear_error_and_leaves_nothing(news, tmp_path, name):
    make, expected = HOSTILE[name]
    (tmp_path / "at").mkdir()
    archive = make(tmp_path / "at")
    before = left(tmp_path)
    message = refusal(news.with_data(str(archive)))
    assert message.startswith(str(archive))
    assert expected in message
    after = set(left(tmp_path)) - set(before)
    assert {Path(name).name for name in after} <= {"test.csv"}  # whole, where the other member is at fault


def test_damaged_archives_of_every_kind_give_the_rows_or_an_error(news, tmp_path):
    chance, failed, train = random.Random(0), 0, plain(SAMPLE)["train.csv"]
    for archive in archives(tmp_path, plain(SAMPLE)):
        whole = archive.read_bytes()
        for _ in range(40):
            damaged = bytearray(whole)
            for _ in range(chance.choice([1, 5, 50])):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            archive.write_bytes(damaged[: chance.choice([None, chance.randrange(len(damaged))])])
            try:
                file = news.with_data(str(archive)).raw_path()
            except TagwrightError:
                failed += 1
            else:  # a plain .tar has no checksum of what is in it
                assert archive.suffix == ".tar" or file.read_bytes() in (train, as_kaggle_has_it(train))
    assert failed > 100


def test_too_many_members_and_too_large_ones_are_refused(news, tmp_path, monkeypatch):
    many = plain(SAMPLE) | {f"{number}.txt": b"" for number in range(20)}
    for archive in (zipped(tmp_path / "a.zip", many), tarred(tmp_path / "a.tgz", many)):
        with monkeypatch.context() as patched:
            patched.setattr(sources, "MAX_ENTRIES", 20)
            assert "more than 20 members" in refusal(news.with_data(str(archive)))
            patched.setattr(sources, "MAX_ENTRIES", 22)
            patched.setattr(sources, "MAX_BYTES", 30_000)
            assert "30,000 bytes" in (message := refusal(news.with_data(str(archive)))) or "GB" in message


# --- folders and files -------------------------------------------------------------------------------------------


def test_a_folder_must_have_all_files_and_one_file_is_not_enough(news, tmp_path):
    (tmp_path / "folder").mkdir()
    shutil.copy(SAMPLE / "train.csv", tmp_path / "folder")
    assert "no file 'test.csv'; name the folder that holds train.csv and test.csv" in refusal(
        news.with_data(str(tmp_path / "folder")))
    assert "one file, and the task needs train.csv and test.csv" in refusal(news.with_data(str(SAMPLE / "train.csv")))


def test_one_file_of_any_name_will_do_for_a_task_without_a_test_file(tmp_path):
    (tmp_path / "other.jsonl").touch()
    task = Task.load(write_task(tmp_path, "rows.jsonl"))
    assert task.with_data(str(tmp_path / "other.jsonl")).raw_path() == tmp_path / "other.jsonl"


def test_two_files_of_one_name_are_not_taken_for_each_other(tmp_path):
    source = {"test_path": "test/rows.jsonl"}
    task = Task.load(write_task(tmp_path, "train/rows.jsonl", source=source, split={"by": "file"}))
    for name in ("train", "test"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "rows.jsonl").touch()
    assert task.raw_path() != task.test_path()
    assert "files of different names" in refusal(task.with_data(str(tmp_path / "train")))


@pytest.mark.parametrize("place", ["no/such/file.zip", "x" * 5000, ""])
def test_a_place_that_is_not_there_is_refused_at_once(place):
    with pytest.raises(TagwrightError, match="no such file or folder"):
        Task.load("ag_news").with_data(place)


def test_a_member_is_a_plain_file_name(tmp_path):
    for member in ("../train.csv", "a/train.csv", "/train.csv", "..", ".hidden", "", "a\\b", "a\0b", "x" * 300):
        with pytest.raises(TagwrightError, match=r"source\.member|not a readable TOML"):
            Task.load(write_task(tmp_path, "rows.zip", source={"member": member}))


# --- addresses ---------------------------------------------------------------------------------------------------


class Web(LocalServer):
    """Serves `files` (path -> content) while the block lasts: `cut` breaks each answer off in the middle, `endless` announces
    no length."""

    def __init__(self):
        self.files, self.asked, self.cut, self.endless, self.moved = {}, [], False, False, {}

    def handler(self):
        web = self

        class Handler(QuietHandler):
            def do_GET(self):
                path = self.path.partition("?")[0]
                web.asked.append(self.path)
                if path in web.moved:
                    self.send_response(302)
                    self.send_header("Location", web.moved[path])
                    self.end_headers()
                    return
                content = web.files.get(path)
                self.send_response(404 if content is None else 200)
                content = content or b"<html>not here</html>"
                if not web.endless:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2] if web.cut else content)

        return Handler


@pytest.fixture
def web(tmp_path):
    with Web() as server:
        archive = tarred(tmp_path / "news.tgz", {f"ag_news_csv/{name}": content for name, content in plain(SAMPLE).items()})
        server.files["/news.tgz"] = archive.read_bytes()
        yield server


def test_an_address_is_downloaded_once_and_noted(news, web, tmp_path):
    expected = rows_of(news.with_data(str(SAMPLE)), tmp_path / "plain")
    task = news.with_data(f"{web.url}/news.tgz?token=secret")
    assert rows_of(task, tmp_path / "out") == expected
    assert web.asked == ["/news.tgz?token=secret"]
    folder = tmp_path / "raw" / "ag_news"
    note = json.loads((folder / "news.tgz.fetched.json").read_text())
    assert note["sha256"] == hashlib.sha256(web.files["/news.tgz"]).hexdigest()
    assert (note["address"], note["bytes"]) == (f"{web.url}/news.tgz", len(web.files["/news.tgz"]))
    assert not [path for path in folder.rglob("*.json") if "secret" in path.read_text()]
    task.fetch(force=True)
    news.with_data(f"{web.url}/news.tgz?token=other").fetch()
    assert len(web.asked) == 3
    (folder / "news.tgz").write_bytes(b"half of it")
    task.raw_path()
    assert len(web.asked) == 4


def test_what_was_put_there_by_hand_is_never_replaced(news, web, tmp_path):
    (tmp_path / "raw" / "ag_news").mkdir(parents=True)
    mine = tmp_path / "raw" / "ag_news" / "news.tgz"
    mine.write_text("mine")
    assert "move it away" in refusal(news.with_data(f"{web.url}/news.tgz"))
    assert mine.read_text() == "mine"


@pytest.mark.parametrize("fault", ["cut", "404", "large", "large and unannounced", "moved", "gone"])
@pytest.mark.parametrize("there", [False, True])
def test_a_download_that_fails_leaves_nothing_and_keeps_what_was_there(news, web, tmp_path, monkeypatch, fault, there):
    task = news.with_data(f"{web.url}/news.tgz")
    if there:
        task.fetch()
    before = left(tmp_path / "raw")
    expected = "cannot be downloaded"
    if fault == "cut":
        web.cut = True
    elif fault == "404":
        web.files.clear()
        expected = "its server answers 404"
    elif fault == "moved":
        web.moved = {"/news.tgz": "/news.tgz"}
    elif fault == "gone":
        web.__exit__()
    else:
        web.endless = fault == "large and unannounced"
        monkeypatch.setattr(sources, "MAX_BYTES", 5_000)
        expected = "more than 0 GB" if web.endless else "at most 0 GB"
    with pytest.raises(TagwrightError, match=expected) as error:
        task.fetch(force=True)
    assert str(error.value).startswith(f"{web.url}/news.tgz: ")
    assert left(tmp_path / "raw") == before


def test_the_checksum_of_the_catalogue_must_fit(web, tmp_path, monkeypatch):
    digest = hashlib.sha256(web.files["/news.tgz"]).hexdigest()
    catalogue = tmp_path / "catalog.toml"
    monkeypatch.setattr(tasks, "CATALOGUE", catalogue)
    task = Task.load("ag_news")
    entry = f'[ag_news]\nurl = "{web.url}/news.tgz"\nlicence = "none"\nsha256 = '
    catalogue.write_text(f'{entry}"{"0" * 64}"\n')
    assert f"its sha256 is {digest}, and {'0' * 64} was expected" in refusal(task)
    assert left(tmp_path / "raw") == []
    catalogue.write_text(f'{entry}"{digest}"\n')
    assert task.raw_path().read_bytes() == (SAMPLE / "train.csv").read_bytes()
    assert task.test_path().read_bytes() == (SAMPLE / "test.csv").read_bytes()
    assert len(web.asked) == 2
    catalogue.write_text("[other]\n")
    shutil.rmtree(tmp_path / "raw")
    assert "no data set 'ag_news'; it has other" in refusal(task)


@pytest.mark.parametrize(("address", "expected"), [
    ("ftp://example.org/a.zip", "give https://host/file"), ("https://user:secret@example.org/a.zip", "may hold no password"),
    ("https://example.org/", "names no file"), ("https://", "give https://host/file"), ("https://[/a.zip", "no address"),
    ("file:///etc/passwd", "give https://host/file"), ("https://example.org/..", "names no file"),
])
def test_an_address_that_is_none_is_refused_without_its_password(news, address, expected):
    message = refusal(news.with_data(address))
    assert expected in message
    assert "secret" not in message


def test_rows_that_cannot_be_had_are_one_error_that_says_what_to_do(news, tmp_path):
    message = refusal(news)
    places = [tmp_path / "tasks", tmp_path, tmp_path / "raw", tmp_path / "shared"]
    found = [message.index(str(place / "ag_news" / "archive.zip")) for place in places]
    assert found == sorted(found)
    assert "http://127.0.0.1:9/ag_news_csv.tgz: cannot be downloaded" in message
    assert message.endswith("--data sample takes the task's embedded sample instead")
    assert not (tmp_path / "raw").exists() or left(tmp_path / "raw") == []


def test_the_source_may_itself_be_an_address(web, tmp_path):
    web.files["/rows.jsonl"] = b'{"text": "one", "tags": ["a"]}\n'
    task = Task.load(write_task(tmp_path, f"{web.url}/rows.jsonl"))
    assert task.raw_path().read_bytes() == web.files["/rows.jsonl"]
    web.files.clear()
    task.raw_path()
    shutil.rmtree(tmp_path / "raw")
    assert refusal(task) == f"{web.url}/rows.jsonl: its server answers 404"


def test_rows_come_from_s3(news, tmp_path, monkeypatch):
    archive = zipped(tmp_path / "archive.zip", {name: as_kaggle_has_it(content) for name, content in plain(SAMPLE).items()})
    with S3() as server:
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        server.client.create_bucket(Bucket="data")
        server.client.upload_file(str(archive), "data", "sets/news.zip")
        task = news.with_data("s3://data/sets/news.zip")
        assert rows_of(task, tmp_path / "s3") == rows_of(news.with_data(str(SAMPLE)), tmp_path / "plain")
        assert (tmp_path / "raw" / "ag_news" / "news.zip").is_file()
        assert "s3://data/sets/none.zip: there is no such object" in refusal(news.with_data("s3://data/sets/none.zip"))
        assert "there is no such bucket" in refusal(news.with_data("s3://nowhere/news.zip"))
        server.fault = lambda method, path: "AccessDenied"
        assert "no access (AccessDenied)" in refusal(news.with_data("s3://data/sets/more.zip"))
    assert "S3 cannot be reached" in refusal(news.with_data("s3://data/sets/more.zip"))


# --- the embedded sample, and the catalogue ----------------------------------------------------------------------


def test_the_sample_is_a_task_of_its_own(tmp_path):
    task = Task.load("ag_news")
    sample = task.with_data("sample")
    assert (sample.raw_path(), sample.test_path()) == (SAMPLE / "train.csv", SAMPLE / "test.csv")
    assert sample.name == "ag_news-sample"
    assert Folders.of(sample, tmp_path).tagger == tmp_path / "ag_news-sample" / "tagger"
    assert "Tagwright" in sample.source.attribution
    assert sample.source.licence == "CC BY 4.0"
    assert sample.training.for_rows(144).epochs > task.training.epochs
    assert (sample.labels, sample.input, sample.split, sample.model) == (task.labels, task.input, task.split, task.model)


def test_a_task_on_the_sample_already_is_its_own_sample_and_others_have_none(tmp_path):
    scifi = Task.load("scifi")
    assert scifi.with_data("sample") == scifi
    with pytest.raises(TagwrightError, match="no embedded sample"):
        Task.load("cooking").with_data("sample")


def test_a_sample_that_does_not_fit_its_task_is_refused(tmp_path):
    sample = {"path": "few.csv", "attribution": "a", "licence": "b"}
    for tables, expected in [({"sample": sample | {"test_path": "test.csv"}}, "sample.test_path go together"),
                             ({"sample": sample | {"pth": "x"}}, "did you mean 'path'"),
                             ({"sample": {"path": "few.csv"}}, "sample.attribution")]:
        with pytest.raises(TagwrightError, match=expected):
            Task.load(write_task(tmp_path, "rows.csv", **tables))
    for key in ("data", "file"):
        file = write_task(tmp_path, "rows.csv")
        file.write_text(f'{key} = "x"\n' + file.read_text())
        with pytest.raises(TagwrightError, match=f"{key}: unknown key"):
            Task.load(file)


def test_the_catalogue_and_the_tasks_agree():
    entries = tomllib.loads((ROOT / "data" / "catalog.toml").read_text(encoding="utf8"))
    loaded = [Task.load(file) for file in (ROOT / "tasks").glob("*.toml")]
    for task in loaded:
        if task.source.catalog:
            published = sources.catalogued(ROOT / "data" / "catalog.toml", task.source.catalog)
            assert published.url.startswith("https://")
            assert task.source.licence == published.licence
    assert {task.source.catalog for task in loaded} - {None} == set(entries)
    texts = [path.read_text(encoding="utf8") for path in [*(ROOT / "tasks").glob("*.toml"), ROOT / "data" / "catalog.toml"]]
    for entry in entries.values():
        assert sum(text.count(entry["url"]) for text in texts) == 1


# --- the command -------------------------------------------------------------------------------------------------


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "tagwright.cli", *map(str, arguments)], capture_output=True, text=True,
                          timeout=120, env=os.environ | {"COLUMNS": "100", "NO_COLOR": "1"})


def test_a_second_run_is_skipped_and_other_rows_run_again(news, tmp_path):
    archive = zipped(tmp_path / "archive.zip", {name: as_kaggle_has_it(content) for name, content in plain(SAMPLE).items()})
    clean_news = ["clean", news.file, "--work", tmp_path / "work", "--data"]
    first = run(*clean_news, archive)
    assert "rows  read  200" in first.stdout, first.stderr
    assert "clean: skipped" in run(*clean_news, archive).stdout
    shutil.copytree(tmp_path / "raw" / "ag_news" / next((tmp_path / "raw" / "ag_news").iterdir()).name, tmp_path / "folder")
    assert "clean: skipped" in run(*clean_news, tmp_path / "folder").stdout  # the same rows from elsewhere
    with (tmp_path / "folder" / "train.csv").open("a") as file:
        file.write('1,"One more headline","And what it is about, in a few words"\n')
    assert "rows  read  201" in run(*clean_news, tmp_path / "folder").stdout
    record = pd.read_json(tmp_path / "work" / "ag_news" / "dataset" / "rejected.jsonl", lines=True)
    assert record.empty


def test_the_commands_take_the_sample_and_keep_it_apart(tmp_path):
    work = tmp_path / "work"
    done = run("clean", "ag_news", "--data", "sample", "--work", work)
    assert "rows  train  144" in done.stdout, done.stderr
    assert [path.name for path in work.iterdir()] == ["ag_news-sample"]
    where = run("where", "ag_news", "--data", "sample", "--work", work).stdout.strip()
    assert where == str(work / "ag_news-sample" / "tagger")
    assert run("where", "ag_news", "--work", work).stdout.strip() == str(work / "ag_news" / "tagger")


def test_fetch_says_what_it_brought(news, web, tmp_path):
    done = run("fetch", news.file, "--data", f"{web.url}/news.tgz")
    assert done.stdout.strip().endswith(f"→ {tmp_path}/raw/ag_news/news.tgz"), done.stderr
    failed = run("fetch", news.file)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: http://127.0.0.1:9/ag_news_csv.tgz: cannot be downloaded")
    assert failed.stderr.count("\n") == 1
    assert "no address to download from" in run("fetch", "scifi").stderr


# --- the service -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tables", "expected"), [
    ({"source": {"path": "/etc/passwd"}}, "source.path"), ({"source": {"path": "s3://bucket/rows.csv"}}, "source.path"),
    ({"source": {"path": "http://169.254.169.254/rows.csv"}}, "source.path"),
    ({"source": {"member": "rows.csv"}}, "source.member"),
    ({"source": {"test_member": "test.csv"}, "split": {"by": "file"}}, "source.test_member"),
    ({"source": {"test_path": "test.csv"}, "split": {"by": "file"}}, "source.test_path"),
    ({"source": {"url": "http://169.254.169.254/"}}, "source.url"),
    ({"sample": {"path": "/etc/passwd", "attribution": "a", "licence": "b"}}, "sample"),
])
def test_an_uploaded_task_names_no_place_of_rows(tmp_path, tables, expected):
    with pytest.raises(TagwrightError, match=expected):
        uploaded_task(write_task(tmp_path, "rows.csv", **tables), [])


def test_an_uploaded_task_may_be_one_of_ours():
    assert uploaded_task(ROOT / "tasks" / "cooking.toml", []).name == "cooking"


@pytest.mark.parametrize("place", ["/etc/passwd", "https://example.org/a.zip", "s3://bucket/a.zip", "data/sample", ""])
def test_a_training_job_takes_no_place_but_the_sample(place):
    assert TrainRequest(task="ag_news", data="sample").data == "sample"
    with pytest.raises(pydantic.ValidationError):
        TrainRequest(task="ag_news", data=place)


@pytest.mark.parametrize(("arguments", "expected"), [
    ({"task": "ag_news", "place": "sample"}, ("ag_news-sample", SAMPLE / "train.csv")),
    ({"task": "scifi", "place": None}, ("scifi", ROOT / "data" / "sample" / "scifi.jsonl")),
    ({"task": "scifi"}, ("scifi", ROOT / "data" / "sample" / "scifi.jsonl")),  # a job that an earlier version took
])
def test_a_training_job_cleans_the_rows_of_its_place(tmp_path, monkeypatch, arguments, expected):
    class Stop(Exception):
        pass

    def stop(task, folders, raw_path, **rest):
        raise Stop(task.name, raw_path or task.raw_path())

    monkeypatch.setattr(training, "run_pipeline", stop)
    with pytest.raises(Stop) as stopped:
        training.run(tmp_path, arguments | {"settings": {}}, None)
    assert stopped.value.args == expected


def test_make_passes_the_place_on():
    for target in ("demo", "gradio", "serve", "space"):
        told = subprocess.run(["make", "-n", target, "TASK=ag_news", "DATA=/a b/archive.zip", "SERVE=0"], cwd=ROOT,
                              capture_output=True, text=True).stdout
        assert 'ag_news --data "/a b/archive.zip"' in told
        plain_run = subprocess.run(["make", "-n", target, "TASK=ag_news", "SERVE=0"], cwd=ROOT, capture_output=True, text=True)
        assert "--data" not in plain_run.stdout
