"""Which model answers: the best on the validation rows of this data set, and only one that can be compared."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from tiny import LABELS, write_tiny

from tagwright import promotion
from tagwright.bundle import read_bundle, write_bundle
from tagwright.dataset import Dataset, clean
from tagwright.errors import TagwrightError
from tagwright.evaluation import evaluate
from tagwright.onnx_export import add_labels, quantize
from tagwright.pipeline import Folders
from tagwright.promotion import promote, score, show_promotion
from tagwright.stage import listing, write_json
from tagwright.tagger import Tagger
from tagwright.task import Task
from tagwright.training import train


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Task, Folders]:
    """A task, and its folders with a new tagger."""
    folder = tmp_path_factory.mktemp("promotion")
    task = Task.load(write_tiny(folder, rows=400, epochs=3))
    folders = Folders.of(task, folder / "work")
    train(task, folders.dataset, folders.model, bar=False)
    evaluate(task, folders.dataset, folders.model, folders.evaluation)
    quantize(task, folders.dataset, folders.model, folders.evaluation, folders.tagger)
    return task, folders


@pytest.fixture
def folders(made, tmp_path) -> Folders:
    """A copy of them."""
    return Folders.under(Path(shutil.copytree(made[1].dataset.parent, tmp_path / "books")))


def run(made, folders: Folders, force: bool = False) -> dict:
    return promote(made[0], folders.dataset, folders.tagger, folders.models, folders.best, force)


def change(folder: Path, **values) -> None:
    """A model folder whose manifest says something else; its record fits."""
    write_bundle(folder, replace(read_bundle(folder), **values))
    record = json.loads((folder / "run.json").read_text())
    write_json(folder / "run.json", record | {"files": listing(folder)})


def make_worse(folder: Path) -> None:
    change(folder, thresholds=[0.999] * len(LABELS))  # gives no label: a score of 0


def other(folders: Folders, name: str = "other") -> Path:
    """One more model, as `compare_models` leaves it."""
    return Path(shutil.copytree(folders.tagger, folders.models / name / "tagger"))


def test_the_first_model_is_promoted_whole_and_then_the_stage_is_skipped(made, folders):
    record = run(made, folders)
    assert (record["promoted"], record["encoder"]) == ("just made", read_bundle(folders.tagger).encoder)
    assert 0 < record["score"] == score(folders.tagger, Dataset.load(folders.dataset), "validation")
    in_pytorch = read_bundle(folders.best).metrics["validation"]["micro_f1"]
    assert record["score"] == pytest.approx(in_pytorch, abs=0.1)  # int8, of a tiny network
    assert read_bundle(folders.best).checksum == read_bundle(folders.tagger).checksum
    assert run(made, folders)["skipped"]
    assert [path.name for path in folders.best.parent.iterdir() if path.name.startswith(".")] == []


def test_the_files_are_not_copied_and_do_not_go_with_their_first_folder(made, folders):
    run(made, folders)
    weights = "model.safetensors"
    assert os.path.samefile(folders.best / weights, folders.tagger / weights)
    assert not os.path.samefile(folders.best / "README.md", folders.tagger / "README.md")
    expected = Tagger.load(folders.tagger).tag(["cats1 cats2"])
    shutil.rmtree(folders.tagger)
    assert Tagger.load(folders.best).tag(["cats1 cats2"]) == expected


def test_where_files_can_have_one_name_only_they_are_copied(made, folders, monkeypatch):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(promotion.os, "link", refuse)
    run(made, folders)
    assert not os.path.samefile(folders.best / "model.safetensors", folders.tagger / "model.safetensors")
    assert read_bundle(folders.best).checksum == read_bundle(folders.tagger).checksum


def test_what_a_stage_writes_anew_does_not_change_the_promoted_model(made, folders):
    run(made, folders)
    before = listing(folders.best)
    add_labels(folders.tagger, ["dinosaurs"])
    task = made[0]
    quantize(task, folders.dataset, folders.model, folders.evaluation, folders.tagger, force=True)
    assert listing(folders.best) == before


def test_a_better_model_takes_the_place_of_a_worse_one(made, folders):
    best = read_bundle(folders.tagger).checksum
    keep = Path(shutil.copytree(folders.tagger, folders.tagger.with_name("good")))
    make_worse(folders.tagger)
    assert run(made, folders)["score"] == 0
    shutil.rmtree(folders.tagger)
    keep.rename(folders.tagger)
    record = run(made, folders)
    assert (record["promoted"], read_bundle(folders.best).checksum) == ("just made", best)
    assert [candidate["name"] for candidate in record["candidates"]] == ["promoted before", "just made"]
    assert [candidate["score"] for candidate in record["candidates"]] == [0, record["score"]]


def test_a_worse_model_does_not_take_the_place_of_a_better_one(made, folders):
    first = run(made, folders)
    best = read_bundle(folders.best).checksum
    make_worse(folders.tagger)
    record = run(made, folders)
    assert (record["promoted"], record["score"]) == ("promoted before", first["score"])
    assert read_bundle(folders.best).checksum == best
    assert "promoted before, answers: micro-F1" in record["why"]
    assert "just made (0.0000)" in record["why"]
    again = run(made, folders, force=True)  # it can be compared again, and again
    assert again["score"] == first["score"]


def test_the_one_there_stays_where_scores_are_equal(made, folders):
    run(made, folders)
    change(folders.tagger, title="As good as the other")
    record = run(made, folders)
    assert record["promoted"] == "promoted before"
    assert read_bundle(folders.best).title != "As good as the other"
    assert len({candidate["score"] for candidate in record["candidates"]}) == 1


def test_of_the_compared_models_the_best_is_promoted_and_the_pipelines_own_where_equal(made, folders):
    other(folders)
    assert run(made, folders)["promoted"] == "just made"
    shutil.rmtree(folders.best)
    make_worse(folders.tagger)
    record = run(made, folders)
    assert record["promoted"] == "models/other"
    assert read_bundle(folders.best).checksum == read_bundle(folders.models / "other" / "tagger").checksum


def test_a_model_that_was_compared_since_runs_the_stage_again(made, folders):
    run(made, folders)
    other(folders)
    record = run(made, folders)
    assert "skipped" not in record
    assert [candidate["name"] for candidate in record["candidates"]] == ["promoted before", "just made", "models/other"]


def test_a_model_with_other_labels_or_a_damaged_one_is_not_compared(made, folders):
    change(other(folders, "renamed"), labels=["dogs", *LABELS[1:]])
    (other(folders, "damaged") / "tokenizer.json").write_text("{}")
    record = run(made, folders)
    reasons = {candidate["name"]: candidate.get("reason") for candidate in record["candidates"]}
    assert reasons["just made"] is None
    assert reasons["models/renamed"] == "has other labels"
    assert "tokenizer.json: changed since the model was written" in reasons["models/damaged"]
    assert record["promoted"] == "just made"


def test_a_model_of_other_rows_is_not_compared_since_it_may_have_learned_those_that_judge(made, folders, tmp_path):
    task = made[0]
    run(made, folders)
    best = read_bundle(folders.best).checksum
    rows = task.raw_path().read_text().splitlines()
    (tmp_path / "rows.jsonl").write_text("\n".join(rows[:350]) + "\n")
    clean(task, tmp_path / "rows.jsonl", folders.dataset)
    with pytest.raises(TagwrightError, match="another version of the data set; make it again with `tagwright demo books`"):
        run(made, folders)
    assert read_bundle(folders.best).checksum == best
    train(task, folders.dataset, folders.model, bar=False)
    evaluate(task, folders.dataset, folders.model, folders.evaluation)
    quantize(task, folders.dataset, folders.model, folders.evaluation, folders.tagger, formats=["int8"])
    record = run(made, folders)
    assert record["candidates"][0]["reason"] == "trained on another version of the data set"
    assert record["promoted"] == "just made"


def test_labels_added_by_name_are_no_other_labels_and_pass_to_the_successor(made, folders):
    make_worse(folders.tagger)
    run(made, folders)
    add_labels(folders.best, {"dinosaurs": "Large extinct reptiles."})
    assert run(made, folders)["skipped"]
    good = made[1].tagger
    shutil.rmtree(folders.tagger)
    shutil.copytree(good, folders.tagger)
    record = run(made, folders)
    assert (record["promoted"], record["lost"]) == ("just made", [])
    assert read_bundle(folders.best).added == {"dinosaurs": "Large extinct reptiles."}
    assert read_bundle(folders.tagger).added == {}
    assert run(made, folders)["skipped"]
    kept = run(made, folders, force=True)
    assert (kept["promoted"], kept["score"]) == ("promoted before", record["score"])
    assert read_bundle(folders.best).added == {"dinosaurs": "Large extinct reptiles."}


def test_labels_that_the_successor_cannot_take_are_named(made, folders):
    make_worse(folders.tagger)
    run(made, folders)
    add_labels(folders.best, ["dinosaurs"])
    good = other(folders, "int8")
    change(good, thresholds=read_bundle(made[1].tagger).thresholds)
    manifest = read_bundle(good)
    (good / "model.safetensors").unlink()
    write_bundle(good, manifest)
    record = run(made, folders)
    assert (record["promoted"], record["lost"]) == ("models/int8", ["dinosaurs"])
    console = Console(record=True, width=200)
    show_promotion(record, console)
    assert "it cannot take the labels that had been added by name: dinosaurs" in console.export_text()


def test_a_new_model_that_is_damaged_is_an_error_and_changes_nothing(made, folders):
    run(made, folders)
    before = listing(folders.best)
    folders.tagger.joinpath("config.json").unlink()
    with pytest.raises(TagwrightError, match="config.json: missing from the model folder"):
        run(made, folders, force=True)
    assert listing(folders.best) == before


def test_the_folder_that_answers(made, folders):
    assert folders.answering == folders.tagger
    run(made, folders)
    assert folders.answering == folders.best
