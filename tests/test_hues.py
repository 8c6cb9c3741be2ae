"""Genres to hues: the table, what is near in meaning, and that each hue has its reason."""

import json
import shutil
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from conftest import write_jsonl, write_task
from encoders import make_encoder
from matplotlib.colors import CSS4_COLORS
from typer.testing import CliRunner

from tagwright import hues
from tagwright.bundle import read_bundle
from tagwright.cli import app
from tagwright.dataset import Dataset, clean
from tagwright.errors import TagwrightError
from tagwright.hues import ENCODER, NEAR, Reason, build_map, genre_parts, hues_of, load_map, read_table, save_map
from tagwright.model import embed_names
from tagwright.onnx_export import add_labels
from tagwright.pipeline import Folders, run_pipeline
from tagwright.task import ROOT, Task
from tagwright.training import train

SAMPLE = ROOT / "data" / "sample" / "book_hues.jsonl"


@pytest.fixture(scope="module")
def table() -> dict[str, Reason]:
    return read_table()


@pytest.fixture(scope="module")
def embed():
    return partial(embed_names, ENCODER)


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
    ("Fiction » Children's books", ["fiction", "children’s books"]), ("Fiction > Sci-fi › Dark", ["fiction", "sci-fi", "dark"]),
    ("Fiction &raquo; Thriller &amp; suspense", ["fiction", "thriller & suspense"]),
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
    style = json.dumps({"a": {"hues": ["red;background:url(//x)"], "why": "", "like": "a"}})
    text = '{"a": {"hues": "red", "why": "", "like": "a"}}'
    odd = json.dumps({"a": {"hues": ["red"], "why": "", "like": "a", "similarity": "near"}})
    for damaged in (odd, "", "[]", '{"a": {"hues": []}}', text, "{", "[" * 100_000, style):
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


def test_the_serving_install_reads_a_map_without_the_training_packages(tmp_path):
    save_map({"romance": Reason("romance", ["crimson"], "roses", "romance")}, tmp_path / "hues.json")
    code = ("import sys; from pathlib import Path; from tagwright.hues import hues_of, load_map;"
            "print(list(hues_of(['Fiction » Romance'], load_map(Path(sys.argv[1])))));"
            "heavy = {'torch', 'transformers', 'pydantic', 'matplotlib', 'pandas', 'lxml'};"
            "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)")
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "hues.json"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (0, "['crimson']\n"), result.stderr


# --- from the data set into the model folder ---------------------------------------------------------------------


GENRES = {"horror": "Fiction » Horror » Ghost", "travel": "Nonfiction » Travel", "poetry": "Poetry; Fiction » Whaling yarns"}


def write_books(folder, way: str) -> Task:
    """Books of three kinds that a tiny encoder tells apart by their words."""
    rows = [{"text": " ".join(f"{kind}{(number * step) % 9}" for step in (1, 2, 5, 7)) + f" number {number}", "genres": path}
            for number in range(60) for kind, path in GENRES.items()]
    write_jsonl(folder / "rows.jsonl", rows)
    make_encoder("bert", folder / "encoder", [row["text"] for row in rows])
    training = {"epochs": 3, "batch_size": 16, "encoder_lr": 3e-3, "head_lr": 2e-2, "soup": 1}
    return Task.load(write_task(
        folder, "rows.jsonl", labels={"field": "genres", "format": "paths", "hues": way}, training=training,
        model={"encoder": str(folder / "encoder"), "max_length": 24}))


@pytest.fixture(scope="module", params=["mapped", "predicted"])
def made(request, tmp_path_factory):
    """The way, its folders and its records, after the whole pipeline."""
    folder = tmp_path_factory.mktemp(request.param)
    task = write_books(folder, request.param)
    folders = Folders.of(task, folder / "work")
    return request.param, folders, run_pipeline(task, folders)


def test_the_map_goes_from_the_data_set_into_every_model_folder(made):
    way, folders, _ = made
    reasons = load_map(folders.dataset / "hues.json")
    assert set(reasons) == set(read_table()) | {"whaling yarns"}
    for folder in (folders.model, folders.tagger):
        manifest = read_bundle(folder)
        assert manifest.hues == way
        assert "hues.json" in manifest.files
        assert load_map(folder / "hues.json") == reasons
    genres = {"horror", "ghost", "travel", "poetry", "whaling yarns"}
    labels = set(Dataset.load(folders.dataset).labels)
    assert labels == (genres if way == "mapped" else {hue for genre in genres for hue in reasons[genre].hues})


