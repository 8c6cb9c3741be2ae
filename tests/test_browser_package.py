"""The browser package: in Node, in a page and in the extension the model says what Python's Tagger says."""

import hashlib
import http.server
import json
import os
import shutil
import subprocess
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from firefox import Firefox
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait
from test_parity import ODD_TEXTS

from tagwright.bundle import read_bundle, write_bundle
from tagwright.tagger import Tagger
from tagwright.task import ROOT

pytestmark = pytest.mark.long

PACKAGE = ROOT / "deployment" / "browser"
# How far scores may be from Python's, at worst and on average. onnxruntime's int8 kernels differ between builds, and an
# activation that is rounded the other way moves a whole step: 0.04 and 0.0007 were measured, where Python itself gives a text
# scores that are up to 0.07 apart alone and in a batch.
TOLERANCE = {"fp32": (1e-4, 1e-6), "int8": (0.1, 0.002), "q4": (1e-3, 1e-5)}


@pytest.fixture(scope="session")
def package():
    """The package with what it needs installed."""
    if not (PACKAGE / "node_modules" / ".package-lock.json").exists():
        subprocess.run(["npm", "ci"], cwd=PACKAGE, check=True)
    return PACKAGE


@pytest.fixture(scope="module")
def model(demo_run) -> Path:
    return demo_run.root / "tagger"


@pytest.fixture(scope="module")
def texts(demo_run) -> list:
    """Odd texts, titles, and questions with both fields."""
    rows = [json.loads(line) for line in demo_run.sample.read_text(encoding="utf8").splitlines()]
    titles = [row["title"] for row in rows if row["title"]][:260]
    questions = [{"title": row["title"] or "", "body": row["body"] or ""} for row in rows[-20:]]
    characters = map(chr, [*range(0x3100), 0xFEFF])  # accents, and every kind of space
    each_character = " ".join(f"{character}a{character}" for character in characters)
    return [*ODD_TEXTS, each_character, *titles, *questions]


@pytest.fixture(scope="module")
def expected(model, texts) -> dict[str, np.ndarray]:
    """Python's scores."""
    return {name: Tagger.load(model, name).scores(texts) for name in TOLERANCE}


def assert_close(found: list, expected: dict[str, np.ndarray], precision: str) -> None:
    differences = np.abs(np.array(found) - expected[precision])
    worst, mean = TOLERANCE[precision]
    assert differences.max() < worst
    assert differences.mean() < mean


def node(*arguments, **options) -> subprocess.CompletedProcess:
    return subprocess.run(["node", *map(str, arguments)], cwd=PACKAGE, capture_output=True, text=True, **options)


def test_the_lock_file_names_no_host():
    lock = (PACKAGE / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    assert "://" not in lock


def test_versions_are_pinned():
    described = json.loads((PACKAGE / "package.json").read_text())
    assert all(version[0].isdigit() for version in (described["dependencies"] | described["devDependencies"]).values())


def test_the_packages_own_tests_pass(package):
    done = subprocess.run(["npm", "test"], cwd=package, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("precision", TOLERANCE)
def test_node_agrees_with_python(package, model, texts, expected, precision):
    assert len(texts) >= 300
    done = node("test/scores.js", model, precision, input=json.dumps(texts))
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    tagger = Tagger.load(model, precision)
    read = [tagger._text(text) for text in texts]
    assert found["texts"] == read
    assert found["ids"] == [encoding.ids for encoding in tagger._tokenizer.encode_batch(read)]
    assert_close(found["scores"], expected, precision)
    if precision == "fp32":
        assert [[tag["label"] for tag in tags] for tags in found["tags"]] == [[label for label, _ in tags]
                                                                              for tags in tagger.tag(texts)]


def test_a_model_that_gives_one_label_is_understood_in_node(package, model, texts, tmp_path):
    shutil.copytree(model, tmp_path / "one")
    write_bundle(tmp_path / "one", replace(read_bundle(model), kind="multiclass", metrics={}))
    done = node("test/scores.js", tmp_path / "one", "fp32", input=json.dumps(texts[:60]))
    assert done.returncode == 0, done.stderr
    found, tagger = json.loads(done.stdout), Tagger.load(tmp_path / "one", "fp32")
    assert np.abs(np.array(found["scores"]) - tagger.scores(texts[:60])).max() < 1e-4
    given = [[tag["label"] for tag in tags] for tags in found["tags"]]
    assert given == [[label for label, _ in tags] for tags in tagger.tag(texts[:60])]
    assert {len(labels) for labels in given} == {1}


class Site:
    """A static server of `folder` on this machine, and what it was asked for. Stopped, it can start again at its address."""

    def __init__(self, folder: Path):
        self.folder, self.port, self.asked = folder, 0, []
        self.start()

    def start(self) -> None:
        self._is_up = True
        site = self

        class Handler(http.server.SimpleHTTPRequestHandler):
            extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript",
                              ".js": "text/javascript", ".wasm": "application/wasm"}

            def translate_path(self, path):
                self.directory = str(site.folder)
                return super().translate_path(path)

            def parse_request(self):  # a connection that a browser opened in advance outlives the server
                return site._is_up and super().parse_request()

            def log_message(self, *_):
                site.asked.append(self.path)

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._is_up = False
        self._server.shutdown()
        self._server.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


def chromium(*arguments: str, **preferences) -> webdriver.Chrome:
    assert shutil.which("chromium"), "install chromium and chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-background-networking", "--window-size=1200,900", *arguments):
        options.add_argument(argument)
    options.add_experimental_option("prefs", preferences)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    driver.set_script_timeout(60)
    return driver


