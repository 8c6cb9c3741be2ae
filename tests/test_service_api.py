"""The service over real HTTP: tags, models, jobs, and what it refuses."""

import json
import shutil
import socket
import threading
import time
from dataclasses import replace

import httpx
import pytest
import uvicorn
from service import jobs, uploads, worker
from service.api import create_app
from service.problems import Problem
from service.registry import Registry
from service.settings import Settings

from tagwright.bundle import read_bundle, write_bundle
from tagwright.errors import TagwrightError
from tagwright.tagger import Tagger

TITLE = "Did the Jedi Council ever consider training droids?"


class Service:
    """The API in a thread of this process."""

    def __init__(self, settings: Settings):
        self.settings, self.app = settings, create_app(settings)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.server = uvicorn.Server(uvicorn.Config(self.app, port=port, log_level="warning"))
        self.thread = threading.Thread(target=self.server.run)
        self.thread.start()
        while not self.server.started:
            time.sleep(0.02)
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def stop(self):
        self.http.close()
        self.server.should_exit = True
        self.thread.join()


@pytest.fixture(scope="module")
def model(demo_run):
    return demo_run.root / "tagger"


@pytest.fixture(scope="module")
def service(model, tmp_path_factory):
    home = tmp_path_factory.mktemp("service")
    settings = Settings(models=str(home / "models"), data=home / "data", max_upload=1_000_000)
    registry = Registry(settings)
    registry.add(model, "scifi")
    registry.activate("scifi")
    running = Service(settings)
    yield running
    running.stop()


def problem(reply: httpx.Response, status: int) -> str:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json()["status"] == status
    return reply.json()["detail"]


def test_a_text_gets_the_tags_that_the_tagger_gives(service, model):
    texts = [{"title": TITLE}, "robots", ""]
    reply = service.http.post("/v1/tags", json={"texts": texts, "top": 2})
    assert reply.status_code == 200
    found = [[tag["label"] for tag in result["tags"]] for result in reply.json()["results"]]
    assert found == [[label for label, _ in tags] for tags in Tagger.load(model).tag(texts)]
    assert "star-wars" in found[0]
    assert all(len(result["next"]) == 2 for result in reply.json()["results"])
    assert reply.json()["model"] == {"name": "scifi", "checksum": read_bundle(model).checksum}


def test_many_at_once_get_the_answers_of_one_alone(service):
    texts = [f"{TITLE} {number % 7}" for number in range(60)]
    alone = [service.http.post("/v1/tags", json={"text": text}).json()["results"][0] for text in texts[:7]]
    found = [None] * len(texts)

    def ask(number: int):
        with httpx.Client(base_url=service.http.base_url, timeout=60) as client:
            found[number] = client.post("/v1/tags", json={"text": texts[number]}).json()["results"][0]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(len(texts))]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    for number, result in enumerate(found):
        expected = alone[number % 7]
        assert [tag["label"] for tag in result["tags"]] == [tag["label"] for tag in expected["tags"]]
        assert all(abs(tag["score"] - other["score"]) < 0.002
                   for tag, other in zip(result["tags"], expected["tags"], strict=True))


@pytest.mark.parametrize(("content", "status"), [
    (b"", 422), (b"nonsense", 422), (b"[" * 100_000, 400), (b"\xff\xfe{}", 422), (b"null", 422), (b'{"text": NaN}', 422),
    (b'{"text": 1}', 422), (b'{"texts": []}', 422), (b'{"text": "a", "texts": ["b"]}', 422), (b'{"text": "a", "x": 1}', 422),
    (b'{"text": "a", "top": 1e400}', 422), (b'{"text": {"nothing": "a"}}', 422), (b'{"text": "a", "top": 51}', 422),
    (json.dumps({"texts": ["a"] * 257}).encode(), 422), (json.dumps({"text": "x" * 20_001}).encode(), 413),
    (b'{"text": "' + b"x" * 9_000_000 + b'"}', 413),
])
def test_bad_bodies_are_refused_in_words(service, content, status):
    reply = service.http.post("/v1/tags", content=content, headers={"Content-Type": "application/json"})
    assert problem(reply, status)


@pytest.mark.parametrize("text", ["\ud800", "\x00", "<script>alert(1)</script>", "🚀" * 5_000, "\u202e", "../../etc/passwd"])
def test_odd_texts_are_tagged(service, text):
    body = json.dumps({"text": text})  # a lone surrogate as its escape
    reply = service.http.post("/v1/tags", content=body, headers={"Content-Type": "application/json"})
    assert reply.status_code == 200
    assert len(reply.json()["results"]) == 1


