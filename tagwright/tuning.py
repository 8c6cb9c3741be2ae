"""Hyper-parameter search: `tune()` runs an Optuna study over a task's recipe, `show_tuning()` prints what came of it.

The study lies in an SQLite file, so that it can be killed at any moment and the same command goes on. Every trial trains
from scratch with the task's seed and is scored on the validation rows; the test rows are not even handed to it.
"""

import contextlib
import dataclasses
import hashlib
import json
import math
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelFitException
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console
from rich.table import Table
from sqlalchemy.exc import SQLAlchemyError
from tqdm.auto import tqdm

from tagwright import __version__, metrics, plots
from tagwright.bundle import CARD_SCORES
from tagwright.dataset import Dataset
from tagwright.errors import Paused, TagwrightError
from tagwright.stage import alone, content_id, package_versions, release_memory, write_json
from tagwright.task import Task, Training
from tagwright.training import build_learner, fit

FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STARTUP = 5  # trials drawn at random and trained to their end: before, there is too little to learn from or to compare with
STEPS = 12  # a trial's training in equal parts, at whose ends trials of different lengths are compared
WARM_UP = 3  # of these; one-cycle raises its learning rates in the first quarter
SHOWN = 3  # best trials in the closing table


def search_space(recipe: Training, kind: str, rows: int) -> dict[str, BaseDistribution]:
    """What is searched: keys of `[training]` and their ranges, around a recipe without None for `rows` training rows."""
    batch_sizes = {size for size in (recipe.batch_size // 2, 2 * recipe.batch_size) if 1 <= size <= rows} | {recipe.batch_size}
    return {
        "encoder_lr": FloatDistribution(recipe.encoder_lr / 8, recipe.encoder_lr * 4, log=True),
        "head_lr": FloatDistribution(recipe.head_lr / 8, recipe.head_lr * 4, log=True),
        "epochs": IntDistribution(math.ceil(recipe.epochs / 2), 2 * recipe.epochs),
        "batch_size": CategoricalDistribution(sorted(batch_sizes)),
        "weight_decay": FloatDistribution(0, max(0.1, 2 * recipe.weight_decay)),
        "head_init": CategoricalDistribution(["label_names", "random"]),
        "loss": CategoricalDistribution(["bce", "focal"] + ["asymmetric"] * (kind == "multilabel")),
        "class_weights": CategoricalDistribution([False, True]),
    }


def tune(task: Task, data_dir: Path, out_dir: Path, trials: int = 20, timeout: float | None = None,
         rows: int | None = None) -> dict:
    """Search until `trials` trials are finished, those of earlier runs included, and write `study.sqlite`, `tuning.json`
    and `tuning.png` into `out_dir`; returns what `tuning.json` holds.

    The first trial is the task's own recipe; the others are proposed by TPE (Bergstra et al. 2011) and stopped early by
    the median rule (Golovin et al. 2017). The score is micro-F1, for multiclass accuracy, of a trial's best epoch. No trial
    begins later than `timeout` minutes after the start. `rows` trains on that many rows only, drawn by the task's seed. A
    trial is a single run: the mean of several (`soup`) lifts every recipe, and would take several times as long.
    Another data set, encoder, recipe, number of rows or version of the library is another study.

    Raises TagwrightError where the data set is missing, the encoder cannot be loaded, the study cannot be read or written
    or another process is at work on it; Paused at Ctrl-C.
    """
    dataset = Dataset.load(data_dir, task.name)
    train = dataset.train if rows is None or rows >= len(dataset.train) else dataset.train.sample(
        rows, random_state=task.training.seed)
    of_rows = len(dataset.train)
    dataset = dataclasses.replace(dataset, train=train, test=dataset.test[:0])
    recipe = task.training.for_rows(len(train)).model_copy(update={"soup": 1})
    space = search_space(recipe, task.kind, len(train))
    fixed = task.model_dump(mode="json", include={"kind", "model"}) | {"training": recipe.model_dump(), "rows": len(train)}
    parts = {"dataset": content_id(data_dir), "fixed": fixed, "space": {key: str(each) for key, each in space.items()},
             "version": __version__}
    name = f"{task.name}-{hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]}"
    default = {key: getattr(recipe, key) for key in space}
    with alone(out_dir, "tagwright tune"), _storage_faults(out_dir / "study.sqlite") as file:
        study = _open_study(file, name, default)
        print(f"study {name}: {len(_finished(study))} of {trials} trials are finished → {out_dir}")
        try:
            _search(task, dataset, recipe, space, study, trials, timeout)
        except KeyboardInterrupt:
            raise Paused(f"stopped: {len(_finished(study))} of {trials} trials are finished and kept in {file}; "
                         "the same command goes on", code=130) from None
        record = {
            "task": task.name, "file": task.file, "study": name, "score": metrics.HEADLINE[task.kind],
            "rows": {"train": len(train), "of": of_rows, "validation": len(dataset.validation)}, "fixed": fixed,
            "wanted": trials, "finished": len(_finished(study)), **_ranking(study),
            "importances": _importances(study),
            "trials": [_entry(trial) for trial in study.get_trials(deepcopy=False)], "versions": package_versions(),
        }
    write_json(out_dir / "tuning.json", record)
    if record["finished"]:
        finished = pd.DataFrame([entry for entry in record["trials"] if entry["state"] != "interrupted"])
        plots.tuning(finished, record["importances"], _score_name(task.kind)).savefig(out_dir / "tuning.png", dpi=120)
    return record


def show_tuning(record: dict, console: Console) -> None:
    """The best trials beside the default, and the lines for the task file where one of them is better."""
    if not record["finished"]:
        print("no trial is finished yet; the same command goes on")
        return
    entries = {entry["number"]: entry for entry in record["trials"]}
    default, best = entries[record["default"]], entries[record["best"]]
    ranked = sorted((entry for entry in entries.values() if entry["state"] == "complete" and entry is not default),
                    key=lambda entry: -entry["value"])
    columns, score = [default, *ranked[:SHOWN]], _score_name(record["fixed"]["kind"])
    pruned = sum(entry["state"] == "pruned" for entry in entries.values())
    table = Table(title=f"{record['finished']} trials, {pruned} of them stopped early", title_justify="left")
    table.add_column("trial", no_wrap=True)
    for entry in columns:
        role = "default" * (entry is default) + ", " * (entry is default is best) + "best" * (entry is best)
        table.add_column(f"{entry['number']}\n{role}", justify="right", style="bold" if entry is best else "", no_wrap=True)
    table.add_row(score, *(f"{entry['value']:.4f}" for entry in columns))
    for key in default["params"]:
        table.add_row(key, *(_short(entry["params"][key]) for entry in columns))
    table.add_row("seconds", *(f"{entry['seconds']:.0f}" for entry in columns))
    console.print(table)
    if record["finished"] < record["wanted"]:
        print(f"{record['finished']} of {record['wanted']} trials are finished; the same command goes on")
    if best is default:
        print("no trial is better than the task's own recipe: keep it")
        return
    rows = record["rows"]
    print(f"trial {best['number']} is better than the task's own recipe by {best['value'] - default['value']:.4f} {score} on "
          f"{rows['validation']:,} validation rows\n(the best of many is in part the luckiest, the more so on few rows); "
          f"to use it, put this into {record['file']}:\n\n[training]")
    for key, value in best["params"].items():
        print(f"{key} = {_short(value) if isinstance(value, float) else json.dumps(value)}")
    if rows["train"] < rows["of"]:
        print(f"\nfound on {rows['train']:,} of {rows['of']:,} training rows: more rows want fewer epochs and larger batches")


class ReportEpochs(Callback):
    """Tells the study each epoch's score, and ends the training where the study's pruner says so.

    One-cycle anneals over a trial's own number of epochs, so epoch 2 of 2 cannot be compared with epoch 2 of 6: a score is
    reported for the share of the training that is done, in steps of 1/STEPS, interpolated between the epochs' ends.
    """

    order = 59  # before BestEpoch, which has scored the epoch by then, may end the training

    def __init__(self, trial: optuna.Trial, score: str, bar: tqdm):
        self.trial, self.score, self.bar = trial, score, bar
        self.curve, self.pruned = [], False

    def after_epoch(self):
        done, value = (self.epoch + 1) * STEPS / self.n_epoch, self.learn.best_epoch.history[-1][self.score]
        self.curve.append((done, value))
        first = int(self.curve[-2][0]) + 1 if len(self.curve) > 1 else int(done)
        for step in range(first, int(done) + 1):
            self.trial.report(float(np.interp(step, *zip(*self.curve, strict=True))), step)
        self.bar.set_postfix({"trial": self.trial.number, "epoch": f"{self.epoch + 1}/{self.n_epoch}", self.score: value})
        if done < STEPS and self.trial.should_prune():
            self.pruned = True
            raise CancelFitException()


def _search(task: Task, dataset: Dataset, recipe: Training, space: dict[str, BaseDistribution], study: optuna.Study,
            trials: int, timeout: float | None) -> None:
    deadline = math.inf if timeout is None else time.monotonic() + 60 * timeout
    done = len(_finished(study))
    with tqdm(total=max(trials, done), initial=done, desc="tune", unit=" trials", disable=None) as bar:
        while done < trials and time.monotonic() < deadline:
            # Seeded anew for each trial: a search that goes on after a kill proposes what an undisturbed one would have.
            study.sampler = optuna.samplers.TPESampler(seed=task.training.seed + done, n_startup_trials=STARTUP)
            trial = study.ask(space)
            _run(task.model_copy(update={"training": recipe.model_copy(update=trial.params)}), dataset, trial, bar)
            release_memory()
            done += 1
            bar.update()
            bar.write(_line(study.get_trials(deepcopy=False)[trial.number], _score_name(task.kind)))


def _run(task: Task, dataset: Dataset, trial: optuna.Trial, bar: tqdm) -> None:
    """Train by the task's recipe, and tell the study what came of it."""
    score = metrics.HEADLINE[task.kind]
    learner = build_learner(task, dataset, bar=False)
    report = ReportEpochs(trial, score, bar)
    try:
        fit(task, learner, [report])
    except torch.OutOfMemoryError:
        if not _finished(trial.study):
            raise TagwrightError(f"{task.file}: the recipe does not fit into the GPU's memory; lower training.batch_size "
                                 f"(now {task.training.batch_size})") from None
        trial.study.tell(trial, state=TrialState.PRUNED)
        return
    scores = [row[score] for row in learner.best_epoch.history]
    trial.set_user_attr("scores", scores)
    if report.pruned:
        trial.study.tell(trial, state=TrialState.PRUNED)
    else:
        trial.study.tell(trial, max(scores))


def _open_study(file: Path, name: str, default: dict) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # _search prints the trials
    study = optuna.create_study(
        storage=optuna.storages.RDBStorage(f"sqlite:///{file.absolute()}"), study_name=name, load_if_exists=True,
        direction="maximize", pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=WARM_UP))
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):  # what a kill left
        study.tell(trial.number, state=TrialState.FAIL)
    if not study.get_trials(deepcopy=False, states=(*FINISHED, TrialState.WAITING)):
        study.enqueue_trial(default)
    return study


