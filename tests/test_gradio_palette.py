"""The page of a model with a map of hues, in a real headless Chromium: swatches, reasons, downloads, genres typed by hand."""

import dataclasses
import io
import json
import re
import time

import pytest
from app import title_field
from gradio_pages import assemble, box, chromium, open_page, served, set_value, submit_and_read
from palette import contrast
from palette_page import GENRES_SHOWN
from PIL import Image, ImageColor
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait
from words import make_words_model

from tagwright.bundle import read_bundle, write_bundle
from tagwright.hues import Reason, genre_parts, read_table, save_map

GENRE_OF = {"kiss": "romance", "duke": "Fiction » Romance » Historical » Regency", "ghost": "ghost", "ship": "sea adventures",
            "story": "fiction"}


TABLE = read_table()
SEA = TABLE["sea stories"]
REASONS = TABLE | {"sea adventures": Reason("sea adventures", SEA.hues, SEA.why, "sea stories", 0.71),
                   "violet": Reason("violet", ["ivory"], "a flower on paper", "violet")}


def make_space(folder, label_of, **changes):
    """The Space of a tiny model whose labels are these, with the shipped map, one genre that is like another, and one with the
    name of a colour; `changes` to its manifest."""
    (folder / "model").mkdir()
    save_map(REASONS, folder / "model" / "hues.json")
    model = make_words_model(folder / "model", label_of)
    write_bundle(model, dataclasses.replace(read_bundle(model), **changes))
    return assemble(model, folder / "space")


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    with served(make_space(tmp_path_factory.mktemp("genres"), GENRE_OF)) as url:
        yield url


@pytest.fixture(scope="module")
def downloads(tmp_path_factory):
    return tmp_path_factory.mktemp("downloads")


@pytest.fixture(scope="module")
def browser(downloads):
    with chromium(downloads) as driver:
        yield driver


@pytest.fixture
def page(browser, address):
    return open_page(browser, address)


def tag(page, title: str, body: str = "") -> str:
    set_value(page, "field-title", title)
    set_value(page, "field-body", body)
    return submit_and_read(page)


def show(page, genres: str) -> str:
    set_value(page, "genres", genres)
    page.find_element(By.ID, "show-colours").click()
    return told(page)


def told(page) -> str:
    end = time.monotonic() + 20
    while not page.find_elements(By.CSS_SELECTOR, "#result .palette, #result .message"):
        assert time.monotonic() < end, "no palette after 20 s"
        time.sleep(0.05)
    return page.find_element(By.ID, "result").text


def chips(page) -> list[str]:
    return [chip.text for chip in page.find_elements(By.CSS_SELECTOR, "#result .chip")]


def computed_contrasts(page) -> list[float]:
    script = """return [...document.querySelectorAll("#result .chip *")].map(text =>
        [getComputedStyle(text).color, getComputedStyle(text.closest(".chip")).backgroundColor])"""
    return [contrast(*(tuple(map(int, re.findall(r"\d+", colour)[:3])) for colour in pair))
            for pair in page.execute_script(script)]


def download(page, downloads, name: str) -> bytes:
    file = downloads / f"palette.{name}"
    file.unlink(missing_ok=True)
    page.find_element(By.CSS_SELECTOR, f"#result a[download='palette.{name}']").click()
    end = time.monotonic() + 20
    while not file.exists():
        assert time.monotonic() < end, f"no {file.name} after 20 s"
        time.sleep(0.05)
    return file.read_bytes()


def test_a_blurb_gets_swatches_with_their_names_values_and_reasons(page):
    text = tag(page, "The Duke Who Came Back", "she would never kiss a duke on a ship")
    assert "Tagged in" in text
    assert [chip.split() for chip in chips(page)] == [
        ["mistyrose", "#ffe4e1"], ["navy", "#000080"], ["teal", "#008080"], ["aquamarine", "#7fffd4"], ["crimson", "#dc143c"],
        ["hotpink", "#ff69b4"], ["sienna", "#a0522d"], ["tan", "#d2b48c"]]
    reasons = [why.text.split("\n") for why in page.find_elements(By.CSS_SELECTOR, "#result .why")]
    assert reasons[0] == ["romance: the reds and pinks of roses and of love stories' covers",
                          "regency: sprigged muslin, sashes and a ballroom's painted panels"]
    assert reasons[1] == ["sea adventures: like sea stories, cosine 0.71: the sea from the deep to the shallows"]
    cover = page.find_element(By.CSS_SELECTOR, "#result img")
    page.execute_async_script("arguments[0].decode().then(arguments[1], arguments[1])", cover)
    assert page.execute_script("return arguments[0].naturalWidth", cover) == 480
    assert cover.get_attribute("alt").startswith("Mock cover of “The Duke Who Came Back” in mistyrose, navy")


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_the_text_on_each_swatch_is_readable_and_nothing_is_cut_off(browser, address, theme, width):
    metrics = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        page = open_page(browser, f"{address}/?__theme={theme}")
        set_value(page, "field-title", "W" * 300)
        show(page, f"romance; horror; poetry; {'x' * 200}")
        ratios = computed_contrasts(page)
        assert len(ratios) == 2 * 8
        assert min(ratios) >= 4.5
        assert page.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        for part in page.find_elements(By.CSS_SELECTOR, "#result .palette :is(li, .chip, .why, img, a)"):
            assert part.is_displayed()
            assert part.rect["x"] + part.rect["width"] <= width
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_the_downloads_arrive_with_the_palette(page, downloads):
    tag(page, "Kisses of “Café” 100 %", "a kiss")
    assert download(page, downloads, "css").decode().splitlines()[:3] == [
        ":root {", "  --cover-1: #dc143c; /* crimson */", "  --cover-1-text: #ffffff;"]
    content = json.loads(download(page, downloads, "json"))
    assert content["title"] == "Kisses of “Café” 100 %"
    assert [colour["name"] for colour in content["colours"]] == ["crimson", "hotpink", "mistyrose"]
    assert content["colours"][0]["genres"][0]["genre"] == "romance"
    sheet = Image.open(io.BytesIO(download(page, downloads, "png")))
    assert (sheet.format, sheet.size) == ("PNG", (780, 640))
    assert [sheet.getpixel((770, y)) for y in (100, 300, 600)] == [
        ImageColor.getrgb(name) for name in ("crimson", "hotpink", "mistyrose")]


