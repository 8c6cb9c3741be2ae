"""Scores in colours, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from tagwright import metrics
from tagwright.evaluation import best_hue_threshold, given_hues, hue_scores
from tagwright.hues import Reason

REASONS = {genre: Reason(genre, hues, "because", genre) for genre, hues in {
    "horror": ["black", "red"], "ghost": ["white"], "crime": ["black", "blue"], "sea": ["blue"], "fiction": []}.items()}
# The third book is of a genre too rare to be a label, the fourth of none with a colour.
TRUTH = [["black", "red", "white"], ["black", "blue"], ["blue"], []]

ROWS = pd.DataFrame({"hues": TRUTH})


def given(labels: list[str], rows: list[list[str]]) -> np.ndarray:
    return np.array([[label in row for label in labels] for row in rows])


def test_genres_and_colours_that_come_to_the_same_have_the_same_scores():
    genres, colours = ["horror", "crime", "fiction"], ["black", "red", "blue", "white"]
    by_genre = given(genres, [["horror", "crime"], ["crime"], ["fiction"], ["horror"]])
    by_colour = given(colours, [["black", "red", "blue"], ["black", "blue"], [], ["black", "red"]])
    mapped = hue_scores(genres, ROWS, by_genre, REASONS, "mapped")
    assert mapped == hue_scores(colours, ROWS, by_colour, REASONS, "predicted")
    # black 2 right, 1 wrong; red 1, 1; blue 1 right, 1 wrong, 1 missed; white 1 missed
    each = [4 / 5, 2 / 3, 2 / 4, 0]
    assert mapped == pytest.approx({"micro_f1": 2 * 4 / (2 * 4 + 3 + 2), "macro_f1": sum(each) / 4,
                                    "macro_f1_supported": sum(each) / 4}, abs=1e-4)


def test_a_colour_that_no_label_brings_is_missed_all_the_same():
    """`white` is the ghost's alone, which is no label here: what is perfect by the labels is not so by the truth."""
    labels = ["horror", "crime", "sea"]
    found = hue_scores(labels, ROWS, given(labels, [["horror"], ["crime"], ["sea"], []]), REASONS, "mapped")
    assert found["micro_f1"] == pytest.approx(2 * 5 / (2 * 5 + 1), abs=1e-4)
    assert found["macro_f1"] == pytest.approx(3 / 4, abs=1e-4)


def test_a_colour_on_no_test_row_counts_for_all_colours_only():
    reasons = REASONS | {"opera": Reason("opera", ["gold"], "the boxes", "opera")}
    labels = ["horror", "crime", "sea", "ghost"]
    found = hue_scores(labels, ROWS, given(labels, [["horror", "ghost"], ["crime"], ["sea"], []]), reasons, "mapped")
    assert found == {"micro_f1": 1.0, "macro_f1": 0.8, "macro_f1_supported": 1.0}


def test_the_threshold_is_that_of_the_best_colours_not_of_the_best_labels():
    """The third book is taken for one of whales, a wrong label of the right colour."""
    labels, reasons = ["horror", "crime", "sea", "whale"], REASONS | {"whale": Reason("whale", ["blue"], "the sea", "whale")}
    scores = np.array([[0.9, 0.1, 0.1, 0.1], [0.1, 0.6, 0.1, 0.1], [0.1, 0.1, 0.1, 0.4], [0.1] * 4])
    assert metrics.best_threshold(given(labels, [["horror"], ["crime"], ["sea"], []]), scores) == 0.41
    assert best_hue_threshold(labels, ROWS, scores, reasons, "mapped", "multilabel") == 0.11
    perfect = hue_scores(labels, ROWS, scores >= 0.11, reasons, "mapped")
    assert perfect["micro_f1"] == pytest.approx(2 * 5 / (2 * 5 + 1), abs=1e-4)


SCORES = np.array([[0.9, 0.5, 0.1], [0.3, 0.6, 0.1], [0.1, 0.4, 0.35], [0.1, 0.1, 0.1]])  # of horror, crime, sea


@pytest.mark.parametrize("seed", range(10))
def test_the_threshold_has_no_better_rival(seed):
    labels = ["horror", "crime", "sea", "ghost", "fiction"]
    scores = np.random.default_rng(seed).random((4, 5)).round(2) * [1, 1, 0.1, 0.1, 1]
    rivals = [hue_scores(labels, ROWS, each <= scores, REASONS, "mapped")["micro_f1"] for each in metrics.CANDIDATES]
    found = best_hue_threshold(labels, ROWS, scores, REASONS, "mapped", "multilabel")
    assert found == metrics.CANDIDATES[int(np.argmax(rivals))]


def test_both_ways_have_the_same_threshold_where_they_come_to_the_same():
    """A colour's score is the highest of its genres'; those of `fiction` bring none, however high."""
    genres, colours = ["horror", "crime", "sea", "fiction"], ["black", "red", "blue"]
    by_genre = np.c_[SCORES, [0.99] * 4]
    by_colour = np.c_[SCORES[:, :2].max(1), SCORES[:, 0], SCORES[:, 1:].max(1)]
    thresholds = [best_hue_threshold(genres, ROWS, by_genre, REASONS, "mapped", "multilabel"),
                  best_hue_threshold(colours, ROWS, by_colour, REASONS, "predicted", "multilabel")]
    assert thresholds[0] == thresholds[1]
    given_both = [given_hues(genres, by_genre >= thresholds[0], REASONS, "mapped"),
                  given_hues(colours, by_colour >= thresholds[0], REASONS, "predicted")]
    assert given_both[0].tolist() == given_both[1].tolist()


def test_multiclass_has_no_threshold_for_colours():
    assert best_hue_threshold(["horror", "crime", "sea"], ROWS, SCORES, REASONS, "mapped", "multiclass") == 0
