"""Palettes as data, CSS, JSON and pictures: what is promised of each colour, and titles that try to break the cover."""

import html
import io
import json
import re
import subprocess
import sys

import numpy as np
import palette_page
import pytest
from cover import BAND, DESIGNS, HEIGHT, LEGEND, MARGIN, SIZES, WIDTH, draw_cover, draw_sheet, font, set_title, to_png
from palette import COLOURS, MAX_SWATCHES, Swatch, because, contrast, ink, luminance, palette, read_map, to_css, to_json
from palette_page import MAX_GENRE, MAX_GENRES, palette_of_genres, palette_of_text
from PIL import Image, ImageColor

from tagwright.errors import TagwrightError
from tagwright.hues import Reason, read_table, save_map
from tagwright.task import ROOT

LIKE = Reason("sea adventures", ["navy", "teal", "aquamarine"], "the sea", "sea stories", 0.71)


@pytest.fixture(scope="module")
def reasons() -> dict[str, Reason]:
    return read_table() | {"sea adventures": LIKE}


def names(swatches: list[Swatch]) -> list[str]:
    return [swatch.name for swatch in swatches]


def test_contrast_is_that_of_wcag():
    assert contrast((0, 0, 0), (255, 255, 255)) == pytest.approx(21)
    assert contrast((255, 255, 255), (255, 255, 255)) == 1
    assert contrast((118, 118, 118), (255, 255, 255)) == pytest.approx(4.54, abs=0.005)  # the lightest grey that passes
    assert contrast((255, 0, 0), (255, 255, 255)) == pytest.approx(4.00, abs=0.005)
    assert luminance((0, 255, 0)) == pytest.approx(0.7152)


@pytest.mark.parametrize("name", COLOURS)
def test_a_text_on_any_colour_of_css_is_readable(name):
    colour = ImageColor.getrgb(name)
    black, white = contrast((0, 0, 0), colour), contrast((255, 255, 255), colour)
    found = contrast(ink(colour), colour)
    assert found >= 4.5
    assert found == max(black, white) or found >= 7
    assert (luminance(ink(colour)) < luminance(colour)) == (black > white)


def test_there_are_148_colours_and_some_inks_are_tinted():
    assert len(COLOURS) == 148
    assert sum(ink(ImageColor.getrgb(name)) not in [(0, 0, 0), (255, 255, 255)] for name in COLOURS) > 60


def test_the_colours_of_the_better_scored_genre_come_first(reasons):
    assert names(palette({"romance": 0.9, "horror": 0.6}, reasons)) == [
        "crimson", "hotpink", "mistyrose", "black", "darkred", "dimgray"]
    assert names(palette({"romance": 0.6, "horror": 0.9}, reasons))[:3] == ["black", "darkred", "dimgray"]


def test_a_colour_that_two_genres_bring_comes_before_those_of_one(reasons):
    found = palette({"romance": 0.9, "horror": 0.6, "cyberpunk": 0.5}, reasons)
    assert names(found)[:2] == ["hotpink", "black"]
    assert [reason.genre for reason in found[1].genres] == ["horror", "cyberpunk"]


def test_a_genre_counts_once_in_however_many_paths_it_is(reasons):
    found = palette({"horror": 0.9, "Fiction » Romance » Regency": 0.5, "Fiction » Romance": 0.45}, reasons)
    assert names(found)[:4] == ["mistyrose", "black", "darkred", "dimgray"]  # mistyrose: 0.5 of each of two genres
    assert [reason.genre for reason in found[0].genres] == ["romance", "regency"]


def test_a_palette_has_at_most_eight_swatches_and_nothing_unknown(reasons):
    assert len(palette(dict.fromkeys(reasons, 0.9), reasons)) == MAX_SWATCHES == 8
    assert palette({"fiction": 0.9, "no such genre": 0.9}, reasons) == []
    assert palette({}, reasons) == []


def test_predicted_colours_are_the_palette_and_the_map_says_which_genres_bring_them(reasons):
    found = palette({"teal": 0.5, "navy": 0.8, "rebeccapurple": 0.4}, reasons, "predicted")
    assert [(swatch.name, swatch.hex) for swatch in found] == [
        ("navy", "#000080"), ("teal", "#008080"), ("rebeccapurple", "#663399")]
    assert [reason.genre for reason in found[0].genres] == [genre for genre in reasons if "navy" in reasons[genre].hues]
    assert found[2].genres == []


