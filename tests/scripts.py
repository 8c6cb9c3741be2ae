"""Run the collection scripts as a user runs them, kill them at random moments, and compare what is stored."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable

import psutil

from tagwright.store import Item, ItemStore
from tagwright.task import ROOT

OWN = os.environ["TAGWRIGHT_TESTS"] = str(os.getpid())  # inherited by all that is started here


def start(script: str, *arguments, **environment: str) -> subprocess.Popen:
    """Start `python <script> …`, with its output captured."""
    command = [sys.executable, ROOT / script, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            env=os.environ | {"NO_COLOR": "1"} | environment)


def run(script: str, *arguments, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess:
    process = start(script, *arguments, **environment)
    try:
        out, err = process.communicate(timeout=timeout)
    finally:
        process.kill()
    assert "Traceback" not in err, err
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run_with_kills(kills: int, seconds: float, seed: int, busy: Callable[[], int], script: str, *arguments,
                   **environment) -> int:
    """Run a script again and again, killed by SIGKILL at a random moment in the first `seconds` of its work, then once to
    its end; returns how often it was killed before it had ended by itself. `busy` counts what it did so far."""
    chance, killed = random.Random(seed), 0
    while killed < kills:
        before, process = busy(), start(script, *arguments, **environment)
        while busy() == before and process.poll() is None:
            time.sleep(0.005)
        time.sleep(chance.uniform(0, seconds))
        process.kill()
        process.communicate()
        if process.returncode != -signal.SIGKILL:
            break
        killed += 1
    last = run(script, *arguments, **environment)
    assert last.returncode == 0, last.stderr
    return killed


def chromium_processes() -> set[int]:
    """Those that this test process started, at however many removes: others may be another test process's."""
    return {process.pid for process in psutil.process_iter(["name", "environ"])
            if "chrom" in (process.info["name"] or "") and (process.info["environ"] or {}).get("TAGWRIGHT_TESTS") == OWN}


def assert_no_browser_is_left(before: set[int]) -> None:
    deadline = time.monotonic() + 5
    while left := chromium_processes() - before:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def stored(url: str, site: str) -> dict[str, Item]:
    """A site's items by id; each is there once, as ids are the table's key."""
    return {item.id: item for item in ItemStore(url).items(site)}
