"""Tagwright and what a user could pick instead, on the same rows: `make bench-quality`.

Every choice (settings, thresholds, our best epoch) is made on validation rows, but for the template, whose recipe is fixed;
scores are of test rows. Each training is kept in `data/work/bench/quality/`, so that the benchmark can be killed and started
again, or made in parts (`--tasks`, `--systems`, `--seeds`); one of ours that was killed goes on after its last whole epoch.
When all of a task is there, every system tags the same texts in one pass, and the task's part of `results/quality.json` and
of the README's table is written; the other tasks' parts stay, and so do those of systems that are left out, if they are of the
same rows and the same kind of machine.
"""

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from benchmarks.report import machine, results_file, show_bars, update_readme, write_results
from benchmarks.rivals import FastText, Model, Template, Tfidf
from benchmarks.runs import (
    SEEDS,
    THREADS,
    WORK,
    cell,
    data_folders,
    kept,
    mean_and_spread,
    measured_task,
    read_json,
    run_folder,
    with_tables,
)
from tagwright import errors, metrics
from tagwright.bundle import read_bundle, write_bundle
from tagwright.dataset import Dataset
from tagwright.model import load_tagger_model, load_tokenizer
from tagwright.onnx_export import calibration_batches, export
from tagwright.stage import RECORD, content_id, package_versions
from tagwright.tagger import FILES, Tagger
from tagwright.task import Task
from tagwright.training import predict, train

RESULTS = results_file("quality")
TASKS = {"cooking": None, "ag_news": None, "scifi": 5}  # how many folds where the data set is too small for one split
SPEED_TEXTS = 300
BARS = {  # of Tagwright, both forms
    "cooking": {"p_at_1": 0.75, "r_at_5": 0.715, "micro_f1": 0.58, "macro_f1_supported": 0.46, "train_seconds": 900},
    "ag_news": {"accuracy": 0.930},
}
COLUMNS = {
    "multilabel": {"p_at_1": "P@1", "r_at_5": "R@5", "micro_f1": "micro-F1", "macro_f1_supported": "macro-F1",
                   "macro_f1": "macro-F1, all labels"},
    "multiclass": {"accuracy": "accuracy", "macro_f1": "macro-F1"},
}


class Tagwright:
    """Ours, as `tagwright train` and `tagwright quantize` make it; see `rivals` for what the methods are."""

    key, forms, seeds, version = "tagwright", ("Tagwright PyTorch", "Tagwright int8"), True, 2

    def depends(self, task: Task, rows: int) -> dict:
        return {"model": task.model.model_dump(), "training": task.training.for_rows(rows).model_dump(exclude={"seed"})}

    def choose(self, task: Task, dataset: Dataset, folder: Path) -> dict:
        return {"settings": self.depends(task, len(dataset.train))}

    def train(self, task: Task, data_dir: Path, settings: dict, seed: int, folder: Path) -> float:
        unfinished = folder.with_name(f"{folder.name}-model")  # a kill empties `folder`; the checkpoint, beside this one, stays
        seconds = train(with_tables(task, {"training": {"seed": seed}}), data_dir, unfinished)["train_seconds"]
        unfinished.rename(folder / "model")
        model, manifest = load_tagger_model(folder / "model"), read_bundle(folder / "model")
        texts = list(Dataset.load(data_dir).train["text"])
        batches = calibration_batches(load_tokenizer(folder / "model"), texts, manifest.max_length)
        export(model, folder / "model", manifest.max_length, batches, ["int8"])
        write_bundle(folder / "model", manifest)
        return seconds

    def load(self, task: Task, labels: list[str], folder: Path, settings: dict, form: str) -> Model:
        return (Int8 if form == "Tagwright int8" else PyTorch)(folder / "model")

    def files(self, folder: Path, form: str) -> list[Path]:
        weights = FILES["int8"] if form == "Tagwright int8" else "model.safetensors"
        return [folder / "model" / name for name in (weights, "config.json", "tokenizer.json", "tagwright.json")]


class PyTorch(Model):
    def __init__(self, folder: Path):
        self.manifest = read_bundle(folder)
        super().__init__(self.manifest.kind)
        self.thresholds = np.array(self.manifest.thresholds, dtype=np.float32)
        self.model, self.tokenizer = load_tagger_model(folder), load_tokenizer(folder)

    def scores(self, texts):
        return metrics.probabilities(predict(self.model, self.tokenizer, texts, self.manifest.max_length), self.kind)


class Int8(Model):
    def __init__(self, folder: Path):
        self.tagger = Tagger.load(folder, "int8", THREADS)
        super().__init__(self.tagger.manifest.kind)
        self.thresholds = self.tagger.thresholds

    def scores(self, texts):
        return self.tagger.scores(texts)

    def tag(self, texts, thresholds):
        return self.tagger.tag(texts)


SYSTEMS = {system.key: system for system in (FastText(), Tfidf(), Template(), Tagwright())}


