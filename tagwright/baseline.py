"""The simple baseline that every result is shown beside: TF-IDF of words and word pairs, one logistic regression a label."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from tqdm.auto import tqdm

from tagwright.decisions import probabilities

MAX_FEATURES = 200_000  # the most frequent words and pairs; bounds the memory


class TfidfBaseline:
    """`fit(texts, targets)`, then `predict_proba(texts)`; targets and probabilities are (texts, labels). For multiclass the
    probabilities of a text are scaled to add up to 1."""

    def __init__(self, kind: str = "multilabel", C: float = 30.0):  # noqa: N803 - scikit-learn's name
        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, strip_accents="unicode",
                                          max_features=MAX_FEATURES)
        self.kind, self.C = kind, C

    def fit(self, texts: list[str], targets: np.ndarray) -> "TfidfBaseline":
        features = self.vectorizer.fit_transform(texts)
        features.sort_indices()  # else the threads below would each sort the one matrix in place, at the same time

        def fit_label(column: np.ndarray) -> tuple[np.ndarray, float]:
            if not 0 < column.sum() < len(column):  # a label that no row, or every row, has needs no regression
                return np.zeros(features.shape[1], np.float32), 50.0 if column.all() else -50.0
            regression = LogisticRegression(C=self.C, solver="liblinear").fit(features, column > 0)
            return regression.coef_[0].astype(np.float32), regression.intercept_[0]

        with ThreadPoolExecutor(2) as pool:  # liblinear lets go of Python's lock
            columns = pool.map(fit_label, targets.T)
            fitted = list(tqdm(columns, desc="baseline", unit=" labels", total=targets.shape[1], disable=None))
        self.coef_ = np.stack([coef for coef, _ in fitted])  # (labels, features)
        self.intercept_ = np.array([intercept for _, intercept in fitted], dtype=np.float32)
        return self

    def predict_proba(self, texts: list[str]) -> np.ndarray:
        logits = self.vectorizer.transform(texts) @ self.coef_.T + self.intercept_
        scores = probabilities(logits, "multilabel")  # one regression a label, whatever the kind
        return scores / scores.sum(1, keepdims=True) if self.kind == "multiclass" else scores
