"""A model that was published comes back byte for byte; what goes wrong half-way changes nothing for those who pull."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path

import pytest
from hub import CommitHub
from huggingface_hub import constants
from s3 import S3
from test_bundle import manifest

from tagwright import bundle, places
from tagwright.bundle import MANIFEST, read_bundle, write_bundle
from tagwright.errors import TagwrightError
from tagwright.publishing import publish, pull

FIRST = {"config.json": b"{}", "tokenizer.json": b'{"a": 1}', "onnx/model.onnx": bytes(range(256)) * 20, "old.txt": b"old",
         "empty": b""}
SECOND = {"config.json": b'{"b": 2}', "tokenizer.json": b'{"a": 1}', "onnx/model.onnx": bytes(range(255, -1, -1)) * 20,
          "onnx/model_quantized.onnx": b"new" * 1000}
COMMAND = [sys.executable, "-m", "tagwright.cli"]


def make_model(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    write_bundle(folder, manifest())
    (folder / "run.json").write_text("{}")
    (folder / "notes.txt").write_text("not the model's")
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def published(model: Path) -> dict[str, bytes]:
    """What a pull has to bring."""
    return {name: content for name, content in contents(model).items() if name not in ("run.json", "notes.txt")}


@pytest.fixture
def first(tmp_path):
    return make_model(tmp_path / "first", FIRST)


@pytest.fixture
def second(tmp_path):
    return make_model(tmp_path / "second", SECOND)


class FolderPlace:
    def __init__(self, tmp_path, monkeypatch):
        self.folder, self.monkeypatch = tmp_path / "published", monkeypatch
        self.to, self.environment = str(self.folder), {}

    def spoil(self, name):
        content = (self.folder / name).read_bytes()
        (self.folder / name).write_bytes(b"X" + content[1:])

    @contextlib.contextmanager
    def failing(self, number):
        """The `number`-th file cannot be written."""
        left = iter(range(number - 1))

        def copyfile(source, target, copy=shutil.copyfile):
            if next(left, None) is None:
                raise PermissionError(1, "a fault of the test", str(target))
            copy(source, target)

        with self.monkeypatch.context() as patched:
            patched.setattr(places.shutil, "copyfile", copyfile)
            yield


class RemotePlace:
    """The hub or S3, by its server."""

    WRITING = ("POST", "PUT")

    @contextlib.contextmanager
    def failing(self, number):
        """The `number`-th request that writes is refused."""
        left = iter(range(number - 1))
        self.server.fault = lambda method, path: (self.refusal if method in self.WRITING and next(left, None) is None else None)
        yield
        self.server.fault = lambda method, path: None

    def stalling(self, number):
        """The `number`-th request that writes, and those after it, are never answered; returns the event of its coming."""
        left, come = iter(range(number - 1)), threading.Event()

        def fault(method, path):
            if method in self.WRITING and next(left, None) is None:
                come.set()
                self.release.wait(30)
                return self.refusal
            return None

        self.server.fault, self.release = fault, threading.Event()
        return come


class HubPlace(RemotePlace):
    refusal = 400

    def __init__(self, server, monkeypatch):
        self.server, self.to = server, "hf://someone/books"
        self.environment = {"HF_ENDPOINT": server.url, "HF_TOKEN": server.TOKEN, "HF_HUB_OFFLINE": "0",
                            "HF_HUB_DISABLE_XET": "1"}
        monkeypatch.setenv("HF_TOKEN", server.TOKEN)
        use_hub(monkeypatch, server.url)

    def spoil(self, name):
        files = self.server.repos["someone/books"][-1][1]
        files[name] = b"X" + files[name][1:]


class BucketPlace(RemotePlace):
    refusal = "BadRequest"

    def __init__(self, server, monkeypatch, name):
        self.server, self.bucket, self.to = server, name, f"s3://{name}/models/books"
        self.environment = server.environment
        for key, value in server.environment.items():
            monkeypatch.setenv(key, value)
        server.client.create_bucket(Bucket=name)

    def keys(self):
        return {entry["Key"] for entry in self.server.client.list_objects_v2(Bucket=self.bucket).get("Contents", [])}

    def spoil(self, name):
        stored = self.server.client.get_object(Bucket=self.bucket, Key=f"models/books/{MANIFEST}")["Body"].read()
        key = f"models/books/files/{json.loads(stored)['files'][name]}"
        content = self.server.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        self.server.client.put_object(Bucket=self.bucket, Key=key, Body=b"X" + content[1:])


def use_hub(monkeypatch, url):
    """Point huggingface_hub, which reads its settings when it is imported, to another hub."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture(scope="module")
