"""Jobs through real processes: workers, Redis and the API are killed and started again while a file is tagged."""

import csv
import io
import json
import os
import random
import signal
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from service.jobs import LEASE, JobStore, Unavailable, folder_of, open_store
from service.registry import Registry
from service.settings import Settings
from service.worker import TRIES, Heart, Worker
from services import Redis, Services, wait_for
from words import expected, make_rows, make_words_model

from tagwright.stage import alone

ROWS = 100_000


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_words_model(tmp_path_factory.mktemp("words") / "tagger")


@pytest.fixture
def redis_server(tmp_path):
    server = Redis(tmp_path)
    server.start()
    yield server
    server.process.kill()


@pytest.fixture(params=["sqlite", "redis"])
def url(request) -> str | None:
    """Of the store: None for SQLite."""
    return request.getfixturevalue("redis_server").url if request.param == "redis" else None


@pytest.fixture
def start(tmp_path, model):
    """Starts services in a folder of the test's, whose registry has one model."""
    running = []

    def start(redis_url: str | None = None, **settings) -> Services:
        services = Services(tmp_path / "service", redis_url, **settings)
        running.append(services)
        registry = Registry(Settings(models=str(tmp_path / "service" / "models")))
        registry.add(model, "words")
        registry.activate("words")
        return services

    yield start
    for services in running:
        services.stop()


def rows_csv(count: int, seed: int = 0) -> tuple[list[dict], str]:
    rows, file = make_rows(count, seed), io.StringIO(newline="")
    writer = csv.DictWriter(file, rows[0])
    writer.writeheader()
    writer.writerows(rows)
    return rows, file.getvalue()


def send(services: Services, content: str, name: str = "rows.csv") -> str:
    reply = services.http.post("/v1/jobs/tag", files={"file": (name, content.encode())})
    assert reply.status_code == 202, reply.text
    return reply.json()["id"]


def check(services: Services, job: dict, rows: list[dict]) -> None:
    """Every row is there, once, in order, with its tags."""
    assert (job["state"], job["error"]) == ("succeeded", None)
    assert (job["progress"]["done"], job["counts"]["written"]) == (len(rows), len(rows))
    found = list(csv.DictReader(io.StringIO(services.http.get(job["result"]).text)))
    assert [int(row["id"]) for row in found] == [row["id"] for row in rows]
    assert all(set(json.loads(result["tags"])) == expected(row) for row, result in zip(rows, found, strict=True))


@pytest.mark.long
def test_a_worker_is_killed_and_the_next_one_goes_on(start, url):
    services = start(url)
    services.start("api")
    rows, content = rows_csv(ROWS)
    worker = services.start("worker")
    job = send(services, content)
    services.running(job, 3_000)
    worker.kill()
    parts = sorted((services.home / "data" / "jobs" / job).glob(".tagged.csv.parts/*.parquet"))
    before = {part: part.stat().st_mtime_ns for part in parts}
    assert len(before) >= 2
    services.start("worker")
    time.sleep(3)
    assert services.job(job)["state"] == "running"  # still the dead worker's, until its lease runs out
    wait_for(lambda: services.job(job)["progress"]["done"] >= 40_000, LEASE + 30, "the second worker")
    assert {part: part.stat().st_mtime_ns for part in parts} == before  # what was tagged is not tagged again
    check(services, services.ended(job), rows)


@pytest.mark.long
def test_a_worker_that_is_told_to_end_gives_its_job_up_at_once(start):
    services = start()
    services.start("api")
    rows, content = rows_csv(60_000)
    worker = services.start("worker")
    job = send(services, content)
    services.running(job, 3_000)
    begun = time.monotonic()
    assert worker.stop() == 0
    assert services.job(job)["state"] == "queued"
    services.start("worker")
    wait_for(lambda: services.job(job)["state"] != "queued", LEASE, "the second worker")
    assert time.monotonic() - begun < LEASE + 8
    check(services, services.ended(job), rows)


