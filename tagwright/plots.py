"""The pictures: each function takes plain data (frames, dicts, arrays) and returns a matplotlib Figure.

No pyplot, so nothing is shown twice and no figure stays in memory. Colours are Okabe and Ito's, which colour-blind
readers can tell apart; what matters is also said in words or by shape.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, PercentFormatter

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
    """Losses, and validation scores, by epoch; the epoch whose weights are kept, that with the best micro-F1 (multiclass:
    accuracy) of its run, is marked.

    `history` has columns run (if there were several), epoch, train_loss, valid_loss, and micro_f1, p_at_1 or, for
    multiclass, accuracy, macro_f1.
    """
    figure, (left, right) = _panels(1, 2, width=10, height=3.4)
    one = "accuracy" in history
    (first, first_name), (second, second_name) = \
        [("accuracy", "accuracy"), ("macro_f1", "macro-F1")] if one else [("micro_f1", "micro-F1"), ("p_at_1", "P@1")]
    runs = [run for _, run in history.groupby("run")] if "run" in history else [history]
    best = pd.DataFrame([run.loc[run[first].idxmax()] for run in runs])
    for axes, column, color, marker, name in [
        (left, "train_loss", BLUE, "o", "training rows"), (left, "valid_loss", ORANGE, "s", "validation rows"),
        (right, first, GREEN, "o", first_name), (right, second, VERMILION, "s", second_name),
    ]:
        for number, run in enumerate(runs):
            axes.plot(run["epoch"], run[column], color=color, marker=marker, label=None if number else name)
    right.plot(best["epoch"], best[first], color=GREEN, marker="o", markersize=12, fillstyle="none", linestyle="",
               label=f"kept: {best[first].iloc[0]:.3f}" if len(best) == 1 else f"kept, of {len(best)} runs")
    left.set(title="Loss", xlabel="epoch", ylabel="loss")
    right.set(title="Scores on validation rows", xlabel="epoch", ylabel="score")
    low, high = history[[first, second]].min().min(), history[[first, second]].max().max()
    right.set_ylim(max(0, low - 0.15), high + 0.6 * (high - low) + 0.05)  # room for the legend
    for axes in (left, right):
        axes.set_xlim(history["epoch"].min() - 0.5, history["epoch"].max() + 0.5)
        epochs = history["epoch"].unique()
        axes.set_xticks(epochs[:: -(-len(epochs) // 12)])
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


def confusion(matrix: np.ndarray, labels: Sequence[str], top: int = 20) -> Figure:
    """For multiclass: which label the rows of each label were given, as a heat map of the most frequent labels. `matrix` is
    that of `metrics.confusion`, (labels, labels); a cell shows its rows, and its shade their share of the true label's."""
    matrix = np.asarray(matrix)
    chosen = np.argsort(-matrix.sum(1), kind="stable")[:top]
    part = matrix[np.ix_(chosen, chosen)]
    share = part / np.maximum(matrix[chosen].sum(1), 1)[:, None]  # (top, top)
    side = 2.8 + 0.45 * max(len(chosen), 4)
    figure, (axes,) = _panels(1, 1, width=side + 1.2, height=side)
    image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="equal")
    for row, column in np.ndindex(part.shape):
        axes.text(column, row, f"{part[row, column]}", ha="center", va="center",
                  color="white" if share[row, column] > 0.6 else "black", fontsize=8)
    names = [_name(labels[index]) for index in chosen]
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    right = np.trace(matrix) / max(matrix.sum(), 1)
    axes.set(title=f"{right:.1%} of the texts were given their label", xlabel="label given",
             ylabel="true label" + (f" (the {top} most frequent of {len(labels)})" if len(labels) > top else ""))
    bar = figure.colorbar(image, ax=axes, shrink=0.7, format=PercentFormatter(1))
    bar.set_label("share of the true label's texts")
    bar.outline.set_visible(False)
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


def formats(sizes: Mapping[str, int], milliseconds: Mapping[str, float], quality: Mapping[str, float],
            score: str = "micro-F1") -> Figure:
    """Size in bytes, time a text and quality of each form of the model, side by side; all by name, in the order of `sizes`.
    `score` is the name of what `quality` holds."""
    names = list(sizes)
    figure, panels = _panels(1, 3, width=10, height=0.9 + 0.42 * len(names))
    columns = [("Size", "MB", [sizes[name] / 1e6 for name in names], "{:.1f}"),
               ("Time", "ms a text", [milliseconds[name] for name in names], "{:.1f}"),
               ("Quality", f"{score} on test rows", [quality[name] for name in names], "{:.3f}")]
    for axes, (title, unit, values, form) in zip(panels, columns, strict=True):
        _bars(axes, names, values, BLUE, form)
        axes.set(title=title, xlabel=unit)
        axes.set_xlim(0, 1.25 * max(values) or 1)
        axes.xaxis.set_major_locator(MaxNLocator(4))
    for axes in panels[1:]:
        axes.set_yticklabels([])
    return figure


