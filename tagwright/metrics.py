"""Scores for a tagger. Everywhere `y_true` is a 0/1 matrix and `scores` a matrix of probabilities, both (rows, labels).

`kind` is the task's, "multilabel" or "multiclass". Accuracy is that of rows, for multiclass only; none is counted over
label cells: with sparse labels a model that predicts nothing gets 99 % of them right.
"""

import numpy as np
import pandas as pd

from tagwright.decisions import decide, probabilities  # noqa: F401 - for those who import the metrics

HEADLINE = {"multilabel": "micro_f1", "multiclass": "accuracy"}  # kind -> the score of `summary` that is to be high
# Thresholds that are tried; the low ones are for models that are unsure of everything, as a linear one of few rows is.
CANDIDATES = np.concatenate([np.arange(2, 20, 2) / 1000, np.arange(2, 90) / 100])


def precision_at_k(y_true: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Mean share of the k best-scored labels that are right."""
    return float(_hits(y_true, scores, k).mean() / k)


def recall_at_k(y_true: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Share of all true labels that are among their row's k best-scored ones, as fastText counts it."""
    return float(_hits(y_true, scores, k).sum() / max(y_true.sum(), 1))


def accuracy(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    """Share of rows whose labels are exactly the predicted ones; both are 0/1 matrices."""
    return float(((y_true > 0) == (y_pred > 0)).all(1).mean())


def _hits(y_true: np.ndarray, scores: np.ndarray, k: int) -> np.ndarray:
    k = min(k, scores.shape[1])
    best = np.argpartition(-scores, k - 1, axis=1)[:, :k]
    return np.take_along_axis(y_true, best, axis=1).sum(1)


def counts(y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """True positives, false positives and false negatives of each label."""
    y_true, y_pred = y_true > 0, y_pred > 0
    return (y_true & y_pred).sum(0), (~y_true & y_pred).sum(0), (y_true & ~y_pred).sum(0)


def f1(tp, fp, fn):
    """2tp / (2tp + fp + fn), 0 where nothing is true and nothing predicted."""
    tp, fp, fn = np.asarray(tp), np.asarray(fp), np.asarray(fn)
    return 2 * tp / np.maximum(2 * tp + fp + fn, 1)


def micro_f1(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    return float(f1(*(count.sum() for count in counts(y_true, y_pred))))


def macro_f1(y_true: np.ndarray, y_pred: np.ndarray, supported_only: bool = False) -> float:
    """Mean F1 over all labels, or over those that at least one row has."""
    per_label = f1(*counts(y_true, y_pred))
    return float(per_label[y_true.sum(0) > 0].mean() if supported_only else per_label.mean())


def best_threshold(y_true: np.ndarray, scores: np.ndarray, kind: str = "multilabel") -> float:
    """The one threshold for all labels with the best micro-F1; 0 for multiclass, where the best label is given whatever its
    score. Choose it on validation rows."""
    if kind == "multiclass":
        return 0.0
    # Scores sorted once tell how many cells reach each candidate: of all cells, and of those that are right.
    predicted, right = (len(cells) - np.searchsorted(cells, CANDIDATES)
                        for cells in (np.sort(scores[scores >= CANDIDATES[0]]), np.sort(scores[y_true > 0])))
    results = f1(right, predicted - right, np.count_nonzero(y_true > 0) - right)
    return float(CANDIDATES[int(np.argmax(results))])


def summary(y_true: np.ndarray, scores: np.ndarray, thresholds: float | np.ndarray,
            kind: str = "multilabel") -> dict[str, float]:
    """The headline numbers, rounded to 4 places. `thresholds` is one number or one a label, and of no use to multiclass."""
    y_pred = decide(scores, thresholds, kind)
    numbers = {"accuracy": accuracy(y_true, y_pred)} if kind == "multiclass" else {}
    numbers |= {
        "p_at_1": precision_at_k(y_true, scores, 1), "r_at_5": recall_at_k(y_true, scores, 5),
        "micro_f1": micro_f1(y_true, y_pred), "macro_f1": macro_f1(y_true, y_pred),
        "macro_f1_supported": macro_f1(y_true, y_pred, supported_only=True),
    }
    return {name: round(number, 4) for name, number in numbers.items()}


def per_label(labels: list[str], y_true: np.ndarray, scores: np.ndarray, thresholds: float | np.ndarray,
              kind: str = "multilabel") -> pd.DataFrame:
    """One row a label: threshold (not for multiclass), support, precision, recall, F1; most frequent first."""
    tp, fp, fn = counts(y_true, decide(scores, thresholds, kind))
    frame = pd.DataFrame({
        "label": labels, "threshold": np.broadcast_to(thresholds, len(labels)), "support": tp + fn,
        "precision": tp / np.maximum(tp + fp, 1), "recall": tp / np.maximum(tp + fn, 1), "f1": f1(tp, fp, fn),
    })
    if kind == "multiclass":
        frame = frame.drop(columns="threshold")
    return frame.sort_values(["support", "label"], ascending=[False, True], ignore_index=True)


def beside_trivial(y_true: np.ndarray, scores: np.ndarray, thresholds: float | np.ndarray,
                   kind: str = "multilabel") -> pd.DataFrame:
    """A model beside one that knows nothing (first row): for multilabel one that gives no label, for multiclass one that always
    gives the most frequent label of `y_true`. Two columns: a share that flatters it, and an F1 that does not."""
    trivial = np.zeros(y_true.shape, dtype=bool)
    if kind == "multiclass":
        trivial[:, y_true.sum(0).argmax()] = True
        name, measures = "always the most frequent label", {"accuracy": accuracy, "macro-F1": macro_f1}
    else:
        name, measures = "predict nothing", {"share of cells right": _cells_right, "micro-F1": micro_f1}
    rows = {name: trivial, "this model": decide(scores, thresholds, kind)}
    return pd.DataFrame({column: [measure(y_true, given) for given in rows.values()] for column, measure in measures.items()},
                        index=list(rows))


def _cells_right(y_true: np.ndarray, y_pred: np.ndarray) -> float:
    return float(((y_true > 0) == (y_pred > 0)).mean())


def confusion(y_true: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """For multiclass: how many rows of a label (row of the matrix) were given which label (column); ints, (labels, labels)."""
    size = scores.shape[1]
    pairs = y_true.argmax(1) * size + scores.argmax(1)
    return np.bincount(pairs, minlength=size * size).reshape(size, size)


def calibration(y_true: np.ndarray, scores: np.ndarray, bins: int = 10, kind: str = "multilabel") -> pd.DataFrame:
    """Reliability: for each band of scores its mean score, the share that was right, and how many there were. Multilabel
    counts every label cell, multiclass only each row's best label."""
    if kind == "multiclass":
        best = scores.argmax(1)[:, None]
        y_true, scores = np.take_along_axis(y_true, best, 1), np.take_along_axis(scores, best, 1)
    band = np.minimum((scores * bins).astype(int), bins - 1).ravel()
    frame = pd.DataFrame({"band": band, "score": scores.ravel(), "right": y_true.ravel()})
    table = frame.groupby("band").agg(mean_score=("score", "mean"), share_right=("right", "mean"), count=("right", "size"))
    return table.reset_index(drop=True)


def calibration_error(y_true: np.ndarray, scores: np.ndarray, bins: int = 10, kind: str = "multilabel") -> float:
    """Expected calibration error (Naeini, Cooper and Hauskrecht 2015) over what `calibration` counts."""
    table = calibration(y_true, scores, bins, kind)
    return float(((table["mean_score"] - table["share_right"]).abs() * table["count"]).sum() / table["count"].sum())


def agreement(scores_a: np.ndarray, scores_b: np.ndarray, thresholds: float | np.ndarray,
              kind: str = "multilabel") -> dict[str, float]:
    """How alike two models decide: share of equal decisions (row × label), share of rows with equal label sets, and the mean
    and the largest difference of a score."""
    same = decide(scores_a, thresholds, kind) == decide(scores_b, thresholds, kind)
    difference = np.abs(scores_a - scores_b)
    return {"decisions": float(same.mean()), "label_sets": float(same.all(1).mean()),
            "mean_difference": float(difference.mean()), "largest_difference": float(difference.max(initial=0))}
