"""Measure `tagwright tag FILE --out …` beside the transformers text-classification pipeline: `make bench-tagging`.

For each of `--sizes`, in one go: the pipeline on a sample of the titles (the same trained network in fp32 PyTorch, with the
pipeline's defaults and with batch_size=32; loading not counted), then the command on all of them (the int8 model; everything
counted from the start of Python to the written file), with the most memory its process held. Merges into
`results/tagging.json`, so that the sizes can be measured one by one.

The titles are those of the cooking task over and over; from the second time on, one word of each is replaced by a word of
another title, so that the lengths stay what they are and hardly two titles are equal.
"""

import argparse
import json
import logging
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psutil
from transformers import Pipeline, pipeline

from benchmarks.report import machine, results_file, update_readme, write_results
from tagwright.bundle import read_bundle
from tagwright.model import load_tagger_model, load_tokenizer
from tagwright.pipeline import Folders
from tagwright.task import Task

RESULTS = results_file("tagging")
SIZES = [10_000, 100_000, 1_000_000]
SAMPLE = 3_000  # titles for the pipeline


def titles_of(task: Task) -> list[str]:
    """The titles of a task whose file is in fastText's format."""
    lines = task.raw_path().read_text(encoding="utf8").splitlines()
    return [" ".join(word for word in line.split() if not word.startswith("__label__")) for line in lines]


def endless(real: list[str], seed: int = 0) -> Iterator[str]:
    """Titles without end, the `real` ones first; the same seed gives the same ones."""
    yield from real
    chance, words = random.Random(seed), [word for title in real for word in title.split()]
    while True:
        for title in real:
            changed = title.split()
            changed[chance.randrange(len(changed))] = chance.choice(words)
            yield " ".join(changed)


def load_pipeline(folder: Path) -> Pipeline:
    """The transformers pipeline with a model folder's network in fp32; it gives every label with its score."""
    logging.getLogger("transformers.pipelines.base").setLevel(logging.CRITICAL)  # that our class is not on its list
    return pipeline("text-classification", model=load_tagger_model(folder).eval(), tokenizer=load_tokenizer(folder),
                    top_k=None, function_to_apply="sigmoid", truncation=True, max_length=read_bundle(folder).max_length)


def measure_pipeline(folder: Path, sample: list[str]) -> dict[str, float]:
    """Titles a second of the pipeline."""
    classify = load_pipeline(folder)
    rates = {}
    for name, options in {"defaults": {}, "batch_size=32": {"batch_size": 32}}.items():
        classify(sample[:64], **options)
        started = time.perf_counter()
        classify(sample, **options)
        rates[name] = round(len(sample) / (time.perf_counter() - started), 1)
    return rates


def measure_command(folder: Path, file: Path, count: int) -> dict[str, float]:
    """Seconds of the whole command, and the most memory of its process."""
    command = [Path(sys.executable).parent / "tagwright", "tag", file, "--out", file.with_suffix(".parquet"), "--model", folder]
    started, peak = time.perf_counter(), 0
    with psutil.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        while process.poll() is None:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.1)
        print(process.stdout.read().strip(), flush=True)
    if process.returncode:
        raise SystemExit(process.returncode)
    seconds = time.perf_counter() - started
    return {"seconds": round(seconds, 1), "rows_a_second": round(count / seconds, 1), "peak_mb": round(peak / 1e6),
            "input_bytes": file.stat().st_size, "output_bytes": file.with_suffix(".parquet").stat().st_size}


def measure(task: Task, folder: Path, count: int, sample: int) -> dict:
    with tempfile.TemporaryDirectory() as temporary:
        file = Path(temporary, "titles.csv")
        rows = list(islice(endless(titles_of(task)), count))
        file.write_text("title\n" + "".join('"' + row.replace('"', '""') + '"\n' for row in rows), encoding="utf8")
        chosen = random.Random(0).sample(rows, min(sample, count))
        del rows
        rates = measure_pipeline(folder, chosen)
        print(f"{count:,}: the pipeline, on {len(chosen):,} of them: {rates} titles a second", flush=True)
        row = {"machine": machine(), "pipeline_titles": len(chosen), "pipeline_titles_a_second": rates,
               **measure_command(folder, file, count)}
    return row | {"times_as_fast": {name: round(row["rows_a_second"] / rate, 2) for name, rate in rates.items()}}


def render(results: dict) -> str:
    """The README's table, in Markdown."""
    lines = ["| titles | `tagwright tag`, titles a second | peak memory | pipeline, defaults | pipeline, `batch_size=32` "
             "| times as fast as the better one |", "|---|---|---|---|---|---|"]
    for count, row in results["sizes"].items():
        rates = row["pipeline_titles_a_second"]
        lines.append(f"| {int(count):,} | {row['rows_a_second']:,.0f} | {row['peak_mb']} MB | {rates['defaults']:,.0f} | "
                     f"{rates['batch_size=32']:,.0f} | {min(row['times_as_fast'].values()):.1f} |")
    sample = max(row["pipeline_titles"] for row in results["sizes"].values())
    return "\n".join([*lines, "", "The command is timed as a whole, with its start and the writing of the file; the pipeline "
                      f"(the same network in fp32 PyTorch) on {sample:,} of the titles, without its loading. "
                      f"{' or '.join(sorted({row['machine'] for row in results['sizes'].values()}))}."])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES)
    parser.add_argument("--sample", type=int, default=SAMPLE, help="titles for the pipeline")
    parser.add_argument("--task", default="cooking")
    parser.add_argument("--model", type=Path, help="a model folder (default: the task's)")
    options = parser.parse_args()
    task = Task.load(options.task)
    folder = options.model or Folders.of(task).answering
    checksum = read_bundle(folder).checksum
    before = json.loads(RESULTS.read_text(encoding="utf8")) if RESULTS.exists() else {}
    sizes = before["sizes"] if before.get("model") == checksum else {}
    for count in options.sizes:
        sizes[str(count)] = measure(task, folder, count, options.sample)
        ordered = {key: sizes[key] for key in sorted(sizes, key=int)}
        write_results("tagging", {"task": task.name, "model": checksum, "sizes": ordered})
    results = json.loads(RESULTS.read_text(encoding="utf8"))
    update_readme("tagging", render(results))
    print(render(results))


if __name__ == "__main__":
    main()
