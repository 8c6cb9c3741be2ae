"""What each part of the training recipe is worth: `make bench-ablation`.

A base recipe, and variations of it that each change one thing, trained with several seeds. The base is the task's recipe with
a single run and without class weights; the default recipe adds those two, and has a row of its own. A variation is better or
worse by its scores on the validation rows; the test rows' are for the reader. Each training is kept in
`data/work/bench/ablation/`, so that the benchmark can be killed and started again. Each variation's row joins
`results/ablation.json` and the task's table in `docs/recipe.md` when it has been measured, and the other rows stay: so it can
be made in parts (`--tasks`, `--only`), and a new row added to an old table.
"""

import argparse
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from fastai.callback.core import Callback

from benchmarks import pseudo_labels, runs
from benchmarks.quality import COLUMNS
from benchmarks.report import machine, results_file, update_readme, write_results
from benchmarks.runs import SEEDS, Trained, headline
from tagwright import errors
from tagwright.dataset import Dataset
from tagwright.model import parameter_groups
from tagwright.pretraining import pretrain
from tagwright.stage import content_id, package_versions
from tagwright.task import ROOT, Task
from tagwright.tuning import tune

RESULTS = results_file("ablation")
PAGE = ROOT / "docs" / "recipe.md"
TRIALS = 15  # of the search for a better recipe
VERSION = 3  # goes up when the library's code changes what a recipe gives


class GradualUnfreezing(Callback):
    """The head is trained alone at first, then with it one more layer after the other, from above, all within the first epoch
    (after Howard and Ruder, "Universal language model fine-tuning", ACL 2018, who take an epoch for each)."""

    def before_batch(self):
        if self.training and self.epoch == 0:
            groups = parameter_groups(self.model)
            thawed = 1 + self.iter * len(groups) // self.n_iter
            for number, group in enumerate(reversed(groups)):
                for parameter in group:
                    parameter.requires_grad_(number < thawed)


class Variation(NamedTuple):
    """One row: what is changed, in words, and as tables of the task file; or by callbacks, or by tables that `prepare` works
    out (or finds) below a folder; or by the share of the training rows that there are."""

    name: str
    what: str
    tables: dict[str, dict] = {}
    callbacks: tuple[type[Callback], ...] = ()
    prepare: Callable[[Task, Path, Path], dict[str, dict]] | None = None
    share: float = 1.0


def pretrained(task: Task, data_dir: Path, work: Path) -> dict[str, dict]:
    """The task's encoder, trained further on its training texts."""
    pretrain(task, data_dir, work / "pretrained")
    return {"model": {"encoder": str(work / "pretrained")}}


def tuned(task: Task, data_dir: Path, work: Path) -> dict[str, dict]:
    """The recipe that is best of TRIALS ones on the validation rows, for single runs with the task's own seed. The search
    begins at a usual head rate: the default's own came out of it."""
    usual = runs.with_tables(task, LARGE_HEAD_RATE)
    found = tune(usual, data_dir, work / "tuning", TRIALS)
    return {"training": next(trial["params"] for trial in found["trials"] if trial["number"] == found["best"])}


def training(**keys) -> dict[str, dict]:
    return {"training": keys}


LARGE_HEAD_RATE = training(head_lr=5e-3)
BASE = Variation("base", "what the others are compared with: a single run without class weights")
GENERAL = [
    BASE,
    Variation("class weights", "rare labels count for more", training(class_weights=True)),
    Variation("soup of 4", "the mean of the weights of four runs", training(soup=4)),
    Variation("default", "both: a soup of four, in which rare labels count for more", training(soup=4, class_weights=True)),
    Variation("random head", "the head's rows start at random, not at the label names' embeddings",
              training(head_init="random")),
    Variation("focal loss", "easy cells count for less", training(loss="focal")),
    Variation("asymmetric loss", "easy negative cells count for less", training(loss="asymmetric")),
    Variation("per-label thresholds", "drawn towards the global one where a label has few validation rows",
              training(thresholds="per_label")),
    Variation("gradual unfreezing", "the head first, then layer after layer within the first epoch",
              callbacks=(GradualUnfreezing,)),
    Variation("layer decay 0.8", "each layer's rate is 0.8 of that above it", training(layer_decay=0.8)),
    Variation("large head rate", "the head learns at 5e-3, not at 1e-3", LARGE_HEAD_RATE),
    Variation("6 epochs with patience 2", "twice at most: a run ends after two epochs without a better validation score",
              training(epochs=6, patience=2)),
    Variation("pre-trained on the texts", "three epochs of masked language modelling on the training texts first (not counted "
              "in the time)", prepare=pretrained),
    Variation("tuned", f"what `tagwright tune` finds in {TRIALS} trials from the large head rate (not counted in the time)",
              prepare=tuned),
]

