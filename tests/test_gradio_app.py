"""The demo page in a real headless Chromium: what a visitor sees and what the page refuses."""

import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tagwright.tagger import Tagger
from tagwright.task import ROOT

APP = ROOT / "deployment" / "gradio"


@pytest.fixture(scope="module")
def space(demo_run, tmp_path_factory):
    """The Space as `make space` puts it together."""
    folder = tmp_path_factory.mktemp("space") / "space"
    subprocess.run([sys.executable, APP / "assemble.py", demo_run.root / "tagger", folder], check=True)
    return folder


def test_a_space_is_put_together_again_and_nothing_else_is_replaced(demo_run, tmp_path):
    command, out = [sys.executable, APP / "assemble.py", demo_run.root / "tagger"], tmp_path / "out"
    (out / ".git").mkdir(parents=True)
    (out / ".git" / "HEAD").write_text("ref: refs/heads/main")
    for _ in range(2):  # into a clone of an empty Space, and over what is there then
        subprocess.run([*command, out], check=True)
        assert (out / ".git" / "HEAD").read_text() == "ref: refs/heads/main"
        assert (out / "app.py").exists()
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear.txt").write_text("dear")
    refused = subprocess.run([*command, tmp_path / "letters"], capture_output=True, text=True)
    assert refused.returncode == 1
    assert "holds something else than a Space" in refused.stderr
    assert (tmp_path / "letters" / "dear.txt").exists()


@pytest.fixture(scope="module")
def address(space):
    """The address of the page, served from the Space's own folder and its own copy of the library."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(space), "PYTHONUNBUFFERED": "1"}
    server = subprocess.Popen([sys.executable, "app.py", "--port", str(port)], cwd=space, env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(url, timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, server.stdout.read()
                assert time.monotonic() < deadline, "the page did not come up in 60 s"
                time.sleep(0.3)
        yield url
    finally:
        server.terminate()
        server.wait(10)


@pytest.fixture(scope="module")
def browser():
    assert shutil.which("chromium"), "install chromium and chromium-driver"
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-background-networking", "--window-size=1200,900"):
        options.add_argument(argument)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, address):
    browser.get(address)
    WebDriverWait(browser, 30).until(lambda b: b.find_elements(By.CSS_SELECTOR, "#field-title textarea, #field-title input"))
    return browser


def field(page, name):
    return page.find_element(By.CSS_SELECTOR, f"#field-{name} textarea, #field-{name} input")


def set_value(page, name, text):
    script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
    page.execute_script(script, field(page, name), text)


def submit_and_read(page) -> str:
    page.find_element(By.ID, "tag-it").click()
    WebDriverWait(page, 20).until(lambda _: page.find_elements(By.CSS_SELECTOR, "#result .note, #result .message"))
    return page.find_element(By.ID, "result").text


def test_a_question_gets_its_tags_the_next_best_and_the_time(page, demo_run):
    field(page, "title").send_keys("Which Dune book explains where the spice comes from?")
    field(page, "body").send_keys("I know the sandworms have to do with it, but not how.")
    text = submit_and_read(page)
    given = [element.text for element in page.find_elements(By.CSS_SELECTOR, "#result .given .name")]
    others = page.find_elements(By.CSS_SELECTOR, "#result .next .name")
    expected = Tagger.load(demo_run.root / "tagger").tag(
        [{"title": "Which Dune book explains where the spice comes from?",
          "body": "I know the sandworms have to do with it, but not how."}])
    assert given == [label for label, _ in expected[0]]
    assert "dune" in given
    assert len(others) == 4
    assert re.search(r"Tagged in \d+\.\d ms", text)


def test_empty_input_gets_a_clear_message(page):
    assert "Nothing to tag yet" in submit_and_read(page)


def test_over_long_input_gets_a_clear_message(page):
    set_value(page, "title", "A title")
    set_value(page, "body", "x" * 20_001)
    assert "20,008 characters; please shorten it" in submit_and_read(page)


def test_a_script_in_the_title_is_text_and_never_runs(page):
    set_value(page, "title", "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> robots")
    assert "Tagged in" in submit_and_read(page)
    assert page.execute_script("return window.hacked") is None
    assert not page.find_elements(By.CSS_SELECTOR, "#result script, #result img")


def test_an_example_is_tagged_at_a_click(page):
    row = WebDriverWait(page, 10).until(lambda b: b.find_element(By.XPATH, "//div[contains(text(), 'Did the Jedi Council')]"))
    row.click()
    result = page.find_element(By.ID, "result")
    WebDriverWait(page, 20).until(lambda _: "star-wars" in result.text)
    assert field(page, "title").get_attribute("value").startswith("Did the Jedi Council")


def test_the_space_is_complete_and_small(space):
    assert {"app.py", "README.md", "requirements.txt", "tagwright", "model"} <= {path.name for path in space.iterdir()}
    assert (space / "README.md").read_text().startswith("---\ntitle:")
    assert "torch" not in (space / "requirements.txt").read_text().replace("no torch", "")
    assert sum(path.stat().st_size for path in space.rglob("*") if path.is_file()) < 26e6