def test_a_text_that_no_label_fits_gets_the_palette_of_the_best_scored_one(page):
    text = tag(page, "Nothing at all")
    assert "No label reaches its threshold; this palette is that of the best-scored label with colours," in text
    assert len(chips(page)) >= 2


def test_typed_genres_have_their_palette_without_a_blurb_and_are_explained(page):
    tag(page, "Of ships", "a ship")
    assert box(page, "genres").get_attribute("placeholder") == "Fiction > Romance; horror"
    box(page, "genres").send_keys("Fiction > Romance; sea adventures; horor", Keys.ENTER)
    end = time.monotonic() + 20
    while "Tagged in" in (text := page.find_element(By.ID, "result").text):  # the text's labels would not fit
        assert time.monotonic() < end
    assert "fiction: no hues (what kind of fiction says more)" in text
    assert "romance: crimson, hotpink, mistyrose (the reds and pinks" in text
    assert "sea adventures: navy, teal, aquamarine (like sea stories, cosine 0.71: the sea" in text
    assert (f"horor: no hues (not among the {len(REASONS)} genres of this model’s data and table of hues; "
            "did you mean horror?)") in text
    assert [chip.split()[0] for chip in chips(page)] == ["crimson", "hotpink", "mistyrose", "navy", "teal", "aquamarine"]


def test_a_script_or_a_template_as_a_genre_or_a_title_is_text(page):
    hostile = "<script>window.hacked = 1</script><img src=x onerror=\"window.hacked = 1\"> {{value}} ${window.hacked = 1} `"
    set_value(page, "field-title", hostile)
    text = show(page, f"{hostile}; romance")
    assert all(f"{part}: no hues (not among" in text for part in genre_parts(hostile))
    assert page.execute_script("return window.hacked") is None
    assert not page.find_elements(By.CSS_SELECTOR, "#result script, #result img[src='x']")
    assert page.find_element(By.CSS_SELECTOR, "#result img").get_attribute("alt").startswith(f"Mock cover of “{hostile}” in")


@pytest.mark.parametrize(("genres", "message"), [
    ("", "No genre yet"), (" ; ", "No genre yet"), ("x" * 201, "has 201 characters"), ("x" * 20_001, "20,001 characters"),
    (";".join(map(str, range(51))), "These are 51 genres"),
])
def test_empty_and_over_long_genres_get_a_clear_message(page, genres, message):
    assert message in show(page, genres)
    assert not chips(page)


def test_a_typed_colour_is_no_genre(page):
    assert "teal: no hues (not among the" in show(page, "teal")
    assert not chips(page)


def test_predicted_colours_are_shown_with_the_genres_behind_them(browser, tmp_path):
    others = sum("navy" in reason.hues for reason in REASONS.values()) - GENRES_SHOWN
    form = {"fields": ["name", "blurb"], "template": "{name} {blurb}"}
    with served(make_space(tmp_path, {"wave": "navy", "rose": "violet"}, hues="predicted", **form)) as url:
        page = open_page(browser, url)
        set_value(page, "field-name", "The Wave")
        set_value(page, "field-blurb", "a wave")
        submit_and_read(page)
        assert [chip.split() for chip in chips(page)] == [["navy", "#000080"]]
        assert page.find_element(By.CSS_SELECTOR, "#result .why").text.split("\n") == [
            "business & economics: a dark suit, a report, a banknote", "police procedural: the uniform and the paperwork",
            "sea stories: the sea from the deep to the shallows", f"and {others} more"]
        assert page.find_element(By.CSS_SELECTOR, "#result img").get_attribute("alt") == "Mock cover of “The Wave” in navy"
        set_value(page, "field-blurb", "a rose")
        page.find_element(By.ID, "tag-it").click()
        WebDriverWait(page, 20).until(lambda _: chips(page) == ["violet\n#ee82ee"])
        set_value(page, "genres", "violet")
        page.find_element(By.ID, "show-colours").click()  # a typed word is a genre here too
        WebDriverWait(page, 20).until(lambda _: chips(page) == ["ivory\n#fffff0"])


@pytest.mark.parametrize(("fields", "expected"), [
    (["title", "blurb"], "title"), (["blurb", "title"], "title"), (["name", "blurb"], "name"), (["blurb"], None),
    (["title"], "title"),
])
def test_the_title_is_the_field_of_that_name_or_the_first_of_several(fields, expected):
    assert title_field(fields) == expected
