"""Exactly one label a row, the whole road: a raw table with class numbers, a tiny encoder, a tagger that names one class."""

import dataclasses
import functools
import json
import random
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, write_task
from encoders import make_encoder
from rich.console import Console

from tagwright import evaluation, plots
from tagwright.baseline import TfidfBaseline
from tagwright.bundle import model_card, read_bundle
from tagwright.dataset import Dataset
from tagwright.evaluation import confident_mistakes
from tagwright.losses import CrossEntropy, SummedBCE
from tagwright.model import TaggerModel, load_tagger_model, load_tokenizer
from tagwright.pipeline import Folders, run_pipeline, show_results
from tagwright.tagger import FILES, Tagger
from tagwright.task import Task
from tagwright.training import build_learner, predict

NAMES = {"1": "World", "2": "Sports", "3": "Business", "4": "Sci/Tech"}
SHARES = {"World": 0.4, "Sports": 0.3, "Business": 0.2, "Sci/Tech": 0.1}


def news(count: int, seed: int) -> list[tuple[str, str]]:
    """Class numbers and texts with two or three words of their class, in a corpus that lost its ampersands."""
    rng = random.Random(seed)
    rows = []
    for number, label in zip(rng.choices(list(NAMES), SHARES.values(), k=count), range(count), strict=True):
        words = [f"class{number}{rng.choice('abcdef')}" for _ in range(rng.randint(2, 3))]
        words += [f"filler{rng.randrange(40)}" for _ in range(rng.randint(5, 12))]
        rng.shuffle(words)
        rows.append((number, f"The day #39;s {' '.join(words)}\\no. {label}"))
    return rows


