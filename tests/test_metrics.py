"""Scores against values worked out by hand, and against scikit-learn on random data."""

import warnings

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from tagwright.metrics import (
    CANDIDATES,
    accuracy,
    agreement,
    beside_trivial,
    best_threshold,
    calibration,
    calibration_error,
    confusion,
    counts,
    decide,
    f1,
    macro_f1,
    micro_f1,
    per_label,
    precision_at_k,
    probabilities,
    recall_at_k,
    summary,
)

TRUE = np.array([[1, 1, 0, 0], [0, 0, 1, 0], [0, 1, 1, 1]], dtype=np.float32)
SCORES = np.array([[0.9, 0.2, 0.6, 0.1], [0.8, 0.3, 0.7, 0.1], [0.1, 0.9, 0.2, 0.8]], dtype=np.float32)
# best first:      a c b d                c is second              b d c a


@pytest.mark.parametrize(("k", "right"), [(1, 2 / 3), (2, (1 + 1 + 2) / 6), (3, (2 + 1 + 3) / 9), (4, 6 / 12)])
def test_precision_at_k_by_hand(k, right):
    assert precision_at_k(TRUE, SCORES, k) == pytest.approx(right)


@pytest.mark.parametrize(("k", "right"), [(1, 2 / 6), (2, 4 / 6), (3, 1), (4, 1)])
def test_recall_at_k_counts_over_all_rows_as_fasttext_does(k, right):
    assert recall_at_k(TRUE, SCORES, k) == pytest.approx(right)


def test_recall_at_k_is_not_the_mean_over_rows():
    true = np.array([[1, 0, 0], [1, 1, 1]])
    scores = np.array([[0.9, 0.1, 0.1], [0.9, 0.1, 0.1]])
    assert recall_at_k(true, scores, 1) == pytest.approx(2 / 4)  # the mean over rows would be (1 + 1/3) / 2


def test_more_labels_asked_for_than_there_are():
    assert recall_at_k(TRUE, SCORES, 5) == 1


def test_counts_and_f1_by_hand():
    predicted = SCORES >= 0.5
    tp, fp, fn = counts(TRUE, predicted)
    assert (list(tp), list(fp), list(fn)) == ([1, 1, 1, 1], [1, 0, 1, 0], [0, 1, 1, 0])
    assert list(f1(tp, fp, fn)) == pytest.approx([2 / 3, 2 / 3, 1 / 2, 1])
    assert micro_f1(TRUE, predicted) == pytest.approx(8 / 12)
    assert macro_f1(TRUE, predicted) == pytest.approx((2 / 3 + 2 / 3 + 1 / 2 + 1) / 4)


def test_f1_of_nothing_is_zero():
    nothing = np.zeros((3, 2))
    assert micro_f1(nothing, nothing) == macro_f1(nothing, nothing) == 0


@pytest.mark.parametrize("seed", range(5))
def test_f1_is_as_scikit_learn_has_it(seed):
    rng = np.random.default_rng(seed)
    true, predicted = rng.random((2, 200, 30)) < 0.1
    true[:, 0] = predicted[:, 0] = 0  # a label without any row
    assert micro_f1(true, predicted) == pytest.approx(f1_score(true, predicted, average="micro"))
    assert macro_f1(true, predicted) == pytest.approx(f1_score(true, predicted, average="macro", zero_division=0))
    supported = f1_score(true[:, 1:], predicted[:, 1:], average="macro")
    assert macro_f1(true, predicted, supported_only=True) == pytest.approx(supported)


def test_best_threshold_is_the_one_that_parts_right_from_wrong():
    true = np.array([[1, 0], [1, 0], [0, 1]])
    scores = np.array([[0.42, 0.40], [0.70, 0.30], [0.10, 0.41]])
    assert best_threshold(true, scores) == pytest.approx(0.41)


def test_best_threshold_has_no_better_rival():
    rng = np.random.default_rng(0)
    true = rng.random((100, 10)) < 0.2
    scores = np.clip(true * 0.3 + rng.random((100, 10)) * 0.6, 0, 1)
    best = best_threshold(true, scores)
    assert micro_f1(true, scores >= best) == max(micro_f1(true, scores >= rival) for rival in CANDIDATES)


def test_candidates_go_up_and_are_not_changed_by_rounding():
    assert (np.diff(CANDIDATES) > 0).all()
    assert CANDIDATES.tolist() == CANDIDATES.round(4).tolist()
    assert CANDIDATES[:11].tolist() == [0.002, 0.004, 0.006, 0.008, 0.01, 0.012, 0.014, 0.016, 0.018, 0.02, 0.03]
    assert (0.3 in CANDIDATES, CANDIDATES[-1]) == (True, 0.89)


def test_a_model_that_is_unsure_of_everything_has_its_threshold_too():
    true = np.array([[1, 0], [1, 0], [0, 1]])
    scores = np.array([[0.0065, 0.005], [0.007, 0.003], [0.001, 0.0061]])
    assert best_threshold(true, scores) == 0.006


