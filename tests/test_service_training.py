"""Training jobs through a real worker: the curve, what goes live, and what happens to a training that is stopped."""

import json
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from service.registry import Registry
from service.settings import Settings
from service.training import promote
from services import Services, wait_for
from tiny import write_tiny

from tagwright.bundle import CARD, MANIFEST, read_bundle, write_bundle
from tagwright.pipeline import Folders
from tagwright.task import Task

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> Path:
    """A folder with a task file and its rows."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, rows=400)
    return folder


@pytest.fixture(scope="module")
def services(tmp_path_factory, tiny):
    running = Services(tmp_path_factory.mktemp("service"), encoders=json.dumps([str(tiny / "encoder")]))
    running.start("api")
    yield running
    running.stop()


def send(services: Services, folder: Path, rows: bytes | None = None, **settings) -> str:
    reply = services.http.post("/v1/jobs/train", data={"settings": json.dumps(settings)}, files={
        "task": ("books.toml", (folder / "books.toml").read_bytes()),
        "data": ("rows.jsonl", (folder / "rows.jsonl").read_bytes() if rows is None else rows)})
    assert reply.status_code == 202, reply.text
    return reply.json()["id"]


def models(services: Services) -> dict:
    return services.http.get("/v1/models").json()


def test_a_training_shows_its_curve_and_the_better_model_goes_live(services, tiny):
    worker = services.start("worker")
    first = services.ended(send(services, tiny, epochs=1), 180)
    assert (first["state"], first["error"]) == ("succeeded", None)
    assert models(services)["active"] == first["model"] == f"books-{first['id'][:8]}"
    assert "on its test rows, and it answers now" in first["message"]

    second = services.ended(send(services, tiny, epochs=4), 180)
    assert [point["epoch"] for point in second["curve"]] == [1, 2, 3, 4]
    assert set(second["curve"][0]) == {"epoch", "train_loss", "valid_loss", "micro_f1"}
    assert second["progress"]["done"] == second["progress"]["total"] > 4
    listed = models(services)
    assert (listed["active"], listed["previous"]) == (second["model"], first["model"])
    assert f"for {first['model']} on the same rows; {second['model']} answers now" in second["message"]
    wait_for(lambda: services.http.post("/v1/tags", json={"text": "cats1 cats2"}).json()["model"]["name"] == second["model"],
             5, "the new model's answers")

    third = services.ended(send(services, tiny, epochs=1), 180)
    assert third["state"] == "succeeded"
    assert f"{second['model']} answers now" in third["message"]
    assert models(services)["active"] == second["model"]
    assert third["model"] in [model["name"] for model in models(services)["models"]]
    assert worker.stop() == 0


def test_rows_that_cannot_be_trained_on_fail_in_words(services, tiny):
    worker = services.start("worker")
    job = services.ended(send(services, tiny, b'{"title": "no such field"}\n'), 60)
    assert job["state"] == "failed"
    assert "text" in job["error"]
    assert str(services.home) not in job["error"]
    worker.stop()


def children(process) -> list[psutil.Process]:
    return [child for child in psutil.Process(process.child.pid).children() if "service.work" in child.cmdline()]


def test_a_killed_worker_takes_its_training_with_it_and_the_next_one_goes_on(services, tiny):
    worker = services.start("worker")
    job = send(services, tiny, epochs=12)
    wait_for(lambda: len(services.job(job)["curve"]) >= 2, 120, "two epochs")
    (training,) = children(worker)
    psutil.Process(worker.child.pid).kill()  # it alone: the training must notice
    training.wait(10)
    worker.kill()
    before = len(services.job(job)["curve"])
    worker = services.start("worker")
    ended = services.ended(job, 240)
    assert (ended["state"], len(ended["curve"])) == ("succeeded", 12)
    log = (services.home / "data" / "jobs" / job / "work.log").read_text()
    assert before >= 2
    assert "Traceback" not in log
    worker.stop()


def test_a_training_that_is_cancelled_stops(services, tiny):
    worker = services.start("worker")
    job = send(services, tiny, epochs=50)
    wait_for(lambda: services.job(job)["curve"], 120, "an epoch")
    (training,) = children(worker)
    begun = time.monotonic()
    services.http.delete(f"/v1/jobs/{job}").raise_for_status()
    assert services.ended(job, 30)["state"] == "cancelled"
    assert time.monotonic() - begun < 15
    assert not training.is_running()
    assert models(services)["active"]
    worker.stop()


def test_what_was_promoted_before_a_kill_is_told_again(demo_run, tmp_path):
    registry = Registry(Settings(models=str(tmp_path / "models"), data=tmp_path))
    folders = Folders.of(Task.load("scifi"), demo_run.root.parent)
    first = promote("scifi-1", folders.tagger, folders.dataset, registry)
    again = promote("scifi-1", folders.tagger, folders.dataset, registry)
    assert first == again
    assert registry.state() == {"active": "scifi-1", "previous": None}
    equal = promote("scifi-2", folders.tagger, folders.dataset, registry)
    assert registry.state()["active"] == "scifi-1"  # as good is not better
    assert equal["message"].endswith("on the same rows; scifi-1 answers now")
    moved = tmp_path / "moved"
    shutil.copytree(folders.tagger, moved, copy_function=os.link, ignore=shutil.ignore_patterns(MANIFEST, CARD))
    write_bundle(moved, replace(read_bundle(folders.tagger), data="0" * 64))
    drawn = promote("scifi-4", moved, folders.dataset, registry)
    assert "on the same rows (it was trained on others, and may know some of these); scifi-1" in drawn["message"]
    sample = tmp_path / "sample"
    shutil.copytree(folders.tagger, sample, copy_function=os.link, ignore=shutil.ignore_patterns(MANIFEST, CARD))
    write_bundle(sample, replace(read_bundle(folders.tagger), task="scifi-sample"))
    other = promote("scifi-3", sample, folders.dataset, registry)
    assert registry.state()["active"] == "scifi-1"
    assert other["message"].endswith("scifi-1 is of another task, scifi, and goes on answering")
    assert read_bundle(registry.folder("scifi-2")).checksum == read_bundle(folders.tagger).checksum