def test_what_is_not_there_is_a_problem_too(service):
    assert problem(service.http.get("/v2"), 404)
    assert problem(service.http.get("/v1/tags"), 405)
    assert "scifi" in problem(service.http.get("/v1/models/other"), 404)
    assert problem(service.http.get("/v1/jobs/none"), 404)
    assert problem(service.http.get("/static/../../settings.py"), 404)
    assert problem(service.http.get("/static/%2e%2e/settings.py"), 404)


def test_labels_models_and_health(service):
    labels = service.http.get("/v1/labels").json()
    assert len(labels["labels"]) == 62
    models = service.http.get("/v1/models").json()
    assert (models["active"], [entry["name"] for entry in models["models"]]) == ("scifi", ["scifi"])
    assert service.http.get("/v1/models/scifi").json()["fields"] == ["title", "body"]
    assert service.http.get("/healthz").text == "ok"
    assert service.http.get("/readyz").text == "ready"
    service.http.post("/v1/tags", json={"text": "robots"})
    assert 'tagwright_requests_total{route="/v1/tags",status="200"}' in service.http.get("/metrics").text


def test_every_answer_has_the_headers_that_keep_pages_safe(service):
    for path in ("/", "/static/app.js", "/v1/models", "/nothing"):
        headers = service.http.get(path).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self'")
        assert headers["x-content-type-options"] == "nosniff"


