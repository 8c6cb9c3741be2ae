"""Learns from a trained model how its head's rows follow from the names of their labels: `fit_name_head()`.

Training moves each label's row of the head from the embedding of its name to where its texts are. A Gaussian kernel ridge
regression from the names' embeddings to the trained rows learns how, and tells where the row of a label would have come to
lie that was not there to be trained. The labels alone are too few to learn it well from, and the encoder was trained to know
just them; so the words of the training texts serve as labels too, a text having those that occur in it, with a head fitted
to the finished encoder in closed form. (On `cooking`, with 30 labels hidden that play no part in the benchmark: ROC-AUC on
the validation rows 0.897 with the words and 0.870 without; plain cosine of the untrained encoder 0.875.)
"""

import re
from collections import Counter
from collections.abc import Callable

import numpy as np
from sklearn.linear_model import LogisticRegression

from tagwright import metrics
from tagwright.dataset import Dataset
from tagwright.label_names import NameHead, kernel, spoken, unit

# Chosen on the validation rows of `cooking` for hidden labels that play no part in the benchmark; none is critical.
MAX_TEXTS = 10_000  # training texts that are read for their words
MIN_TEXTS, MAX_SHARE, MAX_WORDS = 5, 0.1, 2_000  # a word is in so many texts, in no larger share of them, and there are so many
WORD_RIDGE = 0.005  # of the words' head, times the number of texts
NAME_RIDGE = 0.3  # of the regression from names to rows
WIDTH = 0.5  # of the kernel, times the median squared distance of two names
CALIBRATED = 1 / 3  # of all occurrences of labels: so many do the most frequent labels have that the scores are scaled on
MIN_CALIBRATED = 10  # labels, where there are as many


def fit_name_head(dataset: Dataset, rows: np.ndarray, embed: Callable[[list[str], str], np.ndarray]) -> NameHead:
    """Fit a NameHead to a trained multilabel head's `rows` (labels, hidden). `embed(texts, what)` gives the vectors that the
    head reads, (texts, hidden), `what` naming the texts for a progress bar.

    Scores are scaled, and the threshold chosen, on the validation rows: each label's row is foretold by the regression
    without it, which is what a new label's scores will be like.
    """
    shuffled = np.random.default_rng(0).permutation(len(dataset.train))[:MAX_TEXTS]
    texts = [dataset.train["text"].iloc[index] for index in shuffled]
    words, has_word = _words(texts)
    names = unit(embed([spoken(label) for label in dataset.labels] + words, "names").astype(np.float64))
    counts = dataset.targets(dataset.train).sum(0) + 1
    mean = np.average(rows, axis=0, weights=counts)
    targets = (rows - mean).astype(np.float64)
    if words:
        vectors = unit(embed(texts, "texts").astype(np.float64))
        length = np.median(np.linalg.norm(targets, axis=1))
        targets = np.concatenate([targets, length * unit(_word_rows(vectors, has_word))])

    distances = 2 - 2 * names @ names.T
    width = WIDTH * max(float(np.median(distances)), 1e-6)
    inverse = np.linalg.inv(kernel(names, names, width) + NAME_RIDGE * np.eye(len(names)))
    weights = inverse @ targets
    left_out = (targets - weights / np.diag(inverse)[:, None])[: len(rows)] + mean  # each row foretold without itself

    frequent = _frequent(counts)
    logits = embed(list(dataset.validation["text"]), "validation rows") @ left_out[frequent].T
    scale, bias, threshold = _calibrate(logits, dataset.targets(dataset.validation)[:, frequent])
    return NameHead(names, scale * weights, scale * mean, width, bias, threshold)


def _words(texts: list[str]) -> tuple[list[str], np.ndarray]:
    """Words that are in some of the texts and not in most, and which text has which: float64, (texts, words)."""
    found = [set(re.findall(r"\w\w+", text.lower())) for text in texts]
    counts = Counter(word for words in found for word in sorted(words))
    chosen = [word for word, count in counts.most_common() if MIN_TEXTS <= count <= MAX_SHARE * len(texts)][:MAX_WORDS]
    return chosen, np.array([[word in words for word in chosen] for words in found], dtype=np.float64)


def _word_rows(vectors: np.ndarray, has_word: np.ndarray) -> np.ndarray:
    """The rows of a ridge regression from texts to their words, (words, hidden)."""
    centred = vectors - vectors.mean(0)
    gram = centred.T @ centred + WORD_RIDGE * len(vectors) * np.eye(vectors.shape[1])
    return np.linalg.solve(gram, centred.T @ (has_word - has_word.mean(0))).T


def _frequent(counts: np.ndarray) -> np.ndarray:
    order = np.argsort(-counts, kind="stable")
    share = np.cumsum(counts[order]) / counts.sum()
    return order[: max(MIN_CALIBRATED, int(np.searchsorted(share, CALIBRATED)) + 1)]


def _calibrate(logits: np.ndarray, y_true: np.ndarray) -> tuple[float, float, float]:
    """Scale and bias that make probabilities of logits (Platt 1999), and the threshold with the best micro-F1 of them."""
    share = float(y_true.mean())
    if 0 < share < 1:
        fitted = LogisticRegression().fit(logits.reshape(-1, 1), y_true.ravel())
        scale, bias = float(fitted.coef_[0, 0]), float(fitted.intercept_[0])
        if scale > 0:  # a few labels of which each row has one or two foretell each other's opposite: nothing to go by
            return scale, bias, metrics.best_threshold(y_true, metrics.probabilities(scale * logits + bias, "multilabel"))
    share = min(max(share, 0.001), 0.5)
    return 1.0, float(np.log(share / (1 - share))), 0.5
