"""The side-by-side benchmark and the ablation on a tiny task: the same code as for the real ones, everything really trained."""

import json
import shutil

import numpy as np
import pandas as pd
import pydantic
import pytest
from conftest import write_jsonl, write_task
from fastai.callback.core import Callback
from tiny import write_tiny

from benchmarks import ablation, pseudo_labels, quality, runs
from benchmarks.rivals import FastText, Template, Tfidf
from tagwright import metrics, training
from tagwright.checkpoint import Checkpoint
from tagwright.dataset import Dataset
from tagwright.errors import Paused
from tagwright.model import parameter_groups
from tagwright.stage import RECORD, write_json
from tagwright.task import Task

pytest.importorskip("fasttext", reason="fastText has wheels for Linux on x86_64 only")


class QuickFastText(FastText):
    walks, buckets = [[{"epoch": 100}, {"epoch": 10}]], 1000


class QuickTfidf(Tfidf):
    search = [1.0, 30.0]


class QuickTemplate(Template):
    recipe = Template.recipe | {"epochs": 2}


class OnceTagwright(quality.Tagwright):
    seeds = False  # exporting takes the longest


SYSTEMS = [QuickFastText(), QuickTfidf(), QuickTemplate(), OnceTagwright()]
FORMS = ["fastText", "TF-IDF + logistic regression", "the usual template", "Tagwright PyTorch", "Tagwright int8"]


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> Task:
    return Task.load(write_tiny(tmp_path_factory.mktemp("tiny"), rows=240, epochs=10))


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    return tmp_path_factory.mktemp("bench")


@pytest.fixture(scope="module")
def data_dirs(task, work):
    return runs.data_folders(task, None, work)


@pytest.fixture(scope="module")
def measured(task, data_dirs, work) -> dict:
    return quality.measure(task, data_dirs, SYSTEMS, [1, 2], work)


@pytest.mark.long
def test_every_system_is_trained_scored_weighed_and_timed(measured):
    assert list(measured["systems"]) == FORMS
    for form, system in measured["systems"].items():
        assert set(system["metrics"]) == {"p_at_1", "r_at_5", "micro_f1", "macro_f1", "macro_f1_supported"}
        assert system["train_seconds"]["mean"] > 0
        assert system["ms_per_text"] > 0
        assert system["bytes"] > 1000
        assert system["runs"] == (2 if form in ("fastText", "the usual template") else 1)
        assert (system["metrics"]["p_at_1"]["spread"] is None) == (system["runs"] == 1)
    assert measured["systems"]["fastText"]["metrics"]["p_at_1"]["mean"] > 0.8
    assert measured["systems"]["TF-IDF + logistic regression"]["metrics"]["micro_f1"]["mean"] > 0.8
    for form in quality.Tagwright.forms:
        assert measured["systems"][form]["metrics"]["p_at_1"]["mean"] > 0.6


@pytest.mark.long
def test_the_table_has_a_line_for_each_system(measured):
    table = quality.render({"tasks": {"books": measured}})
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0].removeprefix("| ") for line in lines] == ["system", *FORMS]
    assert len({line.count("|") for line in lines}) == 1
    value = measured["systems"]["the usual template"]["metrics"]["p_at_1"]
    assert f"{value['mean']:.3f} ± {value['spread']:.3f}" in lines[3]


@pytest.mark.long
def test_systems_that_are_left_out_keep_what_they_scored_on_the_same_rows(measured, data_dirs, monkeypatch):
    monkeypatch.setattr(quality, "SYSTEMS", {system.key: system for system in SYSTEMS})
    ours = SYSTEMS[3:]
    assert quality.others(measured, data_dirs, ours) == {form: measured["systems"][form] for form in FORMS[:3]}
    assert quality.others(None, data_dirs, SYSTEMS) == {}
    few = {form: measured["systems"][form] for form in FORMS[1:]}
    for before in (None, measured | {"data": ["others"]}, measured | {"machine": "another"}, measured | {"systems": few}):
        assert quality.others(before, data_dirs, ours) is None


@pytest.mark.long
def test_what_is_on_disk_is_not_made_again_and_what_is_missing_is(task, data_dirs, work, measured):
    before = {path: path.stat().st_mtime_ns for path in work.rglob(RECORD)}
    gone = next(path.parent for path in before if path.parent.name.startswith("dataset-seed2") and "fasttext" in str(path))
    shutil.rmtree(gone)
    again = quality.measure(task, data_dirs, SYSTEMS, [1, 2], work)
    after = {path: path.stat().st_mtime_ns for path in work.rglob(RECORD)}
    assert {path for path in after if after[path] != before[path]} == {gone / RECORD}
    scores = {form: system["metrics"] for form, system in measured["systems"].items() if form != "fastText"}
    assert {form: again["systems"][form]["metrics"] for form in scores} == scores


