"""Likely label errors: rows whose labels a model that was not trained on them does not believe, by confident learning
(Northcutt, Jiang and Chuang 2021), as cleanlab computes it.

Only validation and test rows are looked at. The validation rows chose the epoch and the thresholds, so the scores of these are
slightly optimistic, and an error among them a little likelier to be overlooked; those of the test rows are clean.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from cleanlab import filter as multiclass_filter
from cleanlab import rank as multiclass_rank
from cleanlab.multilabel_classification import filter as multilabel_filter
from cleanlab.multilabel_classification import rank as multilabel_rank
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tagwright.dataset import Dataset
from tagwright.errors import TagwrightError
from tagwright.stage import read_record

FILE = "label_errors.jsonl"
COLUMNS = ["split", "line", "labels", "suggested", "quality", "text"]
SHOWN = 300  # characters of a text in the table


def find_label_errors(dataset: Dataset, scores: Mapping[str, np.ndarray], kind: str) -> pd.DataFrame:
    """The rows that cleanlab takes for mislabelled, the likeliest first. `scores` holds each split's probabilities, (rows,
    labels), in the order of the split's rows.

    Columns: split, line (in the raw file), labels (those given), suggested (multiclass: the best-scored one; multilabel: the
    given ones without those that seem wrong and with those that seem missing, maybe none), quality (cleanlab's score of the
    row's labels, from 0, surely wrong, to 1), text.
    """
    rows = pd.concat([getattr(dataset, split).assign(split=split) for split in scores], ignore_index=True)
    given = dataset.targets(rows) > 0
    probabilities = np.concatenate(list(scores.values())).astype(float)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "May not flag all", UserWarning)  # a label with a row or two: nothing to be done
        wrong, suggested, quality = (_one_label if kind == "multiclass" else _many_labels)(given, probabilities)
    names = np.array(dataset.labels, dtype=object)
    found = rows.assign(labels=[list(labels) for labels in rows["labels"]], suggested=[list(names[row]) for row in suggested],
                        quality=quality.round(4))
    return found.iloc[np.argsort(quality, kind="stable")].loc[lambda frame: wrong[frame.index], COLUMNS].reset_index(drop=True)


def _one_label(given: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which rows seem wrong, bool (rows,); their better labels, bool (rows, labels); the quality of all rows, (rows,)."""
    classes = given.argmax(1)
    wrong = multiclass_filter.find_label_issues(classes, probabilities, n_jobs=1)
    suggested = np.arange(given.shape[1]) == probabilities.argmax(1)[:, None]
    return wrong, suggested, multiclass_rank.get_label_quality_scores(classes, probabilities)


def _many_labels(given: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """As `_one_label`. A row seems wrong where any of its label cells does. A label that no row has, or every row, cannot be
    told from the others' scores, and counts as right."""
    wrong = np.zeros_like(given)
    mixed = given.any(0) & ~given.all(0)
    if not mixed.any():
        return wrong.any(1), given, np.ones(len(given))
    lists = _as_lists(given[:, mixed])
    wrong[:, mixed] = multilabel_filter.find_multilabel_issues_per_class(lists, probabilities[:, mixed], n_jobs=1)
    return wrong.any(1), given ^ wrong, multilabel_rank.get_label_quality_scores(_as_lists(given), probabilities)


def _as_lists(given: np.ndarray) -> list[list[int]]:
    return [np.flatnonzero(row).tolist() for row in given]


def show_label_errors(folder: Path, task: str, console: Console) -> None:
    """The likely label errors in a task's evaluation folder as a table; raises TagwrightError where there is none."""
    made_by = f"tagwright evaluate {task}"
    if FILE not in read_record(folder, made_by)["files"]:
        raise TagwrightError(f"{folder}: holds no {FILE}; make it with `{made_by}`")
    found = [json.loads(line) for line in (folder / FILE).read_text(encoding="utf8").splitlines()]
    table = Table(title=f"The {len(found)} likeliest label errors" if found else "No likely label errors", title_justify="left",
                  show_lines=True)
    for name in ("split", "line", "given", "suggested", "quality", "text"):
        table.add_column(name, justify="right" if name in ("line", "quality") else "left")
    for row in found:
        table.add_row(row["split"], str(row["line"]), escape(", ".join(row["labels"])),
                      escape(", ".join(row["suggested"])) or "none", f"{row['quality']:.3f}",
                      escape(" ".join(row["text"].split())[:SHOWN]))
    console.print(table)
