"""The service's page in a real headless Chromium: what a visitor sees and does with mouse, keys and screen reader.

The page talks to a small stand-in of the service's API, whose jobs go on by a script. With `TAGWRIGHT_PAGE_URL=http://…` the
tests that need no script run against a service that is up there, with a model that is active, on its own machine.
"""

import json
import os
import shutil
import socket
import threading
import time
import urllib.request
from asyncio import sleep
from datetime import UTC, datetime

import pytest
import uvicorn
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from service.registry import Registry
from service.settings import Settings
from services import Services
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from tiny import write_tiny
from words import make_rows, make_words_model

from tagwright.task import ROOT

STATIC = ROOT / "deployment" / "service" / "static"
CSP = ("default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
       "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
       "require-trusted-types-for 'script'; trusted-types 'none'")  # the last two: a string for innerHTML is an error
TOKEN = "a-token-of-the-test"
MARKUP = "<img src=x onerror='window.hacked = 1'>"
EXAMPLES = [{"title": "Did the Jedi Council ever consider training droids?", "body": "Battle droids can fight."},
            {"title": "Which robot refuses to lie?", "body": "In an anthology of the 1980s."}]
SCORES = {"ONNX fp32": {"micro_f1": 0.561}, "ONNX int8": {"micro_f1": 0.5567, "macro_f1": 0.51}}


class StandIn:
    """Answers as the service does. A test sets what it shall refuse; each look at the jobs takes the running ones on."""

    def __init__(self):
        self.models = {name: {
            "name": name, "title": f"{name.capitalize()} questions → tags", "kind": "multilabel", "labels": 62,
            "bytes": 22_600_000, "checksum": name * 4, "metrics": SCORES, "refused": None,
        } for name in ("scifi", "scifi-2", "broken")}
        self.active, self.previous = "scifi", None
        self.jobs, self.results, self.requests = [], {}, []
        self.token = None  # what privileged calls need
        self.delays = {}  # title -> seconds until its tags are answered
        self.refusals = {}  # path -> the answer instead of the usual one
        self.is_down = False  # as a gateway shows it
        self.speed = 250  # rows for each look

    def app(self):
        gets = {"/": self.index, "/healthz": self.health, "/v1/models": self.list_models, "/v1/models/{name}": self.one_model,
                "/v1/jobs": self.list_jobs, "/v1/jobs/{id}/result": self.result}
        posts = {"/v1/tags": self.tags, "/v1/models/{name}/activate": self.activate, "/v1/jobs/tag": self.tag_job,
                 "/v1/jobs/train": self.train_job}
        routes = [*(Route(path, endpoint) for path, endpoint in gets.items()),
                  *(Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()),
                  Route("/v1/jobs/{id}", self.delete, methods=["DELETE"]), Mount("/static", StaticFiles(directory=STATIC))]
        return Starlette(routes=routes, middleware=[Middleware(BaseHTTPMiddleware, dispatch=self.dispatch)])

    async def dispatch(self, request, go_on):
        path = request.url.path
        if self.is_down:
            answer = HTMLResponse("<h1>Bad gateway</h1>", 502)
        else:
            self.requests.append((request.method, path))
            answer = self.refusals.get(path) or await go_on(request)
        answer.headers["Content-Security-Policy"] = CSP
        answer.headers["Cache-Control"] = "no-cache"
        return answer

    async def index(self, _):
        return HTMLResponse((STATIC / "index.html").read_text("utf8"))

    async def health(self, _):
        return PlainTextResponse("ok")

    async def tags(self, request):
        text = (await request.json())["texts"][0]
        await sleep(self.delays.get(text["title"], 0))
        found = [{"label": word.strip("?.,").lower(), "score": 0.9 / (1 + place)}
                 for place, word in enumerate(text["title"].split()[:3])]
        others = [{"label": MARKUP, "score": 0.04}, {"label": "post-apocalyptic", "score": 0.02}]
        model = {key: self.models[self.active][key] for key in ("name", "checksum")}
        return JSONResponse({"model": model, "results": [{"tags": found, "next": others}]})

    def entry(self, name):
        return self.models[name] | {"active": name == self.active}

    async def list_models(self, _):
        return JSONResponse({"active": self.active, "previous": self.previous, "models": [*map(self.entry, self.models)]})

    async def one_model(self, request):
        return JSONResponse(self.entry(request.path_params["name"]) | {"fields": ["title", "body"], "examples": EXAMPLES})

    async def activate(self, request):
        name = request.path_params["name"]
        if refusal := self.refused(request):
            return refusal
        if name == "broken":
            self.models[name]["refused"] = "onnx/model_quantized.onnx: changed since the model was written"
            return problem(409, "The model was refused", self.models[name]["refused"])
        self.active, self.previous = name, self.active
        return JSONResponse(self.entry(name))

    def refused(self, request):
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return problem(401, "A token is needed", "This changes the service, which is for its keeper")

    def add(self, kind, state="queued", **values):
        now = datetime.now(UTC).isoformat()
        unit, total = {"tag": ("rows", 1000), "train": ("steps", 400)}[kind]
        job = {"id": f"j{len(self.jobs)}", "kind": kind, "name": "rows.csv", "state": state, "created": now, "started": now,
               "finished": None,
               "progress": {"done": 0, "total": total, "unit": unit}, "eta_seconds": None, "message": None, "error": None,
               "result": None, "model": None} | ({"curve": []} if kind == "train" else {"counts": {}}) | values
        self.jobs.insert(0, job)
        return JSONResponse(job, 202, {"Location": f"/v1/jobs/{job['id']}"})

    async def tag_job(self, request):
        async with request.form() as form:
            self.results[f"j{len(self.jobs)}"] = await form["file"].read()
            self.sent = {"name": form["file"].filename, "text": form.get("text")}
        return self.add("tag", name=self.sent["name"])

    async def train_job(self, request):
        if refusal := self.refused(request):
            return refusal
        if request.headers["Content-Type"] == "application/json":
            self.sent = await request.json()
            return self.add("train", name=self.sent["task"])
        else:
            async with request.form() as form:
                self.sent = {"task": (await form["task"].read()).decode(), "data": (await form["data"].read()).decode(),
                             "settings": json.loads(form["settings"])}
        return self.add("train", name="mine")

    async def list_jobs(self, _):
        for job in self.jobs:
            if job["state"] == "queued":
                job["state"] = "running"
            elif job["state"] == "running":
                self.go_on(job)
        return JSONResponse({"jobs": self.jobs[:100]})

    def go_on(self, job):
        progress = job["progress"]
        progress["done"] = min(progress["done"] + self.speed, progress["total"])
        job["eta_seconds"] = (progress["total"] - progress["done"]) / 10
        if job["kind"] == "train":
            epoch = len(job["curve"]) + 1
            job["curve"].append({"epoch": epoch, "train_loss": 0.7 / epoch, "valid_loss": 0.2 + 0.5 / epoch,
                                 "micro_f1": 0.6 - 0.5 / epoch})
        if progress["done"] == progress["total"]:
            finished = {"state": "succeeded", "finished": datetime.now(UTC).isoformat(), "eta_seconds": None}
            if job["kind"] == "tag":
                finished |= {"result": f"/v1/jobs/{job['id']}/result",
                             "counts": {"rows": 1000, "written": 998, "rejected": {"no text": 2}}}
            job |= finished

    async def result(self, request):
        content = self.results[request.path_params["id"]]
        return Response(content, media_type="text/csv", headers={"Content-Disposition": 'attachment; filename="tagged.csv"'})

    async def delete(self, request):
        if refusal := self.refused(request):
            return refusal
        job = next((job for job in self.jobs if job["id"] == request.path_params["id"]), None)
        if job is None:
            return problem(404, "No such job", "It has been removed")
        if job["state"] in ("queued", "running"):
            job["state"] = "cancelled"
        else:
            self.jobs.remove(job)
        return JSONResponse(job, 202)


