"""The demo page in a real headless Chromium: what a visitor sees and what the page refuses."""

import re
import subprocess
import sys

import pytest
from gradio_pages import APP, assemble, box, chromium, open_page, served, set_value, submit_and_read
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from tagwright.tagger import Tagger


@pytest.fixture(scope="module")
def space(demo_run, tmp_path_factory):
    """The Space as `make space` puts it together."""
    return assemble(demo_run.root / "tagger", tmp_path_factory.mktemp("space") / "space")


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
    with served(space) as url:
        yield url


@pytest.fixture(scope="module")
def browser():
    with chromium() as driver:
        yield driver


@pytest.fixture
def page(browser, address):
    return open_page(browser, address)


def test_a_question_gets_its_tags_the_next_best_and_the_time(page, demo_run):
    box(page, "field-title").send_keys("Which Dune book explains where the spice comes from?")
    box(page, "field-body").send_keys("I know the sandworms have to do with it, but not how.")
    text = submit_and_read(page)
    assert not page.find_elements(By.CSS_SELECTOR, ".palette, #genres, #show-colours")  # the model has no map of hues
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
    set_value(page, "field-title", "A title")
    set_value(page, "field-body", "x" * 20_001)
    assert "20,008 characters; please shorten it" in submit_and_read(page)


def test_a_script_in_the_title_is_text_and_never_runs(page):
    set_value(page, "field-title", "<script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'> robots")
    assert "Tagged in" in submit_and_read(page)
    assert page.execute_script("return window.hacked") is None
    assert not page.find_elements(By.CSS_SELECTOR, "#result script, #result img")


def test_an_example_is_tagged_at_a_click(page):
    row = WebDriverWait(page, 10).until(lambda b: b.find_element(By.XPATH, "//div[contains(text(), 'Did the Jedi Council')]"))
    row.click()
    result = page.find_element(By.ID, "result")
    WebDriverWait(page, 20).until(lambda _: "star-wars" in result.text)
    assert box(page, "field-title").get_attribute("value").startswith("Did the Jedi Council")


def test_the_space_is_complete_and_small(space):
    assert {"app.py", "README.md", "requirements.txt", "tagwright", "model"} <= {path.name for path in space.iterdir()}
    assert (space / "README.md").read_text().startswith("---\ntitle:")
    assert "torch" not in (space / "requirements.txt").read_text().replace("no torch", "")
    assert not (space / "model" / "hues.json").exists()
    assert sum(path.stat().st_size for path in space.rglob("*") if path.is_file()) < 26e6