def build_page(model: Path, out: Path) -> Path:
    done = subprocess.run(["npx", "vite", "build", "--outDir", out, "--logLevel", "warn"], cwd=PACKAGE, capture_output=True,
                          text=True, env=os.environ | {"TAGWRIGHT_MODEL": str(model)})
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def site(package, model, tmp_path_factory):
    site = Site(build_page(model, tmp_path_factory.mktemp("page") / "page"))
    yield site
    site.stop()


@pytest.fixture(scope="module")
def browser():
    driver = chromium()
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, site):
    browser.get(site.address)
    wait_for(browser, "#field-title")
    return browser


def wait_for(browser, selector, seconds=60):
    return WebDriverWait(browser, seconds, 0.05).until(lambda _: browser.find_elements(By.CSS_SELECTOR, selector))


def ask(browser, script: str, argument=None):
    """What the body of an async function of `argument` gives in the browser's page."""
    found, error = browser.execute_async_script(
        "const [argument, done] = arguments;"
        "(async () => {" + script + "})()"
        ".then((found) => done([found, null]), (error) => done([null, String(error)]));", argument)
    assert error is None, error
    return found


def labels(browser, where) -> list[str]:
    # in one step: the page may replace them at any moment
    return browser.execute_script(f"return [...document.querySelectorAll('#{where} .name')].map((name) => name.innerText)")


def type_and_wait(page, text, name="title"):
    """Type a text, and wait until it has been tagged."""
    box, timing = page.find_element(By.ID, f"field-{name}"), page.find_element(By.ID, "timing")
    page.execute_script("arguments[0].textContent = ''", timing)
    box.clear()
    box.send_keys(text)
    WebDriverWait(page, 20, 0.05).until(lambda _: "Tagged in" in timing.text)


def test_the_page_tags_as_you_type(page, model):
    assert "Nothing to tag yet" in page.find_element(By.ID, "status").text
    question = "Which Dune book explains where the spice comes from?"
    type_and_wait(page, question)
    WebDriverWait(page, 10).until(lambda _: labels(page, "given"))
    assert labels(page, "given") == [label for label, _ in Tagger.load(model).tag([question])[0]]
    assert len(labels(page, "others")) == 4
    assert "MB" in page.find_element(By.CSS_SELECTOR, "#format option:checked").text


def test_the_last_input_wins(page):
    box = page.find_element(By.ID, "field-title")
    page.execute_script("""
        for (const text of ['robots', 'a b', 'x'.repeat(9000), 'time', 'Which Jedi trained Luke Skywalker in Star Wars?']) {
            arguments[0].value = text;
            arguments[0].dispatchEvent(new Event('input'));
            await new Promise((resolve) => setTimeout(resolve, 140));
        }""", box)
    WebDriverWait(page, 20).until(lambda _: labels(page, "given")[:1] == ["star-wars"])


def test_an_example_is_tagged_at_a_click(page):
    page.find_element(By.XPATH, "//button[contains(., 'Did the Jedi Council')]").click()
    WebDriverWait(page, 20).until(lambda _: "star-wars" in labels(page, "given"))


