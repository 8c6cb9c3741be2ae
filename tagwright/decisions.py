"""From a network's logits to probabilities, and from these to the labels given; training and serving share it.

`kind` is a task's: "multilabel" (any number of labels a row, each by its own threshold) or "multiclass" (exactly one).
Numpy only.
"""

import numpy as np


def probabilities(logits: np.ndarray, kind: str) -> np.ndarray:
    """Sigmoid of each logit (multilabel) or softmax of each row (multiclass): float32, (rows, labels), without overflow."""
    logits = np.asarray(logits, dtype=np.float32)
    if kind == "multiclass":
        powers = np.exp(logits - logits.max(1, keepdims=True))
        return powers / powers.sum(1, keepdims=True)
    return np.exp(-np.logaddexp(0, -logits))


def decide(scores: np.ndarray, thresholds: float | np.ndarray, kind: str) -> np.ndarray:
    """Which labels are given: bool, (rows, labels). Multilabel: those whose score reaches the threshold (one number, or
    one a label). Multiclass: the row's best label, whatever its score; of equal ones the first."""
    if kind == "multiclass":
        return np.arange(scores.shape[1]) == scores.argmax(1)[:, None]
    return scores >= thresholds