def _finished(study: optuna.Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=FINISHED)


def _ranking(study: optuna.Study) -> dict:
    """The numbers of the first finished trial, which is the default, and of the best one, which may be the same."""
    if not (finished := _finished(study)):
        return {"default": None, "best": None}
    complete = [trial for trial in finished if trial.state == TrialState.COMPLETE]
    return {"default": finished[0].number, "best": max(complete, key=lambda trial: trial.value).number}


def _importances(study: optuna.Study) -> dict[str, float]:
    """The share of the difference between good and other trials that each setting explains (PED-ANOVA, Watanabe, Bansal
    and Hutter 2023); empty while there are too few complete trials."""
    if len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < STARTUP:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few trials: the picture says how many there are
        return optuna.importance.get_param_importances(study)


def _entry(trial: FrozenTrial) -> dict:
    """A trial as `tuning.json` has it: `value` is its best epoch's score; one that a kill ended is `interrupted`."""
    if trial.state not in FINISHED:
        return {"number": trial.number, "state": "interrupted", "params": trial.params}
    scores = trial.user_attrs.get("scores", [])  # none of a trial that ran out of memory
    return {"number": trial.number, "state": trial.state.name.lower(), "value": max(scores, default=None), "scores": scores,
            "seconds": round(trial.duration.total_seconds(), 1), "params": trial.params}


def _line(trial: FrozenTrial, score: str) -> str:
    entry = _entry(trial)
    ending = f"{score} {entry['value']:.4f}" if entry["scores"] else "out of GPU memory"
    if entry["state"] == "pruned":
        ending += f", stopped after epoch {len(entry['scores'])}"
    settings = "  ".join(f"{key} {_short(value)}" for key, value in entry["params"].items())
    return f"trial {entry['number']}: {ending}, {entry['seconds']:.0f} s  {settings}"


def _score_name(kind: str) -> str:
    return CARD_SCORES[kind][metrics.HEADLINE[kind]]


def _short(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


@contextlib.contextmanager
def _storage_faults(file: Path) -> Iterator[Path]:
    try:
        yield file
    except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
        reason = error
        while reason.__cause__:  # SQLite's own words, within SQLAlchemy's and Optuna's
            reason = reason.__cause__
        raise TagwrightError(f"{file}: the study cannot be read or written: {reason}; if it is damaged, remove it to begin "
                             "anew") from error
