"""Where an epoch of training goes: forward, backward, step, and everything else.

Trains a task for one epoch as `tagwright train` does, scores and checkpoint included, and writes
`results/training_profile.json`: seconds of each part, the share that is not the network's forward, backward or step, and how
much faster a training step is with the attention that training uses on a CPU than with torch's fused one.
"""

import argparse
import contextlib
import itertools
import json
import statistics
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from fastai.callback.core import Callback
from fastai.learner import Learner

from benchmarks.report import results_file, update_readme, write_results
from tagwright.callbacks import network
from tagwright.checkpoint import Checkpoint
from tagwright.cpu import SHORT, fast_on_cpu
from tagwright.dataset import Dataset, clean
from tagwright.pipeline import Folders
from tagwright.task import ROOT, Task
from tagwright.training import build_learner, fit, has_bf16

RESULTS, PAGE = results_file("training_profile"), ROOT / "docs" / "recipe.md"
NETWORK = ("forward", "backward", "step")


class Clock:
    """Seconds by part: each `to` ends the part before it."""

    def __init__(self):
        self.seconds, self.part, self.since = Counter(), None, 0.0

    def to(self, part: str | None) -> None:
        now = time.perf_counter()
        if self.part:
            self.seconds[self.part] += now - self.since
        self.part, self.since = part, now


class Early(Callback):
    """Ends parts before any other callback of an event runs: what those do is the rest."""

    order = -1000

    def __init__(self, clock: Clock):
        self.clock = clock

    def before_epoch(self): self.clock.to("rest")
    def before_batch(self): self.clock.to("rest")
    def after_loss(self): self.clock.to("rest")
    def after_backward(self): self.clock.to("rest")
    def after_step(self): self.clock.to("rest")
    def after_train(self): self.clock.to("rest")
    def after_validate(self): self.clock.to("rest")


class Late(Callback):
    """Starts parts after every other callback of an event has run."""

    order = 1000

    def __init__(self, clock: Clock):
        self.clock = clock

    def before_train(self): self.clock.to("data")
    def before_validate(self): self.clock.to("data")
    def after_batch(self): self.clock.to("data")
    def before_backward(self): self.clock.to("backward")
    def before_step(self): self.clock.to("step")
    def after_epoch(self): self.clock.to(None)


class TimedCheckpoint(Checkpoint):
    clock: Clock

    def after_validate(self):
        self.clock.to("checkpoint")
        super().after_validate()
        self.clock.to("rest")


def profile_epoch(task: Task, dataset: Dataset) -> tuple[Counter, Learner]:
    """Seconds by part of one epoch: forward (with the loss), backward, step, data, checkpoint, rest."""
    learner, clock = build_learner(task, dataset), Clock()
    learner.model.register_forward_pre_hook(lambda *_: clock.to("forward"))
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = TimedCheckpoint(Path(folder) / "model", {})
        checkpoint.clock = clock
        fit(task, learner, [Early(clock), Late(clock), checkpoint])
    return clock.seconds, learner


def step_seconds(learner: Learner, attention: str, batches: list) -> float:
    """Median seconds of a training step (forward, backward, optimiser) over `batches`."""
    model = network(learner)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)
    seconds = []
    with fast_on_cpu(model.encoder, SHORT) if learner.dls.device.type == "cpu" else contextlib.nullcontext():
        model.encoder.set_attn_implementation(attention)
        for inputs, targets in batches:
            started = time.perf_counter()
            with torch.autocast(learner.dls.device.type, dtype=torch.bfloat16, enabled=has_bf16()):
                loss = learner.loss_func(model(**inputs).logits, targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def render(results: dict) -> str:
    """The table of `docs/recipe.md`, in Markdown."""
    total = results["epoch_seconds"]
    lines = ["| part of an epoch | s | share |", "|---|---|---|"]
    lines += [f"| {part} | {seconds:.1f} | {100 * seconds / total:.1f} % |" for part, seconds in results["seconds"].items()]
    eager, fused = (results["step_ms"][attention] for attention in ("eager", "sdpa"))
    lines += ["", f"Task `{results['task']}`, {results['rows']:,} rows in batches of {results['batch_size']}, on "
                  f"{results['machine']}, {results['threads']} threads: {100 * results['share_outside_the_network']:.1f} % of "
                  f"the epoch is outside the network's forward pass, backward pass and step. A step takes {eager:.0f} ms with "
                  f"plain attention and {fused:.0f} ms with torch's fused one."]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("task", nargs="?", default="cooking")
    parser.add_argument("--rows", type=int, help="training rows (default: all)")
    parser.add_argument("--batches", type=int, default=40, help="batches for each kind of attention")
    parser.add_argument("--dry-run", action="store_true", help="write no results")
    options = parser.parse_args()
    task = Task.load(options.task)
    folder = Folders.of(task).dataset
    clean(task, task.raw_path(), folder)
    dataset = Dataset.load(folder)
    if options.rows:
        dataset = Dataset(dataset.labels, dataset.train[: options.rows], dataset.validation, dataset.test, dataset.record)
    recipe = task.training.for_rows(len(dataset.train)).model_copy(update={"epochs": 1, "soup": 1})
    task = task.model_copy(update={"training": recipe})

    seconds, learner = profile_epoch(task, dataset)
    total = seconds.total()
    batches = list(itertools.islice(learner.dls.train, options.batches))
    steps = {"eager": [], "sdpa": []}
    for attention in ["eager", "sdpa"] * 3:  # in turns, so that whatever else the machine does meets both
        steps[attention].append(step_seconds(learner, attention, batches))
    step_ms = {attention: round(1000 * min(rounds), 1) for attention, rounds in steps.items()}
    results = {
        "task": task.name, "rows": len(dataset.train), "batch_size": recipe.batch_size, "threads": torch.get_num_threads(),
        "bf16": has_bf16(), "epoch_seconds": round(total, 2),
        "seconds": {part: round(value, 2) for part, value in seconds.most_common()},
        "share_outside_the_network": round(1 - sum(seconds[part] for part in NETWORK) / total, 4),
        "step_ms": step_ms, "eager_is_times_as_fast": round(step_ms["sdpa"] / step_ms["eager"], 2),
    }
    print(results)
    if not options.dry_run:
        write_results("training_profile", results)
        update_readme("profile", render(json.loads(RESULTS.read_text(encoding="utf8"))), PAGE)


if __name__ == "__main__":
    main()