def tuning(trials: pd.DataFrame, importances: Mapping[str, float], score: str) -> Figure:
    """A hyper-parameter search: each trial's score with the best so far, and how much each setting mattered.

    `trials` has columns number, state ("complete" or "pruned") and value, the first row being the default; `importances`
    is empty where there are too few trials to tell.
    """
    figure, (left, right) = _panels(1, 2, width=10, height=3.8, ratios=[3, 2])
    known = trials[trials["value"].notna()]
    ended = known["state"] == "complete"
    best = known["value"].where(ended).cummax().ffill()
    floor = best.max() - 2 * (best.max() - known["value"].median())  # what failed outright would flatten the rest
    within = known["value"] >= floor
    for part, color, marker, name in [(known[ended & within], BLUE, "o", "trained to its end"),
                                      (known[~ended & within], ORANGE, "x", "stopped early"),
                                      (known[~within].assign(value=floor), GREY, "v", "far below")]:
        if len(part):
            left.plot(part["number"], part["value"], color=color, marker=marker, linestyle="", label=name)
    left.step(known["number"], best, where="post", color=GREEN, label="best so far")
    left.axhline(known["value"].iloc[0], color=GREY, linestyle=":", label="the default")
    left.set(title="The search, trial by trial", xlabel="trial (the first is the default)",
             ylabel=f"{score} on validation rows", xlim=(-0.5, known["number"].max() + 0.5))
    left.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    left.grid(axis="y")
    figure.legend(frameon=False, loc="outside lower left", ncols=5)
    right.set(title="Which settings mattered", xlabel=f"importance, told from {ended.sum()} full trials")
    if importances:
        _bars(right, list(importances), list(importances.values()), BLUE, "{:.0%}")
        right.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    else:
        right.set(xticks=[], yticks=[])
        right.text(0.5, 0.5, "too few to tell", transform=right.transAxes, ha="center", color=GREY)
    return figure


def swatches(hues: Mapping[str, Sequence[str]], title: str = "The hues of the cover") -> Figure:
    """A palette: a patch of each colour (a name or a code that matplotlib knows), with its name and what brings it. `hues`:
    colour → genres, maybe none of either."""
    figure, (axes,) = _panels(1, 1, width=max(1.8 * len(hues), 4), height=2.2)
    axes.spines[:].set_visible(False)
    axes.set(title=title, xlim=(0, max(len(hues), 1)), ylim=(0, 1), xticks=[], yticks=[])
    for place, (hue, genres) in enumerate(hues.items()):
        axes.add_patch(Rectangle((place, 0), 1, 1, facecolor=hue, edgecolor=GREY, linewidth=0.5))  # white on white has an edge
        lines = [_name(hue), "", *(_name(genre) for genre in genres)]
        axes.text(place + 0.5, 0.5, "\n".join(lines), ha="center", va="center", fontsize=8, color=_text_color(hue))
    if not hues:
        axes.text(0.5, 0.5, "no hues", ha="center", va="center", color=GREY)
    return figure


def comparison(table: pd.DataFrame, score: str) -> Figure:
    """Several models' quality against their size and against their speed: the best are high up and at the left.

    `table` has one row a model and the columns encoder, quality (the score named `score`), megabytes and ms_per_text.
    """
    figure, panels = _panels(1, 2, width=10, height=3.8)
    low, high = table["quality"].min(), table["quality"].max()
    room = max(0.2 * (high - low), 0.02)
    heights = _apart(table["quality"].to_numpy(), 0.08 * (high - low + 2 * room))
    names = [_name(name.rstrip("/").split("/")[-1]) for name in table["encoder"]]  # as the hub's, without the organisation
    for axes, column, title, unit in zip(panels, ["megabytes", "ms_per_text"], ["Quality and size", "Quality and speed"],
                                         ["MB", "ms"], strict=True):
        values = table[column]
        axes.semilogx(values, table["quality"], color=BLUE, marker="o", markersize=8, linestyle="")
        for name, x, y, height in zip(names, values, table["quality"], heights, strict=True):
            at_right = x <= (values.min() * values.max()) ** 0.5  # of its point, where there is more room
            axes.annotate(f"{name}, {x:.3g} {unit}", (x, y), (1.12 * x if at_right else x / 1.12, height), fontsize=9,
                          ha="left" if at_right else "right", va="center",
                          arrowprops={"arrowstyle": "-", "color": GREY, "linewidth": 0.5})
        axes.set(title=title, xlim=(values.min() / 3, values.max() * 3), ylim=(low - room, high + room))
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid()
    panels[0].set(xlabel="megabytes on disk (log scale)", ylabel=f"{score} on validation rows")
    panels[1].set(xlabel="milliseconds a text (log scale)", yticklabels=[])
    return figure


def _apart(values: np.ndarray, gap: float) -> np.ndarray:
    """The values, moved as little as it takes to lie at least `gap` from one another."""
    order = np.argsort(values, kind="stable")
    steps = gap * np.arange(len(values))
    raised, lowered = (edge(values[order] - steps) + steps for edge in (
        np.maximum.accumulate, lambda column: np.minimum.accumulate(column[::-1])[::-1]))
    moved = np.empty(len(values))
    moved[order] = (raised + lowered) / 2
    return moved


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


def _text_color(background: str) -> str:
    """Black or white, whichever stands out more by WCAG's contrast; always at least 4.5 : 1."""
    channels = np.array(to_rgb(background))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return "black" if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) else "white"


def _wilson(share: np.ndarray, count: np.ndarray, z: float = 1.96) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of a share that was seen in `count` cases (Wilson 1927)."""
    middle = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return np.clip(middle - half, 0, 1), np.clip(middle + half, 0, 1)