def test_the_way_tells_whether_a_label_is_a_genre_or_a_colour(reasons):
    reasons = reasons | {"violet": Reason("violet", ["ivory"], "a flower on paper", "violet")}
    labels = {"violet": 0.9, "teal": 0.8, "horror": 0.7}
    assert names(palette(labels, reasons, "predicted")) == ["violet", "teal"]
    for way in ("mapped", None):  # None: a map that came into the folder by hand
        assert names(palette(labels, reasons, way)) == ["ivory", "black", "darkred", "dimgray"]
    scores, given = np.array([0.9], np.float32), np.array([True])
    for way, colour in [("predicted", "violet"), ("mapped", "ivory"), (None, "ivory")]:
        for is_given in (given, ~given):
            assert re.findall(r"<b>(\w+)</b>", palette_of_text(["violet"], scores, is_given, reasons, "", way)) == [colour]


def test_a_colour_of_very_many_genres_names_some_and_counts_all():
    many = {str(number): Reason(str(number), ["navy"], "why " * 20, str(number)) for number in range(7000)}
    for labels, way in [(many, "mapped"), (["navy"], "predicted")]:
        found = palette(dict.fromkeys(labels, 0.9), many, way)
        assert [reason.genre for reason in found[0].genres] == list(many)[:50]
        assert found[0].genre_count == 7000
        assert len(to_json(found, "")) < 25_000
        assert "and 6,997 more" in palette_page.row(found[0])


def test_a_reason_says_like_what_and_how_near(reasons):
    assert because(reasons["romance"]) == "romance: the reds and pinks of roses and of love stories' covers"
    assert because(LIKE) == "sea adventures: like sea stories, cosine 0.71: the sea"


def test_css_has_each_colour_and_its_text_as_custom_properties(reasons):
    found = palette({"romance": 0.9, "sea adventures": 0.6}, reasons)
    css = to_css(found)
    rule = re.fullmatch(r":root \{\n(.*)\n\}\n", css, re.DOTALL)[1]
    declared = re.findall(r"--([\w-]+): (#[0-9a-f]{6});", rule)
    assert re.sub(r"\s|/\* \w+ \*/|--[\w-]+: #[0-9a-f]{6};", "", rule) == ""  # and nothing else
    assert dict(declared) == {f"cover-{place}{kind}": value for place, swatch in enumerate(found, 1)
                              for kind, value in [("", swatch.hex), ("-text", swatch.ink)]}
    assert re.findall(r"/\* (\w+) \*/", rule) == names(found)


def test_json_comes_back_as_the_palette(reasons):
    found = palette({"romance": 0.9, "sea adventures": 0.6}, reasons)
    content = json.loads(to_json(found, "“Sea”, <i>she</i> said"))
    assert content["title"] == "“Sea”, <i>she</i> said"
    assert [Swatch(**colour | {"genres": [Reason(**reason) for reason in colour["genres"]]})
            for colour in content["colours"]] == found


def test_the_png_has_the_cover_and_each_swatch(reasons):
    found = palette({"romance": 0.9, "sea adventures": 0.6}, reasons)
    sheet = Image.open(io.BytesIO(to_png(draw_sheet(draw_cover(found, "Sea of Roses"), found))))
    sheet.load()
    assert (sheet.format, sheet.mode, sheet.size) == ("PNG", "RGB", (WIDTH + LEGEND, HEIGHT))
    assert sheet.crop((0, 0, WIDTH, HEIGHT)).tobytes() == draw_cover(found, "Sea of Roses").tobytes()
    for place, swatch in enumerate(found):
        height = HEIGHT / len(found)
        block = sheet.crop((WIDTH, round(place * height), WIDTH + LEGEND, round((place + 1) * height)))
        colours = sorted(block.getcolors(100_000), reverse=True)
        assert colours[0][1] == ImageColor.getrgb(swatch.hex)
        assert ImageColor.getrgb(swatch.ink) in [colour for _, colour in colours[:9]]