def test_html_in_a_text_is_text(page):
    type_and_wait(page, "<img src=x onerror='window.hacked = 1'><script>window.hacked = 1</script> robots")
    assert page.execute_script("return window.hacked") is None
    assert not page.find_elements(By.CSS_SELECTOR, "main img, main script")


def test_a_text_that_is_too_long_gets_a_clear_message(page):
    page.execute_script("arguments[0].value = 'x'.repeat(20_001); arguments[0].dispatchEvent(new Event('input'))",
                        page.find_element(By.ID, "field-body"))
    WebDriverWait(page, 10).until(lambda _: "20,001 characters; please shorten" in page.find_element(By.ID, "status").text)


def test_another_format_can_be_chosen(page):
    type_and_wait(page, "Who built the first robot?")
    page.execute_script("document.getElementById('timing').textContent = ''")
    page.find_element(By.CSS_SELECTOR, "#format option[value='fp32 wasm']").click()
    WebDriverWait(page, 60).until(lambda _: "Tagged in" in page.find_element(By.ID, "timing").text)
    assert "robots" in labels(page, "given")


@pytest.mark.parametrize("precision", TOLERANCE)
def test_the_browser_agrees_with_python(page, texts, expected, precision):
    found = ask(page, """
        const [texts, format] = argument;
        const { Tagger } = await import('/tagger.js');
        const tagger = await Tagger.load('/model', { format });
        return (await tagger.scores(JSON.parse(texts))).map((row) => [...row]);""", [json.dumps(texts), precision])
    assert_close(found, expected, precision)


def test_nothing_is_asked_of_another_host(page, site):
    events = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert asked
    assert not [url for url in asked if not url.startswith((site.address, "data:", "chrome:", "about:"))]


def test_the_page_works_without_a_network_after_the_first_load(page, site):
    type_and_wait(page, "Who built the first robot?")
    site.stop()
    try:
        page.refresh()
        wait_for(page, "#field-title")
        type_and_wait(page, "Who built the first robot?")
        assert "robots" in labels(page, "given")
    finally:
        site.start()


def test_a_new_model_replaces_the_old_one(page, site, model, tmp_path):
    """The same model with other labels, built anew and put where the old one was."""
    shutil.copytree(model, tmp_path / "model", ignore=shutil.ignore_patterns("*.safetensors", "model.onnx"))
    manifest = read_bundle(model)
    manifest.labels = [f"new-{label}" for label in manifest.labels]
    write_bundle(tmp_path / "model", manifest)
    old, site.folder = site.folder, build_page(tmp_path / "model", tmp_path / "page")
    try:
        for _ in range(5):  # a visit finds the new model; once the page has been left, the next visit shows it
            page.get(site.address)
            wait_for(page, "#field-title")
            type_and_wait(page, "Who built the first robot?")
            if "new-robots" in labels(page, "given"):
                break
            ask(page, """
                const registration = await navigator.serviceWorker.getRegistration();
                await registration.update();
                while (registration.installing) await new Promise((go) => setTimeout(go, 50));""")
            page.get("about:blank")
        assert "new-robots" in labels(page, "given")
        assert len(ask(page, "return caches.keys();")) == 1
    finally:
        site.folder = old


PAGES = {
    "who-built-the-first-robot": "Who built the first robot?",
    "time-travel": "Can a time traveller meet himself?",
    "markup": "&lt;img src=x onerror='window.hacked = 1'&gt; robots",
}