def s3_server():
    with S3() as server:
        yield server


@pytest.fixture
def hub(monkeypatch):
    with CommitHub() as server:
        yield HubPlace(server, monkeypatch)


@pytest.fixture
def s3(s3_server, monkeypatch, tmp_path):
    name = hashlib.sha256(str(tmp_path).encode()).hexdigest()[:20]
    yield BucketPlace(s3_server, monkeypatch, name)
    s3_server.fault = lambda method, path: None


@pytest.fixture(params=["folder", "hub", "s3"])
def place(request, tmp_path, monkeypatch):
    return FolderPlace(tmp_path, monkeypatch) if request.param == "folder" else request.getfixturevalue(request.param)


@pytest.fixture(params=["hub", "s3"])
def remote(request):
    return request.getfixturevalue(request.param)


def refusal(function, *arguments) -> str:
    with pytest.raises(TagwrightError) as error:
        function(*arguments)
    return str(error.value)


def test_a_published_model_comes_back_byte_for_byte(place, first, second, tmp_path):
    for model in (first, second, second, first):
        assert publish(model, place.to).files == pull(place.to, tmp_path / "pulled").files
        assert contents(tmp_path / "pulled") == published(model)
        assert read_bundle(tmp_path / "pulled").title == manifest().title
    assert not list(tmp_path.glob(".*"))


def test_a_publish_that_fails_anywhere_leaves_the_version_before_whole(place, first, second, tmp_path):
    publish(first, place.to)
    for number in range(1, 30):
        with place.failing(number):
            try:
                publish(second, place.to)
            except TagwrightError:
                failed = number
            else:
                break
        pull(place.to, tmp_path / "pulled")
        assert contents(tmp_path / "pulled") == published(first)
    assert 3 <= failed < 29  # S3 keeps what a failed publish has brought, so the next one writes less
    pull(place.to, tmp_path / "pulled")
    assert contents(tmp_path / "pulled") == published(second)


def test_s3_changes_with_the_manifest_and_not_before(s3, first, second, tmp_path):
    publish(first, s3.to)
    s3.server.fault = lambda method, path: "BadRequest" if method == "PUT" and path.endswith(MANIFEST) else None
    assert "a fault of the test" in refusal(publish, second, s3.to)
    s3.server.fault = lambda method, path: None
    pull(s3.to, tmp_path / "pulled")
    assert contents(tmp_path / "pulled") == published(first)


@pytest.mark.parametrize("number", [2, 5])
def test_a_killed_publish_leaves_the_version_before_whole(remote, first, second, tmp_path, number):
    publish(first, remote.to)
    come = remote.stalling(number)
    code = f"from tagwright.publishing import publish; publish({str(second)!r}, {remote.to!r})"
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | remote.environment)
    assert come.wait(30)
    process.kill()
    process.wait()
    remote.server.fault = lambda method, path: None
    remote.release.set()
    pull(remote.to, tmp_path / "pulled")
    assert contents(tmp_path / "pulled") == published(first)
    publish(second, remote.to)
    pull(remote.to, tmp_path / "pulled")
    assert contents(tmp_path / "pulled") == published(second)


