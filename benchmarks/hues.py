"""Colours of covers, by genre and predicted outright, and the categories of real books: `make bench-hues`.

Two parts. `ways`: the embedded blurbs in folds, once with genres as labels, whose colours the map then gives, and once with
the colours themselves as labels; the same rows are trained on and tested in both, and the truth is the same, the colours of
all of a book's genres. For every system and both ways the threshold is the one that is best for the colours; and which way is
better is told by one number that was fixed beforehand, the micro-F1 of colours of DECISIVE. `books`: the real books of
`tasks/books.toml`, beside fastText and TF-IDF + logistic regression.

Every choice is made on validation rows; scores are of test rows. Each training is kept in `data/work/bench/hues/`, and in its
folder what it scores in colours, so that the benchmark can be killed and started again, or made in parts (`--parts`,
`--systems`, `--seeds`). A part that is all there is written to `results/hues.json` and to the README's table; the other one
stays.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from benchmarks import quality
from benchmarks.report import results_file, show_bars, update_readme, write_results
from benchmarks.rivals import FastText, Tfidf
from benchmarks.runs import (
    SEEDS,
    THREADS,
    WORK,
    cell,
    data_folders,
    kept,
    mean_and_spread,
    read_json,
    run_folder,
    with_tables,
)
from tagwright import errors, metrics
from tagwright.dataset import Dataset
from tagwright.evaluation import best_hue_threshold, given_hues, hue_scores, true_hues
from tagwright.hues import MAP, load_map
from tagwright.task import Task

RESULTS = results_file("hues")
WAYS = {"mapped": "genres, then their colours", "predicted": "the colours themselves"}
FOLDS = 5
SYSTEMS = {"ways": [Tfidf(), quality.Tagwright()], "books": [FastText(), Tfidf(), quality.Tagwright()]}
BASELINE = Tfidf.forms[0]
BAR = 0.05  # macro-F1 of Tagwright, both forms, on the real books: at least so much above BASELINE's
HUES = {"micro_f1": "micro-F1 of colours", "macro_f1_supported": "macro-F1 of colours"}
LABELS = {"micro_f1": "micro-F1", "macro_f1": "macro-F1"}
DECISIVE = "Tagwright int8"  # the form whose micro-F1 of colours tells which of WAYS is better
RESAMPLES = 1000  # of the bootstrap
SCORING = 1  # goes up when the code of `score_colours` changes a result
ROWS = "rows.csv"  # form, line, and of that test row's colours how many are given, given and right, true


def forms_of_labels(task: Task, folds: int, work: Path) -> list[tuple[Task, list[Path], Path]]:
    """The task under each of WAYS, with its folds, whose rows are the same in both, and the place for its runs."""
    tasks = [with_tables(task, {"labels": {"hues": way}}) for way in WAYS]
    places = [work / way for way in WAYS]
    genres = data_folders(tasks[0], folds, places[0])
    colours = data_folders(tasks[1], folds, places[1], like=genres)
    return list(zip(tasks, [genres, colours], places, strict=True))


def variants(part: str, work: Path) -> list[tuple[Task, list[Path], Path]]:
    """What a part compares: tasks, each with its data sets and the place for its runs."""
    if part == "ways":
        return forms_of_labels(Task.load("book_hues"), FOLDS, work)
    task = Task.load("books")
    return [(task, data_folders(task, None, work), work)]


def make_runs(task: Task, data_dirs: list[Path], systems: list, seeds: list[int], work: Path) -> None:
    """Train what is not there yet, and say what each run scores."""
    for run in quality.runs_of(task, data_dirs, systems, seeds, work):
        state = "kept from before" if run.done else "trained"
        record, colours = run.make(), score_colours(run)
        for form, scores in record["forms"].items():
            shown = "  ".join(f"{title} {colours['forms'][form][key]:.3f}" for key, title in HUES.items())
            print(f"{task.name} ({task.labels.hues}), {run.data_dir.name}, seed {run.seed}: {form} ({state}): "
                  f"macro-F1 {scores['test']['macro_f1']:.3f}  {shown}", flush=True)


def colours_folder(run: quality.Run) -> Path:
    return run_folder(run.folder, "colours", {"scoring": SCORING})


def score_colours(run: quality.Run) -> dict:
    """The record of what a trained run scores in colours, kept in the run's folder with ROWS: `forms`, each with its
    `threshold` and the `hue_scores` of the test rows."""
    return kept(colours_folder(run), {"scoring": SCORING}, lambda folder: _score_colours(run, folder))


def _score_colours(run: quality.Run, folder: Path) -> dict:
    task, dataset, settings = run.task, run.dataset, run.make()["chosen"]
    reasons, way = load_map(run.data_dir / MAP), task.labels.hues
    forms, counts = {}, []
    for form in run.system.forms:
        model = run.system.load(task, dataset.labels, run.folder, settings, form)
        validation, test = (model.scores(list(part["text"])) for part in (dataset.validation, dataset.test))
        threshold = best_hue_threshold(dataset.labels, dataset.validation, validation, reasons, way, task.kind)
        y_pred = metrics.decide(test, threshold, task.kind)
        truth, given = true_hues(dataset.test, reasons) > 0, given_hues(dataset.labels, y_pred, reasons, way)
        forms[form] = {"threshold": threshold, **hue_scores(dataset.labels, dataset.test, y_pred, reasons, way)}
        counts.append(pd.DataFrame({"form": form, "line": dataset.test["line"], "given": given.sum(1),
                                    "right": (given & truth).sum(1), "true": truth.sum(1)}))
    pd.concat(counts).to_csv(folder / ROWS, index=False)
    return {"forms": forms}


def measure(compared: list[tuple[Task, list[Path], Path]], systems: list, seeds: list[int]) -> dict[str, dict]:
    """Way → results, as `quality.measure` gives them, with each form's `hues` and the way's `ceiling`; every run is on disk by
    then."""
    found = {}
    for task, data_dirs, work in compared:
        found[task.labels.hues] = part = quality.measure(task, data_dirs, systems, seeds, work)
        part["ceiling"] = ceiling(task, data_dirs)
        for system in systems:
            runs = list(quality.runs_of(task, data_dirs, [system], seeds, work))
            for form in system.forms:
                by_seed = pd.DataFrame([{"seed": run.seed, **score_colours(run)["forms"][form]} for run in runs])
                by_seed = by_seed.groupby("seed").mean()
                part["systems"][form]["hues"] = {key: mean_and_spread(list(by_seed[key])) for key in by_seed}
    return found


def ceiling(task: Task, data_dirs: list[Path]) -> dict[str, dict]:
    """What a model without a fault would score in colours: one that gives each test row just the labels it has."""
    scores = []
    for folder in data_dirs:
        dataset = Dataset.load(folder, task.name)
        labels = dataset.targets(dataset.test)
        scores.append(hue_scores(dataset.labels, dataset.test, labels, load_map(folder / MAP), task.labels.hues))
    return {key: mean_and_spread([float(np.mean([each[key] for each in scores]))]) for key in scores[0]}


def compare(compared: list[tuple[Task, list[Path], Path]], systems: list, seeds: list[int], ways: dict[str, dict]) -> dict:
    """Which way is `better` by the micro-F1 of colours of DECISIVE, mean over folds and seeds, and the 95 % `interval` of the
    `difference` (mapped less predicted). `better` is None where the interval does not bear out the difference."""
    system = next(system for system in systems if DECISIVE in system.forms)
    counts = [row_counts(list(quality.runs_of(task, data_dirs, [system], seeds, work))) for task, data_dirs, work in compared]
    low, high = paired_bootstrap(*counts)
    value = {way: ways[way]["systems"][DECISIVE]["hues"]["micro_f1"]["mean"] for way in WAYS}
    difference = value["mapped"] - value["predicted"]
    clear = min(low * difference, high * difference) > 0  # all of the interval on the difference's side of zero
    return {"system": DECISIVE, "what": "micro_f1", **value, "difference": round(difference, 4), "interval": [low, high],
            "resamples": RESAMPLES, "rows": counts[0].shape[1], "better": max(value, key=value.get) if clear else None}


def row_counts(runs: list[quality.Run]) -> np.ndarray:
    """Of DECISIVE, in each seed's runs, all folds' test rows in the order of their lines: how many colours are given, given and
    right, and true; ints, (seeds, rows, 3)."""
    tables = pd.concat([pd.read_csv(colours_folder(run) / ROWS).assign(seed=run.seed) for run in runs])
    tables = tables[tables["form"] == DECISIVE].sort_values(["seed", "line"])
    return tables[["given", "right", "true"]].to_numpy().reshape(tables["seed"].nunique(), -1, 3)


def paired_bootstrap(one: np.ndarray, two: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """The 95 % interval of how much higher micro-F1 (mean over seeds) is by the counts `one` than by `two`, as `row_counts`
    gives them, when the same rows are drawn anew for both."""
    generator, rows = np.random.default_rng(seed), one.shape[1]
    draws = (generator.integers(rows, size=rows) for _ in range(RESAMPLES))
    differences = [_micro_f1(one[:, draw]) - _micro_f1(two[:, draw]) for draw in draws]
    low, high = np.quantile(differences, [0.025, 0.975]).round(4)
    return float(low), float(high)


def _micro_f1(counts: np.ndarray) -> float:
    given, right, true = counts.sum(1).T
    return float(metrics.f1(right, given - right, true - right).mean())


def check_bar(books: dict) -> list[dict]:
    """For each form of Tagwright its macro-F1 on the real books, the bar, and whether it is met."""
    value = {form: system["metrics"]["macro_f1"]["mean"] for form, system in books["systems"].items()}
    bar = round(value[BASELINE] + BAR, 4)
    return [{"system": form, "what": "macro_f1", "bar": bar, "measured": value[form], "met": value[form] >= bar}
            for form in quality.Tagwright.forms]


def render(results: dict) -> str:
    """The README's tables, in Markdown."""
    parts, lines = results["parts"], ["**Colours of covers** (`make bench-hues`)."]
    if "ways" in parts:
        rows, folds = sum(parts["ways"]["mapped"]["rows"].values()), parts["ways"]["mapped"]["folds"]
        lines[-1] += (f" The {rows} blurbs of the sample in {folds} folds: a model of genres, whose colours "
                      "[a table](data/hues.toml) gives, and a model of the colours themselves. Both are tested on the same "
                      "books, and by the same truth, the colours of all of a book's genres; thresholds are those with the best "
                      "micro-F1 of colours on validation rows.")
        lines += ["", f"| labels | system | {' | '.join(HUES.values())} |", "|---|---" + "|---" * len(HUES) + "|"]
        for way, name in WAYS.items():
            found = {form: system["hues"] for form, system in parts["ways"][way]["systems"].items()}
            found["*perfect labels*"] = parts["ways"][way]["ceiling"]
            lines += [f"| {name} | {form} | {' | '.join(cell(scores[key]) for key in HUES)} |"
                      for form, scores in found.items()]
        lines += ["", "*Perfect labels* are the ceiling: what a model would score that gives each book just the labels it has. "
                      "It is below 1 where a book's genres or colours are too rare to be labels, or its genres too many.", "",
                  verdict(parts["ways"]["comparison"]), "",
                  measured_on([parts["ways"][way] for way in WAYS])]
    if "books" in parts:
        books = parts["books"]["mapped"]
        rows = books["rows"]
        lines += ["", f"**Real books**: descriptions from Google Books, each with one of {books['labels']} categories; "
                      f"{rows['train']:,} training, {rows['validation']:,} validation and {rows['test']:,} test rows. Most "
                      "categories stand for colours, fiction, which half of the books are, for none.", "",
                  f"| system | {' | '.join([*LABELS.values(), *HUES.values()])} | training, s | ms a text |",
                  "|---" * (len(LABELS) + len(HUES) + 3) + "|"]
        for form, system in books["systems"].items():
            cells = [cell(system["metrics"][key]) for key in LABELS] + [cell(system["hues"][key]) for key in HUES]
            lines.append(f"| {form} | {' | '.join(cells)} | {cell(system['train_seconds'], 0)} | {system['ms_per_text']:.2f} |")
        reached = ", ".join(f"{check['system']} {'yes' if check['met'] else 'no'}" for check in books["bars"])
        lines += ["", f"At least {100 * BAR:.0f} points of macro-F1 above {BASELINE}: {reached}.", "", measured_on([books])]
    lines += ["", f"{BASELINE} gives the same with each seed. All choices were made on validation rows; scores are of test "
                  "rows. Macro-F1 of colours is over those that a test row has."]
    if missing := [part for part in SYSTEMS if part not in parts]:
        lines[-1] += f" Not measured yet: {', '.join(missing)}."
    return "\n".join(lines)