def test_a_cover_is_made_of_the_palette_and_the_title_is_on_a_plain_band(reasons):
    found = palette({"horror": 0.9, "sea adventures": 0.6}, reasons)
    for title in ("Dune", "It", "Emma", "Ulysses", "Persuasion", "Dracula", "The Stand"):
        cover = draw_cover(found, title)
        common = {colour for count, colour in cover.getcolors(WIDTH * HEIGHT) if count > 1500}
        assert common <= {ImageColor.getrgb(swatch.hex) for swatch in found} | {ImageColor.getrgb(found[0].ink)}
        assert len(common) >= 4
        margin = cover.crop((0, BAND[0], MARGIN - 1, BAND[1]))
        assert margin.getcolors() == [(margin.width * margin.height, ImageColor.getrgb(found[0].hex))]
        assert cover.crop((MARGIN, BAND[0], WIDTH, BAND[1])).getcolors(100_000) != [
            (margin.height * (WIDTH - MARGIN), ImageColor.getrgb(found[0].hex))]


def test_the_same_title_always_has_the_same_cover_and_titles_use_every_design(reasons, monkeypatch):
    found, used = palette({"horror": 0.9}, reasons), set()
    assert to_png(draw_cover(found, "Dune")) == to_png(draw_cover(found, "Dune"))
    assert draw_cover(found, "Dune").tobytes() != draw_cover(found, "Emma").tobytes()
    monkeypatch.setattr("cover.DESIGNS", [lambda *_, number=number: used.add(number) for number in range(len(DESIGNS))])
    for title in map(str, range(30)):
        draw_cover(found, title)
    assert used == {0, 1, 2}


@pytest.mark.parametrize("colours", [["red"], ["white", "black"], ["navy", "teal", "red"]])
@pytest.mark.parametrize("title", ["a", "b", "c", "d", "e", "f"])
def test_one_colour_is_enough_for_a_cover(reasons, colours, title):
    cover = draw_cover(palette(dict.fromkeys(colours, 0.9), reasons, "predicted"), title)
    assert len([count for count, _ in cover.getcolors(WIDTH * HEIGHT) if count > 1500]) >= 3


@pytest.mark.parametrize("title", [
    "W" * 20_000, "word " * 4000, "Donaudampfschifffahrtsgesellschaftskapitän " * 5, "i" * 200, "A", "É" * 200, "ﬃ" * 200,
    "two\nlines\tand\ra tab", "zero\u200bwidth \u202eturned\u0000", "Zażółć – naïve “Straße”", "<script>alert(1)</script>",
    "{{7*7}} ${7*7}",
])
def test_a_title_is_set_within_the_band_whatever_its_length(reasons, title):
    size, rows = set_title(title)
    assert size in SIZES
    assert all(font(size).getlength(row) <= WIDTH - 2 * MARGIN for row in rows)
    cover = draw_cover(palette({"horror": 0.9}, reasons), title)
    first, last = (cover.crop((0, top, WIDTH, top + 8)) for top in (BAND[0], BAND[1] - 8))
    assert first.getcolors() == last.getcolors() == [(8 * WIDTH, (0, 0, 0))]  # no letter reaches over the band's edges


def test_a_long_title_is_shortened_and_a_short_one_whole():
    assert set_title("Dune") == (60, ["Dune"])
    assert set_title("Café – naïve") == (60, ["Cafe - naive"])
    size, rows = set_title("A very long title with an end that nobody will ever see, " * 9)
    assert size == SIZES[-1]
    assert rows[-1].endswith("…")


@pytest.mark.parametrize("title", ["", "  \n", "書物", "Война и мир", "كتاب", "Dune 🙂", "\ud800", "\u200b"])
def test_a_title_that_the_font_cannot_write_is_left_out(reasons, title):
    found = palette({"romance": 0.9}, reasons)
    assert set_title(title) is None
    band = draw_cover(found, title).crop((0, BAND[0], WIDTH, BAND[1]))
    assert band.getcolors() == [(band.width * band.height, ImageColor.getrgb("crimson"))]
    assert ("lacks letters" in palette_of_genres("romance", reasons, title)) == bool(title)
    json.loads(to_json(found, title))


def test_a_text_whose_labels_stay_below_their_thresholds_gets_the_palette_of_the_best(reasons):
    labels, scores = ["fiction", "horror", "romance"], np.array([0.4, 0.1, 0.3], np.float32)
    none, all_ = np.zeros(3, bool), np.ones(3, bool)
    text = palette_of_text(labels, scores, none, reasons, "", "mapped")
    assert "No label reaches its threshold; this palette is that of the best-scored label with colours, romance (30 %)." in text
    assert re.findall(r"<b>(\w+)</b>", text) == ["crimson", "hotpink", "mistyrose"]
    fiction = np.array([True, False, False])
    assert "No label given has colours; this" in palette_of_text(labels, scores, fiction, reasons, "", "mapped")
    given = palette_of_text(labels, scores, all_, reasons, "", "mapped")
    assert "threshold" not in given
    assert re.findall(r"<b>(\w+)</b>", given)[:4] == ["crimson", "hotpink", "mistyrose", "black"]
    assert "None of this model’s labels has colours." in palette_of_text(
        ["fiction"], scores[:1], none[:1], reasons, "", "mapped")


