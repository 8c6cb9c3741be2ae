"""Labels that were made wrong on purpose are found, whatever the kind and the size of the data set."""

import json

import cleanlab
import numpy as np
import pandas as pd
import pytest
from rich.console import Console
from tiny import write_tiny

from tagwright import evaluation
from tagwright.dataset import Dataset
from tagwright.errors import TagwrightError
from tagwright.evaluation import LABEL_ERRORS, evaluate
from tagwright.label_errors import COLUMNS, FILE, find_label_errors, show_label_errors
from tagwright.pipeline import Folders
from tagwright.stage import NO_STAGE
from tagwright.task import Task
from tagwright.training import train

NAMES = ["World", "Sports", "Business", "Sci/Tech"]


def dataset_of(given: np.ndarray, tests: int) -> Dataset:
    """A data set whose last `tests` rows are test rows, and the others validation rows; `given` is 0/1, (rows, labels)."""
    names = [f"label {number}" for number in range(given.shape[1])] if given.shape[1] != 4 else NAMES
    rows = pd.DataFrame({"line": range(1, len(given) + 1), "text": [f"text {number}" for number in range(1, len(given) + 1)],
                         "labels": [[names[column] for column in np.flatnonzero(row)] for row in given]})
    return Dataset(names, rows[:0], rows[:-tests].reset_index(drop=True), rows[-tests:].reset_index(drop=True), {})


def found_in(given: np.ndarray, probabilities: np.ndarray, kind: str, tests: int | None = None) -> pd.DataFrame:
    tests = tests or len(given) // 2
    scores = {"validation": probabilities[:-tests].astype(np.float32), "test": probabilities[-tests:].astype(np.float32)}
    return find_label_errors(dataset_of(given, tests), scores, kind)