@pytest.mark.parametrize("top", [1, 0.03])
@pytest.mark.parametrize("seed", range(20))
def test_best_threshold_is_the_lowest_of_the_best_also_between_equal_scores(seed, top):
    rng = np.random.default_rng(seed)
    true = (rng.random((30, 8)) < rng.random() * 0.5).astype(np.float32)
    scores = np.round(top * rng.random((30, 8)) ** rng.integers(1, 6), 2 if top == 1 else 3)
    scores = scores.astype(np.float32 if seed % 2 else float)
    rivals = [micro_f1(true, scores >= rival) for rival in CANDIDATES]
    assert best_threshold(true, scores) == CANDIDATES[int(np.argmax(rivals))]


def test_per_label_by_hand_most_frequent_first():
    table = per_label(["a", "b", "c", "d"], TRUE, SCORES, np.array([0.5, 0.5, 0.65, 0.05]))
    assert list(table["label"]) == ["b", "c", "a", "d"]
    assert list(table["support"]) == [2, 2, 1, 1]
    assert list(table["threshold"]) == [0.5, 0.65, 0.5, 0.05]
    assert list(table["precision"]) == pytest.approx([1, 1, 1 / 2, 1 / 3])
    assert list(table["recall"]) == pytest.approx([1 / 2, 1 / 2, 1, 1])
    assert list(table["f1"]) == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1 / 2])


def test_per_label_takes_one_threshold_for_all():
    assert list(per_label(["a", "b", "c", "d"], TRUE, SCORES, 0.5)["threshold"]) == [0.5] * 4


def test_summary_rounds_the_headline_numbers():
    assert summary(TRUE, SCORES, 0.5) == {
        "p_at_1": 0.6667, "r_at_5": 1.0, "micro_f1": 0.6667, "macro_f1": 0.7083, "macro_f1_supported": 0.7083,
    }


def test_calibration_by_hand():
    true = np.array([[0, 0], [1, 1], [1, 0]])
    scores = np.array([[0.1, 0.2], [0.3, 0.8], [1.0, 0.6]])
    table = calibration(true, scores, bins=2)
    assert list(table["count"]) == [3, 3]
    assert list(table["mean_score"]) == pytest.approx([0.2, 0.8])
    assert list(table["share_right"]) == pytest.approx([1 / 3, 2 / 3])
    assert calibration_error(true, scores, bins=2) == pytest.approx(2 / 15)


def test_calibration_leaves_out_empty_bands():
    assert len(calibration(np.array([[1, 0]]), np.array([[0.95, 0.05]]))) == 2


def test_a_calibrated_model_has_a_small_error_and_a_boastful_one_a_large():
    rng = np.random.default_rng(0)
    scores = rng.random((5000, 4))
    true = rng.random((5000, 4)) < scores
    assert calibration_error(true, scores) < 0.02
    assert calibration_error(true, np.sqrt(scores)) > 0.1


def test_agreement_by_hand():
    other = SCORES.copy()
    other[0, 2] = 0.4  # another decision
    other[1, 0] = 0.55  # the same decision
    found = agreement(SCORES, other, 0.5)
    assert found == pytest.approx({"decisions": 11 / 12, "label_sets": 2 / 3, "mean_difference": 0.45 / 12,
                                   "largest_difference": 0.25})
    assert agreement(SCORES, other, np.array([0.5, 0.5, 0.3, 0.5]))["decisions"] == 1


# --- from logits to decisions, and multiclass --------------------------------------------------------------------