def test_an_activation_changes_the_answers_and_can_be_taken_back(service, model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    write_bundle(other, replace(read_bundle(model), title="Another"))
    Registry(service.settings).add(other, "other")
    assert service.http.post("/v1/models/other/activate").json()["active"] is True
    assert service.http.post("/v1/tags", json={"text": TITLE}).json()["model"]["name"] == "other"
    assert service.http.get("/v1/models").json()["previous"] == "scifi"
    Registry(service.settings).activate("scifi")  # by another process
    deadline = time.monotonic() + 5
    while service.http.post("/v1/tags", json={"text": TITLE}).json()["model"]["name"] != "scifi":
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_corrupt_model_is_refused_and_the_running_one_goes_on(service, model):
    broken = Registry(service.settings).folder("scifi").with_name("broken")
    shutil.copytree(model, broken)
    with (broken / "onnx" / "model_quantized.onnx").open("r+b") as file:
        file.write(b"broken")
    assert "sha256 differs" in problem(service.http.post("/v1/models/broken/activate"), 409)
    assert service.http.get("/v1/models").json()["active"] == "scifi"
    assert service.http.post("/v1/tags", json={"text": TITLE}).json()["model"]["name"] == "scifi"
    shutil.rmtree(broken)


@pytest.mark.parametrize("name", ["..", "a/b", "A", ".hidden", "a" * 65, "%2e%2e"])
def test_names_lead_nowhere_else(service, name):
    assert service.http.post(f"/v1/models/{name}/activate").status_code in (404, 405)
    with pytest.raises(TagwrightError):
        Registry(service.settings).add(service.settings.data, name)


def test_another_site_may_not_activate(service):
    reply = service.http.post("/v1/models/scifi/activate", headers={"Origin": "https://evil.example"})
    assert "another site" in problem(reply, 403)


def test_a_token_is_needed_where_one_is_set(service):
    service.app.state.settings = service.settings.model_copy(update={"token": Settings(token="secret").token})
    try:
        assert problem(service.http.post("/v1/models/scifi/activate"), 401)
        assert problem(service.http.delete("/v1/jobs/x", headers={"Authorization": "Bearer wrong"}), 401)
        reply = service.http.post("/v1/models/scifi/activate", headers={"Authorization": "Bearer secret"})
        assert reply.status_code == 200
    finally:
        service.app.state.settings = service.settings


def test_a_client_that_asks_too_often_waits(service):
    service.app.state.settings = service.settings.model_copy(update={"requests_per_minute": 3})
    try:
        replies = [service.http.post("/v1/tags", json={"text": "robots"}) for _ in range(4)]
        assert [reply.status_code for reply in replies] == [200, 200, 200, 429]
        assert 0 < int(replies[-1].headers["retry-after"]) <= 60
    finally:
        service.app.state.settings = service.settings


def test_a_file_is_tagged_row_by_row(service, demo_run, monkeypatch):
    lines = demo_run.sample.read_text(encoding="utf8").splitlines()[:30]
    reply = service.http.post("/v1/jobs/tag", files={"file": ("../../rows.jsonl", "\n".join(lines))})
    assert reply.status_code == 202
    job = reply.json()
    assert (job["state"], reply.headers["location"]) == ("queued", f"/v1/jobs/{job['id']}")
    assert problem(service.http.get(f"/v1/jobs/{job['id']}/result"), 409)
    worker.Worker(service.settings).work(job["id"])
    job = service.http.get(f"/v1/jobs/{job['id']}").json()
    assert (job["state"], job["error"], job["progress"]["done"], job["model"]) == ("succeeded", None, 30, "scifi")
    rows = [json.loads(line) for line in service.http.get(job["result"]).text.splitlines()]
    assert [row["title"] for row in rows] == [json.loads(line)["title"] for line in lines]
    assert all(isinstance(row["tagwright_tags"], list) for row in rows)
    worker.Worker(service.settings).work(job["id"])  # a second message changes nothing
    assert service.http.get(f"/v1/jobs/{job['id']}").json()["state"] == "succeeded"
    assert service.http.delete(f"/v1/jobs/{job['id']}").status_code == 202
    assert problem(service.http.get(f"/v1/jobs/{job['id']}"), 404)


def test_a_job_that_fails_says_so(service):
    reply = service.http.post("/v1/jobs/tag", files={"file": ("rows.csv", "a,b\n1,2\n")})
    worker.Worker(service.settings).work(reply.json()["id"])
    job = service.http.get(f"/v1/jobs/{reply.json()['id']}").json()
    assert job["state"] == "failed"
    assert "no column 'title'" in job["error"]
    assert str(service.settings.data) not in job["error"]


def test_a_cancelled_job_is_not_begun(service):
    job = service.http.post("/v1/jobs/tag", files={"file": ("rows.txt", "robots\n")}).json()
    assert service.http.delete(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"
    worker.Worker(service.settings).work(job["id"])
    assert service.http.get(f"/v1/jobs/{job['id']}").json()["state"] == "cancelled"


def test_uploads_are_capped_and_of_known_forms(service):
    assert problem(service.http.post("/v1/jobs/tag", files={"file": ("a.csv", b"x" * 1_500_000)}), 413)
    assert problem(service.http.post("/v1/jobs/tag", files={"file": ("a.csv", b"x" * 3_000_000)}), 413)
    assert ".parquet" in problem(service.http.post("/v1/jobs/tag", files={"file": ("a.zip", b"PK")}), 422)
    assert problem(service.http.post("/v1/jobs/tag", content=b"x"), 415)
    assert not list((service.settings.data / "jobs").glob("*/*.partial"))


@pytest.mark.parametrize("url", [
    "http://127.0.0.1/a.csv", "http://[::1]/a.csv", "http://169.254.169.254/latest/a.csv", "file:///etc/passwd.csv",
    "http://user:secret@allowed.example/a.csv", "http://allowed.example.evil.example/a.csv", "gopher://allowed.example/a.csv",
])
def test_urls_lead_to_allowed_hosts_only(service, url):
    reply = service.http.post("/v1/jobs/tag", json={"url": url})
    assert reply.status_code in (403, 422)


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1", "::ffff:127.0.0.1",
                                     "0.0.0.0"])
def test_an_allowed_name_may_not_lead_into_a_private_network(monkeypatch, address):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [(socket.AF_INET, 1, 6, "", (address, 80))])
    with pytest.raises(Problem, match="not a public address"):
        uploads.public_address("allowed.example", 80)


def test_a_lease_that_has_run_out_passes_to_another_worker(tmp_path):
    store = jobs.SqliteJobs(tmp_path / "jobs.sqlite")
    job = store.add("tag", "rows.csv", {})
    assert store.claim(job.id, "first")
    assert store.claim(job.id, "second") is None
    store.change(job.id, lambda job: setattr(job, "heartbeat", time.time() - jobs.LEASE - 1))
    assert [entry.id for entry in store.unfinished() if entry.waiting] == [job.id]
    assert store.claim(job.id, "second")
    with pytest.raises(jobs.Lost):
        store.beat(job.id, "first", done=5)
    store.end(job.id, "first", "succeeded")
    assert store.get(job.id).state == "running"
    store.end(job.id, "second", "succeeded")
    assert store.get(job.id).state == "succeeded"
