"""The registry in S3, and several processes that use one: what is activated by one answers in all."""

import json
import re
import shutil
import time
from dataclasses import replace
from pathlib import Path

import httpx
import onnx
import pytest
from s3 import S3
from service.registry import Registry
from service.settings import Settings
from services import Services, wait_for
from words import make_words_model

from tagwright.bundle import Manifest, read_bundle, write_bundle
from tagwright.errors import TagwrightError


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_words_model(tmp_path_factory.mktemp("words") / "tagger")


@pytest.fixture(scope="module")
def other(model) -> Path:
    folder = model.with_name("other")
    shutil.copytree(model, folder)
    write_bundle(folder, replace(read_bundle(model), title="Other words"))
    return folder


@pytest.fixture
def bucket(monkeypatch):
    with S3() as s3:
        for name, value in s3.environment.items():
            monkeypatch.setenv(name, value)
        s3.client.create_bucket(Bucket="models")
        yield s3


@pytest.fixture
def start(tmp_path):
    running = []

    def start(**settings) -> Services:
        running.append(Services(tmp_path / f"service{len(running)}", **settings))
        return running[-1]

    yield start
    for services in running:
        services.stop()


def answers(services: Services) -> str:
    return services.http.post("/v1/tags", json={"text": "salt"}).json()["model"]["name"]


def test_models_in_s3_go_live_and_back_without_a_restart(bucket, start, model, other, tmp_path):
    registry = Registry(Settings(models="s3://models/all/of/them", data=tmp_path / "mine"))
    assert registry.names() == []
    registry.add(model, "words")
    registry.add(other, "other")
    registry.activate("words")
    services = start(models="s3://models/all/of/them")
    services.start("api")
    assert answers(services) == "words"
    listed = services.http.get("/v1/models").json()
    assert [(entry["name"], entry["bytes"] > 0) for entry in listed["models"]] == [("other", True), ("words", True)]
    assert services.http.post("/v1/models/other/activate").json()["active"] is True
    assert answers(services) == "other"
    registry.refresh()
    assert registry.model.name == "other"
    registry.activate("words")  # by another machine
    wait_for(lambda: answers(services) == "words", 10, "the model that was activated elsewhere")
    assert services.http.get("/v1/models").json()["previous"] == "other"


def test_a_damaged_model_in_s3_is_refused_and_without_s3_tags_go_on(bucket, start, model, other, tmp_path):
    registry = Registry(Settings(models="s3://models", data=tmp_path / "mine"))
    registry.add(model, "words")
    registry.activate("words")
    services = start(models="s3://models")
    services.start("api")
    registry.add(other, "other")
    digest = read_bundle(other).files["onnx/model_quantized.onnx"]
    bucket.client.put_object(Bucket="models", Key=f"other/files/{digest}", Body=b"something else")
    reply = services.http.post("/v1/models/other/activate")
    assert (reply.status_code, "sha256" in reply.json()["detail"]) == (409, True)
    assert answers(services) == "words"
    bucket.fault = lambda method, path: "AccessDenied"
    time.sleep(2)  # a look at the registry or two
    begun = time.monotonic()
    assert answers(services) == "words"
    assert time.monotonic() - begun < 1
    assert services.http.get("/readyz").status_code == 200
    reply = services.http.get("/v1/models")
    assert (reply.status_code, reply.headers["content-type"]) == (503, "application/problem+json")


def spoil(folder: Path, how: str) -> None:
    """Make a model whose files are whole, as its checksums say, and that cannot be run."""
    network = folder / "onnx" / "model_quantized.onnx"
    if how == "no network":
        network.write_bytes(b"no network at all")
    elif how == "an operator of the future":
        graph = onnx.load(network)
        graph.graph.node[0].op_type = "Foresee"
        onnx.save(graph, network)
    elif how == "no tokenizer":
        (folder / "tokenizer.json").write_text("{}")
    manifest = json.loads((folder / "tagwright.json").read_text())
    fields = {key: value for key, value in manifest.items() if key in Manifest.__dataclass_fields__ and key != "files"}
    if how == "other labels":
        fields |= {"labels": ["only", "two"], "thresholds": [0.5, 0.5]}
    write_bundle(folder, Manifest(**fields))


