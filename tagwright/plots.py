"""The pictures: each function takes plain data (frames, dicts, arrays) and returns a matplotlib Figure.

No pyplot, so nothing is shown twice and no figure stays in memory. Colours are Okabe and Ito's, which colour-blind
readers can tell apart; what matters is also said in words or by shape.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from tagwright import metrics

BLUE, ORANGE, GREEN, VERMILION, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#767676"
MAX_NAME = 28  # characters of a label that are shown


def label_frequencies(counts: Mapping[str, int], top: int = 25) -> Figure:
    """The most frequent labels as bars, and how many texts each label has, from first to last. `counts`: label → texts."""
    ordered = pd.Series(counts, dtype=float).sort_values(ascending=False, kind="stable")
    shown = ordered[:top]
    figure, (left, right) = _panels(1, 2, width=10, height=0.6 + 0.24 * max(len(shown), 10), ratios=[3, 2])
    _bars(left, shown.index, shown.to_numpy(), BLUE)
    left.set(title=f"The {len(shown)} most frequent of {len(ordered)} labels", xlabel="texts with the label")
    left.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    right.plot(range(1, len(ordered) + 1), ordered, color=BLUE, marker=".", linewidth=1)
    right.set(title="All labels, by rank", xlabel="rank of the label", ylabel="texts with the label")
    right.set_ylim(bottom=0)
    return figure


def cooccurrence(targets: np.ndarray, labels: Sequence[str], top: int = 20) -> Figure:
    """Which labels come together, as a heat map of the most frequent ones. `targets` is 0/1, (texts, labels).

    A cell is the share of the texts with the row's label that also have the column's.
    """
    totals = targets.sum(0)
    chosen = np.argsort(-totals, kind="stable")[:top]
    part = targets[:, chosen].astype(float)
    share = part.T @ part / np.maximum(totals[chosen], 1)[:, None]  # (top, top)
    np.fill_diagonal(share, np.nan)  # always 1, and no news
    figure, (axes,) = _panels(1, 1, width=8.4, height=7.4)
    axes.set_facecolor("#d9d9d9")  # shows on the diagonal
    image = axes.imshow(share, cmap="Blues", vmin=0, aspect="equal")
    names = [_name(labels[index]) for index in chosen]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(title="How often a text with one label also has another", xlabel="… also has this label",
             ylabel="a text with this label …")
    axes.grid(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.7, format=PercentFormatter(1))
    bar.set_label("share of the row label's texts")
    bar.outline.set_visible(False)
    return figure


def text_lengths(lengths: Sequence[int], max_length: int, unit: str = "tokens") -> Figure:
    """How long the texts are, and where the model stops reading. The last bar holds the few that are far longer."""
    lengths = np.asarray(lengths)
    end = max(np.percentile(lengths, 99.5), 1.15 * max_length)
    beyond = (lengths > end).any()
    figure, (axes,) = _panels(1, 1, width=8, height=3.4)
    axes.hist(np.minimum(lengths, end), bins=40, range=(0, end), color=BLUE)
    axes.axvline(max_length, color=VERMILION, linewidth=2)
    axes.annotate(f"the model reads {max_length} {unit} ", (max_length, 0.95), xycoords=("data", "axes fraction"),
                  ha="right", va="top", color=VERMILION)
    axes.set_xlim(0, end)
    axes.set(title=f"{(lengths > max_length).mean():.1%} of the texts are longer than the model reads",
             xlabel=f"{unit} in a text" + (" (longer ones are counted in the last bar)" if beyond else ""), ylabel="texts")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    return figure


def split_shares(shares: pd.DataFrame) -> Figure:
    """Whether each label is as frequent in every split: one row a label, one column a split, values are shares of rows."""
    figure, (axes,) = _panels(1, 1, width=8, height=0.8 + 0.26 * len(shares))
    rows = np.arange(len(shares))[::-1]
    axes.hlines(rows, shares.min(axis=1), shares.max(axis=1), color="#cccccc", linewidth=3, zorder=1)
    for column, marker, color in zip(shares, "o^sDv", [BLUE, ORANGE, GREEN, VERMILION, GREY], strict=False):
        axes.plot(shares[column], rows, linestyle="", marker=marker, color=color, label=column, markersize=6)
    axes.set_yticks(rows, [_name(label) for label in shares.index])
    axes.set(title="Share of each split's rows that have a label", xlabel="share of the split's rows")
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlim(left=0)
    axes.grid(axis="x")
    axes.legend(frameon=False, loc="lower right")
    return figure


def lr_curve(curve: pd.DataFrame, suggested: float) -> Figure:
    """The learning-rate range test: `curve` has columns lr and loss (see `find_learning_rate`)."""
    figure, (axes,) = _panels(1, 1, width=8, height=3.4)
    axes.semilogx(curve["lr"], curve["loss"], color=BLUE)
    axes.axvline(suggested, color=VERMILION, linestyle="--", label=f"suggested: {suggested:.1e}")
    least, usual = curve["loss"].min(), curve["loss"].quantile(0.75)
    if usual > least:  # what blows up at the right would flatten the rest
        axes.set_ylim(least - 0.1 * (usual - least), usual + 0.3 * (usual - least))
    axes.set(title="Learning-rate range test", xlabel="learning rate (log scale)", ylabel="smoothed training loss")
    axes.legend(frameon=False)
    return figure


def learning_curves(history: pd.DataFrame) -> Figure:
    """Losses, and validation scores, by epoch; the epoch with the best micro-F1, whose weights are kept, is marked.

    `history` has columns epoch, train_loss, valid_loss, micro_f1, p_at_1.
    """
    figure, (left, right) = _panels(1, 2, width=10, height=3.4)
    best = history.loc[history["micro_f1"].idxmax()]
    left.plot(history["epoch"], history["train_loss"], color=BLUE, marker="o", label="training rows")
    left.plot(history["epoch"], history["valid_loss"], color=ORANGE, marker="s", label="validation rows")
    left.set(title="Cross-entropy, summed over labels", xlabel="epoch", ylabel="loss")
    right.plot(history["epoch"], history["micro_f1"], color=GREEN, marker="o", label="micro-F1")
    right.plot(history["epoch"], history["p_at_1"], color=VERMILION, marker="s", label="P@1")
    right.annotate(f"kept: {best['micro_f1']:.3f}", (best["epoch"], best["micro_f1"]), (0, -22), textcoords="offset points",
                   ha="center", color=GREEN, arrowprops={"arrowstyle": "-", "color": GREEN})
    right.set(title="Scores on validation rows", xlabel="epoch", ylabel="score")
    low = history[["micro_f1", "p_at_1"]].min().min()
    high = history[["micro_f1", "p_at_1"]].max().max()
    right.set_ylim(max(0, low - 0.15), high + 0.6 * (high - low) + 0.05)  # room for the legend
    for axes in (left, right):
        axes.set_xlim(history["epoch"].min() - 0.5, history["epoch"].max() + 0.5)
        axes.set_xticks(history["epoch"][:: -(-len(history) // 12)])
        axes.grid(axis="y")
        axes.legend(frameon=False)
    return figure


def threshold_curve(y_true: np.ndarray, scores: np.ndarray, chosen: float) -> Figure:
    """Micro-F1, precision and recall against the one threshold for all labels; both arrays are (rows, labels)."""
    tp, fp, fn = (np.array(column) for column in zip(
        *([part.sum() for part in metrics.counts(y_true, scores >= threshold)] for threshold in metrics.CANDIDATES),
        strict=True))
    figure, (axes,) = _panels(1, 1, width=8, height=3.8)
    axes.plot(metrics.CANDIDATES, tp / np.maximum(tp + fp, 1), color=BLUE, linestyle="--", label="precision")
    axes.plot(metrics.CANDIDATES, tp / np.maximum(tp + fn, 1), color=ORANGE, linestyle="-.", label="recall")
    axes.plot(metrics.CANDIDATES, metrics.f1(tp, fp, fn), color=GREEN, linewidth=2.5, label="micro-F1")
    axes.axvline(chosen, color=GREY, linestyle=":", label=f"chosen: {chosen:.2f}")
    axes.set(title="What a threshold costs and gains, on validation rows", ylabel="score", ylim=(0, 1), xlim=(0, 0.9),
             xlabel="threshold: a label is given from this score on")
    axes.grid(axis="y")
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def reliability(table: pd.DataFrame) -> Figure:
    """Whether a score of 0.7 is right 70 times in 100: `table` is that of `metrics.calibration`.

    The bars are 95 % Wilson intervals: where few scores lie, little can be said.
    """
    figure, (upper, lower) = _panels(2, 1, width=6, height=5.6, ratios=[3, 1], share_x=True)
    low, high = _wilson(table["share_right"].to_numpy(float), table["count"].to_numpy(float))
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="a perfectly calibrated model")
    upper.vlines(table["mean_score"], low, high, color=BLUE, linewidth=1.5)
    upper.plot(table["mean_score"], table["share_right"], color=BLUE, marker="o", linestyle="",
               label="this model, 95 % interval")
    upper.set(title="Can the scores be believed?", ylabel="share that was right", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    upper.grid()
    upper.legend(frameon=False, loc="upper left")
    lower.bar(table["mean_score"], table["count"], width=0.05, color=BLUE)
    lower.set(xlabel="mean score of a band", ylabel="decisions\n(log scale)", yscale="log", ylim=(1, 2 * table["count"].max()))
    return figure


def per_label_f1(table: pd.DataFrame, top: int = 12) -> Figure:
    """The labels that go best and worst, with their number of test rows: `table` is that of `metrics.per_label`."""
    ordered = table[table["support"] > 0].sort_values(["f1", "support"], ascending=False, kind="stable", ignore_index=True)
    top = max(1, min(top, len(ordered) // 2))
    figure, panels = _panels(1, 2, width=10, height=0.8 + 0.28 * top)
    worst = ordered[top:].sort_values(["f1", "support"], ascending=[True, False], kind="stable")[:top]
    for axes, part, color, title in zip(panels, [ordered[:top], worst], [BLUE, ORANGE],
                                        [f"The {top} best labels", f"The {top} worst labels"], strict=True):
        _bars(axes, [f"{_name(label)}  ({support})" for label, support in zip(part["label"], part["support"], strict=True)],
              part["f1"].to_numpy(), color, "{:.2f}")
        axes.set(title=title, xlabel="F1 (in brackets: the label's test rows)", xlim=(0, 1.12))
        axes.set_xticks(np.arange(0, 1.01, 0.25))
    return figure


def formats(sizes: Mapping[str, int], milliseconds: Mapping[str, float], micro_f1: Mapping[str, float]) -> Figure:
    """Size in bytes, time a text and quality of each form of the model, side by side; all by name, in the order of `sizes`."""
    names = list(sizes)
    figure, panels = _panels(1, 3, width=10, height=0.9 + 0.42 * len(names))
    columns = [("Size", "MB", [sizes[name] / 1e6 for name in names], "{:.1f}"),
               ("Time", "ms a text", [milliseconds[name] for name in names], "{:.1f}"),
               ("Quality", "micro-F1 on test rows", [micro_f1[name] for name in names], "{:.3f}")]
    for axes, (title, unit, values, form) in zip(panels, columns, strict=True):
        _bars(axes, names, values, BLUE, form)
        axes.set(title=title, xlabel=unit)
        axes.set_xlim(0, 1.25 * max(values) or 1)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    for axes in panels[1:]:
        axes.set_yticklabels([])
    return figure


def _panels(rows: int, columns: int, width: float, height: float, ratios: list[int] | None = None,
            share_x: bool = False) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)
    ratios = {"height_ratios" if rows > 1 else "width_ratios": ratios} if ratios else {}
    panels = figure.subplots(rows, columns, squeeze=False, sharex=share_x, **ratios).ravel().tolist()
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_axisbelow(True)
        axes.grid(color="#e5e5e5")
        axes.grid(False)
    return figure, panels


def _bars(axes: Axes, names: Sequence[str], values: Sequence[float], color: str, form: str = "{:.0f}") -> None:
    """Horizontal bars, the first on top, each with its value."""
    drawn = axes.barh(range(len(names)), values, color=color)
    axes.bar_label(drawn, [form.format(value) for value in values], padding=3, fontsize=9)
    axes.set_yticks(range(len(names)), [_name(name) for name in names])
    axes.invert_yaxis()
    axes.margins(x=0.12)


def _name(label: str) -> str:
    """A label as it can be shown: not too long, and no dollar sign taken for mathematics."""
    text = str(label) if len(str(label)) <= MAX_NAME + 8 else str(label)[: MAX_NAME - 1] + "…"
    return text.replace("\\$", "$").replace("$", r"\$")


def _wilson(share: np.ndarray, count: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of a share that was seen in `count` cases (Wilson 1927)."""
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
