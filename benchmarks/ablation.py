"""What each part of the training recipe is worth: `make bench-ablation`.

The default recipe, and variations of it that each change one thing, trained on one task with several seeds. A variation is
better or worse by its scores on the validation rows; the test rows' are for the reader. Each training is kept in
`data/work/bench/ablation/`, so that the benchmark can be killed and started again, or made in parts (`--only`, `--seeds`).
When all of it is there, `results/ablation.json` and the table in `docs/recipe.md` are written.
"""

import argparse
import math
import shutil
import time
from pathlib import Path
from typing import NamedTuple

import torch

from benchmarks import runs
from benchmarks.quality import COLUMNS, PyTorch
from benchmarks.report import results_file, update_readme, write_results
from benchmarks.runs import SEEDS, headline
from tagwright import errors, metrics
from tagwright.dataset import Dataset
from tagwright.stage import content_id, package_versions
from tagwright.task import ROOT, Task
from tagwright.training import train

TASK = "cooking"
RESULTS = results_file("ablation")
PAGE = ROOT / "docs" / "recipe.md"
VERSION = 1  # goes up when the library's code changes what a recipe gives


class Variation(NamedTuple):
    """One row: what is changed, in words, and as tables of the task file."""

    name: str
    what: str
    tables: dict[str, dict]


DEFAULT = Variation("default", "the recipe as it is", {})
VARIATIONS = [
    DEFAULT,
    Variation("random head", "the head's rows start at random, not at the label names' embeddings",
              {"training": {"head_init": "random"}}),
    Variation("CLS pooling", "the first token's vector, not the mean of all", {"model": {"pooling": "cls"}}),
    Variation("1 epoch", "a third of the training", {"training": {"epochs": 1}}),
    Variation("6 epochs", "twice the training, stopped early where validation scores fall", {"training": {"epochs": 6}}),
    Variation("encoder × 0.5", "half the encoder's learning rate", {"training": {"encoder_lr": 2e-4}}),
    Variation("encoder × 2", "twice the encoder's learning rate", {"training": {"encoder_lr": 8e-4}}),
    Variation("head × 0.2", "a fifth of the head's learning rate", {"training": {"head_lr": 1e-3}}),
    Variation("batches of 32", "half the batch size", {"training": {"batch_size": 32}}),
]


def score(task: Task, data_dir: Path, variation: Variation, seed: int, work: Path) -> dict:
    """One training: `validation` and `test` scores and `train_seconds`. The model is not kept."""
    dataset = Dataset.load(data_dir, task.name)
    varied = runs.with_tables(runs.with_tables(task, variation.tables), {"training": {"seed": seed}})
    depends = {"data": content_id(data_dir), "model": varied.model.model_dump(), "version": VERSION,
               "training": varied.training.for_rows(len(dataset.train)).model_dump()}

    def make(folder: Path) -> dict:
        started = time.perf_counter()
        train(varied, data_dir, folder / "model")
        seconds = round(time.perf_counter() - started, 3)
        model = PyTorch(folder / "model")
        found = {name: metrics.summary(dataset.targets(part), model.scores(list(part["text"])), model.thresholds, task.kind)
                 for name, part in (("validation", dataset.validation), ("test", dataset.test))}
        shutil.rmtree(folder / "model")
        return found | {"train_seconds": seconds}

    folder = runs.run_folder(work / task.name, f"{variation.name.replace(' ', '-')}-seed{seed}", depends)
    return runs.kept(folder, depends, make)


def measure(task: Task, data_dir: Path, variations: list[Variation], seeds: list[int], work: Path) -> dict[str, dict]:
    """One entry a variation; the first is what the others are compared with."""
    rows: dict[str, dict] = {}
    for variation in variations:
        records = [score(task, data_dir, variation, seed, work) for seed in seeds]
        row = {
            "what": variation.what, "tables": variation.tables, "seeds": seeds,
            "chosen_by": runs.mean_and_spread([headline(record["validation"], task.kind) for record in records]),
            **{part: {key: runs.mean_and_spread([record[part][key] for record in records]) for key in records[0][part]}
               for part in ("validation", "test")},
            "train_seconds": runs.mean_and_spread([record["train_seconds"] for record in records]),
        }
        base = next(iter(rows.values()), None)
        row["verdict"] = verdict(row["chosen_by"], base["chosen_by"], len(seeds)) if base else "what is shipped"
        rows[variation.name] = row
    return rows


def verdict(value: dict, base: dict, seeds: int) -> str:
    """Better or worse than `base` by how many points, where it is by more than two standard errors of the difference."""
    points = 100 * (value["mean"] - base["mean"])
    if value["spread"] is None or base["spread"] is None:
        return f"{points:+.1f}, with one seed"
    error = 100 * math.sqrt((value["spread"] ** 2 + base["spread"] ** 2) / seeds)
    if abs(points) <= 2 * error:
        return f"no clear difference ({points:+.1f})"
    return f"{'better' if points > 0 else 'worse'} ({points:+.1f})"


def render(results: dict) -> str:
    """The table of `docs/recipe.md`, in Markdown."""
    columns = COLUMNS[results["kind"]]
    lines = [f"| recipe | what is changed | verdict | validation | {' | '.join(columns.values())} | training, s |",
             "|---|---|---|---|" + "---|" * (len(columns) + 1)]
    for name, row in results["variations"].items():
        cells = [name, row["what"], row["verdict"], runs.cell(row["chosen_by"])]
        cells += [runs.cell(row["test"][key]) for key in columns] + [f"{row['train_seconds']['mean']:,.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"Task `{results['task']}`, mean ± standard deviation of {len(results['seeds'])} seeds; on "
                  f"{results['machine']}, {runs.THREADS} threads."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [variation.name for variation in VARIATIONS]
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="the runs of these variations")
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS, help="the runs of these seeds")
    options = parser.parse_args()
    torch.set_num_threads(runs.THREADS)
    task, work = Task.load(TASK), runs.WORK / "ablation"
    data_dir, = runs.data_folders(task, None, work)
    for seed in options.seeds:
        for variation in VARIATIONS:
            if variation.name in options.only:
                found = score(task, data_dir, variation, seed, work)
                print(f"{variation.name}, seed {seed}: validation {headline(found['validation'], task.kind):.4f}, "
                      f"{found['train_seconds']:.0f} s")
    if options.only != names or options.seeds != SEEDS:
        print("These runs are kept. Without --only and --seeds the rest is made and the results are written.")
        return
    write_results("ablation", {"task": task.name, "kind": task.kind, "seeds": SEEDS, "versions": package_versions(),
                               "variations": measure(task, data_dir, VARIATIONS, SEEDS, work)})
    update_readme("ablation", render(runs.read_json(RESULTS)), PAGE)
    print(render(runs.read_json(RESULTS)))


if __name__ == "__main__":
    errors.run(main)