@dataclass
class Run:
    """One system trained on one data set (or fold) with one seed."""

    task: Task
    data_dir: Path
    system: FastText | Tfidf | Template | Tagwright
    seed: int
    work: Path

    def __post_init__(self):
        self.dataset = Dataset.load(self.data_dir, self.task.name)
        self.depends = {
            "kind": self.task.kind, "data": content_id(self.data_dir), "version": self.system.version,
            "settings": self.system.depends(self.task, len(self.dataset.train)),
        }
        parent = self.work / self.task.name / self.system.key
        self.choice_folder = run_folder(parent, f"{self.data_dir.name}-choice", self.depends)
        self.folder = run_folder(parent, f"{self.data_dir.name}-seed{self.seed}", self.depends | {"seed": self.seed})

    @property
    def done(self) -> bool:
        return (self.folder / RECORD).is_file()

    def choice(self) -> dict:
        return kept(self.choice_folder, self.depends, lambda folder: self.system.choose(self.task, self.dataset, folder))

    def make(self) -> dict:
        settings = self.choice()["settings"]
        return kept(self.folder, self.depends | {"seed": self.seed}, lambda folder: self._train(settings, folder))

    def _train(self, settings: dict, folder: Path) -> dict:
        seconds = self.system.train(self.task, self.data_dir, settings, self.seed, folder)
        return {"train_seconds": seconds, "chosen": settings,
                "trained_on": torch.cuda.get_device_name() if torch.cuda.is_available() else machine(),
                "forms": {form: self._score(settings, folder, form) for form in self.system.forms}}

    def _score(self, settings: dict, folder: Path, form: str) -> dict:
        model = self.system.load(self.task, self.dataset.labels, folder, settings, form)
        parts = {"validation": self.dataset.validation, "test": self.dataset.test}
        scores = {name: model.scores(list(part["text"])) for name, part in parts.items()}
        truth = {name: self.dataset.targets(part) for name, part in parts.items()}
        thresholds = model.thresholds
        if thresholds is None:
            thresholds = metrics.best_threshold(truth["validation"], scores["validation"], self.task.kind)
        return {
            "bytes": sum(file.stat().st_size for file in self.system.files(folder, form)),
            "threshold": round(float(np.mean(thresholds)), 4),
            **{name: metrics.summary(truth[name], scores[name], thresholds, self.task.kind) for name in parts},
        }


def runs_of(task: Task, data_dirs: list[Path], systems: list, seeds: list[int], work: Path) -> Iterator[Run]:
    for system in systems:
        for seed in seeds if system.seeds else seeds[:1]:
            for data_dir in data_dirs:
                yield Run(task, data_dir, system, seed, work)


def measure(task: Task, data_dirs: list[Path], systems: list, seeds: list[int], work: Path) -> dict:
    """One task's results, from runs that are all on disk, and the speeds, taken now."""
    dataset = Dataset.load(data_dirs[0], task.name)
    found = {}
    for system in systems:
        runs = list(runs_of(task, data_dirs, [system], seeds, work))
        records = {(run.seed, run.data_dir): run.make() for run in runs}
        trained = sorted({run.seed for run in runs})

        def over_folds(read, records=records, trained=trained) -> dict:
            return mean_and_spread([float(np.mean([read(records[seed, folder]) for folder in data_dirs])) for seed in trained])

        for form in system.forms:
            first = records[runs[0].seed, data_dirs[0]]
            found[form] = {
                "runs": len(trained),
                "metrics": {key: over_folds(lambda record, form=form, key=key: record["forms"][form]["test"][key])
                            for key in first["forms"][form]["test"]},
                "train_seconds": over_folds(lambda record: record["train_seconds"]),
                "bytes": first["forms"][form]["bytes"], "chosen": first["chosen"],
                "ms_per_text": speed(runs[0], form, dataset),
                "trained_on": sorted({record.get("trained_on", machine()) for record in records.values()}),
                "commits": sorted({str(record["commit"]) for record in records.values()}),
            }
    return {
        "title": task.title, "kind": task.kind, "machine": machine(), "seeds": seeds, "versions": versions(),
        "data": [content_id(folder) for folder in data_dirs],
        "labels": len(dataset.labels), "folds": len(data_dirs),
        "rows": {name: len(getattr(dataset, name)) for name in ("train", "validation", "test")}, "systems": found,
    }


def others(before: dict | None, data_dirs: list[Path], systems: list) -> dict[str, dict] | None:
    """The results of the systems that are not measured now, as an earlier run on the same rows and the same kind of machine
    has them; None where it lacks one."""
    forms = [form for system in SYSTEMS.values() if system not in systems for form in system.forms]
    if not forms:
        return {}
    same = before and (before.get("data"), before["machine"]) == ([content_id(folder) for folder in data_dirs], machine())
    return {form: before["systems"][form] for form in forms} if same and {*forms} <= {*before["systems"]} else None