@pytest.mark.long
def test_redis_the_api_and_the_worker_are_killed_at_random_moments(start, redis_server):
    services = start(redis_server.url)
    chance = random.Random(11)
    api, worker = services.start("api"), services.start("worker")
    rows, content = rows_csv(150_000)
    job = send(services, content)
    later = send(services, "title\nsalt and rice\n")
    victims = ["redis", "api", "worker", "redis"]
    for victim, share in zip(victims, sorted(chance.uniform(0.02, 0.5) for _ in victims), strict=True):
        assert services.running(job, int(share * len(rows)))["state"] == "running"
        if victim == "redis":
            redis_server.process.kill()
            time.sleep(chance.uniform(0.2, 2))
            redis_server.start()
        elif victim == "api":
            api.kill()
            api = services.start("api")
        else:
            worker.kill()
            worker = services.start("worker")
    check(services, services.ended(job), rows)
    assert services.ended(later)["counts"]["written"] == 1


@pytest.mark.parametrize("is_hung", [False, True])
def test_without_redis_tags_go_on_and_jobs_wait(start, redis_server, is_hung):
    services = start(redis_server.url)
    services.start("api")
    accepted = send(services, "title\nsalt and rice\n")
    if is_hung:
        os.kill(redis_server.process.child.pid, signal.SIGSTOP)
    else:
        redis_server.process.kill()
    assert services.http.post("/v1/tags", json={"text": "salt"}).json()["results"][0]["tags"][0]["label"] == "salt"
    for method, path, body in (("POST", "/v1/jobs/tag", {"files": {"file": ("rows.csv", b"title\nsalt\n")}}),
                               ("GET", f"/v1/jobs/{accepted}", {}), ("GET", "/v1/jobs", {}),
                               ("DELETE", f"/v1/jobs/{accepted}", {})):
        begun = time.monotonic()
        reply = services.http.request(method, path, **body)
        assert time.monotonic() - begun < 3
        assert (reply.status_code, reply.headers["content-type"]) == (503, "application/problem+json")
        assert "none that was accepted is lost" in reply.json()["detail"]
        assert int(reply.headers["retry-after"]) > 0
    assert services.http.get("/healthz").status_code == services.http.get("/readyz").status_code == 200
    assert [folder.name for folder in (services.home / "data" / "jobs").iterdir()] == [accepted]  # no refused upload is left
    if is_hung:
        os.kill(redis_server.process.child.pid, signal.SIGCONT)
    else:
        redis_server.start()
    services.start("worker")
    assert services.ended(accepted)["counts"] == {"rows": 1, "written": 1, "rejected": {}}


@pytest.mark.long
def test_several_workers_share_the_jobs(start, url):
    services = start(url)
    services.start("api")
    workers = [services.start("worker"), services.start("worker")]
    store = open_store(Settings(data=services.home / "data", redis=url))
    sent = [(rows, send(services, content)) for rows, content in (rows_csv(15_000, seed) for seed in range(4))]
    names = set()
    while not all(store.get(job).ended for _, job in sent):
        names |= {store.get(job).worker for _, job in sent} - {None}
        time.sleep(0.05)
    assert len(names) == len(sent)  # each was taken once
    times = sorted((job["started"], job["finished"]) for job in (services.job(job) for _, job in sent))
    assert times[1][0] < times[0][1]  # two at the same time
    for rows, job in sent:
        check(services, services.job(job), rows)
    assert [worker.stop() for worker in workers] == [0, 0]


def test_one_command_serves_all_and_ends_as_a_whole(start, model):
    services = start()
    whole = services.start("all")
    job = send(services, "title\nsalt and rice\nbread\n")
    assert services.ended(job)["counts"]["written"] == 2
    group = whole.child.pid
    assert whole.stop() == 0
    with pytest.raises(ProcessLookupError):
        os.killpg(group, 0)


