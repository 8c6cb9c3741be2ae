"""`python -m service.training FOLDER ARGUMENTS`: what a training job does, in a process of its own."""

import json
import sys
from pathlib import Path

from tagwright import metrics
from tagwright.bundle import read_bundle
from tagwright.dataset import Dataset, clean
from tagwright.errors import TagwrightError
from tagwright.pipeline import Folders
from tagwright.stage import write_json
from tagwright.tagger import Tagger
from tagwright.task import Task

MEASURE = {"multilabel": "micro_f1", "multiclass": "accuracy"}


def main(folder: Path, arguments: dict) -> None:
    try:
        outcome = run(folder, arguments)
    except TagwrightError as error:
        outcome = {"error": str(error).replace(f"{folder}/", "")}
    write_json(folder / "outcome.json", outcome)


def run(folder: Path, arguments: dict) -> dict:
    task = Task.load(folder / "task.toml" if "rows" in arguments else arguments["task"])
    task = task.model_copy(update={"training": task.training.model_copy(update=arguments["settings"])})
    raw = folder / arguments["rows"] if "rows" in arguments else task.raw_path()
    folders = Folders.of(task, folder)
    clean(task, raw, folders.dataset)
    from tagwright.evaluation import evaluate  # torch takes seconds to import: bad rows are told before
    from tagwright.onnx_export import quantize
    from tagwright.training import train

    train(task, folders.dataset, folders.model, bar=False, callbacks=[reporter(folder / "progress.json")])
    evaluate(task, folders.dataset, folders.model, folders.evaluation)
    record = quantize(task, folders.dataset, folders.model, folders.evaluation, folders.tagger)
    return {"task": task.name, "model": str(folders.tagger.relative_to(folder)),
            "dataset": str(folders.dataset.relative_to(folder)), "measure": MEASURE[task.kind].replace("_", "-"),
            "score": record["metrics"]["ONNX int8"][MEASURE[task.kind]]}


def reporter(path: Path):
    from fastai.callback.core import Callback

    class Reporter(Callback):
        """Writes how far a training is, and its curve."""

        order = 90  # after the epoch's scores are known

        def before_fit(self):
            self.start = self.learn.soup.runs * self.n_epoch * len(self.dls.train)

        def after_batch(self):
            if self.training and self.iter % 10 == 0:
                self.write(self.start + self.epoch * len(self.dls.train) + self.iter + 1)

        def after_epoch(self):
            self.write(self.start + (self.epoch + 1) * len(self.dls.train))

        def write(self, done: int):
            runs = max(self.learn.soup.runs + 1, 1)
            curve = [{"epoch": number} | {key: round(float(row[key]), 4) for key in ("train_loss", "valid_loss", "micro_f1")}
                     for number, row in enumerate(self.learn.best_epoch.history, 1)]
            write_json(path, {"done": done, "total": runs * self.n_epoch * len(self.dls.train), "curve": curve})

    return Reporter()


def score_of(model: Path, dataset_dir: Path) -> float | None:
    """What a model scores on a data set's test rows; None where its labels are not the data set's."""
    manifest, dataset = read_bundle(model), Dataset.load(dataset_dir)
    if sorted(manifest.labels) != sorted(dataset.labels):
        return None
    tagger = Tagger.load(model)
    order = [manifest.labels.index(label) for label in dataset.labels]
    scores = tagger.scores(list(dataset.test["text"]))[:, order]
    summary = metrics.summary(dataset.targets(dataset.test), scores, tagger.thresholds[order], manifest.kind)
    return summary[MEASURE[manifest.kind]]


if __name__ == "__main__":
    main(Path(sys.argv[1]), json.loads(sys.argv[2]))