def test_a_run_that_was_killed_leaves_nothing_that_counts(task, data_dirs, tmp_path):
    class Killed(QuickTfidf):
        def train(self, *args):
            super().train(*args)
            raise KeyboardInterrupt

    run = quality.Run(task, data_dirs[0], Killed(), 1, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        run.make()
    assert not run.done
    assert quality.Run(task, data_dirs[0], QuickTfidf(), 1, tmp_path).make()["forms"]
    assert run.done


def test_our_training_goes_on_where_it_was_killed_and_its_seconds_add_up(task, data_dirs, tmp_path, monkeypatch, capsys):
    class Killed(Checkpoint):
        def after_batch(self):
            if self.epoch == 1:
                raise KeyboardInterrupt

        def spent(self):
            return 1000.0

    task = runs.with_tables(task, {"training": {"epochs": 2, "soup": 1}})
    run = quality.Run(task, data_dirs[0], quality.Tagwright(), 1, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(training, "Checkpoint", Killed)
        with pytest.raises(Paused):
            run.make()
    capsys.readouterr()
    assert 1000 < run.make()["train_seconds"] < 1500
    assert "going on after run 1, epoch 1" in capsys.readouterr().out
    assert {path.name for path in run.folder.parent.iterdir()} == {run.folder.name, run.choice_folder.name}


def test_a_changed_recipe_is_another_run_for_those_it_concerns(task, data_dirs, work):
    longer = runs.with_tables(task, {"training": {"epochs": 11}})
    same = {system.key: quality.Run(task, data_dirs[0], system, 1, work).folder
            == quality.Run(longer, data_dirs[0], system, 1, work).folder for system in SYSTEMS}
    assert same == {"fasttext": True, "tfidf": True, "template": False, "tagwright": False}


def test_choices_do_not_look_at_test_rows(task, data_dirs, tmp_path):
    """With other labels in the test rows, settings, thresholds and validation scores stay what they are."""
    spoilt = tmp_path / "dataset"
    shutil.copytree(data_dirs[0], spoilt)
    test = pd.read_parquet(spoilt / "test.parquet")
    test.assign(labels=[["cats"]] * len(test)).to_parquet(spoilt / "test.parquet")
    records = [quality.Run(task, folder, QuickTfidf(), 1, tmp_path / name).make()
               for name, folder in (("true", data_dirs[0]), ("false", spoilt))]
    (true, false), form = records, "TF-IDF + logistic regression"
    assert true["chosen"] == false["chosen"]
    for key in ("threshold", "validation"):
        assert true["forms"][form][key] == false["forms"][form][key]
    assert true["forms"][form]["test"] != false["forms"][form]["test"]


@pytest.mark.long
def test_fasttext_takes_the_best_settings_that_were_tried(task, work, measured):
    choice, = (work / "books" / "fasttext").glob("*-choice-*/run.json")
    record = json.loads(choice.read_text())
    best = max(record["tried"], key=lambda trial: trial["score"])
    assert 4 <= len(record["tried"]) <= 6
    assert {trial["settings"]["loss"] for trial in record["tried"]} == {"ova", "softmax"}
    assert measured["systems"]["fastText"]["chosen"] == best["settings"]


def test_a_saved_tfidf_model_gives_what_the_fitted_one_gave(task, data_dirs, tmp_path):
    dataset = Dataset.load(data_dirs[0])
    fitted, _ = Tfidf()._fit(task, dataset, 30.0)
    Tfidf().train(task, data_dirs[0], {"C": 30.0}, 1, tmp_path)
    loaded = Tfidf().load(task, dataset.labels, tmp_path, {"C": 30.0})
    texts = [*dataset.test["text"], "", "cats1 and what it never saw"]
    assert np.allclose(loaded.scores(texts), fitted.predict_proba(texts), atol=1e-5)


def test_the_template_is_what_tutorials_show(task, data_dirs):
    dataset, template = Dataset.load(data_dirs[0]), Template()
    assert template.depends(runs.with_tables(task, {"training": {"soup": 2}}), 200)["epochs"] == 10  # as one run of ours
    settings = template.depends(runs.with_tables(task, {"training": {"epochs": 3, "soup": 1}}), 200)
    assert (settings["epochs"], settings["batch_size"]) == (5, 16)
    learner = template.learner(task, dataset, settings, 1)
    assert type(learner.model.hf_model).__name__ == "BertForSequenceClassification"
    assert type(learner.loss_func).__name__ == "BCEWithLogitsLossFlat"
    assert learner.dls.bs == 16
    inputs, targets = learner.dls.one_batch()
    assert targets.shape == (16, len(dataset.labels))
    assert learner.loss_func(learner.model(inputs).logits, targets) < 1.5  # averaged, not summed, over labels
    assert list(learner.dls.vocab) == dataset.labels


def test_folds_share_out_all_rows_and_validation_lies_in_the_training_part(task, tmp_path):
    folders = runs.data_folders(task, 3, tmp_path)
    folds = [Dataset.load(folder) for folder in folders]
    lines = [{part: set(getattr(fold, part)["line"]) for part in ("train", "validation", "test")} for fold in folds]
    assert len(folders) == 3
    assert set.union(*(fold["test"] for fold in lines)) == set.union(*lines[0].values())
    assert sum(len(fold["test"]) for fold in lines) == sum(map(len, lines[0].values()))
    for fold, parts in zip(folds, lines, strict=True):
        assert not parts["train"] & parts["validation"]
        assert not parts["test"] & (parts["train"] | parts["validation"])
        shares = fold.targets(fold.test).mean(0) / fold.targets(fold.train).mean(0)
        assert (abs(shares - 1) < 0.2).all()  # stratified
    scored = quality.measure(task, folders, [QuickTfidf()], [1, 2], tmp_path)
    records = [quality.Run(task, folder, QuickTfidf(), 1, tmp_path).make() for folder in folders]
    p_at_1 = [record["forms"]["TF-IDF + logistic regression"]["test"]["p_at_1"] for record in records]
    assert scored["systems"]["TF-IDF + logistic regression"]["metrics"]["p_at_1"]["mean"] == round(float(np.mean(p_at_1)), 4)
    assert scored["folds"] == 3


def test_one_label_a_row_is_scored_by_accuracy(task, tmp_path):
    rows = [json.loads(line) for line in (task.file.parent / "rows.jsonl").read_text().splitlines()]
    write_jsonl(tmp_path / "rows.jsonl", [row for row in rows if len(row["tags"]) == 1])
    one = Task.load(write_task(tmp_path, "rows.jsonl", kind="multiclass", model=task.model.model_dump(),
                               training={"epochs": 1, "batch_size": 16}))
    data_dirs = runs.data_folders(one, None, tmp_path)
    found = quality.measure(one, data_dirs, SYSTEMS[:3], [1], tmp_path)
    assert found["systems"]["fastText"]["metrics"]["accuracy"]["mean"] > 0.8
    assert found["systems"]["TF-IDF + logistic regression"]["metrics"]["accuracy"]["mean"] > 0.8
    assert 0 < found["systems"]["the usual template"]["metrics"]["accuracy"]["mean"] <= 1
    assert "| accuracy |" in quality.render({"tasks": {"books": found}})


def test_bars_are_for_scores_to_pass_and_for_seconds_to_stay_under():
    system = {"metrics": {"p_at_1": {"mean": 0.75}, "r_at_5": {"mean": 0.6}}, "train_seconds": {"mean": 901.0}}
    measured = {"systems": dict.fromkeys(quality.Tagwright.forms, system)}
    checks = quality.check_bars(measured, {"p_at_1": 0.75, "r_at_5": 0.7, "train_seconds": 900})
    assert [check["what"] for check in checks[:3]] == ["p_at_1", "r_at_5", "train_seconds"]
    assert [check["met"] for check in checks] == [True, False, False] * 2


@pytest.mark.long
def test_the_ablation_trains_each_variation_once_and_compares_it_with_the_base(task, data_dirs, tmp_path, monkeypatch):
    stuck = ablation.Variation("hardly trained", "tiny steps",
                               {"training": {"head_init": "random", "encoder_lr": 1e-7, "head_lr": 1e-7}})
    thawing = ablation.Variation("gradual unfreezing", "from above", callbacks=(ablation.GradualUnfreezing,))
    tuned = ablation.Variation("tuned", "by Optuna", prepare=ablation.tuned)
    monkeypatch.setattr(ablation, "TRIALS", 2)
    few = ablation.Variation("half of the rows", "one in two", share=0.5)
    variations = [ablation.BASE, stuck, thawing, tuned, few]
    monkeypatch.setattr(ablation, "VARIATIONS", {task.name: variations})
    monkeypatch.setattr(ablation, "RESULTS", tmp_path / "ablation.json")
    monkeypatch.setattr(ablation, "write_results", lambda name, results: write_json(tmp_path / f"{name}.json", results))
    page = tmp_path / "page.md"
    page.write_text("<!-- ablation -->\n<!-- /ablation -->\n")
    monkeypatch.setattr(ablation, "PAGE", page)
    for variation in (ablation.BASE, thawing, tuned, few, stuck):
        row = ablation.measure(task, data_dirs[0], variation, [1, 2], tmp_path)
        ablation.keep(task, data_dirs[0], {"variations": {variation.name: row}})
        assert ("Not measured yet: hardly trained" in page.read_text()) == (variation is not stuck)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(RECORD)}
    assert len(before) == 10
    rows = json.loads((tmp_path / "ablation.json").read_text())["tasks"][task.name]["variations"]
    assert list(rows) == [variation.name for variation in variations]
    assert ablation.verdict(rows["hardly trained"], rows[ablation.BASE.name]).startswith("worse (-")
    assert {"encoder_lr", "loss"} <= set(rows["tuned"]["training"])
    assert rows["gradual unfreezing"]["test"] != rows[ablation.BASE.name]["test"]
    half = [json.loads(path.read_text()) for path in tmp_path.rglob(RECORD) if "half" in str(path)]
    assert {record["rows"] for record in half} == {round(len(Dataset.load(data_dirs[0]).train) / 2)}
    assert not list(tmp_path.rglob("*.safetensors"))
    assert ablation.measure(task, data_dirs[0], stuck, [1, 2], tmp_path) == rows["hardly trained"]
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob(RECORD)}
    assert "| hardly trained | tiny steps | worse (-" in page.read_text()

    once = ablation.recipe_of(runs.with_tables(task, {"training": {"epochs": 1}}), {})
    pseudo = {"seeds": [1], "rows": pseudo_labels.measure(once, data_dirs[0], [1], tmp_path)}
    ablation.keep(task, data_dirs[0], {"pseudo_labels": pseudo})
    assert "| half of the training rows | " in page.read_text()
    assert "| hardly trained | tiny steps | worse (-" in page.read_text()
    monkeypatch.setattr(ablation, "VERSION", 0)  # rows of other code cannot be compared
    assert ablation.kept_before(task, data_dirs[0]) == {"variations": {}}