def test_a_running_job_can_be_cancelled(start):
    services = start()
    services.start("api")
    services.start("worker")
    job = send(services, rows_csv(100_000)[1])
    services.running(job)
    assert services.http.delete(f"/v1/jobs/{job}").status_code == 202
    assert services.ended(job, 20)["state"] == "cancelled"
    wait_for(lambda: not (services.home / "data" / "jobs" / job).exists(), 5, "the files to go")
    assert services.http.delete(f"/v1/jobs/{job}").status_code == 202
    assert services.http.get(f"/v1/jobs/{job}").status_code == 404


# --- one worker, in this process ----------------------------------------------------------------------------------


@pytest.fixture
def worker(tmp_path, model, url) -> Worker:
    settings = Settings(models=str(tmp_path / "models"), data=tmp_path / "data", redis=url)
    Registry(settings).add(model, "words")
    Registry(settings).activate("words")
    return Worker(settings)


def queued(worker: Worker, content: str = "title\nsalt\n"):
    job = worker.store.add("tag", "rows.csv", {"file": "input.csv", "text": None})
    folder_of(worker.settings, job.id).mkdir(parents=True)
    (folder_of(worker.settings, job.id) / "input.csv").write_text(content)
    return job


def test_a_fault_that_may_pass_is_tried_again_ever_later(worker, monkeypatch):
    job = queued(worker)
    monkeypatch.setattr("service.worker.supervise", lambda *_: (_ for _ in ()).throw(OSError("OSError: Input/output error")))
    waits = []
    for _ in range(TRIES):
        worker.store.change(job.id, lambda job: setattr(job, "not_before", 0.0))
        worker.work(job.id)
        found = worker.store.get(job.id)
        waits.append(found.not_before - time.time())
    assert all(later > sooner * 1.5 for sooner, later in zip(waits[:-2], waits[1:-1], strict=True))
    assert (found.state, found.error) == ("failed", "failed 5 times, at last with OSError: Input/output error")
    monkeypatch.undo()
    job = queued(worker)
    worker.store.change(job.id, lambda job: setattr(job, "not_before", time.time() + 60))
    worker.work(job.id)  # too early
    assert worker.store.get(job.id).state == "queued"


def test_a_defect_fails_the_job_in_words_and_is_logged(worker, monkeypatch):
    job = queued(worker)
    monkeypatch.setattr("service.worker.supervise", lambda *_: {}["secret"])
    with pytest.raises(KeyError):
        worker.work(job.id)
    found = worker.store.get(job.id)
    assert (found.state, found.error) == ("failed", "the worker failed at this job (KeyError); its log says why")


def test_a_job_that_another_worker_still_writes_waits(worker):
    job = queued(worker)
    with alone(folder_of(worker.settings, job.id) / ".tagged.csv.parts", "tagwright tag"):
        worker.work(job.id)
        assert worker.store.get(job.id).state == "queued"
    worker.store.change(job.id, lambda job: setattr(job, "not_before", 0.0))
    worker.work(job.id)
    assert worker.store.get(job.id).state == "succeeded"


def test_a_job_that_takes_too_long_fails(worker, monkeypatch):
    monkeypatch.setattr(worker.settings, "max_job_hours", 0)
    job = queued(worker)
    worker.work(job.id)
    assert "took longer than 0 hours" in worker.store.get(job.id).error


def test_what_a_job_ended_as_is_told_when_the_store_is_back(worker, monkeypatch):
    job, end, refusals = queued(worker), JobStore.end, []

    def unreachable_twice(self, *args, **fields):
        if len(refusals) < 2:
            refusals.append(args)
            raise Unavailable("down")
        end(self, *args, **fields)

    monkeypatch.setattr("service.worker.WATCH", 0.05)
    monkeypatch.setattr(JobStore, "end", unreachable_twice)
    worker.work(job.id)
    assert (len(refusals), worker.store.get(job.id).state) == (2, "succeeded")


