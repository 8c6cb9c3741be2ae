"""Run whole tasks and time their taggers: `make bench`.

Writes `results/pipeline.json` (scores, sizes, speeds, commit, machine) and renders it into the README's tables. A task's
stages that have not changed since they last ran are not run again; the timings are taken anew.
"""

import argparse
import os
import time

import torch

from benchmarks.report import machine, results_file, update_readme
from tagwright.dataset import Dataset
from tagwright.model import load_tagger_model, load_tokenizer
from tagwright.pipeline import Folders, run_pipeline
from tagwright.stage import package_versions, write_json
from tagwright.tagger import Tagger
from tagwright.task import Task
from tagwright.training import predict

RESULTS = results_file("pipeline")
BODY = "The council met in a tower and argued for a night about whether machines can ever learn patience from people. " * 10


def measure(task: Task) -> dict:
    """One task's scores, as its stages recorded them, and its tagger's speed on one core."""
    folders = Folders.of(task)
    records = run_pipeline(task, folders)
    return {
        "rows": records["clean"]["rows"], "labels": records["clean"]["labels"],
        "train_seconds": records["train"]["train_seconds"], "threshold": records["train"]["threshold"],
        "max_length": task.model.max_length, "bf16": records["train"]["bf16"], "commit": records["quantize"]["commit"],
        **{key: records["quantize"][key] for key in ("metrics", "agreement", "bytes", "ms_per_text")},
        "one_core": one_core(task, folders),
    }


def one_core(task: Task, folders: Folders) -> dict[str, float]:
    """Milliseconds for one title and for a title with a 200-word body, and how many times as fast as fp32 PyTorch int8
    tags the first lines of up to 1,000 test texts; all on one thread, tokenising included, best of three."""
    tagger = Tagger.load(folders.tagger, threads=1)
    model, tokenizer = load_tagger_model(folders.tagger), load_tokenizer(folders.tagger)
    dataset = Dataset.load(folders.dataset)
    titles = [text.splitlines()[0] for text in [*dataset.test["text"], *dataset.train["text"]]][:1000]
    torch.set_num_threads(1)
    pytorch = seconds(lambda: predict(model, tokenizer, titles, tagger.manifest.max_length))
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    return {
        "title_ms": round(1000 * seconds(lambda: tagger.tag(titles[:1]), 30), 2),
        "title_and_200_words_ms": round(1000 * seconds(lambda: tagger.tag([f"{titles[0]}\n\n{BODY}"]), 30), 2),
        "times_as_fast_as_pytorch": round(pytorch / seconds(lambda: tagger.scores(titles)), 2),
        "titles": len(titles),
    }


def seconds(run, repeats: int = 3) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times)


def render(results: dict) -> str:
    """The README's tables, in Markdown."""
    lines = []
    for name, task in results["tasks"].items():
        rows, core = task["rows"], task["one_core"]
        lines += [
            f"**{name}**: {rows['train']:,} training, {rows['validation']:,} validation and {rows['test']:,} test rows, "
            f"{task['labels']['kept']} labels; trained in {task['train_seconds'] / 60:.1f} minutes.",
            "",
            "| model | P@1 | R@5 | micro-F1 | macro-F1 | macro-F1 of labels with test rows | MB | ms a text |",
            "|---|---|---|---|---|---|---|---|",
        ]
        for model, scores in task["metrics"].items():
            cells = [f"{scores[key]:.3f}" for key in ("p_at_1", "r_at_5", "micro_f1", "macro_f1", "macro_f1_supported")]
            cells.append(f"{task['bytes'][model] / 1e6:.1f}" if model in task["bytes"] else "")
            cells.append(f"{task['ms_per_text'][model]:.2f}" if model in task["ms_per_text"] else "")
            lines.append("| " + " | ".join([model, *cells]) + " |")
        same = 100 * task["agreement"]["ONNX int8"]["decisions"]
        lines += [
            "",
            f"int8 on one core: {core['title_ms']:.1f} ms for a title, {core['title_and_200_words_ms']:.1f} ms with a 200-word "
            f"body (at most {task['max_length']} tokens are read); {core['titles']:,} titles go "
            f"{core['times_as_fast_as_pytorch']:.1f} times as fast as through fp32 PyTorch. "
            f"It decides like PyTorch in {same:.2f} % of all text × label pairs.",
            "",
        ]
    lines.append(f"Measured on {results['machine']}. Thresholds were chosen on validation rows, scores are of test rows.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", help="task names or TOML files")
    measured = {task.name: measure(task) for task in map(Task.load, parser.parse_args().tasks)}
    results = {"machine": machine(), "versions": package_versions(), "tasks": measured}
    RESULTS.parent.mkdir(exist_ok=True)
    write_json(RESULTS, results)
    update_readme("results", render(results))
    print(render(results))


if __name__ == "__main__":
    main()
