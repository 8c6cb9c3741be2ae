"""Colours of covers, by genre and predicted outright, and the categories of real books: `make bench-hues`.

Two parts. `ways`: the embedded blurbs in folds, once with genres as labels, whose colours the map then gives, and once with
the colours themselves as labels; the same rows are trained on and tested in both, and the truth is the same, the colours of
all of a book's genres. `books`: the real books of `tasks/books.toml`, beside fastText and TF-IDF + logistic regression.

Every choice is made on validation rows; scores are of test rows. Each training is kept in `data/work/bench/hues/`, so that
the benchmark can be killed and started again, or made in parts (`--parts`, `--systems`, `--seeds`). A part that is all there is
written to `results/hues.json` and to the README's table; the other one stays.
"""

import argparse
from pathlib import Path

import torch

from benchmarks import quality
from benchmarks.report import results_file, update_readme, write_results
from benchmarks.rivals import FastText, Tfidf
from benchmarks.runs import SEEDS, THREADS, WORK, cell, data_folders, read_json, with_tables
from tagwright import errors
from tagwright.task import Task

RESULTS = results_file("hues")
WAYS = {"mapped": "genres, then their colours", "predicted": "the colours themselves"}
FOLDS = 5
SYSTEMS = {"ways": [Tfidf(), quality.Tagwright()], "books": [FastText(), Tfidf(), quality.Tagwright()]}
BASELINE = Tfidf.forms[0]
BAR = 0.05  # macro-F1 of Tagwright, both forms, on the real books: at least so much above BASELINE's
HUES = {"micro_f1": "micro-F1 of colours", "macro_f1_supported": "macro-F1 of colours"}
LABELS = {"micro_f1": "micro-F1", "macro_f1": "macro-F1"}


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
        for form, scores in run.make()["forms"].items():
            shown = "  ".join(f"{title} {scores['hues'][key]:.3f}" for key, title in HUES.items())
            print(f"{task.name} ({task.labels.hues}), {run.data_dir.name}, seed {run.seed}: {form} ({state}): "
                  f"macro-F1 {scores['test']['macro_f1']:.3f}  {shown}", flush=True)


def measure(compared: list[tuple[Task, list[Path], Path]], systems: list, seeds: list[int]) -> dict[str, dict]:
    """Way → results, as `quality.measure` gives them; every run is on disk by then."""
    return {task.labels.hues: quality.measure(task, data_dirs, systems, seeds, work) for task, data_dirs, work in compared}


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
                      "books, and by the same truth, the colours of all of a book's genres.")
        lines += ["", f"| labels | system | {' | '.join(HUES.values())} |", "|---|---" + "|---" * len(HUES) + "|"]
        lines += [f"| {name} | {form} | {' | '.join(cell(system['hues'][key]) for key in HUES)} |"
                  for way, name in WAYS.items() for form, system in parts["ways"][way]["systems"].items()]
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
        lines += ["", f"At least {100 * BAR:.0f} points of macro-F1 above {BASELINE}: {reached}."]
    lines += ["", f"Mean ± standard deviation of {len(SEEDS)} seeds on {results['machine']}, {THREADS} threads; {BASELINE} "
                  "gives the same with each. Settings were chosen on validation rows, and so were thresholds, by the labels' "
                  "micro-F1. Macro-F1 of colours is over those that a test row has."]
    if missing := [part for part in SYSTEMS if part not in parts]:
        lines[-1] += f" Not measured yet: {', '.join(missing)}."
    return "\n".join(lines)


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
        before = read_json(RESULTS)["parts"] if RESULTS.exists() else {}
        parts = before | {part: measured}
        write_results("hues", {"parts": {name: parts[name] for name in SYSTEMS if name in parts}})
        update_readme("hues", render(read_json(RESULTS)))
        for check in measured["mapped"].get("bars", []):
            print(f"{'pass      ' if check['met'] else 'FALL SHORT'} {check['system']}: {check['what']} {check['measured']} "
                  f"(bar: {check['bar']})")
    if RESULTS.exists():
        print(render(read_json(RESULTS)))


if __name__ == "__main__":
    errors.run(main)