def test_results_expire_then_jobs_and_uploads_that_broke_off(worker):
    ages = {}
    for hours in (1, 25, 24 * 9):
        job = queued(worker)
        worker.work(job.id)
        worker.store.change(job.id, lambda job, hours=hours: setattr(job, "finished", time.time() - hours * 3600))
        ages[hours] = job.id
    waiting, broken = queued(worker), folder_of(worker.settings, "0123456789abcdef")
    broken.mkdir()
    for folder in (broken, folder_of(worker.settings, waiting.id)):
        os.utime(folder, (0, 0))
    worker.sweep()
    left = {folder.name for folder in folder_of(worker.settings, "").iterdir()}
    assert left == {ages[1], waiting.id}
    assert [bool(worker.store.get(job)) for job in ages.values()] == [True, True, False]
    assert {job.id for job in worker.store.newest()} == {ages[1], ages[25], waiting.id}
    assert worker.store.get(ages[25]).state == "succeeded"


def test_only_a_job_that_nobody_has_is_rung_for(worker, monkeypatch):
    rung = []
    monkeypatch.setattr("service.worker.ring", lambda settings, job: rung.append(job))
    monkeypatch.setattr("service.worker.WATCH", 0.01)

    def watch_for_a_moment():
        looks = iter([False, True])
        monkeypatch.setattr(worker.ending, "wait", lambda seconds: next(looks))
        worker.watch()

    new, old, early = queued(worker), queued(worker), queued(worker)
    for job, field, value in ((old, "created", time.time() - 60), (early, "created", time.time() - 60),
                              (early, "not_before", time.time() + 60)):
        worker.store.change(job.id, lambda job, field=field, value=value: setattr(job, field, value))
    watch_for_a_moment()
    assert rung == [old.id]  # the new one's message is on its way
    with worker.busy:
        watch_for_a_moment()
    assert rung == [old.id]
    worker.work(new.id)
    worker.work(old.id)
    watch_for_a_moment()
    assert rung == [old.id]


def test_progress_is_told_while_a_file_is_tagged(worker, monkeypatch):
    told = []
    monkeypatch.setattr(Heart, "tell", lambda self, **fields: told.append(fields))
    job = queued(worker, rows_csv(60_000)[1])
    worker.work(job.id)
    done = [fields["done"] for fields in told if "done" in fields]
    assert done == sorted(done)
    assert len(set(done)) > 3
    assert all(fields == {"model": "words", "done": fields["done"], "total": 60_000} for fields in told if fields)
    assert worker.store.get(job.id).done == 60_000


def test_a_process_that_is_killed_is_tried_again_and_a_worker_that_dies_with_it_not_for_ever(worker, monkeypatch):
    job = queued(worker, rows_csv(60_000)[1])
    supervised = threading.Thread(target=worker.work, args=[job.id])
    supervised.start()
    wait_for(lambda: worker.store.get(job.id).done, 30, "some rows")
    for child in psutil.Process().children():
        if "service.work" in child.cmdline():
            child.kill()
    supervised.join()
    found = worker.store.get(job.id)
    assert (found.state, found.tries) == ("queued", 1)
    assert "ended by signal 9" in found.message
    for number in range(TRIES + 1):
        worker.store.claim(job.id, f"worker {number} that dies")
        worker.store.change(job.id, lambda job: setattr(job, "heartbeat", 0.0) or setattr(job, "not_before", 0.0))
    found = worker.store.get(job.id)
    assert (found.state, found.error) == ("failed", "5 workers have ended in the midst of it")
    assert worker.store.claim(job.id, "another") is None


@pytest.mark.long
@pytest.mark.parametrize("rows", [2_000, 1_000_000])
def test_a_file_that_is_made_to_fill_the_memory_fails_alone(worker, rows):
    """Four bytes in the file are gigabytes in memory: one long text, given in each row by its number."""
    job = worker.store.add("tag", "bomb.parquet", {"file": "input.parquet", "text": "text"})
    folder_of(worker.settings, job.id).mkdir(parents=True)
    texts = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["salt " * 800_000]))
    pq.write_table(pa.table({"text": texts}), folder_of(worker.settings, job.id) / "input.parquet", store_schema=False)
    begun = time.monotonic()
    worker.work(job.id)
    found = worker.store.get(job.id)
    assert found.state == "failed"
    assert time.monotonic() - begun < 60
    assert "realloc of size" in found.error or "memory" in found.error
