"""Scores for a tagger. Everywhere `y_true` is a 0/1 matrix and `scores` a matrix of probabilities, both (rows, labels).

No accuracy over label cells: with sparse labels a model that predicts nothing gets 99 % of them right.
"""

import numpy as np
import pandas as pd

CANDIDATES = np.round(np.arange(0.02, 0.9, 0.01), 2)  # thresholds that are tried


def precision_at_k(y_true: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Mean share of the k best-scored labels that are right."""
    return float(_hits(y_true, scores, k).mean() / k)


def recall_at_k(y_true: np.ndarray, scores: np.ndarray, k: int) -> float:
    """Share of all true labels that are among their row's k best-scored ones, as fastText counts it."""
    return float(_hits(y_true, scores, k).sum() / max(y_true.sum(), 1))


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


def best_threshold(y_true: np.ndarray, scores: np.ndarray) -> float:
    """The one threshold for all labels with the best micro-F1. Choose it on validation rows."""
    results = [micro_f1(y_true, scores >= threshold) for threshold in CANDIDATES]
    return float(CANDIDATES[int(np.argmax(results))])


def summary(y_true: np.ndarray, scores: np.ndarray, thresholds: float | np.ndarray) -> dict[str, float]:
    """The headline numbers, rounded to 4 places. `thresholds` is one number or one a label."""
    y_pred = scores >= thresholds
    numbers = {
        "p_at_1": precision_at_k(y_true, scores, 1), "r_at_5": recall_at_k(y_true, scores, 5),
        "micro_f1": micro_f1(y_true, y_pred), "macro_f1": macro_f1(y_true, y_pred),
        "macro_f1_supported": macro_f1(y_true, y_pred, supported_only=True),
    }
    return {name: round(number, 4) for name, number in numbers.items()}


def per_label(labels: list[str], y_true: np.ndarray, scores: np.ndarray, thresholds: float | np.ndarray) -> pd.DataFrame:
    """One row a label: threshold, support, precision, recall, F1; most frequent first."""
    tp, fp, fn = counts(y_true, scores >= thresholds)
    frame = pd.DataFrame({
        "label": labels, "threshold": np.broadcast_to(thresholds, len(labels)), "support": tp + fn,
        "precision": tp / np.maximum(tp + fp, 1), "recall": tp / np.maximum(tp + fn, 1), "f1": f1(tp, fp, fn),
    })
    return frame.sort_values(["support", "label"], ascending=[False, True], ignore_index=True)


def calibration(y_true: np.ndarray, scores: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Reliability: for each band of scores its mean score, the share that was right, and how many there were."""
    band = np.minimum((scores * bins).astype(int), bins - 1).ravel()
    frame = pd.DataFrame({"band": band, "score": scores.ravel(), "right": y_true.ravel()})
    table = frame.groupby("band").agg(mean_score=("score", "mean"), share_right=("right", "mean"), count=("right", "size"))
    return table.reset_index(drop=True)


def calibration_error(y_true: np.ndarray, scores: np.ndarray, bins: int = 10) -> float:
    """Expected calibration error (Naeini, Cooper and Hauskrecht 2015) over all label cells."""
    table = calibration(y_true, scores, bins)
    return float(((table["mean_score"] - table["share_right"]).abs() * table["count"]).sum() / table["count"].sum())


def agreement(scores_a: np.ndarray, scores_b: np.ndarray, thresholds: float | np.ndarray) -> dict[str, float]:
    """How alike two models decide: share of equal decisions (row × label), share of rows with equal label sets, and
    the largest difference of a score."""
    same = (scores_a >= thresholds) == (scores_b >= thresholds)
    return {"decisions": float(same.mean()), "label_sets": float(same.all(1).mean()),
            "largest_difference": float(np.abs(scores_a - scores_b).max(initial=0))}