def test_validation_scores_come_with_thresholds_from_other_rows(task, data_dirs):
    dataset = Dataset.load(data_dirs[0])
    few = runs.with_tables(task, {"training": {"epochs": 1, "soup": 1, "thresholds": "per_label"}})
    trained = runs.Trained(few, dataset)
    y_true, scores = dataset.targets(dataset.validation), trained.scores(dataset.validation)
    in_sample = metrics.summary(y_true, scores, trained.thresholds, task.kind)
    told = trained.result()["validation"]
    assert told["p_at_1"] == in_sample["p_at_1"]
    assert told["micro_f1"] != in_sample["micro_f1"]


def test_unfreezing_goes_from_the_head_down_and_ends_within_the_first_epoch(task, data_dirs):
    trained = []

    class Look(Callback):
        order = 1

        def before_batch(self):
            if self.training:
                trained.append([all(parameter.requires_grad for parameter in group) for group in parameter_groups(self.model)])

    once = runs.with_tables(task, {"training": {"epochs": 2, "soup": 1}})
    runs.Trained(once, Dataset.load(data_dirs[0]), callbacks=[ablation.GradualUnfreezing(), Look()])
    thawed = [sum(groups) for groups in trained]
    assert thawed == sorted(thawed)
    assert set(thawed) == set(range(1, len(trained[0]) + 1))
    assert all(groups == sorted(groups) for groups in trained)  # from above: the head is the last
    assert all(all(groups) for groups in trained[len(trained) // 2 :])


@pytest.mark.parametrize(("mean", "spread", "expected"), [
    (0.63, 0.01, "better (+3.0)"), (0.61, 0.01, "no clear difference (+1.0)"), (0.57, 0.01, "worse (-3.0)"),
    (0.61, None, "+1.0, with one seed"),
])
def test_a_difference_counts_where_it_is_larger_than_the_spread_explains(mean, spread, expected):
    row, base = ({"chosen_by": {"mean": value, "spread": spread}, "seeds": [1, 2, 3]} for value in (mean, 0.6))
    assert ablation.verdict(row, base) == expected


def test_the_shipped_variations_are_valid_recipes():
    for name, variations in ablation.VARIATIONS.items():
        recipes = {(ablation.recipe_of(Task.load(name), variation.tables).model_dump_json(), variation.callbacks,
                    variation.prepare, variation.share) for variation in variations}
        assert len(recipes) == len(variations)
    with pytest.raises(pydantic.ValidationError, match="head_innit"):
        runs.with_tables(Task.load("cooking"), {"training": {"head_innit": "random"}})