def test_typed_genres_are_explained_and_unknown_ones_get_the_nearest_names(reasons):
    typed = "Fiction &gt; Romance; Sea  Adventures\nhoror;;Children&#39;s books; xyzzy"
    text = palette_of_genres(typed, reasons, "")
    assert palette_of_genres(typed.replace("&gt;", "›").replace("&#39;", "'"), reasons, "") == text
    unknown = f"no hues (not among the {len(reasons)} genres of this model’s data and table of hues"
    told = re.findall(r"<li>(.*?)</li>", text)
    assert told == [
        "fiction: no hues (what kind of fiction says more)",
        "romance: crimson, hotpink, mistyrose (the reds and pinks of roses and of love stories&#x27; covers)",
        "sea adventures: navy, teal, aquamarine (like sea stories, cosine 0.71: the sea)",
        f"horor: {unknown}; did you mean horror?)",
        "children’s books: yellow, deepskyblue, limegreen, tomato (a box of crayons)",
        f"xyzzy: {unknown})",
    ]
    assert "None of these genres has colours." in palette_of_genres("fiction", reasons, "")


def test_a_typed_colour_is_no_genre_and_has_no_swatch(reasons):
    text = palette_of_genres("teal", reasons, "")
    assert "teal: no hues (not among the" in text
    assert "None of these genres has colours." in text
    assert "<b>" not in text
    assert "<b>teal" not in palette_of_genres("teal; romance", reasons, "")


def test_typed_genres_have_bounds(reasons):
    assert "No genre yet" in palette_of_genres(" ; » ;\n", reasons, "")
    assert f"These are 51 genres; please type at most {MAX_GENRES}." in palette_of_genres(
        "»".join(map(str, range(51))), reasons, "")
    assert "has 201 characters; please shorten" in palette_of_genres("x" * (MAX_GENRE + 1), reasons, "")
    assert "no hues" in palette_of_genres(";".join(f"{number:0200}" for number in range(50)), reasons, "")


def test_markup_in_titles_genres_and_reasons_is_text():
    hostile = "<img src=x onerror=alert(1)> \" '"
    reasons = {"a": Reason("a", ["red"], hostile, hostile, 0.5)}
    page = palette_of_genres(f"{hostile}; {html.escape(hostile)}; a", reasons, hostile)
    visible = re.sub(r'(src|href)="data:[^"]*"', "", page)
    assert "<img src=x" not in visible
    assert re.findall(r"<img [^>]*>", visible) == [
        '<img alt="Mock cover of “&lt;img src=x onerror=alert(1)&gt; &quot; &#x27;” in red" >']


@pytest.mark.parametrize("hues", ['["rosé"]', '["rose"]', '"red"', "[1]", "[[]]", "null"])
def test_a_map_with_other_than_colours_is_refused_by_name(tmp_path, hues):
    save_map({"a": Reason("a", ["red"], "b", "a")}, tmp_path / "hues.json")
    assert read_map(tmp_path)["a"].hues == ["red"]
    (tmp_path / "hues.json").write_text(f'{{"a": {{"hues": {hues}, "why": "b", "like": "a", "similarity": 1}}}}')
    with pytest.raises(TagwrightError, match="is no colour of CSS|not a readable map of hues"):
        read_map(tmp_path)


def test_more_genres_than_are_shown_are_counted(reasons):
    others = sum("navy" in reason.hues for reason in reasons.values()) - palette_page.GENRES_SHOWN
    assert f"and {others} more" in palette_page.row(palette({"navy": 1.0}, reasons, "predicted")[0])
    assert "more</span>" not in palette_page.row(palette({"romance": 1.0}, reasons)[0])


def test_palettes_need_nothing_of_training():
    code = ("import sys, palette_page; heavy = {'torch', 'transformers', 'pandas', 'pydantic', 'matplotlib'};"
            "assert not heavy & set(sys.modules), heavy & set(sys.modules)")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT / "deployment" / "gradio",
                   env={"PYTHONPATH": str(ROOT), "PATH": ""})
