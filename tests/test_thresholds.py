"""Thresholds chosen on validation rows: against a plain loop, on few and many rows, and in a training's manifest."""

import math
import time

import numpy as np
import pytest
from tiny import write_tiny

from tagwright import metrics
from tagwright.bundle import read_bundle
from tagwright.dataset import Dataset
from tagwright.task import Task
from tagwright.thresholds import SHRINKAGES, best_shrinkage, choose_thresholds, thresholds_by_label
from tagwright.training import train


def drawn(rows: int, labels: int, positives: float, uneven: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Truth and scores whose labels part right from wrong at scores that differ by `uneven` (in logits)."""
    generator = np.random.default_rng(seed)
    true = (generator.random((rows, labels)) < positives).astype(np.float32)
    logits = generator.normal(-2, 1, true.shape) + 3 * true + uneven * generator.normal(size=labels)
    return true, metrics.probabilities(logits, "multilabel")


def test_unshrunk_thresholds_are_each_labels_best():
    true, scores = drawn(200, 12, 0.1, uneven=1.0)
    true[:, 3] = 0
    overall = metrics.best_threshold(true, scores)
    found = thresholds_by_label(true, scores, 0)
    for label in range(12):
        results = [metrics.micro_f1(true[:, [label]], scores[:, [label]] >= each) for each in metrics.CANDIDATES]
        best = metrics.CANDIDATES[np.isclose(results, max(results))]
        expected = overall if label == 3 else best[np.abs(best - overall).argmin()]
        assert abs(found[label] - overall) == pytest.approx(abs(expected - overall))
        assert found[label] in best


def test_a_label_is_drawn_to_the_global_threshold_as_far_as_its_rows_are_few():
    true, scores = drawn(300, 10, 0.1, uneven=1.0)
    overall, own = metrics.best_threshold(true, scores), thresholds_by_label(true, scores, 0)
    rows = true.sum(0)
    assert thresholds_by_label(true, scores, 20) == pytest.approx(overall + rows / (rows + 20) * (own - overall))
    assert thresholds_by_label(true, scores, math.inf) == pytest.approx([overall] * 10)


def test_shrinkage_is_strong_where_labels_are_alike_and_weak_where_they_differ():
    assert best_shrinkage(*drawn(400, 40, 0.02, uneven=0.0)) >= 40
    true, scores = drawn(3000, 10, 0.1, uneven=1.5)
    assert best_shrinkage(true, scores) <= 20
    overall, by_label = (choose_thresholds(true[:1500], scores[:1500], "multilabel", each) for each in (False, True))
    unseen, unseen_scores = true[1500:], scores[1500:]
    assert metrics.macro_f1(unseen, unseen_scores >= by_label) > metrics.macro_f1(unseen, unseen_scores >= overall) + 0.02


@pytest.mark.parametrize("seed", range(8))
def test_the_shrinkage_is_the_one_that_a_plain_cross_validation_finds(monkeypatch, seed):
    monkeypatch.setattr("tagwright.thresholds.ROUNDS", 1)
    true, scores = drawn(150, 8, 0.15, uneven=0.7, seed=seed)
    order, results = np.random.default_rng(0).permutation(150), []
    for shrinkage in SHRINKAGES:
        decided = np.zeros(true.shape, dtype=bool)
        for fold in np.array_split(order, 5):
            rest = np.setdiff1d(order, fold)
            decided[fold] = scores[fold] >= thresholds_by_label(true[rest], scores[rest], shrinkage)
        results.append(metrics.micro_f1(true, decided) + metrics.macro_f1(true, decided, supported_only=True))
    best = max(shrinkage for shrinkage, result in zip(SHRINKAGES, results, strict=True) if result > max(results) - 1e-9)
    assert best_shrinkage(true, scores) == best


def test_hundreds_of_labels_take_well_under_a_second():
    true, scores = drawn(1228, 735, 0.003, uneven=0.3)
    started = time.process_time()
    thresholds = choose_thresholds(true, scores, "multilabel", per_label=True)
    assert time.process_time() - started < 1
    assert thresholds.shape == (735,)


def test_one_threshold_for_all_and_none_for_multiclass():
    true, scores = drawn(100, 4, 0.3, uneven=0.5)
    assert choose_thresholds(true, scores, "multilabel", False).tolist() == [metrics.best_threshold(true, scores)] * 4
    assert choose_thresholds(true, scores, "multiclass", False).tolist() == [0.0] * 4


def test_a_training_writes_a_threshold_for_each_label(tmp_path, monkeypatch):
    monkeypatch.setattr("tagwright.thresholds.SHRINKAGES", (5,))  # few validation rows would give them all the global one
    file = write_tiny(tmp_path, epochs=1, thresholds="per_label", loss="asymmetric", class_weights=True)
    folder = tmp_path / "work" / "books"
    record = train(Task.load(file), folder / "dataset", folder / "model", bar=False)
    thresholds = read_bundle(folder / "model").thresholds
    assert len(set(thresholds)) > 1
    assert record["threshold"] == pytest.approx(np.mean(thresholds), abs=1e-3)
    assert record["recipe"]["loss"] == "asymmetric"
    assert len(thresholds) == len(Dataset.load(folder / "dataset").labels)