def write_rows(path, rows, header=False) -> None:
    lines = ["class_index,text"] * header + [f'"{number}","{text}"' for number, text in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf8")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Folders and records of the whole pipeline, and what it printed."""
    folder = tmp_path_factory.mktemp("news")
    rows = news(1200, seed=1)  # 120 of the rarest class: with half of them 5 epochs are enough on some machines only
    write_rows(folder / "train.csv", rows, header=True)
    write_rows(folder / "test.csv", news(200, seed=2))
    make_encoder("bert", folder / "encoder", [text for _, text in rows])
    tables = {
        "source": {"test_path": "test.csv", "columns": ["class_index", "text"]}, "input": {"damaged_html": ["text"]},
        "labels": {"field": "class_index", "format": "single"}, "labels.names": NAMES, "split": {"by": "file"},
        "model": {"encoder": str(folder / "encoder"), "max_length": 48},
        "training": {"epochs": 5, "batch_size": 16, "encoder_lr": 2e-3, "head_lr": 2e-2, "patience": 9, "soup": 1},
    }
    task = Task.load(write_task(folder, "train.csv", kind="multiclass", **tables))
    folders = Folders.of(task, folder / "work")
    console = Console(record=True, width=140)
    records = run_pipeline(task, folders, console=console)
    show_results(records, console)
    return task, folders, records, console.export_text()


def test_the_data_set_has_the_named_classes_and_the_test_file(run):
    _, folders, records, _ = run
    dataset = Dataset.load(folders.dataset)
    assert dataset.labels == list(SHARES)  # by frequency
    assert records["clean"]["rows"]["test"] == len(dataset.test) == 200
    assert (dataset.targets(dataset.train).sum(1) == 1).all()
    assert all(text.startswith("The day's ") for text in dataset.test["text"])


def test_the_model_learns_and_every_form_of_it_is_scored_by_accuracy(run):
    *_, records, printed = run
    scores = records["quantize"]["metrics"]
    assert scores.keys() == {"TF-IDF + logistic regression", "PyTorch", "ONNX fp32", "ONNX int8", "ONNX q4"}
    assert all(row["accuracy"] > 0.9 for row in scores.values())
    assert all(row["accuracy"] == row["micro_f1"] == row["p_at_1"] for row in scores.values())
    assert scores["ONNX fp32"]["accuracy"] == scores["PyTorch"]["accuracy"]
    assert records["quantize"]["agreement"]["ONNX fp32"]["label_sets"] == 1
    assert records["quantize"]["agreement"]["ONNX int8"]["label_sets"] > 0.95
    heading = next(line for line in printed.splitlines() if "macro-F1" in line)
    assert "accuracy" in heading
    assert "P@1" not in heading
    assert "threshold" not in printed


def test_the_epoch_with_the_best_accuracy_is_kept_and_no_threshold_chosen(run):
    _, folders, records, _ = run
    history = pd.DataFrame(records["train"]["history"])
    assert {"accuracy", "macro_f1", "valid_loss"} <= set(history)
    assert records["train"]["metrics"]["validation"]["accuracy"] == pytest.approx(history["accuracy"].max(), abs=0.02)
    assert read_bundle(folders.tagger).thresholds == [0] * 4
    assert plots.learning_curves(history).axes[1].get_legend().get_texts()[0].get_text() == "accuracy"


def test_the_configuration_says_single_label(run):
    config = json.loads((run[1].tagger / "config.json").read_text())
    assert config["problem_type"] == "single_label_classification"
    assert config["id2label"] == {str(index): label for index, label in enumerate(SHARES)}


def test_the_evaluation_tells_what_was_taken_for_what(run):
    _, folders, records, _ = run
    matrix = pd.read_csv(folders.evaluation / "confusion.csv", index_col="true label")
    assert list(matrix.index) == list(matrix.columns) == list(SHARES)
    assert matrix.to_numpy().sum() == 200
    accuracy = records["evaluate"]["metrics"]["PyTorch"]["accuracy"]
    assert np.trace(matrix) / 200 == pytest.approx(accuracy, abs=1e-4)
    assert f"{accuracy:.1%}" in plots.confusion(matrix.to_numpy(), list(matrix.index)).axes[0].get_title()
    assert "threshold" not in pd.read_csv(folders.evaluation / "per_label.csv")
    assert records["evaluate"]["accuracy_of_the_most_frequent_label"] == pytest.approx(matrix.loc["World"].sum() / 200)
    assert np.allclose(np.load(folders.evaluation / "scores.npz")["test"].sum(1), 1, atol=1e-5)
    assert np.allclose(np.load(folders.evaluation / "scores.npz")["baseline_test"].sum(1), 1, atol=1e-5)
    mistakes = [json.loads(line) for line in (folders.evaluation / "mistakes.jsonl").read_text().splitlines()]
    assert len(mistakes) == min(25, 200 - np.trace(matrix))


def test_a_model_without_mistakes_leaves_an_empty_file(run, tmp_path, monkeypatch):
    task, folders, _, _ = run
    monkeypatch.setattr(evaluation, "confident_mistakes", functools.partial(confident_mistakes, count=0))
    evaluation.evaluate(task, folders.dataset, folders.tagger, tmp_path / "evaluation")
    assert (tmp_path / "evaluation" / "mistakes.jsonl").read_bytes() == b""


def test_the_tagger_names_one_class_with_its_share(run):
    task, folders, _, _ = run
    dataset = Dataset.load(folders.dataset)
    for precision in FILES:
        tagger = Tagger.load(folders.tagger, precision)
        tags = tagger.tag(list(dataset.test["text"]))
        assert all(len(row) == 1 for row in tags)
        scores = tagger.scores(list(dataset.test["text"]))
        assert np.allclose(scores.sum(1), 1, atol=1e-5)
        assert [row[0][1] for row in tags] == pytest.approx(scores.max(1).tolist(), abs=1e-6)
        right = [row[0][0] == labels[0] for row, labels in zip(tags, dataset.test["labels"], strict=True)]
        assert np.mean(right) > 0.9
    model, tokenizer = load_tagger_model(folders.tagger), load_tokenizer(folders.tagger)
    logits = predict(model, tokenizer, ["class4a class4b class4c"], task.model.max_length)
    softmax = torch.tensor(logits).softmax(-1)[0]
    assert Tagger.load(folders.tagger, "fp32").tag(["class4a class4b class4c"]) == [[("Sci/Tech", pytest.approx(
        float(softmax.max()), abs=1e-4))]]


def test_the_model_card_speaks_of_one_label(run):
    manifest = read_bundle(run[1].tagger)
    card = (run[1].tagger / "README.md").read_text(encoding="utf8")
    assert "tags: [multi-class, tagwright]" in card
    assert "Gives a text the fitting one of 4 labels." in card
    assert "| model | accuracy | macro-F1 |\n|---|---|---|\n" in card
    assert "threshold" not in card
    other = model_card(dataclasses.replace(manifest, kind="multilabel"))
    assert "tags: [multi-label, tagwright]" in other
    assert "| model | P@1 | R@5 | micro-F1 | macro-F1 |" in other


def test_the_page_shows_the_best_label_and_the_others_greyed(run, tmp_path):
    space = tmp_path / "space"
    subprocess.run([sys.executable, ROOT / "deployment" / "gradio" / "assemble.py", run[1].tagger, space], check=True)
    code = ("import app; from tagwright.tagger import Tagger; import tagwright.decisions; "
            "assert tagwright.decisions.__file__.startswith(app.__file__[:-7]); "
            "print(app.answer(Tagger.load('model'), ['class4a class4b class4c']))")
    page = subprocess.run([sys.executable, "-c", code], cwd=space, env={"PYTHONPATH": str(space), "PATH": ""}, check=True,
                          capture_output=True, text=True).stdout
    given, others = page.split('<div class="tags next">')
    assert given.count('class="name"') == 1
    assert '<span class="name">Sci/Tech</span>' in given
    assert others.count('class="name"') == 3
    assert "threshold" not in page


def test_the_losses_are_torchs_and_decode_to_label_matrices():
    logits, targets = torch.tensor([[2.0, 0.0, -1.0], [0.0, 1.0, 0.5]]), torch.tensor([[1.0, 0, 0], [0, 0, 1]])
    one, many = CrossEntropy(), SummedBCE()
    assert float(one(logits, targets)) == pytest.approx(float(torch.nn.CrossEntropyLoss()(logits, torch.tensor([0, 2]))))
    assert float(many(logits, targets)) == pytest.approx(3 * float(torch.nn.BCEWithLogitsLoss()(logits, targets)))
    for loss in (one, many):
        assert loss(logits, targets, reduction="none").shape == (2,)
        assert float(loss(logits, targets, reduction="none").mean()) == pytest.approx(float(loss(logits, targets)))
        assert loss(logits.bfloat16(), targets).dtype == torch.float32
    assert one.decodes(logits).tolist() == [[True, False, False], [False, True, False]]
    assert one.activation(logits).sum(1).tolist() == pytest.approx([1, 1])
    assert many.decodes(logits).tolist() == [[True, False, False], [False, True, True]]


def test_the_head_starts_at_the_shares_of_the_classes(run):
    task, folders, _, _ = run
    model = TaggerModel.from_encoder(task.model.encoder, list(SHARES), "mean", "multiclass")
    model.init_head(load_tokenizer(task.model.encoder), torch.tensor(list(SHARES.values())), from_names=False)
    assert model.head.bias.softmax(0).tolist() == pytest.approx(list(SHARES.values()))
    learner = build_learner(task, Dataset.load(folders.dataset), bar=False)
    assert isinstance(learner.loss_func, CrossEntropy)


def test_the_baseline_gives_shares_that_add_up():
    texts = ["red apple", "red cherry", "green pea", "green bean", "blue sky", "blue sea"] * 3
    targets = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 2, 2] * 3]
    one, many = (TfidfBaseline(kind).fit(texts, targets).predict_proba(["red sea", "nothing"]) for kind in
                 ("multiclass", "multilabel"))
    assert one.sum(1) == pytest.approx([1, 1], abs=1e-5)
    assert np.allclose(one, many / many.sum(1, keepdims=True), atol=1e-6)


def test_a_confident_mistake_is_told_once():
    test = pd.DataFrame({"line": [1, 2, 3], "text": ["x", "y", "z"], "labels": [["a"], ["b"], ["c"]]})
    dataset = Dataset(["a", "b", "c"], test, test, test, {})
    scores = np.array([[0.1, 0.2, 0.7], [0.1, 0.8, 0.1], [0.9, 0.0, 0.1]])
    mistakes = confident_mistakes(dataset, scores, np.zeros(3), kind="multiclass")
    assert mistakes[["kind", "label", "score", "line"]].to_numpy().tolist() == [["wrong", "a", 0.9, 3], ["wrong", "c", 0.7, 1]]
    assert mistakes["labels"].tolist() == [["c"], ["a"]]
