"""What texts without labels are worth as pseudo-labelled rows (Lee, "Pseudo-label", ICML 2013 workshop).

The task's training rows are dealt into two halves, of which the second one's labels are hidden. A model trained on the
first half labels the texts of the second, and another is trained on both. It is compared with the first model, which it
should pass. `ablation.py` runs it; its default is trained on all rows and their true labels, and should pass both.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks import runs
from benchmarks.runs import Trained
from tagwright import metrics
from tagwright.dataset import Dataset
from tagwright.stage import content_id
from tagwright.task import Task

VERSION = 2  # goes up when the library's code changes what a recipe gives
ROWS = {
    "half": "half of the training rows",
    "half + pseudo-labels": "that, and the texts of the other half, labelled by the model trained on the first",
}


def compare(task: Task, dataset: Dataset) -> dict[str, dict]:
    """For each of ROWS the number of training rows, `train_seconds`, and the scores of the validation and test rows; and of
    the pseudo-labels their micro-F1 and the share of texts that got one. The task's seed deals the rows."""
    half = dataset.train.sample(frac=0.5, random_state=task.training.seed)
    hidden = dataset.train.drop(half.index)
    model = Trained(task, dataset, half)
    given = metrics.decide(model.scores(hidden), model.thresholds, task.kind)
    pseudo = hidden.assign(labels=[[dataset.labels[index] for index in np.flatnonzero(row)] for row in given])
    pseudo = pseudo[given.any(1)]  # a text without a label would teach that none of them fits
    found = metrics.micro_f1(dataset.targets(hidden), given)
    quality = {"micro_f1": round(found, 4), "share": round(len(pseudo) / len(hidden), 4)}
    return {
        "half": model.result(),
        "half + pseudo-labels": Trained(task, dataset, pd.concat([half, pseudo])).result() | {"pseudo": quality},
    }


def kept(task: Task, data_dir: Path, seed: int, work: Path) -> dict[str, dict]:
    """`compare` with a seed, kept on disk."""
    dataset = Dataset.load(data_dir, task.name)
    recipe = task.training.for_rows(len(dataset.train)).model_dump()  # the same for half of the rows
    seeded = runs.with_tables(task, {"training": recipe | {"seed": seed}})
    depends = {"data": content_id(data_dir), "model": task.model.model_dump(), "training": seeded.training.model_dump(),
               "version": VERSION}
    folder = runs.run_folder(work / task.name, f"pseudo-labels-seed{seed}", depends)
    return runs.kept(folder, depends, lambda _: {"rows": compare(seeded, dataset)})["rows"]


def measure(task: Task, data_dir: Path, seeds: list[int], work: Path) -> dict[str, dict]:
    """Means and spreads over the seeds, one entry for each of ROWS."""
    found = [kept(task, data_dir, seed, work) for seed in seeds]

    def over_seeds(name: str, part: str) -> dict:
        return {key: runs.mean_and_spread([each[name][part][key] for each in found]) for key in found[0][name][part]}

    return {name: {"what": what, **{key: runs.mean_and_spread([each[name][key] for each in found])
                                    for key in ("rows", "train_seconds")},
                   **{part: over_seeds(name, part) for part in ("validation", "test", "pseudo") if part in found[0][name]}}
            for name, what in ROWS.items()}