@pytest.fixture(scope="module")
def extension(package, model, tmp_path_factory):
    """The built extension's folder."""
    out = tmp_path_factory.mktemp("extension") / "extension"
    done = node("extension/build.js", out, env=os.environ | {"TAGWRIGHT_MODEL": str(model)})
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A site for the extension to tag."""
    folder = tmp_path_factory.mktemp("pages")
    for name, title in PAGES.items():
        (folder / f"{name}.html").write_text(f"<!doctype html><title>{title}</title><p>Text</p>", encoding="utf8")
    site = Site(folder)
    yield site
    site.stop()


class Extended:
    """A Chromium with the extension: one tab visits pages, another one shows the extension's history."""

    def __init__(self, folder: Path, downloads: Path):
        self.driver = chromium(f"--load-extension={folder}", "--disable-features=DisableLoadExtensionCommandLineSwitch",
                               **{"download.default_directory": str(downloads)})
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:32]  # how Chromium names a folder's extension
        self.address = "chrome-extension://" + "".join(chr(ord("a") + int(digit, 16)) for digit in digest)
        self._pages = self.driver.current_window_handle
        self.driver.switch_to.new_window("tab")
        self._history = self.driver.current_window_handle
        self.show_history()

    def visit(self, url: str) -> list[str]:
        """Visit a page; what its badge and the icon's title say once it has been tagged."""
        self.driver.switch_to.window(self._pages)
        self.driver.get(url)
        self.driver.switch_to.window(self._history)
        return WebDriverWait(self.driver, 30, 0.05).until(lambda _: self.ask("""
            const [tab] = await chrome.tabs.query({ url: argument });
            const title = await chrome.action.getTitle({ tabId: tab.id });
            return title !== 'Tagwright' && [await chrome.action.getBadgeText({ tabId: tab.id }), title];""", url))

    def ask(self, script: str, argument=None):
        """What a script in the extension's history page gives."""
        return ask(self.driver, script, argument)

    def show_history(self) -> None:
        self.driver.switch_to.window(self._history)
        self.driver.get(f"{self.address}/history.html")
        WebDriverWait(self.driver, 10, 0.05).until(lambda driver: driver.find_element(By.ID, "count").text)

    def history(self) -> list[str]:
        return [link.text for link in self.driver.find_elements(By.CSS_SELECTOR, "#entries a")]


@pytest.fixture(scope="module")
def extended(extension, tmp_path_factory):
    downloads = tmp_path_factory.mktemp("downloads")
    extended = Extended(extension, downloads)
    extended.downloads = downloads
    yield extended
    extended.driver.quit()


def test_the_extension_tags_the_page_that_is_visited(extended, pages, model):
    badge, title = extended.visit(pages.address + "who-built-the-first-robot.html")
    (tags,) = Tagger.load(model).tag(["who built the first robot: Who built the first robot?"])
    assert badge == str(len(tags))
    assert title == f"Tagwright: {', '.join(label for label, _ in tags)}"
    assert tags[0][0] == "robots"


def test_the_popup_shows_the_tags_and_the_next_best(extended, pages):
    _, title = extended.visit(pages.address + "who-built-the-first-robot.html")
    extended.ask("""
        const [tab] = await chrome.tabs.query({ url: argument });
        await chrome.tabs.update(tab.id, { active: true });
        await chrome.action.openPopup();""", pages.address + "*")
    text = WebDriverWait(extended.driver, 20, 0.1).until(lambda _: extended.ask("""
        const [popup] = chrome.extension.getViews({ type: 'popup' });
        return popup?.document.getElementById('timing').textContent && popup.document.body.innerText;"""))
    extended.ask("chrome.extension.getViews({ type: 'popup' })[0].close()")
    assert text.startswith("Who built the first robot?")
    assert "WASM" in text
    assert all(label in text for label in title.removeprefix("Tagwright: ").split(", "))
    assert text.count("%") >= 5


def test_a_page_of_the_browser_itself_is_not_tagged(extended):
    extended.driver.switch_to.window(extended._pages)
    extended.driver.get("chrome://version")
    extended.show_history()
    assert not [link for link in extended.driver.find_elements(By.CSS_SELECTOR, "#entries a")
                if not link.get_attribute("href").startswith("http")]


def test_the_history_is_searched_exported_and_wiped(extended, pages):
    for name in PAGES:
        extended.visit(pages.address + name + ".html")
    extended.show_history()
    assert extended.history() == [PAGES["markup"].replace("&lt;", "<").replace("&gt;", ">"), PAGES["time-travel"],
                                  PAGES["who-built-the-first-robot"]]  # newest first
    assert extended.driver.execute_script("return window.hacked") is None
    extended.driver.find_element(By.ID, "tag").send_keys("TIME")
    WebDriverWait(extended.driver, 5).until(lambda _: extended.history() == [PAGES["time-travel"]])

    extended.driver.find_element(By.ID, "export").click()
    file = extended.downloads / "tagwright-history.json"
    WebDriverWait(extended.driver, 10).until(lambda _: file.exists())
    exported = json.loads(file.read_text(encoding="utf8"))
    assert [entry["title"] for entry in exported][1:] == [PAGES["time-travel"], PAGES["who-built-the-first-robot"]]
    assert exported[1]["url"] == pages.address + "time-travel.html"
    assert "time-travel" in exported[1]["tags"]
    assert abs(exported[1]["time"] / 1000 - time.time()) < 600

    extended.driver.find_element(By.ID, "wipe").click()
    extended.driver.find_element(By.ID, "wipe-sure").click()
    WebDriverWait(extended.driver, 5).until(lambda _: "0 pages" in extended.driver.find_element(By.ID, "count").text)
    extended.show_history()
    assert extended.history() == []


