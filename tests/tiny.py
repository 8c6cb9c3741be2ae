"""A task that trains in a second, and processes that train it: forked from one that has the imports behind it, so that a
test can start and kill many."""

import os
import random
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from conftest import write_jsonl, write_task
from encoders import make_encoder

from tagwright.dataset import clean
from tagwright.task import Task

LABELS = ["cats", "ships", "soups", "stars"]


def write_tiny(folder: Path, rows: int = 300, family: str = "bert", **training) -> Path:
    """Clean rows and a tiny encoder in `folder`: `books.toml`, and the cleaned rows in `work/books/dataset`."""
    chance = random.Random(0)
    table = []
    for number in range(rows):
        tags = chance.sample(LABELS, chance.choice([1, 1, 2]))
        words = [f"{tag}{chance.randrange(12)}" for tag in tags for _ in range(3)]
        words += [f"filler{chance.randrange(30)}" for _ in range(chance.randrange(1, 12))]
        chance.shuffle(words)
        table.append({"text": " ".join([*words, str(number)]), "tags": tags})
    write_jsonl(folder / "rows.jsonl", table)
    make_encoder(family, folder / "encoder", [row["text"] for row in table])
    training = {"epochs": 3, "batch_size": 16, "encoder_lr": 3e-3, "head_lr": 2e-2, "patience": 9, "soup": 1} | training
    file = write_task(folder, "rows.jsonl", model={"encoder": str(folder / "encoder"), "max_length": 48}, training=training)
    task = Task.load(file)
    clean(task, task.raw_path(), folder / "work" / "books" / "dataset")
    return file


def fork(run: Callable[[], None], log: Path, environ: dict[str, str] | None = None) -> int:
    """Start `run` in a forked process, which must not yet have computed anything with torch; returns its id."""
    if process := os.fork():
        return process
    code = 1
    try:
        with log.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.environ |= environ or {}
        run()
        code = 0
    except SystemExit as ending:
        code = ending.code or 0
    finally:  # nothing may go on into the test that forked
        if code == 1:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(process: int, seconds: float = 120) -> int:
    """The exit code of a forked process, negative for a signal; a process that hangs is killed, and TimeoutError raised."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(process, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(process, 9)
    os.waitpid(process, 0)
    raise TimeoutError(f"process {process} did not end within {seconds} s")


def wait_for(file: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not file.exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{file} did not appear within {seconds} s")
        time.sleep(0.005)
