"""Measure what each format of a trained model costs and keeps: `make bench-compression`.

For each task its finished model folder, as `tagwright demo TASK` leaves it: megabytes, scores on the test rows, agreement with
PyTorch fp32, how far a score moves with a text's neighbours in the batch, and, each in a process of its own, on one and on two
threads: time to load, latency of one text, texts a second in batches of 32, and the most memory. Formats take turns, and each
figure of speed is the best of ROUNDS, so that what else the machine does touches them alike. Writes `results/compression.json`
and the README's table.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from benchmarks.report import results_file, update_readme, write_results
from tagwright import metrics
from tagwright.bundle import read_bundle
from tagwright.dataset import Dataset
from tagwright.decisions import probabilities
from tagwright.pipeline import Folders
from tagwright.tagger import FILES, Tagger
from tagwright.task import Task

RESULTS = results_file("compression")
TASKS = ["cooking", "ag_news"]
THREADS = [1, 2]
ROUNDS = 3
LATENCY_TEXTS, THROUGHPUT_TEXTS, NEIGHBOUR_TEXTS = 300, 960, 300
BARS = {  # of cooking, for MiniLM
    "fp32": {"decisions": 1.0},
    "int8": {"decisions": 0.999, "label_sets": 0.97, "points": 0.3, "megabytes": 24, "times_fp32": 2.8},
    "q4": {"decisions": 0.997, "points": 1.0, "megabytes": 16},
}


def speed(folder: Path, form: str, threads: int, texts: list[str]) -> dict[str, float]:
    """What one process measures; `peak_mb` is that of loading and of tagging in batches of 32."""
    started = time.perf_counter()
    tagger = Tagger.load(folder, form, threads)
    loaded = time.perf_counter()
    tagger.logits(texts[:32], 32)
    batch_started = time.perf_counter()
    tagger.logits(texts[:THROUGHPUT_TEXTS], 32)
    seconds = time.perf_counter() - batch_started
    peak = int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])  # kB; ru_maxrss is the parent's too
    single = []
    for text in texts[:LATENCY_TEXTS]:
        begun = time.perf_counter()
        tagger.tag([text])
        single.append(1000 * (time.perf_counter() - begun))
    return {"load_ms": 1000 * (loaded - started), "p50_ms": float(np.percentile(single, 50)),
            "p95_ms": float(np.percentile(single, 95)),
            "texts_a_second": len(texts[:THROUGHPUT_TEXTS]) / seconds, "peak_mb": peak / 1024}


def best_speeds(folder: Path, texts: list[str]) -> dict[str, dict[str, dict[str, float]]]:
    """format -> threads -> the best of ROUNDS of each figure."""
    rounds: dict[tuple[str, int], list[dict]] = {}
    for _ in range(ROUNDS):
        for threads in THREADS:
            for form in FILES:
                command = [sys.executable, "-m", "benchmarks.compression", "--speed", folder, form, str(threads)]
                done = subprocess.run(command, input=json.dumps(texts), capture_output=True, text=True, check=True)
                rounds.setdefault((form, threads), []).append(json.loads(done.stdout))
    best: dict = {form: {} for form in FILES}
    for (form, threads), found in rounds.items():
        best[form][str(threads)] = {name: round((max if name == "texts_a_second" else min)(row[name] for row in found), 2)
                                    for name in found[0]}
    return best


def measure(task: Task) -> dict:
    from tagwright.model import load_tagger_model, load_tokenizer  # not in the processes that measure memory
    from tagwright.training import predict

    folder, dataset = Folders.of(task).tagger, Dataset.load(Folders.of(task).dataset, task.name)
    manifest, y_true = read_bundle(folder), dataset.targets(dataset.test)
    texts, thresholds = list(dataset.test["text"]), np.array(manifest.thresholds, dtype=np.float32)
    model, tokenizer = load_tagger_model(folder), load_tokenizer(folder)
    reference = probabilities(predict(model, tokenizer, texts, manifest.max_length, desc="PyTorch"), task.kind)
    own = metrics.summary(y_true, reference, thresholds, task.kind)
    formats, speeds = {}, best_speeds(folder, texts[:THROUGHPUT_TEXTS])
    for form, file in FILES.items():
        tagger = Tagger.load(folder, form)
        scores = tagger.scores(texts)
        alone = tagger.scores(texts[:NEIGHBOUR_TEXTS], batch_size=1)
        neighbours = tagger.scores(texts[:NEIGHBOUR_TEXTS][::-1], batch_size=64)[::-1]
        formats[form] = {
            "megabytes": round((folder / file).stat().st_size / 1e6, 2),
            "metrics": metrics.summary(y_true, scores, thresholds, task.kind),
            "agreement": {name: round(value, 7)
                          for name, value in metrics.agreement(reference, scores, thresholds, task.kind).items()},
            "largest_difference_by_neighbours": round(float(np.abs(alone - neighbours).max()), 6),
            "times_fp32": {threads: round(row["texts_a_second"] / speeds["fp32"][threads]["texts_a_second"], 2)
                           for threads, row in speeds[form].items()},
            "threads": speeds[form],
        }
    return {"rows": len(texts), "labels": len(manifest.labels), "pytorch": own, "formats": formats}


def bars(result: dict) -> dict[str, dict[str, bool]]:
    """format -> bar -> whether it is reached."""
    reached = {}
    for form, bar in BARS.items():
        row, own = result["formats"][form], result["pytorch"]
        points = [100 * abs(row["metrics"][name] - own[name]) for name in ("micro_f1", "macro_f1_supported")]
        at_least = {**row["agreement"], "times_fp32": min(row["times_fp32"].values())}
        at_most = {"megabytes": row["megabytes"], "points": max(points), "neighbours": row["largest_difference_by_neighbours"]}
        reached[form] = {name: at_least[name] >= bound if name in at_least else at_most[name] <= bound
                         for name, bound in (bar | {"neighbours": 0.01}).items()}
    return reached


def render(results: dict) -> str:
    """The README's tables, in Markdown."""
    lines = []
    for name, result in results["tasks"].items():
        lines += [f"**{name}**, {result['rows']:,} test rows:", "",
                  "| format | MB | P@1 | micro-F1 | macro-F1 | equal decisions | equal tag sets | score moves, mean / worst | "
                  "load, ms | one text, ms (p50 / p95) | texts a second, 1 / 2 threads | × fp32 | peak MB |",
                  "|---" * 13 + "|"]
        for form, row in result["formats"].items():
            scores, same, one = row["metrics"], row["agreement"], row["threads"]["1"]
            lines.append(
                f"| {form} | {row['megabytes']:.1f} | {scores['p_at_1']:.3f} | {scores['micro_f1']:.3f} | "
                f"{scores['macro_f1_supported']:.3f} | {100 * same['decisions']:.3f} % | {100 * same['label_sets']:.2f} % | "
                f"{same['mean_difference']:.5f} / {same['largest_difference']:.3f} | {one['load_ms']:.0f} | "
                f"{one['p50_ms']:.1f} / {one['p95_ms']:.1f} | "
                f"{' / '.join(format(row['threads'][threads]['texts_a_second'], ',.0f') for threads in row['threads'])} | "
                f"{' / '.join(format(value, '.1f') for value in row['times_fp32'].values())} | {one['peak_mb']:.0f} |")
        pytorch = result["pytorch"]
        lines += [f"| PyTorch fp32 | | {pytorch['p_at_1']:.3f} | {pytorch['micro_f1']:.3f} | "
                  f"{pytorch['macro_f1_supported']:.3f} | " + "| " * 8 + "|", ""]
    lines.append(f"On {results['machine']}. Agreement is with PyTorch fp32 on the test rows, at the thresholds that were "
                 "chosen for it on validation rows; load, latency and memory on one thread.")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", default=TASKS, help="tasks whose models are finished")
    parser.add_argument("--speed", nargs=3, metavar=("FOLDER", "FORMAT", "THREADS"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.speed:
        folder, form, threads = options.speed
        print(json.dumps(speed(Path(folder), form, int(threads), json.load(sys.stdin))))
        return
    measured = {task.name: measure(task) for task in map(Task.load, options.tasks)}
    results = {"tasks": measured}
    if "cooking" in measured:
        results["bars"] = bars(measured["cooking"])
    write_results("compression", results)
    written = json.loads(RESULTS.read_text(encoding="utf8"))
    update_readme("compression", render(written))
    print(render(written))
    for form, found in results.get("bars", {}).items():
        print(f"{form}: " + ", ".join(f"{name} {'reached' if reached else 'NOT reached'}" for name, reached in found.items()))


if __name__ == "__main__":
    main()