@pytest.mark.parametrize("number", [1, 4])
def test_a_publish_to_a_folder_and_a_pull_may_be_killed(first, second, tmp_path, number):
    publish(first, str(tmp_path / "published"))
    code = (f"import os, shutil, signal; copy, left = shutil.copyfile, iter(range({number} - 1)); "
            "shutil.copyfile = lambda *names: (copy(*names) if next(left, None) is not None "
            "else os.kill(os.getpid(), signal.SIGKILL)); "
            f"from tagwright.publishing import publish; publish({str(second)!r}, {str(tmp_path / 'published')!r})")
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert contents(tmp_path / "published") == published(first)
    publish(second, str(tmp_path / "published"))
    assert contents(tmp_path / "published") == published(second)
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["onnx/model.onnx", "config.json", MANIFEST])
def test_a_spoilt_file_is_refused_by_name(place, first, second, tmp_path, name):
    publish(first, str(tmp_path / "pulled"))
    publish(second, place.to)
    if name == MANIFEST and isinstance(place, BucketPlace):
        changed = (second / MANIFEST).read_bytes().replace(b"64", b"65")
        place.server.client.put_object(Bucket=place.bucket, Key=f"models/books/{MANIFEST}", Body=changed)
    else:
        place.spoil(name)
    message = refusal(pull, place.to, tmp_path / "pulled")
    assert f"{place.to}" in message
    assert name in message
    assert ".partial" not in message
    assert contents(tmp_path / "pulled") == published(first)
    assert not (tmp_path / "new").exists()
    refusal(pull, place.to, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_damaged_model_is_not_published(place, first, second, tmp_path):
    publish(first, place.to)
    (second / "config.json").write_bytes(b"{} ")
    assert "config.json: changed" in refusal(publish, second, place.to)
    pull(place.to, tmp_path / "pulled")
    assert contents(tmp_path / "pulled") == published(first)


@pytest.mark.parametrize("name", [
    "../outside", "/tmp/outside", "a/../../outside", "..", ".", "", "a//b", "./a", "a/", "a\\b", "..\\outside", "C:outside",
    ".git/hooks/post-checkout", "a/.hidden", "a\nb", "a\x00b", "config.json/b", f"{MANIFEST}/b",
], ids=ascii)
def test_an_unsafe_name_is_refused(first, tmp_path, name):
    other = bundle.read_manifest((first / MANIFEST).read_bytes(), "")
    other.files[name] = hashlib.sha256(b"").hexdigest()
    (first / MANIFEST).write_bytes(bundle._sealed(asdict(other)))
    before = contents(tmp_path)
    assert f"{name!r} is no safe name" in refusal(pull, str(first), tmp_path / "pulled")
    assert contents(tmp_path) == before
    assert not (tmp_path / "pulled").exists()


@pytest.mark.parametrize("files", [["a"], {"a": 1}, {"a": "../../secret"}], ids=repr)
def test_a_list_of_files_of_another_shape_is_refused(first, tmp_path, files):
    values = json.loads((first / MANIFEST).read_bytes()) | {"files": files}
    (first / MANIFEST).write_bytes(bundle._sealed(values))
    assert str(first) in refusal(pull, str(first), tmp_path / "pulled")


def test_nothing_but_a_model_is_replaced(first, tmp_path):
    (tmp_path / "mine").mkdir()
    publish(first, str(tmp_path / "mine"))  # empty
    publish(first, str(tmp_path / "mine"))  # a model
    for name in ("photos/one.jpg", "file"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("precious")
    before = contents(tmp_path)
    for target in ("photos", "file"):
        assert "no model folder; it is not replaced" in refusal(pull, str(first), tmp_path / target)
        assert "no model folder; it is not replaced" in refusal(publish, first, str(tmp_path / target))
    assert "the model folder itself" in refusal(publish, first, str(tmp_path / "photos" / ".." / "first"))
    assert contents(tmp_path) == before


def test_a_link_to_a_model_stays_a_link(first, second, tmp_path):
    publish(first, str(tmp_path / "there"))
    (tmp_path / "link").symlink_to("there")
    pull(str(second), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "there") == published(second)


@pytest.mark.filterwarnings("ignore:Not enough free disk space")
def test_a_manifest_or_a_model_that_is_too_big_is_refused(place, first, tmp_path, monkeypatch):
    publish(first, place.to)
    with monkeypatch.context() as patched:
        patched.setattr(places, "MAX_MANIFEST", 100)
        assert "which no manifest of ours has" in refusal(pull, place.to, tmp_path / "pulled")
    if not isinstance(place, FolderPlace):
        monkeypatch.setattr(places.shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10_000, 9_000, 1_000))
        assert "MB free; free some" in refusal(pull, place.to, tmp_path / "pulled")
    assert not (tmp_path / "pulled").exists()


def test_the_hub_keeps_what_is_not_the_models(hub, first, second):
    hub.server.commit("someone/books", {".gitattributes": b"", "pictures/one.png": b"png"})
    publish(first, hub.to)
    publish(second, hub.to)
    assert len(hub.server.repos["someone/books"]) == 3  # a commit each
    assert hub.server.repos["someone/books"][-1][1].keys() == published(second).keys() | {".gitattributes", "pictures/one.png"}


def test_a_commit_that_came_between_is_not_overwritten(hub, first, second):
    publish(first, hub.to)

    def fault(method, path):
        if "/preupload/" in path:
            hub.server.commit("someone/books", dict(hub.server.repos["someone/books"][-1][1]))

    hub.server.fault = fault
    assert "another commit has come meanwhile" in refusal(publish, second, hub.to)


def test_pulling_sees_one_commit_of_the_hub(hub, first, second, tmp_path):
    """A version that is published while another is being pulled is not mixed with it."""
    publish(first, hub.to)
    later = {"README.md": b"another"}

    def fault(method, path):
        if "/resolve/" in path:
            hub.server.commit("someone/books", later)

    hub.server.fault = fault
    pull(hub.to, tmp_path / "pulled")
    assert contents(tmp_path / "pulled") == published(first)


def test_s3_keeps_the_version_before_and_no_older_one(s3, first, second, tmp_path, monkeypatch):
    third = make_model(tmp_path / "third", {"config.json": b"3"})
    mine = {"models/books/files/mine.txt", "models/books2"}
    for key in mine:
        s3.server.client.put_object(Bucket=s3.bucket, Key=key, Body=b"")
    keys = {}
    for model in (first, second, third):
        publish(model, s3.to)
        keys[model] = {f"models/books/files/{digest}" for digest in read_bundle(model).files.values()}
    pointer = {f"models/books/{MANIFEST}"}
    assert s3.keys() == keys[first] | keys[second] | keys[third] | pointer | mine  # young: a publish beside may want them
    monkeypatch.setattr(places, "KEPT", timedelta(0))
    publish(third, s3.to)
    assert s3.keys() == keys[third] | pointer | mine
    publish(second, s3.to)
    assert s3.keys() == keys[second] | keys[third] | pointer | mine


def test_s3_gets_only_what_it_lacks(s3, first, second):
    asked = []
    publish(first, s3.to)
    s3.server.fault = lambda method, path: asked.append(path) if method == "PUT" else None
    publish(first, s3.to)
    assert asked == [f"/{s3.bucket}/models/books/{MANIFEST}"]
    s3.spoil("config.json")  # stored without a checksum, as by another tool
    asked.clear()
    publish(first, s3.to)
    assert len(asked) == 2


def test_s3_gets_anew_what_another_publish_may_be_removing(s3, first, second, tmp_path, monkeypatch):
    asked = []
    third = make_model(tmp_path / "third", {"config.json": b"3"})
    for model in (first, second, third):
        publish(model, s3.to)
    s3.server.fault = lambda method, path: asked.append(path) if method == "PUT" else None
    publish(second, s3.to)  # whose files are young
    assert len(asked) == 1
    publish(third, s3.to)
    asked.clear()
    monkeypatch.setattr(places, "KEPT", timedelta(0))
    publish(first, s3.to)
    assert len(asked) == 1 + len(set(read_bundle(first).files.values()))


def test_whoever_pulls_while_a_version_vanishes_is_told_so(s3, first, tmp_path):
    publish(first, s3.to)
    digest = read_bundle(first).files["config.json"]
    s3.server.client.delete_object(Bucket=s3.bucket, Key=f"models/books/files/{digest}")
    assert "its file config.json is missing" in refusal(pull, s3.to, tmp_path / "pulled")


def test_what_is_no_model_is_told_so(hub, s3, first, tmp_path, monkeypatch):
    hub.server.commit("someone/other", {"README.md": b""})
    for source in ("hf://someone/other", f"s3://{s3.bucket}/other", str(tmp_path)):
        assert refusal(pull, source, tmp_path / "new").startswith(f"{source}: no Tagwright model")
    assert "hf://someone/nothing: not there, or no access to it" in refusal(pull, "hf://someone/nothing", tmp_path / "new")
    assert "named hf://user/name" in refusal(pull, "hf://books", tmp_path / "new")
    assert "hf://someone/.." in refusal(publish, first, "hf://someone/..")
    assert "no such bucket" in refusal(pull, "s3://nowhere-at-all/books", tmp_path / "new")
    assert "no such bucket" in refusal(publish, first, "s3://nowhere-at-all/books")
    assert "s3:///books" in refusal(publish, first, "s3:///books")
    assert "unknown scheme gs://" in refusal(publish, first, "gs://bucket/books")
    s3.server.fault = lambda method, path: "AccessDenied"
    assert "no access (AccessDenied)" in refusal(pull, s3.to, tmp_path / "new")
    s3.server.fault = lambda method, path: "AccessDenied" if method == "PUT" else None
    assert "no access (AccessDenied)" in refusal(publish, first, s3.to)
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    assert "no access to it; check the name, and log in" in refusal(publish, first, hub.to)
    hub.server.fault = lambda method, path: 418
    assert "the hub answers 418" in refusal(pull, hub.to, tmp_path / "new")


def test_a_server_that_is_not_there_is_told_so(hub, s3, first, tmp_path, monkeypatch):
    with socket.socket() as closed:  # bound, and listening to nobody
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL", nobody)
        use_hub(monkeypatch, nobody)
        for place, name in ((s3, "S3"), (hub, "the hub")):
            assert f"{place.to}: {name} cannot be reached" in refusal(publish, first, place.to)
            assert f"{place.to}: {name} cannot be reached" in refusal(pull, place.to, tmp_path / "new")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "unset the `HF_HUB_OFFLINE`" in refusal(pull, hub.to, tmp_path / "new")


def test_the_commands_say_in_a_line_what_they_did_or_what_was_wrong(hub, s3, first, tmp_path):
    """Each in a process of its own, with nothing of this one's settings; all at once, since starting takes longest."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "HF_"))}
    plain |= {"HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    publish(first, s3.to)
    cases = {
        "published books: 7 files → hf://someone/new": (["publish", first, "--to", "hf://someone/new"], hub.environment),
        "pulled books: 2 labels, 7 files → ": (["pull", s3.to, tmp_path / "pulled"], s3.environment),
        "no credentials": (["publish", first, "--to", s3.to], {"AWS_ENDPOINT_URL": s3.server.url}),
        "and log in (": (["publish", first, "--to", hub.to], hub.environment | {"HF_TOKEN": ""}),
    }
    runs = {said: subprocess.Popen([*COMMAND, *map(str, arguments)], env=plain | environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            for said, (arguments, environment) in cases.items()}
    for said, process in runs.items():
        output, errors = process.communicate(timeout=60)
        if said.startswith("pu"):
            assert (process.returncode, errors, output.count("\n")) == (0, "", 1)
            assert output.startswith(said)
        else:
            assert (process.returncode, output, errors.count("\n")) == (2, "", 1)
            assert errors.startswith("error: ")
            assert said in errors
    assert contents(tmp_path / "pulled") == published(first)