NEWS = [
    BASE,
    Variation("3 epochs", "as many as the general recipe has", training(epochs=3)),
    Variation("large head rate", "the head learns at 5e-3, not at 1e-3", LARGE_HEAD_RATE),
    Variation("R-Drop, soup of 3", "the mean of three runs of 3 epochs with R-Drop, in steps twice as large that fall towards "
              "the embeddings", training(epochs=3, encoder_lr=2e-4, layer_decay=0.8, r_drop=5.0, soup=3)),
    Variation("half of the rows", "one in two training rows, dealt by the seed", share=0.5),
    Variation("a quarter of the rows", "one in four", share=0.25),
]
VARIATIONS = {"cooking": GENERAL, "ag_news": NEWS}
PSEUDO = "cooking"  # the task on which pseudo-labels are tried


def recipe_of(task: Task, tables: dict[str, dict]) -> Task:
    """The task as a variation with these tables trains it: as the base, unless they say otherwise."""
    return runs.with_tables(runs.with_tables(task, training(soup=1, class_weights=False)), tables)


def score(task: Task, data_dir: Path, variation: Variation, tables: dict[str, dict], seed: int, work: Path) -> dict:
    """One training: `validation` and `test` scores and `train_seconds`. The model is not kept."""
    dataset = Dataset.load(data_dir, task.name)
    varied = runs.with_tables(recipe_of(task, tables), training(seed=seed))
    recipe = varied.training.for_rows(len(dataset.train)).model_dump()  # the same for a share of the rows
    depends = {"data": content_id(data_dir), "model": varied.model.model_dump(), "version": VERSION, "training": recipe,
               "callbacks": [callback.__name__ for callback in variation.callbacks]}
    if variation.share < 1:
        depends["share"] = variation.share
        dataset = dataclasses.replace(dataset, train=dataset.train.sample(frac=variation.share, random_state=seed))
    folder = runs.run_folder(work / task.name, f"{variation.name.replace(' ', '-')}-seed{seed}", depends)
    varied = runs.with_tables(varied, {"training": recipe})
    callbacks = [callback() for callback in variation.callbacks]
    return runs.kept(folder, depends, lambda _: Trained(varied, dataset, callbacks=callbacks).result())


def measure(task: Task, data_dir: Path, variation: Variation, seeds: list[int], work: Path) -> dict:
    """One variation's row, without the verdict."""
    tables = variation.prepare(recipe_of(task, {}), data_dir, work / task.name) if variation.prepare else variation.tables
    records = [score(task, data_dir, variation, tables, seed, work) for seed in seeds]
    return {
        "what": variation.what, "training": tables.get("training", {}), "seeds": seeds, "machine": machine(),
        "chosen_by": runs.mean_and_spread([headline(record["validation"], task.kind) for record in records]),
        **{part: {key: runs.mean_and_spread([record[part][key] for record in records]) for key in records[0][part]}
           for part in ("validation", "test")},
        "train_seconds": runs.mean_and_spread([record["train_seconds"] for record in records]),
    }


def verdict(row: dict, base: dict) -> str:
    """Better or worse than `base` on the validation rows by how many points, where it is by more than two standard errors of
    the difference."""
    value, other = row["chosen_by"], base["chosen_by"]
    points = 100 * (value["mean"] - other["mean"])
    if value["spread"] is None or other["spread"] is None:
        return f"{points:+.1f}, with one seed"
    error = 100 * math.sqrt(value["spread"] ** 2 / len(row["seeds"]) + other["spread"] ** 2 / len(base["seeds"]))
    if abs(points) <= 2 * error:
        return f"no clear difference ({points:+.1f})"
    return f"{'better' if points > 0 else 'worse'} ({points:+.1f})"


def render(results: dict) -> str:
    """The tables of `docs/recipe.md`, in Markdown."""
    return "\n\n".join(table(name, part) for name, part in results["tasks"].items())