CLASSES = np.array([[1, 0, 0], [0, 1, 0], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
CLASS_SCORES = np.array([[0.5, 0.3, 0.2], [0.5, 0.4, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]], dtype=np.float32)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
def test_probabilities_do_not_overflow_and_stay_float32(kind):
    logits = np.array([[-1e4, 0, 1e4], [88.8, -88.8, 0], [0, 0, 0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = probabilities(logits, kind)
    assert scores.dtype == np.float32
    assert scores.shape == (3, 3)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert scores[0, 2] == 1
    assert probabilities(np.zeros((0, 4)), kind).shape == (0, 4)


def test_probabilities_by_hand():
    logits = np.log([[1.0, 3.0, 4.0]])
    assert probabilities(logits, "multilabel")[0] == pytest.approx([1 / 2, 3 / 4, 4 / 5])
    assert probabilities(logits, "multiclass")[0] == pytest.approx([1 / 8, 3 / 8, 4 / 8])
    assert probabilities(logits + 500, "multiclass")[0] == pytest.approx([1 / 8, 3 / 8, 4 / 8], rel=1e-4)


def test_multilabel_decides_by_thresholds_and_multiclass_by_the_best():
    assert decide(SCORES, 0.8, "multilabel").tolist() == (SCORES >= 0.8).tolist()
    assert decide(SCORES, np.array([0.85, 0.1, 1, 1]), "multilabel")[0].tolist() == [True, True, False, False]
    given = decide(CLASS_SCORES, 0.99, "multiclass")
    assert given.dtype == bool
    assert given.argmax(1).tolist() == [0, 0, 1, 2]
    assert (given.sum(1) == 1).all()
    assert decide(np.full((2, 3), 1 / 3), 0, "multiclass").tolist() == [[True, False, False]] * 2  # equal: the first, only
    assert decide(np.zeros((0, 3)), 0, "multiclass").shape == (0, 3)


def test_summary_of_multiclass_by_hand():
    found = summary(CLASSES, CLASS_SCORES, np.zeros(3), "multiclass")
    # label by label: 1 of 2 given right and all found; the only one given right, 1 of 2 found; right
    assert found == {"accuracy": 0.75, "p_at_1": 0.75, "r_at_5": 1.0, "micro_f1": 0.75,
                     "macro_f1": round((2 / 3 + 2 / 3 + 1) / 3, 4), "macro_f1_supported": round((2 / 3 + 2 / 3 + 1) / 3, 4)}
    assert "accuracy" not in summary(TRUE, SCORES, 0.5)


def test_multiclass_is_as_scikit_learn_has_it():
    rng = np.random.default_rng(0)
    true, scores = rng.integers(0, 5, 300), rng.dirichlet(np.ones(5), 300)
    scores[np.arange(300), true] += 0.3
    matrix, found = np.eye(5)[true], summary(np.eye(5)[true], scores, 0.0, "multiclass")
    given = scores.argmax(1)
    assert found["accuracy"] == found["micro_f1"] == found["p_at_1"] == round(accuracy_score(true, given), 4)
    assert found["macro_f1"] == round(f1_score(true, given, average="macro"), 4)
    assert confusion(matrix, scores).tolist() == confusion_matrix(true, given).tolist()


def test_accuracy_counts_rows_not_cells():
    assert accuracy(TRUE, TRUE) == 1
    assert accuracy(np.eye(3), np.eye(3)[[0, 1, 1]]) == pytest.approx(2 / 3)


def test_confusion_has_the_true_labels_down_and_the_given_across():
    assert confusion(CLASSES, CLASS_SCORES).tolist() == [[1, 0, 0], [1, 1, 0], [0, 0, 1]]
    assert confusion(np.eye(3)[[0]], np.eye(3)[[0]]).shape == (3, 3)


def test_multiclass_needs_no_threshold():
    assert best_threshold(CLASSES, CLASS_SCORES, "multiclass") == 0
    table = per_label(["a", "b", "c"], CLASSES, CLASS_SCORES, np.zeros(3), "multiclass")
    assert "threshold" not in table
    assert list(table["label"]) == ["b", "a", "c"]
    assert list(table["precision"]) == pytest.approx([1, 1 / 2, 1])
    assert list(table["recall"]) == pytest.approx([1 / 2, 1, 1])


def test_calibration_of_multiclass_asks_only_the_best_score():
    table = calibration(CLASSES, CLASS_SCORES, bins=2, kind="multiclass")
    assert list(table["count"]) == [1, 3]
    assert list(table["mean_score"]) == pytest.approx([0.4, 0.6])
    assert list(table["share_right"]) == pytest.approx([1, 2 / 3])
    assert calibration_error(CLASSES, CLASS_SCORES, bins=2, kind="multiclass") == pytest.approx((0.6 + 3 * (2 / 3 - 0.6)) / 4)


def test_agreement_of_multiclass_compares_best_labels():
    other = CLASS_SCORES.copy()
    other[1] = [0.4, 0.5, 0.1]  # another best label
    other[2] = [0.2, 0.6, 0.2]  # the same one
    found = agreement(CLASS_SCORES, other, np.zeros(3), "multiclass")
    assert found == pytest.approx({"decisions": 10 / 12, "label_sets": 3 / 4, "mean_difference": 0.6 / 12,
                                   "largest_difference": 0.2}, abs=1e-6)


def test_a_model_beside_one_that_gives_no_label():
    y_true = np.zeros((10, 20))
    y_true[:, 0] = 1
    scores = np.where(y_true > 0, 0.9, 0.1)
    scores[0] = scores[0, ::-1]  # two cells wrong
    table = beside_trivial(y_true, scores, 0.5)
    assert list(table.index) == ["predict nothing", "this model"]
    assert table["share of cells right"].tolist() == pytest.approx([0.95, 0.99])
    assert table["micro-F1"].tolist() == pytest.approx([0, 0.9])


def test_a_model_beside_one_that_always_gives_the_most_frequent_class():
    y_true = np.eye(3)[[1, 1, 1, 0, 2]]
    table = beside_trivial(y_true, np.eye(3)[[1, 1, 1, 0, 0]], 0, "multiclass")
    assert list(table.index) == ["always the most frequent label", "this model"]
    assert table["accuracy"].tolist() == pytest.approx([0.6, 0.8])
    assert table["macro-F1"].tolist() == pytest.approx([0.75 / 3, (1 + 2 / 3) / 3])
