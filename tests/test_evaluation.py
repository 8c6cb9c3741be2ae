"""Scores in colours, counted by hand."""

import numpy as np
import pandas as pd
import pytest

from tagwright.dataset import Dataset
from tagwright.evaluation import hue_scores
from tagwright.hues import Reason

REASONS = {genre: Reason(genre, hues, "because", genre) for genre, hues in {
    "horror": ["black", "red"], "ghost": ["white"], "crime": ["black", "blue"], "sea": ["blue"], "fiction": []}.items()}
# The third book is of a genre too rare to be a label, the fourth of none with a colour.
TRUTH = [["black", "red", "white"], ["black", "blue"], ["blue"], []]


def dataset(labels: list[str]) -> Dataset:
    return Dataset(labels, None, None, pd.DataFrame({"hues": TRUTH}), {})


def given(labels: list[str], rows: list[list[str]]) -> np.ndarray:
    return np.array([[label in row for label in labels] for row in rows])


def test_genres_and_colours_that_come_to_the_same_have_the_same_scores():
    genres, colours = ["horror", "crime", "fiction"], ["black", "red", "blue", "white"]
    by_genre = given(genres, [["horror", "crime"], ["crime"], ["fiction"], ["horror"]])
    by_colour = given(colours, [["black", "red", "blue"], ["black", "blue"], [], ["black", "red"]])
    mapped = hue_scores(dataset(genres), by_genre, REASONS, "mapped")
    assert mapped == hue_scores(dataset(colours), by_colour, REASONS, "predicted")
    # black 2 right, 1 wrong; red 1, 1; blue 1 right, 1 wrong, 1 missed; white 1 missed
    each = [4 / 5, 2 / 3, 2 / 4, 0]
    assert mapped == pytest.approx({"micro_f1": 2 * 4 / (2 * 4 + 3 + 2), "macro_f1": sum(each) / 4,
                                    "macro_f1_supported": sum(each) / 4}, abs=1e-4)


def test_a_colour_that_no_label_brings_is_missed_all_the_same():
    """`white` is the ghost's alone, which is no label here: what is perfect by the labels is not so by the truth."""
    labels = ["horror", "crime", "sea"]
    found = hue_scores(dataset(labels), given(labels, [["horror"], ["crime"], ["sea"], []]), REASONS, "mapped")
    assert found["micro_f1"] == pytest.approx(2 * 5 / (2 * 5 + 1), abs=1e-4)
    assert found["macro_f1"] == pytest.approx(3 / 4, abs=1e-4)


def test_a_colour_on_no_test_row_counts_for_all_colours_only():
    reasons = REASONS | {"opera": Reason("opera", ["gold"], "the boxes", "opera")}
    labels = ["horror", "crime", "sea", "ghost"]
    found = hue_scores(dataset(labels), given(labels, [["horror", "ghost"], ["crime"], ["sea"], []]), reasons, "mapped")
    assert found == {"micro_f1": 1.0, "macro_f1": 0.8, "macro_f1_supported": 1.0}