def test_a_changed_map_makes_the_model_folder_invalid(made, tmp_path):
    folder = shutil.copytree(made[1].tagger, tmp_path / "tagger")
    text = (folder / "hues.json").read_text(encoding="utf8")
    (folder / "hues.json").write_text(text.replace("darkred", "crimson"), encoding="utf8")
    with pytest.raises(TagwrightError, match=r"hues.json: changed"):
        read_bundle(folder)


def test_the_command_tells_the_map_of_a_model_folder(made, tmp_path):
    folder = shutil.copytree(made[1].tagger, tmp_path / "tagger")
    reasons = load_map(folder / "hues.json")
    save_map(reasons | {"ghost": Reason("ghost", ["teal"], "marsh gas", "ghost")}, folder / "hues.json")
    told = CliRunner().invoke(app, ["explain-hue", "Fiction » Horror » Ghost", "whaling yarns", "opera",
                                    "--model", str(folder)])
    assert told.exit_code == 0
    assert told.output.splitlines() == [
        str(reasons["fiction"]), str(reasons["horror"]), "ghost: teal (marsh gas)", str(reasons["whaling yarns"]),
        "opera: no hues (the model's data set has no such genre)"]


def test_a_text_is_tagged_with_genres_and_told_their_colours(made):
    way, folders, _ = made
    told = CliRunner().invoke(app, ["tag", str(folders.best), "poetry1 poetry2 poetry5 poetry7 number 3"])
    assert told.exit_code == 0
    lines = told.output.strip().splitlines()
    assert len(lines) == (3 if way == "mapped" else 2)
    hues_told = lines[2].removeprefix("    colours: ").split(", ") if way == "mapped" else lines[1].split()[::2]
    assert {"lavender", "ivory", "cadetblue"} <= {*hues_told}


def test_the_evaluation_scores_the_colours_too(made):
    scores = made[2]["evaluate"]["hues"]
    assert set(scores) == {"TF-IDF + logistic regression", "PyTorch"}
    assert all(found["micro_f1"] > 0.8 for found in scores.values())
    for found in scores.values():
        assert found["macro_f1"] < found["macro_f1_supported"] <= 1  # most colours of the map are on no book


def test_a_changed_table_cleans_again(tmp_path, monkeypatch):
    task = write_books(tmp_path, "mapped")
    clean(task, task.raw_path(), tmp_path / "out")
    assert clean(task, task.raw_path(), tmp_path / "out").get("skipped")
    changed = tmp_path / "hues.toml"
    changed.write_text(hues.TABLE.read_text(encoding="utf8").replace('"lavender", "ivory"', '"red", "ivory"'), encoding="utf8")
    monkeypatch.setattr(hues, "TABLE", changed)
    assert not clean(task, task.raw_path(), tmp_path / "out").get("skipped")
    assert load_map(tmp_path / "out" / "hues.json")["poetry"].hues[:2] == ["red", "ivory"]


def test_a_data_set_that_was_cleaned_for_another_way_is_not_trained_on(tmp_path):
    task = write_books(tmp_path, "mapped")
    clean(task, task.raw_path(), tmp_path / "out")
    other = Task.load(write_task(tmp_path, "rows.jsonl", labels={"field": "genres", "format": "paths", "hues": "predicted"}))
    with pytest.raises(TagwrightError, match="cleaned with labels.hues = 'mapped'.* `tagwright clean books` again"):
        train(other, tmp_path / "out", tmp_path / "model")


def test_a_label_that_is_added_by_name_has_its_colours(made, tmp_path):
    way, folders, _ = made
    if way == "mapped":
        folder = shutil.copytree(folders.best, tmp_path / "model")
        add_labels(folder, ["cozy mysteries"])
        reason = load_map(folder / "hues.json")["cozy mysteries"]
        assert reason.like in read_table()
        assert reason.hues == read_table()[reason.like].hues
