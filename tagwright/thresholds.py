"""Choosing thresholds on validation rows: one for all labels, or one a label as far as its rows bear it out.

A label with a handful of validation rows has a best threshold by chance. So each label's own is drawn towards the global
one with the weight n / (n + k), n being the label's validation rows, as an empirical-Bayes estimate would be; and k, which
can be infinite, is the one that does best in cross-validation on the validation rows.
"""

import math

import numpy as np

from tagwright.metrics import CANDIDATES, best_threshold, counts, f1

SHRINKAGES = (0, 5, 10, 20, 40, 80, 160, math.inf)  # the k that are tried
FOLDS, ROUNDS = 5, 4  # of the cross-validation


def choose_thresholds(y_true: np.ndarray, scores: np.ndarray, kind: str, per_label: bool) -> np.ndarray:
    """The thresholds, (labels,), for the 0/1 matrix and the probabilities of validation rows, both (rows, labels)."""
    if per_label:
        return thresholds_by_label(y_true, scores, best_shrinkage(y_true, scores))
    return np.full(scores.shape[1], best_threshold(y_true, scores, kind))


def thresholds_by_label(y_true: np.ndarray, scores: np.ndarray, shrinkage: float) -> np.ndarray:
    """Each label's threshold with the best F1, of equal ones that nearest to the global one, and drawn towards that by
    `shrinkage` (k above): (labels,). A label without rows gets the global one."""
    return _shrunk(*_reached(y_true, scores), y_true.sum(0), [shrinkage])[0]


def best_shrinkage(y_true: np.ndarray, scores: np.ndarray, seed: int = 0) -> float:
    """Of SHRINKAGES the one whose thresholds, chosen without a row, decide it best: by the sum of micro-F1 and macro-F1
    (over labels with rows), of equal ones the largest."""
    generator = np.random.default_rng(seed)
    positives = y_true.sum(0)
    right, given = _reached(y_true, scores)
    results = np.zeros(len(SHRINKAGES))
    for _ in range(ROUNDS):
        outcomes = np.zeros((len(SHRINKAGES), 3, scores.shape[1]))  # what `counts` counts, over all folds
        for rows in np.array_split(generator.permutation(len(scores)), FOLDS):
            true, held_out = y_true[rows], scores[rows]
            fold_right, fold_given = _reached(true, held_out)
            thresholds = _shrunk(right - fold_right, given - fold_given, positives - true.sum(0), SHRINKAGES)
            outcomes += np.array([counts(true, held_out >= each) for each in thresholds])
        micro, by_label = f1(*outcomes.sum(2).T), f1(*outcomes.swapaxes(0, 1))
        results += micro + by_label[:, positives > 0].mean(1)
    return SHRINKAGES[len(results) - 1 - int(np.argmax(results[::-1]))]


def _reached(y_true: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many of each label's cells reach each candidate, right ones and all: (labels, candidates) each."""
    rows, labels = np.nonzero(scores >= CANDIDATES[0])  # a few in a hundred
    cells = labels * len(CANDIDATES) + np.searchsorted(CANDIDATES, scores[rows, labels], side="right") - 1
    size = scores.shape[1] * len(CANDIDATES)
    found = (np.bincount(cells, weights, size) for weights in (y_true[rows, labels], np.ones(len(cells))))
    right, given = (each.reshape(-1, len(CANDIDATES))[:, ::-1].cumsum(1)[:, ::-1] for each in found)
    return right, given


def _shrunk(right: np.ndarray, given: np.ndarray, positives: np.ndarray, shrinkages) -> np.ndarray:
    """The thresholds for each of `shrinkages`, (shrinkages, labels), from what `_reached` counts and each label's rows."""
    overall = int(np.argmax(f1(right.sum(0), (given - right).sum(0), positives.sum() - right.sum(0))))
    results = f1(right, given - right, positives[:, None] - right)
    best = results == results.max(1, keepdims=True)
    nearest = np.where(best, np.abs(np.arange(len(CANDIDATES)) - overall), len(CANDIDATES)).argmin(1)
    own = np.where(positives > 0, CANDIDATES[nearest], CANDIDATES[overall])
    weight = positives / np.maximum(positives + np.array(shrinkages, dtype=float)[:, None], 1)
    return CANDIDATES[overall] + weight * (own - CANDIDATES[overall])
