"""Labels without examples: what their scores go by, what they leave alone, and that a folder takes them as a whole or not."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tiny import LABELS, write_tiny

from tagwright import new_labels, onnx_export
from tagwright.bundle import read_bundle, write_bundle
from tagwright.dataset import Dataset, clean
from tagwright.errors import TagwrightError
from tagwright.evaluation import evaluate
from tagwright.label_names import NameHead, kernel, unit
from tagwright.model import load_tagger_model, load_tokenizer
from tagwright.onnx_export import add_labels, quantize
from tagwright.pipeline import Folders
from tagwright.tagger import FILES, Tagger
from tagwright.task import Task
from tagwright.training import predict, train

DINOSAURS = ["Are there dinosaurs on the lost island?", "A story with dinosaurs, who wrote it?"]
OTHERS = ["How fast is the ship's warp drive?", "Who built the wizard's tower?", "Does the android dream of sheep?"]


# --- what a real model makes of a name ------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=FILES)
def tagger(request, demo_run) -> Tagger:
    return Tagger.load(demo_run.root / "tagger", request.param)


def test_a_new_label_goes_by_its_name_and_the_others_stay_as_they_are(tagger):
    wider, texts = tagger.with_labels(["dinosaurs"]), DINOSAURS + OTHERS
    before, after = tagger.scores(texts), wider.scores(texts)
    assert wider.labels == [*tagger.labels, "dinosaurs"]
    assert np.array_equal(after[:, :-1], before)
    assert after[:2, -1].min() > after[2:, -1].max()
    assert "dinosaurs" not in tagger.labels
    assert tagger.new_rows is None


def test_labels_given_one_after_the_other_score_as_if_given_together(tagger):
    together, texts = tagger.with_labels(["dinosaurs", "warp-drive"]), DINOSAURS + OTHERS
    apart = tagger.with_labels(["dinosaurs"]).with_labels(["warp-drive"])
    assert apart.labels == together.labels
    assert np.allclose(apart.scores(texts), together.scores(texts), atol=1e-6)
    assert together.scores(texts)[:, -1].argmax() == 2


def test_a_description_says_more_than_the_name(demo_run):
    tagger = Tagger.load(demo_run.root / "tagger", "fp32")
    description = {"sea monsters": "dinosaurs, whales and other large beasts"}
    margins = [logits[:2].mean() - logits[2:].mean() for logits in (
        tagger.with_labels(labels).logits(DINOSAURS + OTHERS)[:, -1] for labels in (["sea monsters"], description))]
    assert margins[1] > margins[0] > 0


def test_int8_ranks_as_fp32_does(demo_run, sample):
    texts = list(sample.test["text"])
    exact, quantized = (Tagger.load(demo_run.root / "tagger", precision).with_labels(["music", "physics"]).logits(texts)[:, -2:]
                        for precision in ("fp32", "int8"))
    assert np.corrcoef(exact.T.ravel(), quantized.T.ravel())[0, 1] > 0.98


@pytest.mark.parametrize(("labels", "fault"), [
    ([""], "says nothing"), (["-_"], "says nothing"), (["x" * 101], "at most 100 characters"),
    ([" edged "], "spaces around it"), (["two\nlines"], "cannot be printed"),
    (["Time Loops", "time-loops"], "given twice, also as 'Time Loops'"), (["Star_Wars"], "already has the label 'star-wars'"),
    ({"dinosaurs": "bones " * 300}, "longer than the 256 tokens"),
])
def test_a_name_that_will_not_do_is_refused(demo_run, labels, fault):
    with pytest.raises(TagwrightError, match=fault):
        Tagger.load(demo_run.root / "tagger").with_labels(labels)


def test_a_single_name_is_no_list_of_names(demo_run):
    with pytest.raises(TypeError, match="wrap a single one"):
        Tagger.load(demo_run.root / "tagger").with_labels("dinosaurs")


# --- how a name's row is foretold -------------------------------------------------------------------------------------


def test_each_known_label_is_foretold_without_itself(monkeypatch):
    """The closed form of leaving a label out gives what a regression without it gives."""
    chance, labels, hidden = np.random.default_rng(0), [f"label {number}" for number in range(12)], 8
    rows = chance.normal(size=(len(labels), hidden))
    frame = pd.DataFrame({"text": [f"text {number}" for number in range(30)],
                          "labels": [[labels[number % 12], labels[number % 5]] for number in range(30)]})
    dataset, vectors = Dataset(labels, frame, frame, frame, {}), {}
    captured = []

    def embed(texts, what):
        return np.array([vectors.setdefault(text, chance.normal(size=hidden)) for text in texts])

    def keep(logits, y_true):
        captured.append(logits)
        return 1.0, 0.0, 0.5

    monkeypatch.setattr(new_labels, "_calibrate", keep)
    monkeypatch.setattr(new_labels, "_words", lambda texts: ([], np.zeros((len(texts), 0))))
    head = new_labels.fit_name_head(dataset, rows, embed)
    counts = dataset.targets(frame).sum(0) + 1
    mean, names = np.average(rows, axis=0, weights=counts), unit(embed(labels, ""))
    frequent = new_labels._frequent(counts)
    for column, label in enumerate(frequent):
        others = [index for index in range(len(labels)) if index != label]
        ridge = kernel(names[others], names[others], head.width) + new_labels.NAME_RIDGE * np.eye(len(others))
        row = kernel(names[[label]], names[others], head.width) @ np.linalg.solve(ridge, (rows - mean)[others]) + mean
        assert np.allclose(captured[0][:, column], embed(frame["text"], "") @ row[0])
    assert np.allclose(head.rows(names), kernel(names, names, head.width) @ head.weights + mean, atol=1e-5)


def test_a_name_head_comes_back_from_its_file(tmp_path):
    chance = np.random.default_rng(1)
    head = NameHead(unit(chance.normal(size=(9, 6))), chance.normal(size=(9, 6)), chance.normal(size=6), 0.7, -2.0, 0.3)
    head.save(tmp_path / NameHead.FILE)
    again, names = NameHead.load(tmp_path / NameHead.FILE), chance.normal(size=(4, 6))
    assert np.allclose(again.rows(names), head.rows(names), atol=0.01)  # the file holds half precision
    assert (again.width, again.bias, again.threshold) == (0.7, -2.0, 0.3)


# --- a folder that gets labels for good -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> tuple[Task, Folders]:
    """Every stage of a tiny task whose rows never have the label "stars"."""
    folder = tmp_path_factory.mktemp("tiny")
    file = write_tiny(folder, rows=400, epochs=6)
    rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    kept = [row | {"tags": [tag for tag in row["tags"] if tag != "stars"]} for row in rows]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept if row["tags"]))
    task = Task.load(file)
    folders = Folders.of(task, folder / "new")
    run_stages(task, folders)
    return task, folders


def run_stages(task: Task, folders: Folders, force: bool = False) -> dict:
    clean(task, task.raw_path(), folders.dataset)
    train(task, folders.dataset, folders.model, bar=False)
    evaluate(task, folders.dataset, folders.model, folders.evaluation)
    return quantize(task, folders.dataset, folders.model, folders.evaluation, folders.tagger, force)


@pytest.fixture
def folder(made, tmp_path) -> Path:
    return Path(shutil.copytree(made[1].tagger, tmp_path / "books" / "tagger"))


def texts_of(task: Task) -> list[str]:
    return [json.loads(line)["text"] for line in task.raw_path().read_text().splitlines()]


def test_a_folder_scores_added_labels_in_every_form_as_the_tagger_does(made, folder):
    texts = texts_of(made[0])
    expected = {precision: Tagger.load(folder, precision).with_labels({"stars": "", "filler": "a word"}).logits(texts)
                for precision in FILES}
    manifest = add_labels(folder, {"stars": "", "filler": "a word"})
    assert manifest.labels == [*LABELS[:3], "stars", "filler"]
    assert manifest.added == read_bundle(folder).added == {"stars": "", "filler": "a word"}
    assert np.abs(Tagger.load(folder, "fp32").logits(texts) - expected["fp32"]).max() < 1e-3
    for small in ("int8", "q4"):
        assert np.corrcoef(Tagger.load(folder, small).logits(texts).ravel(), expected[small].ravel())[0, 1] > 0.98
    assert np.array_equal(Tagger.load(folder, "int8").logits(texts)[:, :3], expected["int8"][:, :3])
    model, tokenizer = load_tagger_model(folder), load_tokenizer(folder)
    assert np.abs(predict(model, tokenizer, texts, manifest.max_length) - expected["fp32"]).max() < 1e-3
    assert model.config.id2label[4] == "filler"
    card = (folder / "README.md").read_text()
    assert "- stars\n- filler: a word\n" in card


def test_what_was_added_stays_when_the_folder_is_made_again_until_it_is_trained(made, tmp_path):
    task, folders = made
    root = shutil.copytree(folders.dataset.parent, tmp_path / "books")
    ours = Folders.under(root)
    add_labels(ours.tagger, ["stars"])
    assert run_stages(task, ours)["skipped"]  # the stage finds its folder as it should be
    assert run_stages(task, ours, force=True)["added"] == {"stars": ""}
    assert Tagger.load(ours.tagger).labels == [*LABELS[:3], "stars"]

    (tmp_path / "all").mkdir()
    assert run_stages(Task.load(write_tiny(tmp_path / "all", rows=400, epochs=1)), ours)["added"] == {}
    assert sorted(Tagger.load(ours.tagger).labels) == LABELS


def test_a_failure_in_the_middle_leaves_the_folder_as_it_was(folder, monkeypatch):
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def export(model, path, max_length):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx_export, "export_fp32", export)
    with pytest.raises(KeyboardInterrupt):
        add_labels(folder, ["stars"])
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert [path.name for path in folder.parent.iterdir()] == ["tagger"]


def test_a_folder_that_changed_meanwhile_is_not_overwritten(folder, monkeypatch):
    export = onnx_export.export_fp32

    def meanwhile(model, path, max_length):
        export(model, path, max_length)
        write_bundle(folder, replace(read_bundle(folder), title="made anew"))

    monkeypatch.setattr(onnx_export, "export_fp32", meanwhile)
    with pytest.raises(TagwrightError, match="changed meanwhile"):
        add_labels(folder, ["stars"])
    assert (read_bundle(folder).title, read_bundle(folder).added) == ("made anew", {})


def test_a_model_that_can_take_no_new_labels_says_why(folder, made):
    (folder / NameHead.FILE).unlink()
    manifest = read_bundle(made[1].tagger)
    tagger = Tagger.load(made[1].tagger)
    with pytest.raises(TagwrightError, match=rf"has no {NameHead.FILE}.*tagwright quantize books"):
        Tagger(manifest, tagger._tokenizer, tagger._session).with_labels(["stars"])
    manifest.kind = "multiclass"
    with pytest.raises(TagwrightError, match="exactly one of its 3 labels"):
        Tagger(manifest, tagger._tokenizer, tagger._session, tagger.name_head).with_labels(["stars"])
    with pytest.raises(TagwrightError, match=f"{NameHead.FILE}: missing"):
        add_labels(folder, ["stars"])


def test_the_command_adds_a_label_and_refuses_one_that_is_there(folder):
    command = [Path(sys.executable).parent / "tagwright", "add-label", folder]
    done = subprocess.run([*command, "stars", "--description", "lights in the sky"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "'stars' added: 4 labels, 1 of them by name" in done.stdout
    assert read_bundle(folder).added == {"stars": "lights in the sky"}
    assert Tagger.load(folder).scores(["stars1 stars2"]).shape == (1, 4)
    again = subprocess.run([*command, "Stars"], capture_output=True, text=True)
    assert again.returncode == 2
    assert again.stderr.strip() == "error: the model already has the label 'stars'"