def table(name: str, part: dict) -> str:
    """One task's table."""
    columns, rows = COLUMNS[part["kind"]], part["variations"]
    titles = f"{' | '.join(columns.values())} | seeds | training, s |"
    machines = sorted({row["machine"] for row in rows.values()})
    lines = [f"**{name}**, mean ± standard deviation over seeds; on {' or '.join(machines)}, {runs.THREADS} threads.", "",
             f"| recipe | what is changed | verdict | validation | {titles}", "|---|---|---|---|" + "---|" * (len(columns) + 2)]
    for variation, row in rows.items():
        judged = "" if variation == BASE.name else verdict(row, rows[BASE.name])
        cells = [variation, row["what"], judged, runs.cell(row["chosen_by"])] + [runs.cell(row["test"][key]) for key in columns]
        lines.append(f"| {' | '.join([*cells, str(len(row['seeds'])), format(row['train_seconds']['mean'], ',.0f')])} |")
    missing = [variation.name for variation in VARIATIONS[name] if variation.name not in rows]
    if missing:
        lines += ["", f"Not measured yet: {', '.join(missing)}."]
    if pseudo := part.get("pseudo_labels"):
        lines += ["", "Pseudo-labels, where half of the training rows have lost their labels:", "",
                  f"| trained on | rows | {titles}", "|---|---|" + "---|" * (len(columns) + 2)]
        for row in pseudo["rows"].values():
            cells = [row["what"], f"{row['rows']['mean']:,.0f}"] + [runs.cell(row["test"][key]) for key in columns]
            lines.append(f"| {' | '.join([*cells, str(len(pseudo['seeds'])), format(row['train_seconds']['mean'], ',.0f')])} |")
        labels = next(row["pseudo"] for row in pseudo["rows"].values() if "pseudo" in row)
        lines += ["", f"The pseudo-labels' own micro-F1 is {runs.cell(labels['micro_f1'])}. All rows with their true "
                      "labels are the first row of the table above."]
    return "\n".join(lines)


def kept_before(task: Task, data_dir: Path) -> dict:
    """The task's results that are there, of the same rows, recipe and version; others cannot be compared."""
    before = runs.read_json(RESULTS)["tasks"].get(task.name) if RESULTS.exists() else None
    return before if before and before["made_of"] == made_of(task, data_dir) else {"variations": {}}


def made_of(task: Task, data_dir: Path) -> dict:
    varied = recipe_of(task, {})
    return {"version": VERSION, "data": content_id(data_dir),
            "recipe": {"model": varied.model.model_dump(), "training": varied.training.model_dump()}}


def keep(task: Task, data_dir: Path, part: dict) -> None:
    """Join what was measured now to what is there, and write the tables."""
    before = kept_before(task, data_dir)
    rows = before["variations"] | part.get("variations", {})
    ordered = {variation.name: rows[variation.name] for variation in VARIATIONS[task.name] if variation.name in rows}
    pseudo = part.get("pseudo_labels", before.get("pseudo_labels"))
    joined = {"kind": task.kind, "made_of": made_of(task, data_dir), "versions": package_versions(), "variations": ordered}
    tasks = (runs.read_json(RESULTS)["tasks"] if RESULTS.exists() else {}) | {
        task.name: joined | ({"pseudo_labels": pseudo} if pseudo else {})}
    write_results("ablation", {"tasks": {name: tasks[name] for name in VARIATIONS if name in tasks}})
    update_readme("ablation", render(runs.read_json(RESULTS)), PAGE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = [*dict.fromkeys(variation.name for rows in VARIATIONS.values() for variation in rows), "pseudo-labels"]
    parser.add_argument("--tasks", nargs="+", choices=VARIATIONS, default=list(VARIATIONS), help="only the rows of these tasks")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="only these rows")
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS, help="with these seeds")
    options = parser.parse_args()
    torch.set_num_threads(runs.THREADS)
    work = runs.WORK / "ablation"
    for task in map(runs.measured_task, options.tasks):
        data_dir, = runs.data_folders(task, None, work)
        for variation in VARIATIONS[task.name]:
            compared = variation is BASE and BASE.name not in kept_before(task, data_dir)["variations"]
            if compared or variation.name in options.only:
                row = measure(task, data_dir, variation, options.seeds, work)
                found, seconds = runs.cell(row["chosen_by"], 4), row["train_seconds"]["mean"]
                print(f"{task.name}: {variation.name}: validation {found}, {seconds:.0f} s", flush=True)
                keep(task, data_dir, {"variations": {variation.name: row}})
        if task.name == PSEUDO and "pseudo-labels" in options.only:
            rows = pseudo_labels.measure(recipe_of(task, {}), data_dir, options.seeds, work)
            keep(task, data_dir, {"pseudo_labels": {"seeds": options.seeds, "rows": rows}})
    print(render(runs.read_json(RESULTS)))


if __name__ == "__main__":
    errors.run(main)