def problem(status, title, detail, headers=None, **extra):
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail, "instance": "/"} | extra
    return JSONResponse(content, status, headers, "application/problem+json")


@pytest.fixture(scope="module")
def server():
    """The address of the stand-in, and a function that puts a fresh one there."""
    current = {}

    async def app(scope, receive, send):
        await current["app"](scope, receive, send)

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()  # what comes before the server is up waits for it
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()

        def renew():
            stand_in = StandIn()
            current["app"] = stand_in.app()
            return stand_in

        yield f"http://127.0.0.1:{listening.getsockname()[1]}/", renew
        server.should_exit = True
        thread.join(10)


@pytest.fixture
def stand_in(request):
    if "TAGWRIGHT_PAGE_URL" in os.environ:
        pytest.skip("needs the stand-in's script")
    return request.getfixturevalue("server")[1]()


@pytest.fixture
def base_url(request):
    """Where the page is, with a slash at the end."""
    if "TAGWRIGHT_PAGE_URL" in os.environ:
        return os.environ["TAGWRIGHT_PAGE_URL"].rstrip("/") + "/"
    request.getfixturevalue("stand_in")
    return request.getfixturevalue("server")[0]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    assert shutil.which("chromium"), "install chromium and chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in ("--headless=new", "--no-sandbox", "--disable-background-networking", "--window-size=1200,900"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.downloads = tmp_path_factory.mktemp("downloads")
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(driver.downloads)})
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, base_url):
    """The page, loaded anew. At the end no script may have failed, and nothing may have offended the security policy."""
    emulate(browser)
    browser.get(base_url)
    browser.execute_script("localStorage.clear(); sessionStorage.clear()")
    load(browser, base_url)
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert browser.get_log("browser") == []