@pytest.mark.parametrize("how", ["no network", "an operator of the future", "no tokenizer", "other labels"])
def test_a_model_that_cannot_be_run_is_refused_and_the_running_one_goes_on(start, model, other, tmp_path, how):
    services = start()
    registry = Registry(Settings(models=str(services.home / "models")))
    registry.add(model, "words")
    registry.add(other, "other")
    registry.activate("words")
    services.start("api")
    shutil.copytree(model, tmp_path / "spoilt")
    spoil(tmp_path / "spoilt", how)
    registry.add(tmp_path / "spoilt", "spoilt")
    reply = services.http.post("/v1/models/spoilt/activate")
    assert (reply.status_code, reply.headers["content-type"]) == (409, "application/problem+json")
    assert "spoilt: cannot be run" in reply.json()["detail"]
    assert answers(services) == "words"
    (services.home / "models" / "active.json").write_text('{"active": "spoilt", "previous": "words"}')  # by whatever means
    time.sleep(2.5)
    assert answers(services) == "words"
    assert "cannot be run" in services.http.get("/v1/models/spoilt").json()["refused"]
    registry.activate("other")  # and the service still looks
    wait_for(lambda: answers(services) == "other", 5, "the next activation")


def test_one_that_was_refused_is_not_read_again_each_second(model, tmp_path, monkeypatch):
    registry = Registry(Settings(models=str(tmp_path / "models"), data=tmp_path / "data"))
    registry.add(model, "words")
    registry.activate("words")
    shutil.copytree(model, tmp_path / "spoilt")
    spoil(tmp_path / "spoilt", "no network")
    registry.add(tmp_path / "spoilt", "spoilt")
    (tmp_path / "models" / "active.json").write_text('{"active": "spoilt", "previous": "words"}')
    loads, load = [], Registry.load
    monkeypatch.setattr(Registry, "load", lambda self, name: loads.append(name) or load(self, name))
    for _ in range(3):
        registry.refresh()
    assert (loads, registry.model.name) == (["spoilt"], "words")
    later = time.monotonic() + 60
    monkeypatch.setattr("service.registry.time.monotonic", lambda: later)
    registry.refresh()
    assert loads == ["spoilt", "spoilt"]


def test_another_scheme_is_refused_in_words(tmp_path):
    with pytest.raises(TagwrightError, match="a folder or in s3://bucket/prefix"):
        Registry(Settings(models="hf://somebody/models", data=tmp_path))


def test_a_damaged_list_of_what_is_active_is_named_and_mended_by_an_activation(tmp_path, model):
    registry = Registry(Settings(models=str(tmp_path), data=tmp_path / "data"))
    registry.add(model, "words")
    registry.activate("words")
    (tmp_path / "active.json").write_text('{"active": "wor')
    registry.refresh()
    assert registry.model.name == "words"  # it goes on
    with pytest.raises(TagwrightError, match="active.json: damaged"):
        registry.state()
    registry.activate("words")
    assert json.loads((tmp_path / "active.json").read_text()) == {"active": "words", "previous": None}


def test_an_activation_reaches_every_process_of_the_api(start, model, other):
    services = start()
    registry = Registry(Settings(models=str(services.home / "models")))
    registry.add(model, "words")
    registry.add(other, "other")
    registry.activate("words")
    services.start("api", "--processes", "2")

    def seen() -> set[str]:
        """The models that answer on many connections of their own."""
        return {httpx.post(f"{services.http.base_url}/v1/tags", json={"text": "salt"}).json()["model"]["name"]
                for _ in range(30)}

    assert seen() == {"words"}
    services.http.post("/v1/models/other/activate").raise_for_status()
    time.sleep(2.5)
    assert seen() == {"other"}
    text = services.http.get("/metrics").text  # of both processes together
    assert 'tagwright_requests_total{route="/v1/tags",status="200"} 60.0' in text
    assert re.findall(r'tagwright_active_model\{.*name="(\w+)".*\} 1.0', text) == ["other"]
