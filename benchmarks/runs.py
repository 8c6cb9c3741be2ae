"""What the benchmarks that train share: data sets, single runs that are kept on disk, and means over them.

A run is one folder with a `run.json`, named by a hash of all it depends on, and is written whole or not at all. So a
benchmark can be killed at any moment: the next time it makes only what is missing.
"""

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from fastai.callback.core import Callback
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold, MultilabelStratifiedShuffleSplit

from tagwright import metrics
from tagwright.dataset import SPLITS, Dataset, clean
from tagwright.errors import TagwrightError
from tagwright.hues import MAP
from tagwright.stage import RECORD, Stage, release_memory, write_json
from tagwright.task import ROOT, Task
from tagwright.thresholds import choose_thresholds
from tagwright.training import build_learner, fit, predict

WORK = ROOT / "data" / "work" / "bench"
THREADS = 2  # for every system, in training and in tagging
SEEDS = [1, 2, 3]
FOLDS = 5  # of the validation rows, where their scores are to be had with thresholds from other rows
# The rows that the results in `results/` are of, where the task's own are others: 5,000 of each class of AG's news, and the
# official test rows.
SOURCES = {"ag_news": {"path": "ag_news/train_20k.csv", "member": None, "test_path": "ag_news/test.csv", "test_member": None,
                       "catalog": None}}
# What a choice on validation rows goes by: the mean of these.
HEADLINES = {"multilabel": ("p_at_1", "r_at_5", "micro_f1", "macro_f1_supported"), "multiclass": ("accuracy",)}


def run_folder(parent: Path, name: str, depends: dict) -> Path:
    """Where the run called `name` that depends on `depends` (anything JSON can hold) lies, or will lie."""
    text = json.dumps(depends, sort_keys=True, default=str)
    return parent / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def kept(folder: Path, depends: dict, make: Callable[[Path], dict]) -> dict:
    """The record of the run in `folder`; where there is none yet, `make(partial folder)` is called and its result kept."""
    if (folder / RECORD).is_file():
        return read_json(folder / RECORD)
    stage = Stage("benchmark", folder, [], depends)
    with stage.writing() as partial:
        stage.record |= make(partial)
    release_memory()
    return stage.record


