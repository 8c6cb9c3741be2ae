"""Each picture is made, says what it shows, and names its axes, also on the smallest and oddest input."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import CSS4_COLORS, to_hex, to_rgb
from matplotlib.figure import Figure

from tagwright import metrics, plots

LABELS = ["robots", "time-travel", "a $1 book", "x" * 80, "\\$ and $", "movie"]
RANDOM = np.random.default_rng(0)
TARGETS = (RANDOM.random((40, 6)) < 0.3).astype("float32")  # (rows, labels)
SCORES = np.clip(TARGETS * 0.4 + RANDOM.random((40, 6)) * 0.6, 0, 1)
HISTORY = pd.DataFrame({"epoch": [1, 2, 3], "train_loss": [9.0, 6.0, 4.0], "valid_loss": [8.0, 7.0, 7.2],
                        "micro_f1": [0.4, 0.6, 0.5], "p_at_1": [0.5, 0.7, 0.7]})
CLASS_HISTORY = HISTORY.rename(columns={"micro_f1": "accuracy", "p_at_1": "macro_f1"})
CLASSES = np.eye(6, dtype=int)[RANDOM.integers(0, 6, 60)]
CLASS_SCORES = np.clip(CLASSES * 0.4 + RANDOM.random((60, 6)) * 0.6, 0, 1)
TUNED = pd.DataFrame({"number": [0, 2, 3, 4, 5], "value": [0.55, 0.1, 0.57, 0.5, np.nan],
                      "state": ["complete", "complete", "complete", "pruned", "pruned"]})
FORMATS = ["PyTorch", "ONNX fp32", "ONNX int8"]

MODELS = pd.DataFrame({"encoder": ["gt-minilm", "some/model", "/a/folder/", "x" * 80], "quality": [0.5, 0.6, 0.6, 0.61],
                       "megabytes": [24.0, 80.0, 81.0, 500.0], "ms_per_text": [1.5, 20.0, 60.0, 61.0]})

PICTURES = {
    "label_frequencies": lambda: plots.label_frequencies(dict(zip(LABELS, TARGETS.sum(0), strict=True))),
    "one label": lambda: plots.label_frequencies({"robots": 3}),
    "cooccurrence": lambda: plots.cooccurrence(TARGETS, LABELS, top=5),
    "cooccurrence of a label without texts": lambda: plots.cooccurrence(TARGETS * [1, 1, 1, 1, 1, 0], LABELS),
    "text_lengths": lambda: plots.text_lengths([3, 12, 80, 90_000], max_length=64),
    "text_lengths in words": lambda: plots.text_lengths([5], max_length=64, unit="words"),
    "split_shares": lambda: plots.split_shares(pd.DataFrame({"train": [0.2, 0.1], "test": [0.1, 0.1]}, index=LABELS[:2])),
    "lr_curve": lambda: plots.lr_curve(pd.DataFrame({"lr": [1e-6, 1e-4, 1e-2], "loss": [9.0, 7.0, 90.0]}), 1e-4),
    "lr_curve that only rises": lambda: plots.lr_curve(pd.DataFrame({"lr": [1e-6, 1e-4], "loss": [7.0, 9.0]}), 1e-4),
    "learning_curves": lambda: plots.learning_curves(HISTORY),
    "learning_curves of several runs": lambda: plots.learning_curves(pd.concat([HISTORY.assign(run=1), HISTORY.assign(run=2)])),
    "learning_curves of multiclass": lambda: plots.learning_curves(CLASS_HISTORY),
    "confusion": lambda: plots.confusion(metrics.confusion(CLASSES, CLASS_SCORES), LABELS),
    "confusion of two labels": lambda: plots.confusion(np.array([[3, 0], [0, 0]]), LABELS[:2]),
    "confusion of many labels": lambda: plots.confusion(np.eye(150, dtype=int), [f"label {n}" for n in range(150)]),
    "cooccurrence of multiclass": lambda: plots.cooccurrence(CLASSES, LABELS),
    "reliability of multiclass": lambda: plots.reliability(metrics.calibration(CLASSES, CLASS_SCORES, kind="multiclass")),
    "per_label_f1 of multiclass": lambda: plots.per_label_f1(metrics.per_label(LABELS, CLASSES, CLASS_SCORES, 0, "multiclass")),
    "one epoch": lambda: plots.learning_curves(HISTORY[:1]),
    "threshold_curve": lambda: plots.threshold_curve(TARGETS, SCORES, 0.3),
    "reliability": lambda: plots.reliability(metrics.calibration(TARGETS, SCORES)),
    "per_label_f1": lambda: plots.per_label_f1(metrics.per_label(LABELS, TARGETS, SCORES, 0.5)),
    "tuning": lambda: plots.tuning(TUNED, {"epochs": 0.7, "head_lr": 0.3}, "micro-F1"),
    "tuning of one trial": lambda: plots.tuning(TUNED[:1], {}, "accuracy"),
    "comparison": lambda: plots.comparison(MODELS, "micro-F1"),
    "comparison of one model": lambda: plots.comparison(MODELS[:1], "micro-F1"),
    "comparison of equals": lambda: plots.comparison(MODELS.assign(quality=0.5, megabytes=9.0), "accuracy"),
    "formats": lambda: plots.formats(dict.fromkeys(FORMATS, 9e7), dict.fromkeys(FORMATS, 4.2), dict.fromkeys(FORMATS, 0.0)),
}


@pytest.mark.parametrize("name", PICTURES)
def test_every_panel_has_a_title_and_named_axes_and_can_be_drawn(name):
    figure = PICTURES[name]()
    assert isinstance(figure, Figure)
    panels = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert any(axes.get_title() for axes in panels)
    for axes in panels:
        named_ticks = any(tick.get_text() and not _is_number(tick.get_text()) for tick in axes.get_yticklabels())
        assert axes.get_xlabel() or not axes.xaxis.get_tick_params()["labelbottom"]
        assert axes.get_ylabel() or named_ticks or axes is not panels[0]
    drawn = io.BytesIO()
    figure.savefig(drawn)
    assert drawn.tell() > 5_000


def test_the_pictures_show_the_numbers_they_were_given():
    bars = plots.label_frequencies({"rare": 2, "frequent": 30}).axes[0]
    assert [text.get_text() for text in bars.get_yticklabels()] == ["frequent", "rare"]
    assert [patch.get_width() for patch in bars.patches] == [30, 2]
    assert "50.0%" in plots.text_lengths([10, 20, 30, 40], max_length=20).axes[0].get_title()
    curve = plots.threshold_curve(TARGETS, SCORES, 0.3).axes[0].lines[2]
    place = list(metrics.CANDIDATES).index(0.3)
    assert curve.get_ydata()[place] == pytest.approx(metrics.micro_f1(TARGETS, SCORES >= 0.3))


def test_the_confusion_matrix_shows_its_numbers_most_frequent_label_first():
    figure = plots.confusion(np.array([[4, 0, 0], [0, 6, 2], [9, 0, 1]]), ["World", "Sci/Tech", "Sports"])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["Sports", "Sci/Tech", "World"]
    assert [text.get_text() for text in axes.texts] == ["1", "0", "9", "2", "6", "0", "0", "0", "4"]
    assert axes.images[0].get_array()[0].tolist() == [0.1, 0, 0.9]
    assert "50.0%" in axes.get_title()


def test_the_name_of_the_score_is_shown():
    panels = plots.formats({"a": 1}, {"a": 1.0}, {"a": 0.9}, "accuracy").axes
    assert panels[2].get_xlabel() == "accuracy on test rows"
    curves = plots.learning_curves(CLASS_HISTORY).axes[1]
    assert [text.get_text() for text in curves.get_legend().get_texts()] == ["accuracy", "macro-F1", "kept: 0.600"]
    runs = plots.learning_curves(pd.concat([HISTORY.assign(run=1), HISTORY[:2].assign(run=2, micro_f1=[0.7, 0.2])],
                                           ignore_index=True)).axes[1]
    assert [list(line.get_xdata()) for line in runs.lines] == [[1, 2, 3], [1, 2], [1, 2, 3], [1, 2], [2, 1]]
    assert list(runs.lines[-1].get_ydata()) == [0.6, 0.7]
    assert runs.get_legend().get_texts()[-1].get_text() == "kept, of 2 runs"


def test_names_of_models_stay_apart_and_at_their_points():
    left = plots.comparison(MODELS, "micro-F1").axes[0]
    notes = {note.get_text().split(",")[0]: note for note in left.texts}
    assert list(notes)[:3] == ["gt-minilm", "model", "folder"]
    assert notes["model"].get_text() == "model, 80 MB"
    assert [note.xy for note in notes.values()] == list(zip(MODELS["megabytes"], MODELS["quality"], strict=True))
    heights = sorted(note.xyann[1] for note in notes.values())
    assert min(np.diff(heights)) >= 0.07 * np.ptp(left.get_ylim())


def test_a_palette_names_its_colours_and_can_be_read_on_each_of_them():
    axes = plots.swatches({"midnightblue": ["horror", "a $1 thriller"], "white": []}).axes[0]
    assert [text.get_text() for text in axes.texts] == ["midnightblue\n\nhorror\na \\$1 thriller", "white\n"]
    assert [text.get_color() for text in axes.texts] == ["white", "black"]
    assert [to_hex(patch.get_facecolor()) for patch in axes.patches] == ["#191970", "#ffffff"]
    axes = plots.swatches(dict.fromkeys(CSS4_COLORS, ["romance"])).axes[0]
    contrasts = [contrast(text.get_color(), hue) for text, hue in zip(axes.texts, CSS4_COLORS, strict=True)]
    assert min(contrasts) > 4.5  # what WCAG 2 asks of small text
    assert plots.swatches({}).axes[0].texts[0].get_text() == "no hues"
    plots.swatches({}).savefig(io.BytesIO())


def contrast(one: str, other: str) -> float:
    """WCAG 2's contrast ratio of two colours."""
    low, high = sorted(
        sum(weight * (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
            for weight, value in zip((0.2126, 0.7152, 0.0722), to_rgb(color), strict=True)) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_best_and_worst_labels_do_not_overlap():
    table = pd.DataFrame({"label": list("abcde"), "support": [5, 4, 3, 2, 0], "f1": [0.5, 0.5, 0.5, 0.5, 0.0]})
    figure = plots.per_label_f1(table)
    shown = [text.get_text() for axes in figure.axes for text in axes.get_yticklabels()]
    assert shown == ["a  (5)", "b  (4)", "c  (3)", "d  (2)"]


def _is_number(text: str) -> bool:
    return text.replace("−", "").replace(".", "").replace("%", "").isdigit()