def test_the_history_is_bounded(extended, pages):
    extended.show_history()
    extended.ask("""
        const open = indexedDB.open('tagwright', 1);
        await new Promise((go) => { open.onsuccess = go; });
        const store = open.result.transaction('pages', 'readwrite').objectStore('pages');
        for (let n = 0; n < 10000; n++) store.put({ url: 'http://a.example/' + n, title: 'old ' + n, tags: ['old'], time: n });
        await new Promise((go) => { store.transaction.oncomplete = go; });
        open.result.close();""")
    extended.visit(pages.address + "time-travel.html")
    extended.show_history()
    assert "10,000 pages, the newest 200 shown" in extended.driver.find_element(By.ID, "count").text
    assert extended.history()[:2] == [PAGES["time-travel"], "old 9999"]


def test_private_windows_are_not_recorded(extended, extension, pages):
    pages.asked.clear()
    extended.ask("await chrome.windows.create({ incognito: true, url: argument });", pages.address + "markup.html?private")
    WebDriverWait(extended.driver, 10).until(lambda _: "/markup.html?private" in pages.asked)
    extended.visit(pages.address + "time-travel.html")  # by when the one before would have been tagged
    extended.show_history()
    assert extended.history()[0] == PAGES["time-travel"]
    assert not extended.driver.find_elements(By.CSS_SELECTOR, "#entries a[href$='private']")
    assert json.loads((extension / "manifest.json").read_text())["incognito"] == "not_allowed"


def test_the_extension_asks_for_no_site_and_reaches_none(extension):
    manifest = json.loads((extension / "manifest.json").read_text())
    assert manifest["permissions"] == ["tabs", "unlimitedStorage", "offscreen"]
    assert not {"host_permissions", "optional_permissions", "content_scripts"} & set(manifest)
    policy = manifest["content_security_policy"]["extension_pages"]
    assert policy.startswith("default-src 'self'; script-src 'self' 'wasm-unsafe-eval';")
    assert "connect-src" not in policy  # so that of default-src holds


@pytest.mark.skipif(not shutil.which("firefox-esr"), reason="there is no Firefox; on Debian: apt-get install firefox-esr")
def test_the_same_extension_works_in_firefox(extension, pages, model, tmp_path):
    uuid = "6f1d3c1e-0000-4000-8000-000000000001"  # where the extension's pages are; Firefox would draw one by chance
    identifier = json.loads((extension / "manifest.json").read_text())["browser_specific_settings"]["gecko"]["id"]
    address = pages.address + "who-built-the-first-robot.html"
    (tags,) = Tagger.load(model).tag(["who built the first robot: Who built the first robot?"])
    with Firefox(tmp_path / "profile", **{"extensions.webextensions.uuids": json.dumps({identifier: uuid})}) as firefox:
        firefox.install(extension)
        firefox.call("WebDriver:Navigate", url=address)
        firefox.open_tab(f"moz-extension://{uuid}/history.html")
        badge, title, answer, history = firefox.ask("""
            const find = async () => (await chrome.tabs.query({})).find((tab) => tab.url === given[0]);
            for (;;) {
                const { id } = await find();
                const title = await chrome.action.getTitle({ tabId: id });
                if (title !== 'Tagwright') break;
                await new Promise((go) => setTimeout(go, 50));
            }
            const { id, url, title } = await find();
            const answer = await chrome.runtime.sendMessage({ to: 'background', tab: { url, title } });
            document.getElementById('tag').value = given[1];
            document.getElementById('tag').dispatchEvent(new Event('input'));
            while (!document.querySelector('#entries a')) await new Promise((go) => setTimeout(go, 50));
            return [await chrome.action.getBadgeText({ tabId: id }), await chrome.action.getTitle({ tabId: id }), answer,
                    document.querySelector('#entries a').textContent];
        """, address, tags[0][0])
    assert badge == str(len(tags))
    assert title == f"Tagwright: {', '.join(label for label, _ in tags)}"
    assert answer["engine"] == "WASM"
    assert [tag["label"] for tag in answer["given"]] == [label for label, _ in tags]
    assert history == PAGES["who-built-the-first-robot"]