def read_json(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf8"))


def with_tables(task: Task, tables: dict[str, dict]) -> Task:
    """The task with some keys of its tables changed, checked as in a task file: `{"training": {"epochs": 2}}`."""
    table = task.model_dump()
    for section, keys in tables.items():
        table[section] |= keys
    return Task(**table, file=task.file)


def measured_task(name: str) -> Task:
    """A task of the project, with the rows that benchmarks measure it on."""
    task = Task.load(name)
    return with_tables(task, {"source": SOURCES[name]}) if name in SOURCES else task


def data_folders(task: Task, folds: int | None, work: Path, like: list[Path] | None = None) -> list[Path]:
    """The task's cleaned data set as a list of one folder, or, for cross-validation, one folder for each fold. `like` are folds
    of the same rows under other labels: those made here then have the very same rows in each part."""
    whole = work / task.name / "dataset"
    clean(task, task.raw_path(), whole)
    if folds is None:
        return [whole]
    dataset = Dataset.load(whole, task.name)
    rows = pd.concat([dataset.train, dataset.validation, dataset.test], ignore_index=True)
    if like:
        return [_write_fold(dataset.labels, rows, _parts_like(folder, rows), whole.with_name(folder.name)) for folder in like]
    targets = dataset.targets(rows)
    splitter = MultilabelStratifiedKFold(folds, shuffle=True, random_state=task.split.seed)
    return [_write_fold(dataset.labels, rows, _parts(task, targets, rest, test), whole.with_name(f"fold{number}"))
            for number, (rest, test) in enumerate(splitter.split(targets, targets), 1)]


def _parts(task: Task, targets: np.ndarray, rest: np.ndarray, test: np.ndarray) -> dict[str, np.ndarray]:
    """Which rows are in which part; the validation rows are taken from `rest`."""
    shuffle = MultilabelStratifiedShuffleSplit(1, test_size=task.split.validation, random_state=task.split.seed)
    train, validation = next(shuffle.split(targets[rest], targets[rest]))
    return {"train": rest[train], "validation": rest[validation], "test": test}


def _parts_like(folder: Path, rows: pd.DataFrame) -> dict[str, np.ndarray]:
    lines = {name: pd.read_parquet(folder / f"{name}.parquet")["line"] for name in SPLITS}
    if set(pd.concat(lines.values())) != set(rows["line"]):
        raise TagwrightError(f"{folder} holds other rows than the data set that is to be divided like it")
    return {name: np.flatnonzero(rows["line"].isin(part)) for name, part in lines.items()}


def _write_fold(labels: list[str], rows: pd.DataFrame, parts: dict[str, np.ndarray], folder: Path) -> Path:
    """A data set in the form that `clean` writes."""
    settings = {name: part.tolist() for name, part in parts.items()}
    stage = Stage("fold", folder, [folder.with_name("dataset")], settings)
    if stage.unchanged():
        return folder
    with stage.writing() as partial:
        for name, part in parts.items():
            rows.iloc[np.sort(part)].to_parquet(partial / f"{name}.parquet", index=False)
        write_json(partial / "labels.json", labels)
        if (folder.with_name("dataset") / MAP).is_file():
            shutil.copyfile(folder.with_name("dataset") / MAP, partial / MAP)
        stage.record |= {"rows": {name: len(part) for name, part in parts.items()}}
    return folder


class Trained:
    """A model trained on `rows` (default: the training rows) by the task's recipe for so many; thresholds are chosen on the
    validation rows. It is kept in memory only."""

    def __init__(self, task: Task, dataset: Dataset, rows: pd.DataFrame | None = None, callbacks: Iterable[Callback] = ()):
        rows = dataset.train if rows is None else rows
        self.task, self.dataset, self.rows = task, dataset, len(rows)
        started = time.perf_counter()
        self.learner = build_learner(task, dataclasses.replace(dataset, train=rows))
        fit(task, self.learner, callbacks)
        self.seconds = round(time.perf_counter() - started, 1)
        y_true, scores = dataset.targets(dataset.validation), self.scores(dataset.validation)
        self.thresholds = self._choose(y_true, scores)

    def scores(self, part: pd.DataFrame) -> np.ndarray:
        """Probabilities, (rows, labels)."""
        tokenizer = self.learner.dls.before_batch[0].hf_tokenizer
        logits = predict(self.learner.model.hf_model, tokenizer, list(part["text"]), self.task.model.max_length)
        return metrics.probabilities(logits, self.task.kind)

    def result(self) -> dict:
        """`rows` trained on, `train_seconds`, and the scores of the validation and test rows; those of the former with
        thresholds that were chosen on other rows, or more thresholds would look better for being more."""
        validation, test = self.dataset.validation, self.dataset.test
        y_true, scores = self.dataset.targets(validation), self.scores(validation)
        thresholds = np.zeros_like(scores)
        for fold in np.array_split(np.random.default_rng(0).permutation(len(scores)), FOLDS):
            others = np.setdiff1d(np.arange(len(scores)), fold)
            thresholds[fold] = self._choose(y_true[others], scores[others])
        return {"rows": self.rows, "train_seconds": self.seconds,
                "validation": metrics.summary(y_true, scores, thresholds, self.task.kind),
                "test": metrics.summary(self.dataset.targets(test), self.scores(test), self.thresholds, self.task.kind)}

    def _choose(self, y_true: np.ndarray, scores: np.ndarray) -> np.ndarray:
        return choose_thresholds(y_true, scores, self.task.kind, self.task.training.thresholds == "per_label")


def headline(scores: dict[str, float], kind: str) -> float:
    """One number to choose by."""
    return float(np.mean([scores[key] for key in HEADLINES[kind]]))


def mean_and_spread(values: list[float]) -> dict[str, float | None]:
    """Mean and standard deviation (None of a single value)."""
    spread = round(float(np.std(values, ddof=1)), 4) if len(values) > 1 else None
    return {"mean": round(float(np.mean(values)), 4), "spread": spread}


def cell(value: dict[str, float | None], digits: int = 3) -> str:
    """`0.736 ± 0.002`."""
    spread = "" if value["spread"] is None else f" ± {value['spread']:,.{digits}f}"
    return f"{value['mean']:,.{digits}f}{spread}"