def load(browser, base_url):
    browser.get(base_url)
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#text textarea"))


def only_refusals(page, *statuses):
    """Take out of the browser's log what it writes of refused requests, and nothing else may be there."""
    for entry in page.get_log("browser"):
        assert entry["source"] == "network", entry
        assert any(f"status of {status}" in entry["message"] for status in statuses), entry


def wait(page, condition, seconds=10):
    return WebDriverWait(page, seconds, poll_frequency=0.05).until(lambda _: condition())


def element(page, id):
    return page.find_element(By.ID, id)


def texts(page, selector):
    return page.execute_script("return [...document.querySelectorAll(arguments[0])].map((found) => found.innerText)", selector)


def write(page, text, name=None):
    """Type into a field of the model, the first one unless it is named."""
    boxes = page.find_elements(By.CSS_SELECTOR, "#text textarea")
    box = boxes[0] if name is None else element(page, f"field-{name}")
    box.clear()
    box.send_keys(text)


def answer(base_url, path, **json_body):
    data = json.dumps(json_body).encode() if json_body else None
    request = urllib.request.Request(base_url + path, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def first_job(page):
    return "\n".join(texts(page, "#job-list > li:first-child"))


def send_file(page, path):
    element(page, "file").send_keys(str(path))


def emulate(page, width=None, scheme="light"):
    """Set what the page is shown on; without motion, since what still moves cannot be clicked."""
    features = [{"name": "prefers-color-scheme", "value": scheme}, {"name": "prefers-reduced-motion", "value": "reduce"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    if width:
        size = {"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": True}
        page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


# --- a text


def test_tags_appear_as_one_types_with_bars_and_the_next_best(page, base_url):
    write(page, "Which Dune book explains where the spice comes from?")
    wait(page, lambda: texts(page, "#given .name, #next .name"))
    fields = [box.get_attribute("name") for box in page.find_elements(By.CSS_SELECTOR, "#text textarea")]
    text = dict.fromkeys(fields, "") | {fields[0]: "Which Dune book explains where the spice comes from?"}
    expected = answer(base_url, "v1/tags", texts=[text], top=5)
    assert expected["results"][0]["next"], "a model that has next best labels is needed here"
    for id, key in (("given", "tags"), ("next", "next")):
        found = expected["results"][0][key]
        wait(page, lambda id=id, found=found: texts(page, f"#{id} .name") == [tag["label"] for tag in found])
        assert texts(page, f"#{id} .score") == [f"{100 * tag['score']:.0f} %" for tag in found]
        shares = page.execute_script("return [...document.querySelectorAll(arguments[0])].map((bar) => "
                                     "bar.offsetWidth / bar.parentElement.offsetWidth)", f"#{id} .bar")
        assert shares == pytest.approx([tag["score"] for tag in found], abs=0.02)
    assert expected["model"]["name"] in element(page, "source").text
    spoken = element(page, "spoken")
    assert (spoken.get_attribute("role"), spoken.is_displayed()) == ("status", True)
    assert all(tag["label"] in texts(page, "#spoken")[0] for tag in expected["results"][0]["tags"])


def test_an_example_is_tagged_at_a_click_and_an_empty_text_takes_the_tags_away(page):
    assert "Nothing to tag yet" in element(page, "hint").text
    page.find_element(By.CSS_SELECTOR, ".example").click()
    wait(page, lambda: texts(page, "#next .name"))
    boxes = page.find_elements(By.CSS_SELECTOR, "#text textarea")
    assert all(box.get_attribute("value") for box in boxes)
    for box in boxes:
        box.send_keys(Keys.CONTROL, "a")
        box.send_keys(Keys.DELETE)
    wait(page, lambda: "Nothing to tag yet" in element(page, "hint").text)
    assert texts(page, ".tag") == []


def test_markup_is_text_wherever_it_comes_from(page, tmp_path):
    write(page, f"<script>window.hacked = 1</script>{MARKUP} robots")
    wait(page, lambda: texts(page, "#next .name"))
    file = tmp_path / "<img src=x onerror=hacked=1>.csv"
    file.write_text("title,body\nrobots,\n")
    send_file(page, file)
    wait(page, lambda: "<img src=x" in first_job(page))
    assert page.execute_script("return window.hacked") is None
    assert page.find_elements(By.CSS_SELECTOR, "main script, main img") == []


def test_a_late_answer_to_an_old_text_is_thrown_away(page, stand_in):
    stand_in.delays = {"slow": 1.2}
    write(page, "slow")
    wait(page, lambda: ("POST", "/v1/tags") in stand_in.requests)
    page.execute_async_script("""
        const [box, done] = [document.querySelector("#text textarea"), arguments[0]];
        const type = (length) => {
          box.value = "quick".slice(0, length);
          box.dispatchEvent(new Event("input", { bubbles: true }));
          setTimeout(() => length < 5 ? type(length + 1) : done(), 60);
        };
        type(1);""")
    wait(page, lambda: texts(page, "#given .name") == ["quick"])
    time.sleep(1.5)
    assert texts(page, "#given .name") == ["quick"]
    assert stand_in.requests.count(("POST", "/v1/tags")) == 2  # and not one for each key


def test_a_text_that_is_refused_is_explained_and_a_busy_service_asked_again(page, stand_in):
    stand_in.refusals["/v1/tags"] = problem(422, "The body is not as it should be", "See errors",
                                            errors=[{"field": "texts.0", "message": "at most 20,000 characters"}])
    write(page, "robots")
    wait(page, lambda: "texts.0: at most 20,000 characters. Correct it" in element(page, "text-error").text)
    stand_in.refusals["/v1/tags"] = problem(429, "Too many requests", "60 a minute", {"Retry-After": "1"})
    write(page, "robots and droids")
    wait(page, lambda: "60 a minute. Try again in 1 second." in element(page, "text-error").text)
    stand_in.refusals.clear()
    wait(page, lambda: texts(page, "#given .name") == ["robots", "and", "droids"])
    assert not element(page, "text-error").is_displayed()
    only_refusals(page, 422, 429)


# --- files and jobs


def test_a_file_is_tagged_downloaded_and_still_there_after_a_reload(page, tmp_path):
    file = tmp_path / "questions.csv"
    file.write_text("title,body\n" + "".join(f"Which robot is number {n}?,In Asimov\n" for n in range(20)))
    before = len(list(page.downloads.iterdir()))
    send_file(page, file)
    wait(page, lambda: "Tag questions.csv" in first_job(page))
    wait(page, lambda: "Done" in first_job(page), 30)
    assert texts(page, "#uploads li") == []
    page.find_element(By.CSS_SELECTOR, "#job-list a[download]").click()
    wait(page, lambda: [path for path in page.downloads.iterdir() if not path.name.endswith(".crdownload")][before:])
    newest = max(page.downloads.iterdir(), key=lambda path: path.stat().st_mtime)
    assert newest.read_text().count("Which robot is number") == 20
    page.refresh()
    wait(page, lambda: "Tag questions.csv" in first_job(page))
    assert "Done" in first_job(page)


def test_a_job_shows_how_far_it_is_and_for_how_long_it_goes_on(page, stand_in, tmp_path):
    (tmp_path / "rows.csv").write_text("text\nrobots\n")
    element(page, "column").send_keys("text")
    send_file(page, tmp_path / "rows.csv")
    wait(page, lambda: "250 of 1,000 rows · about 75 s left" in first_job(page))
    bar = page.find_element(By.CSS_SELECTOR, "#job-list progress")
    assert (bar.get_property("value"), bar.get_property("max"), bar.accessible_name) == (250, 1000, "Tag rows.csv")
    assert stand_in.sent == {"name": "rows.csv", "text": "text"}
    wait(page, lambda: "998 of 1,000 rows tagged, 2 rejected" in first_job(page))
    assert texts(page, "#spoken") == ["Tag rows.csv: Done"]


def test_dropped_files_are_sent_one_after_the_other(page, stand_in):
    page.execute_script("""
        const data = new DataTransfer();
        for (const name of ["one.jsonl", "two.jsonl"]) data.items.add(new File(['{"title": "robots"}'], name));
        const options = { dataTransfer: data, bubbles: true, cancelable: true };
        document.getElementById("drop").dispatchEvent(new DragEvent("drop", options));""")
    wait(page, lambda: texts(page, "#job-list h3") == ["Tag two.jsonl", "Tag one.jsonl"])
    assert stand_in.results["j1"] == b'{"title": "robots"}'


def test_an_upload_is_cancelled(page, tmp_path):
    (tmp_path / "large.csv").write_text("title,body\n" + "robots,\n" * 300_000)
    jobs = len(texts(page, "#job-list > li"))
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}
    page.execute_cdp_cmd("Network.enable", {})
    page.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
    send_file(page, tmp_path / "large.csv")
    wait(page, lambda: 0 < page.execute_script("return document.querySelector('#uploads progress').value") < 1)
    page.find_element(By.CSS_SELECTOR, "#uploads button").click()
    page.execute_cdp_cmd("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    assert texts(page, "#uploads li") == []
    time.sleep(0.5)
    assert len(texts(page, "#job-list > li")) == jobs
    assert page.switch_to.active_element == element(page, "file")


def test_a_file_that_is_too_large_is_explained_and_dismissed(page, stand_in, tmp_path):
    (tmp_path / "large.csv").write_text("robots\n")
    stand_in.refusals["/v1/jobs/tag"] = problem(413, "The file is too large", "At most 200 MB are taken")
    send_file(page, tmp_path / "large.csv")
    wait(page, lambda: "At most 200 MB are taken. Shorten the text, or split the file" in texts(page, "#uploads")[0])
    page.find_element(By.CSS_SELECTOR, "#uploads button").click()
    assert texts(page, "#uploads li") == []
    only_refusals(page, 413)


def test_a_job_is_cancelled_and_removed(page, stand_in, base_url):
    stand_in.speed = 1
    stand_in.add("tag", "running")
    load(page, base_url)
    wait(page, lambda: "Running" in first_job(page))
    button = page.find_element(By.CSS_SELECTOR, "#job-list button")
    assert button.text == "Cancel"
    button.click()
    page.switch_to.alert.dismiss()
    assert "DELETE" not in [method for method, _ in stand_in.requests]
    button.click()
    page.switch_to.alert.accept()
    wait(page, lambda: "Cancelled" in first_job(page))
    button.click()
    page.switch_to.alert.accept()
    wait(page, lambda: texts(page, "#job-list > li") == [])
    assert "None yet" in element(page, "no-jobs").text


def test_a_failed_job_says_why_and_old_ones_wait_behind_a_button(page, stand_in, base_url):
    for number in range(8):
        stand_in.add("tag", "succeeded", message=f"number {number}")
    stand_in.add("tag", "failed", error="row 7 is no JSON: a comma is missing")
    page.get(base_url)
    wait(page, lambda: "Failed" in first_job(page))
    assert "row 7 is no JSON: a comma is missing" in first_job(page)
    assert len(texts(page, "#job-list > li")) == 6
    older = element(page, "older")
    assert older.text == "Show 3 older jobs"
    older.click()
    wait(page, lambda: len(texts(page, "#job-list > li")) == 9)
    assert not older.is_displayed()


def test_where_jobs_cannot_be_reached_tags_go_on(page, stand_in, base_url):
    stand_in.refusals["/v1/jobs"] = problem(503, "Jobs cannot be reached", "Redis does not answer", {"Retry-After": "5"})
    load(page, base_url)
    wait(page, lambda: "Redis does not answer. Try again in 5 seconds." in element(page, "jobs-error").text)
    write(page, "robots")
    wait(page, lambda: texts(page, "#given .name") == ["robots"])
    only_refusals(page, 503)


# --- models and training


def test_a_model_is_activated_with_the_token_and_rolled_back(page, stand_in):
    stand_in.token = TOKEN
    use = {button.accessible_name: button for button in page.find_elements(By.CSS_SELECTOR, "#model-list button")}
    write(page, "robots")
    use["Use: scifi-2"].click()
    dialog = element(page, "token-dialog")
    wait(page, dialog.is_displayed)
    assert "This changes the service, which is for its keeper" in element(page, "token-why").text
    element(page, "token").send_keys("wrong", Keys.ENTER)
    wait(page, lambda: "The token was not accepted" in element(page, "token-why").text)
    element(page, "token").send_keys(Keys.ESCAPE)
    wait(page, lambda: "A token is needed" in element(page, "models-error").text)
    assert stand_in.active == "scifi"
    page.find_element(By.CSS_SELECTOR, "[aria-label='Use: scifi-2']").click()
    wait(page, dialog.is_displayed)
    element(page, "token").send_keys(TOKEN, Keys.ENTER)
    wait(page, lambda: element(page, "active-title").text == "Scifi-2 questions → tags")
    wait(page, lambda: "scifi-2" in element(page, "source").text)  # what was typed has been tagged anew
    back = element(page, "previous")
    assert back.text == "Back to scifi"
    back.click()
    wait(page, lambda: element(page, "active-title").text == "Scifi questions → tags")  # and nothing was asked again
    kept = page.execute_script("return [JSON.stringify(sessionStorage), JSON.stringify(localStorage) + document.cookie]")
    assert TOKEN in kept[0]
    assert TOKEN not in kept[1]
    only_refusals(page, 401)


def test_a_model_that_is_refused_leaves_the_running_one(page, stand_in):
    page.find_element(By.CSS_SELECTOR, "[aria-label='Use: broken']").click()
    wait(page, lambda: "changed since the model was written" in element(page, "models-error").text)
    assert texts(page, "#model-list .badge") == ["Active"]
    assert "Refused: onnx/model_quantized.onnx" in texts(page, "#model-list")[0]
    write(page, "robots")
    wait(page, lambda: texts(page, "#given .name") == ["robots"])
    only_refusals(page, 409)


def test_every_model_says_what_it_is(page, base_url):
    for model in answer(base_url, "v1/models")["models"]:
        card = next(text for text in texts(page, "#model-list li") if text.startswith(model["name"]))
        assert model["title"] in card
        assert f"{model['labels']} label" in card


def test_where_no_model_is_active_the_page_says_what_to_do(page, stand_in, base_url):
    stand_in.active = None
    page.get(base_url)
    wait(page, lambda: "No model is active: choose one" in element(page, "active-title").text)
    page.find_element(By.CSS_SELECTOR, "[aria-label='Use: scifi']").click()
    wait(page, lambda: page.find_elements(By.CSS_SELECTOR, "#text textarea"))


def test_a_training_run_is_started_and_its_curve_grows(page, stand_in):
    stand_in.speed = 200
    element(page, "task-name").send_keys("scifi")
    element(page, "epochs").send_keys("2", Keys.ENTER)
    wait(page, lambda: stand_in.jobs)
    assert stand_in.sent == {"task": "scifi", "settings": {"epochs": 2}}
    wait(page, lambda: len(texts(page, "#job-list tbody tr")) == 1)  # one point is drawn, too
    page.find_element(By.CSS_SELECTOR, "#job-list summary").click()
    wait(page, lambda: "Done" in first_job(page))
    assert texts(page, "#job-list td") == ["0.7000", "0.7000", "0.1000", "0.3500", "0.4500", "0.3500"]  # and it has stayed open
    charts = page.find_elements(By.CSS_SELECTOR, "#job-list svg")
    assert [chart.accessible_name for chart in charts] == [
        "Train scifi. Loss by epoch: training 0.700 in epoch 1, 0.350 in epoch 2; "
        "validation 0.700 in epoch 1, 0.450 in epoch 2. The table below has every value.",
        "Train scifi. Micro-F1 by epoch: validation 0.100 in epoch 1, 0.350 in epoch 2. The table below has every value."]
    words = page.execute_script("return [...arguments[0].querySelectorAll('text')].map((text) => text.textContent)", charts[0])
    assert {"Epoch", "Loss", "1", "2"} <= set(words)
    heights = page.execute_script(
        "return [...arguments[0].querySelectorAll('circle.valid_loss')].map((dot) => +dot.getAttribute('cy'))", charts[0])
    assert heights[0] < heights[1]  # the loss has fallen
    assert ("GET", "/v1/models") in stand_in.requests[stand_in.requests.index(("POST", "/v1/jobs/train")):]


def test_a_task_of_ones_own_is_sent_with_its_rows(page, stand_in, tmp_path):
    (tmp_path / "mine.toml").write_text('name = "mine"')
    (tmp_path / "rows.jsonl").write_text('{"text": "robots"}')
    page.find_element(By.CSS_SELECTOR, "[value=files]").click()
    assert not element(page, "task-name").is_displayed()
    element(page, "task-file").send_keys(str(tmp_path / "mine.toml"))
    element(page, "data-file").send_keys(str(tmp_path / "rows.jsonl"))
    stand_in.refusals["/v1/jobs/train"] = problem(422, "The task is not as it should be", "template: unknown key")
    button = page.find_element(By.CSS_SELECTOR, "#train [type=submit]")
    button.click()
    wait(page, lambda: "template: unknown key" in element(page, "train-error").text)
    only_refusals(page, 422)
    stand_in.refusals.clear()
    button.click()
    wait(page, lambda: "Train mine" in first_job(page))
    assert stand_in.sent == {"task": 'name = "mine"', "data": '{"text": "robots"}', "settings": {}}


# --- the service is away


def test_a_service_that_is_away_is_said_to_be_and_found_again(page):
    page.execute_cdp_cmd("Network.enable", {})
    conditions = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.execute_cdp_cmd("Network.emulateNetworkConditions", conditions | {"offline": True})
    write(page, "robots and droids")
    wait(page, lambda: "The service does not answer" in element(page, "down").text)
    page.execute_cdp_cmd("Network.emulateNetworkConditions", conditions | {"offline": False})
    wait(page, lambda: texts(page, "#next .name"))
    assert not element(page, "down").is_displayed()
    entries = page.get_log("browser")
    assert {(entry["source"], "ERR_INTERNET_DISCONNECTED" in entry["message"]) for entry in entries} == {("network", True)}


def test_a_gateway_without_the_service_behind_it_is_no_service(page, stand_in):
    stand_in.is_down = True
    write(page, "robots")
    wait(page, lambda: "The service does not answer" in element(page, "down").text)
    stand_in.is_down = False
    wait(page, lambda: texts(page, "#given .name") == ["robots"])
    only_refusals(page, 502)


# --- everybody


def test_all_is_reached_by_keys_and_has_a_name(page):
    page.find_element(By.TAG_NAME, "body").send_keys(Keys.TAB)
    assert page.switch_to.active_element.text == "Skip to the text to tag"
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.switch_to.active_element == element(page, "main")
    page.find_element(By.CSS_SELECTOR, "[value=named]").send_keys(Keys.ARROW_DOWN)
    assert element(page, "task-file").is_displayed()
    tree = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = {node["role"]["value"] for node in tree if "role" in node}
    assert {"banner", "navigation", "main", "region", "form"} <= roles
    controls = {"button", "textbox", "link", "radio", "spinbutton", "progressbar", "form", "region", "image"}
    nameless = [node for node in tree if not node["ignored"] and node["role"]["value"] in controls
                and not node.get("name", {}).get("value")]
    assert nameless == []
    unlabelled = page.execute_script(  # a placeholder gives a name, too, but one that goes when something is typed
        "return [...document.querySelectorAll('input, textarea')].filter((box) => !box.labels.length).map((box) => box.id)")
    assert unlabelled == []
    wanted = page.execute_script(
        "return [...document.querySelectorAll('a, button:enabled, input, textarea, summary')]"
        ".filter((found) => found.offsetParent && (found.type !== 'radio' || found.checked))")
    page.execute_script("document.querySelector('.skip').focus()")
    for expected in wanted:
        assert page.switch_to.active_element == expected
        seen = page.execute_script("""
            const at = document.activeElement;
            return getComputedStyle(at.closest(".drop") ?? at).outlineStyle !== "none" """)
        assert seen, expected.get_attribute("outerHTML")
        ActionChains(page).send_keys(Keys.TAB).perform()


CONTRAST = """
const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map((value) => value / 255)
  .map((value) => value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4)
  .reduce((sum, value, place) => sum + value * [0.2126, 0.7152, 0.0722][place], 0);
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const [r, g, b, alpha = 1] = channels(getComputedStyle(at).backgroundColor);
    if (alpha === 1) return [r, g, b];
    if (alpha > 0) throw new Error("half transparent: " + at.className);
  }
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim());
  if (!own || element.matches("noscript, :disabled") || !element.getClientRects().length) continue;
  const style = getComputedStyle(element);
  const [text, ground] = [light(channels(element.closest("svg") ? style.fill : style.color)), light(behind(element))];
  const contrast = (Math.max(text, ground) + 0.05) / (Math.min(text, ground) + 0.05);
  found.push([contrast, `${element.tagName} ${element.className?.baseVal ?? element.className} ${element.textContent}`]);
}
return found.sort((a, b) => a[0] - b[0]);
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(page, stand_in, base_url, scheme):
    fill(stand_in)
    emulate(page, scheme=scheme)
    load(page, base_url)
    page.find_element(By.CSS_SELECTOR, ".example").click()
    wait(page, lambda: texts(page, "#next .name") and len(texts(page, "#job-list > li")) == 6)
    page.find_element(By.CSS_SELECTOR, "summary").click()
    found = page.execute_script(CONTRAST)
    assert len(found) > 80
    assert found[0][0] >= 4.5, found[:5]
    paper = page.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert paper == {"light": "rgb(246, 247, 249)", "dark": "rgb(18, 21, 27)"}[scheme]


OVERLAPS = """
const found = [...document.querySelectorAll("#text, #result, #examples, .column > section, header, .item")]
  .map((part) => [part, part.getBoundingClientRect()]);
return found.flatMap(([part, one]) => found.filter(([other, two]) => part !== other
  && one.left < two.right && two.left < one.right && one.top < two.bottom && two.top < one.bottom
  && !part.contains(other) && !other.contains(part)).map(([other]) => [part.id, other.id]));
"""


@pytest.mark.parametrize("width", [320, 700, 1280])
def test_the_page_fits_phones_and_desktops(page, stand_in, base_url, width):
    fill(stand_in)
    emulate(page, width)
    load(page, base_url)
    page.find_element(By.CSS_SELECTOR, ".example").click()
    wait(page, lambda: texts(page, "#next .name") and len(texts(page, "#job-list > li")) == 6)
    page.find_element(By.CSS_SELECTOR, "summary").click()
    beyond = page.execute_script("""
        const isBeyond = (found) => !found.closest(".spoken, .skip") && found.getBoundingClientRect().right > arguments[0];
        return [...document.querySelectorAll("body *")].filter(isBeyond).map((found) => found.outerHTML.slice(0, 99))""", width)
    assert beyond == []
    assert page.execute_script("return [innerWidth, document.scrollingElement.scrollWidth]") == [width, width]
    assert page.execute_script(OVERLAPS) == []
    bars = page.execute_script("return [...document.querySelectorAll('.track')].map((track) => track.offsetWidth)")
    assert min(bars) > 150
    assert page.execute_script("return getComputedStyle(document.documentElement).scrollBehavior") == "auto"


def fill(stand_in):
    """Jobs of every kind and state, with a curve, and models in every state."""
    stand_in.speed = 0
    stand_in.previous = "scifi-2"
    stand_in.models["broken"]["refused"] = "onnx/model_quantized.onnx: changed since the model was written (sha256 differs)"
    stand_in.add("tag", "cancelled")
    stand_in.add("tag", "failed", error="rows.csv, row 7: the column title is missing")
    stand_in.add("tag", "succeeded", result="/v1/jobs/j2/result", model="scifi", finished=datetime.now(UTC).isoformat(),
                 counts={"rows": 100_000, "written": 99_998, "rejected": 2})
    curve = [{"epoch": epoch, "train_loss": 0.05 + 0.6 / epoch, "valid_loss": 0.2 + 0.4 / epoch, "micro_f1": 0.62 - 0.4 / epoch}
             for epoch in range(1, 9)]
    stand_in.add("train", "succeeded", curve=curve, model="scifi-3", finished=datetime.now(UTC).isoformat(),
                 message="Active now: micro-F1 0.571 on the same test rows, 0.557 before")
    stand_in.add("tag", "running", progress={"done": 41_250, "total": 100_000, "unit": "rows"}, eta_seconds=83)
    stand_in.add("tag")


# --- the real service


@pytest.fixture
def service(tmp_path):
    """The whole service in processes of its own, with one quick model, and a tiny task in `tmp_path / "tiny"`."""
    (tmp_path / "tiny").mkdir()
    write_tiny(tmp_path / "tiny", rows=400)
    services = Services(tmp_path / "service", encoders=json.dumps([str(tmp_path / "tiny" / "encoder")]))
    registry = Registry(Settings(models=str(services.home / "models")))
    registry.add(make_words_model(tmp_path / "words"), "words")
    registry.activate("words")
    services.start("all")
    yield services
    services.stop()


@pytest.mark.long
@pytest.mark.skipif("TAGWRIGHT_PAGE_URL" in os.environ, reason="it starts a service of its own")
def test_a_visit_to_the_real_service(browser, service, tmp_path):
    emulate(browser)
    load(browser, str(service.http.base_url))
    write(browser, "salt and bread")
    wait(browser, lambda: sorted(texts(browser, "#given .name")) == ["bread", "salt"])

    rows = make_rows(80_000)
    (tmp_path / "kitchen.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    send_file(browser, tmp_path / "kitchen.jsonl")
    wait(browser, lambda: " of 80,000 rows · about" in first_job(browser), 60)
    wait(browser, lambda: "80,000 of 80,000 rows tagged" in first_job(browser), 60)
    before = set(browser.downloads.iterdir())
    browser.find_element(By.CSS_SELECTOR, "#job-list a[download]").click()
    wait(browser, lambda: [path for path in set(browser.downloads.iterdir()) - before if path.suffix == ".jsonl"])
    (path,) = set(browser.downloads.iterdir()) - before
    assert [json.loads(line)["id"] for line in path.read_text().splitlines()] == [row["id"] for row in rows]

    browser.find_element(By.CSS_SELECTOR, "[value=files]").click()
    element(browser, "task-file").send_keys(str(tmp_path / "tiny" / "books.toml"))
    element(browser, "data-file").send_keys(str(tmp_path / "tiny" / "rows.jsonl"))
    element(browser, "epochs").send_keys("3", Keys.ENTER)
    wait(browser, lambda: len(texts(browser, "#job-list tbody tr")) >= 1, 90)
    wait(browser, lambda: "Done" in first_job(browser), 90)
    assert first_job(browser).startswith("Train books")
    assert "words is of another task, words, and goes on answering" in first_job(browser)
    assert len(texts(browser, "#job-list tbody tr")) == 3
    trained = service.http.get("/v1/jobs").json()["jobs"][0]["model"]
    wait(browser, lambda: browser.find_elements(By.CSS_SELECTOR, f"[aria-label='Use: {trained}']"))
    browser.save_screenshot(str(tmp_path / "page.png"))
    browser.find_element(By.CSS_SELECTOR, f"[aria-label='Use: {trained}']").click()
    wait(browser, lambda: element(browser, "active-title").text == "Blurbs to genres")
    write(browser, "cats1 cats2 cats3")
    wait(browser, lambda: texts(browser, "#given .name")[:1] == ["cats"])
    element(browser, "previous").click()
    wait(browser, lambda: element(browser, "active-title").text == "Words")
    assert browser.get_log("browser") == []