def classes(rows: int, seed: int = 0, sure: float = 2.5) -> tuple[np.ndarray, np.ndarray]:
    """True classes as 0/1, and what a model that is mostly right says of them; both (rows, 4)."""
    rng = np.random.default_rng(seed)
    truth = np.eye(4, dtype=int)[rng.integers(0, 4, rows)]
    logits = sure * truth + rng.normal(0, 1, truth.shape)
    return truth, np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def tags(rows: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = (rng.random((rows, 6)) < 0.3).astype(int)
    truth[np.arange(rows), rng.integers(0, 6, rows)] = 1
    return truth, 1 / (1 + np.exp(-(5 * truth - 2.5 + rng.normal(0, 1, truth.shape))))


def test_most_flipped_classes_are_found_and_their_own_suggested():
    truth, probabilities = classes(1000)
    flipped = np.random.default_rng(1).choice(1000, 40, replace=False)
    given = truth.copy()
    given[flipped] = np.roll(truth[flipped], 1, axis=1)
    found = found_in(given, probabilities, "multiclass", tests=600)
    assert list(found.columns) == COLUMNS
    lines = set(flipped + 1)
    assert len(lines & set(found["line"])) >= 35
    assert len(lines & set(found["line"][:40])) >= 30  # and stand before the model's own errors
    assert found["quality"].is_monotonic_increasing
    first = found.iloc[0]
    row = first["line"] - 1
    assert first["labels"] == [NAMES[given[row].argmax()]]
    assert first["suggested"] == [NAMES[truth[row].argmax()]]
    assert first["text"] == f"text {row + 1}"
    assert set(found["split"]) == {"validation", "test"}
    assert all((found["split"] == "validation") == (found["line"] <= 400))
    assert all(given != suggested for given, suggested in zip(found["labels"], found["suggested"], strict=True))


def test_most_rows_with_a_tag_too_many_or_too_few_are_found_and_mended():
    truth, probabilities = tags(600)
    rng = np.random.default_rng(1)
    flipped, columns = rng.choice(600, 30, replace=False), rng.integers(0, 6, 30)
    given = truth.copy()
    given[flipped, columns] = 1 - truth[flipped, columns]
    kept = given.any(1)  # a data set has no row without labels
    found = found_in(given[kept], probabilities[kept], "multilabel")
    changed = set(np.flatnonzero((given != truth).any(1)[kept]) + 1)
    assert len(changed & set(found["line"])) >= 0.8 * len(changed)
    assert len(changed & set(found["line"][: len(changed)])) >= 0.7 * len(changed)
    mended = [line for line, suggested in found[["line", "suggested"]].itertuples(index=False) if line in changed and suggested
              == [f"label {column}" for column in np.flatnonzero(truth[kept][line - 1])]]
    assert len(mended) >= 0.7 * len(changed)


def test_a_model_that_agrees_with_every_label_finds_no_error():
    truth, _ = classes(60)
    assert found_in(truth, 0.91 * truth + 0.03 * (1 - truth), "multiclass").empty
    truth, _ = tags(60)
    assert found_in(truth, 0.97 * truth + 0.03 * (1 - truth), "multilabel").empty


@pytest.mark.parametrize(("kind", "make"), [("multiclass", classes), ("multilabel", tags)])
@pytest.mark.parametrize("rows_of_it", [0, 1])
@pytest.mark.filterwarnings("error")
def test_a_label_with_a_row_or_none_does_no_harm(kind, make, rows_of_it):
    truth, probabilities = make(80)
    chosen = np.concatenate([np.flatnonzero(truth[:, 2] == 0), np.flatnonzero(truth[:, 2])[:rows_of_it]])
    given = truth[chosen]
    wrong = np.flatnonzero(given[:, 0] != given[:, 1])[0]
    given[wrong, [0, 1]] = given[wrong, [1, 0]]
    assert given[:, 2].sum() == rows_of_it
    found = found_in(given, probabilities[chosen], kind, tests=20)
    assert list(found.columns) == COLUMNS
    assert wrong + 1 in list(found["line"])
    assert len(found) < len(given) / 2


@pytest.mark.parametrize(("kind", "make"), [("multiclass", classes), ("multilabel", tags)])
@pytest.mark.filterwarnings("error")
def test_a_handful_of_rows_is_enough(kind, make):
    truth, probabilities = make(5)
    found = found_in(truth, probabilities, kind, tests=2)
    assert len(found) <= 5
    assert (found["quality"].between(0, 1)).all()


def test_a_label_that_every_row_has():
    truth, probabilities = tags(40)
    truth[:, 0], probabilities[:, 0] = 1, 0.9
    for columns in (6, 2):
        found = found_in(truth[:, :columns], probabilities[:, :columns], "multilabel")
        assert all("label 0" in labels for labels in found["suggested"])
    assert found_in(np.ones_like(truth), probabilities, "multilabel").empty  # nothing to tell apart


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A trained tiny task and the folder of its evaluation."""
    folder = tmp_path_factory.mktemp("tiny")
    task = Task.load(write_tiny(folder))
    folders = Folders.of(task, folder / "work")
    train(task, folders.dataset, folders.model, bar=False)
    return task, folders, evaluate(task, folders.dataset, folders.model, folders.evaluation)


def test_the_evaluation_writes_the_likeliest_and_counts_all(tiny, monkeypatch):
    task, folders, record = tiny
    lines = (folders.evaluation / FILE).read_text(encoding="utf8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(list(row) == COLUMNS for row in rows)
    counts = record["label_errors"]
    assert list(counts) == ["validation", "test"]
    assert len(rows) == min(sum(counts.values()), LABEL_ERRORS)
    dataset = Dataset.load(folders.dataset)
    texts = {split: dict(zip(part["line"], part["text"], strict=True)) for split, part in
             (("validation", dataset.validation), ("test", dataset.test))}
    assert all(texts[row["split"]][row["line"]] == row["text"] for row in rows)
    assert evaluate(task, folders.dataset, folders.model, folders.evaluation).get("skipped")
    monkeypatch.setattr(cleanlab, "__version__", "0")  # another one may find others
    monkeypatch.setattr(evaluation, "LABEL_ERRORS", 1)
    assert "skipped" not in evaluate(task, folders.dataset, folders.model, folders.evaluation)
    assert len((folders.evaluation / FILE).read_text(encoding="utf8").splitlines()) == 1
    assert "label_errors.py" not in NO_STAGE


def test_they_are_shown_as_a_table(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"files": {FILE: {}}}))
    row = {"split": "test", "line": 7, "labels": ["World"], "suggested": [], "quality": 0.0123, "text": "[bold]A\n\nB[/bold]"}
    (tmp_path / FILE).write_text(json.dumps(row) + "\n")
    console = Console(record=True, width=120)
    show_label_errors(tmp_path, "books", console)
    shown = " ".join(console.export_text().split())
    assert "The 1 likeliest label errors" in shown
    assert "test │ 7 │ World │ none │ 0.012 │ [bold]A B[/bold]" in shown
    (tmp_path / FILE).write_text("")
    show_label_errors(tmp_path, "books", console)
    assert "No likely label errors" in console.export_text()


def test_an_evaluation_of_old_is_to_be_made_again(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps({"files": {}}))
    with pytest.raises(TagwrightError, match="holds no label_errors.jsonl; make it with `tagwright evaluate books`"):
        show_label_errors(tmp_path, "books", Console())