def speed(run: Run, form: str, dataset: Dataset) -> float:
    """Milliseconds a text, from text to tags: the best of three passes over the same texts."""
    record = run.make()
    model = run.system.load(run.task, dataset.labels, run.folder, record["chosen"], form)
    thresholds = record["forms"][form]["threshold"] if model.thresholds is None else model.thresholds
    texts = [*dataset.test["text"], *dataset.train["text"]][:SPEED_TEXTS]
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        model.tag(texts, thresholds)
        seconds.append(time.perf_counter() - started)
    return round(1000 * min(seconds) / len(texts), 3)


def versions() -> dict[str, str]:
    return package_versions() | {name: metadata.version(name) for name in metadata.packages_distributions()["fasttext"]}


def check_bars(measured: dict, bars: dict[str, float]) -> list[dict]:
    """Of one task's results each bar, what was measured, and whether it is met; seconds of training are to be at most, scores
    at least, the bar."""
    checks = []
    for form in Tagwright.forms:
        system = measured["systems"][form]
        for key, bar in bars.items():
            value = (system["train_seconds"] if key == "train_seconds" else system["metrics"][key])["mean"]
            met = value <= bar if key == "train_seconds" else value >= bar
            checks.append({"system": form, "what": key, "bar": bar, "measured": value, "met": met})
    return checks


def render(results: dict) -> str:
    """The README's tables, in Markdown."""
    lines = []
    for name, task in results["tasks"].items():
        rows, columns = task["rows"], COLUMNS[task["kind"]]
        split = f"{rows['train']:,} training, {rows['validation']:,} validation and {rows['test']:,} test rows"
        if task["folds"] > 1:
            split = f"the mean over {task['folds']} folds of about {split} each"
        lines += [f"**{name}**: {split}, {task['labels']} labels.", "",
                  f"| system | {' | '.join(columns.values())} | training, s | ms a text | MB |",
                  "|---|" + "---|" * (len(columns) + 3)]
        for form, system in task["systems"].items():
            cells = [cell(system["metrics"][key]) for key in columns]
            cells += [cell(system["train_seconds"], 0), f"{system['ms_per_text']:.2f}", f"{system['bytes'] / 1e6:.1f}"]
            lines.append(f"| {form} | {' | '.join(cells)} |")
        elsewhere = {form: places for form, system in task["systems"].items()
                     if (places := [place for place in system.get("trained_on", []) if place != task["machine"]])}
        lines += ["", f"On {task['machine']}, {THREADS} threads; mean ± standard deviation of {len(task['seeds'])} seeds."
                  + "".join(f" {form}: trained on {', '.join(places)}." for form, places in elsewhere.items()), ""]
    missing = [name for name in TASKS if name not in results["tasks"]]
    lines.append("TF-IDF + logistic regression gives the same with each seed. Macro-F1 is over labels with test rows. "
                 "Thresholds, and the settings of fastText and of TF-IDF + logistic regression, were chosen on validation "
                 "rows; scores are of test rows. The template is trained as tutorials have it: two frozen epochs, then three; "
                 "ours is the mean of as many runs as its recipe says. The search for settings is not counted as training; MB "
                 "are all files that tagging needs."
                 + (f" Not measured yet: {', '.join(missing)}." if missing else ""))
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="only the runs of these tasks")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="only the runs of these systems")
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS, help="only the runs of these seeds")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    work, systems = WORK / "quality", [SYSTEMS[key] for key in options.systems]
    for name in options.tasks:
        task = measured_task(name)
        data_dirs = data_folders(task, TASKS[task.name], work)
        for run in runs_of(task, data_dirs, systems, options.seeds, work):
            state = "kept from before" if run.done else "trained"
            for form, scores in run.make()["forms"].items():
                shown = "  ".join(f"{title} {scores['test'][key]:.3f}" for key, title in COLUMNS[task.kind].items())
                print(f"{task.name}, {run.data_dir.name}, seed {run.seed}: {form} ({state}): {shown}", flush=True)
        before = read_json(RESULTS)["tasks"] if RESULTS.exists() else {}
        if {*options.seeds} < {*SEEDS} or (rest := others(before.get(task.name), data_dirs, systems)) is None:
            print("These runs are kept. Without --systems and --seeds the rest is made and the results are written.")
            continue
        measured = measure(task, data_dirs, systems, options.seeds, work)
        measured["systems"] = {form: (rest | measured["systems"])[form] for system in SYSTEMS.values() for form in system.forms}
        measured["bars"] = check_bars(measured, BARS.get(task.name, {}))
        tasks = before | {task.name: measured}
        write_results("quality", {"tasks": {name: tasks[name] for name in TASKS if name in tasks}})
        update_readme("quality", render(read_json(RESULTS)))
        show_bars(task.name, measured["bars"])
    if RESULTS.exists():
        print(render(read_json(RESULTS)))


if __name__ == "__main__":
    errors.run(main)
