"""The comparison of pseudo-labels on a tiny encoder: which rows each model is trained on, and with which labels."""

import pytest
from tiny import write_tiny

from benchmarks import pseudo_labels
from tagwright.dataset import Dataset
from tagwright.task import Task


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pseudo")
    write_tiny(folder, rows=240, epochs=8)
    return folder


def test_the_hidden_half_is_trained_on_with_the_first_models_labels(folder, monkeypatch):
    trained = []

    class Watched(pseudo_labels.Trained):
        def __init__(self, task, dataset, rows):
            super().__init__(task, dataset, rows)
            trained.append((rows, self))

    monkeypatch.setattr(pseudo_labels, "Trained", Watched)
    task, dataset = Task.load(folder / "books.toml"), Dataset.load(folder / "work" / "books" / "dataset")
    found = pseudo_labels.compare(task, dataset)
    (half, first), (both, _) = trained
    assert abs(2 * len(half) - len(dataset.train)) <= 1
    assert both[: len(half)].equals(half)

    hidden = both[len(half):]
    assert set(hidden["text"]) <= set(dataset.train["text"]) - set(half["text"])
    scores = first.scores(hidden)
    expected = [[label for label, score, least in zip(dataset.labels, row, first.thresholds, strict=True) if score >= least]
                for row in scores]
    assert list(hidden["labels"]) == expected
    assert all(expected)
    assert any(set(given) != set(dataset.train["labels"][index]) for index, given in hidden["labels"].items())

    assert list(found) == list(pseudo_labels.ROWS)
    assert [row["rows"] for row in found.values()] == [len(half), len(both)]
    pseudo = found["half + pseudo-labels"]["pseudo"]
    assert 0.4 < pseudo["micro_f1"] < 1
    assert pseudo["share"] == pytest.approx(len(hidden) / (len(dataset.train) - len(half)), abs=1e-3)


def test_a_comparison_is_made_once_and_averaged_over_seeds(folder, tmp_path, monkeypatch):
    task, data_dir = Task.load(folder / "books.toml"), folder / "work" / "books" / "dataset"
    calls = []

    def scored(value):
        return {"rows": 3, "train_seconds": 1.0, "validation": {"micro_f1": value}, "test": {"micro_f1": value}}

    def quick(task, dataset):
        calls.append(task.training.seed)
        value = task.training.seed / 10
        pseudo = {"pseudo": {"share": value}}
        return {"half": scored(value), "half + pseudo-labels": scored(value) | pseudo}

    monkeypatch.setattr(pseudo_labels, "compare", quick)
    for _ in range(2):
        found = pseudo_labels.measure(task, data_dir, [1, 3], tmp_path)
    assert calls == [1, 3]
    assert found["half"]["test"]["micro_f1"] == {"mean": 0.2, "spread": 0.1414}
    assert found["half + pseudo-labels"]["pseudo"]["share"]["mean"] == 0.2