def verdict(comparison: dict) -> str:
    """What `compare` found, in words."""
    (low, high), better = comparison["interval"], comparison["better"]
    said = f"**{WAYS[better]}** are better" if better else "there is **no clear difference**"
    return (f"By the number fixed beforehand, the micro-F1 of colours of {comparison['system']}, {said}: it is "
            f"{comparison['mapped']:.3f} by way of genres and {comparison['predicted']:.3f} by the colours themselves, a "
            f"difference of {comparison['difference']:+.3f} (95 % interval {low:+.3f} to {high:+.3f}, from "
            f"{comparison['resamples']:,} paired resamples of the {comparison['rows']:,} test rows of all folds).")


def measured_on(found: list[dict]) -> str:
    """The machine of a part's results, and where its trainings ran if that was another."""
    places = sorted({part["machine"] for part in found})
    said = f"On {' and '.join(places)}, {THREADS} threads; mean ± standard deviation of {len(found[0]['seeds'])} seeds."
    for form in found[0]["systems"]:
        trained_on = sorted({place for part in found for place in part["systems"][form]["trained_on"]} - {*places})
        said += f" {form}: trained on {', '.join(trained_on)}." if trained_on else ""
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    keys = sorted({system.key for systems in SYSTEMS.values() for system in systems})
    parser.add_argument("--parts", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="only the runs of these parts")
    parser.add_argument("--systems", nargs="+", choices=keys, default=keys, help="only the runs of these systems")
    parser.add_argument("--seeds", nargs="+", type=int, choices=SEEDS, default=SEEDS, help="only the runs of these seeds")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    for part in options.parts:
        systems = [system for system in SYSTEMS[part] if system.key in options.systems]
        compared = variants(part, WORK / "hues" / part)
        for task, data_dirs, work in compared:
            make_runs(task, data_dirs, systems, options.seeds, work)
        if len(systems) < len(SYSTEMS[part]) or {*options.seeds} < {*SEEDS}:
            print("These runs are kept. Without --systems and --seeds the rest is made and the results are written.")
            continue
        measured = measure(compared, systems, options.seeds)
        if part == "books":
            measured["mapped"]["bars"] = check_bar(measured["mapped"])
        else:
            measured["comparison"] = compare(compared, systems, options.seeds, measured)
        before = read_json(RESULTS)["parts"] if RESULTS.exists() else {}
        parts = before | {part: measured}
        write_results("hues", {"parts": {name: parts[name] for name in SYSTEMS if name in parts}})
        update_readme("hues", render(read_json(RESULTS)))
        show_bars(part, measured["mapped"].get("bars", []))
    if RESULTS.exists():
        print(render(read_json(RESULTS)))


if __name__ == "__main__":
    errors.run(main)
