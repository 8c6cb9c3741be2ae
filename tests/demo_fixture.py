import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tagwright.task import ROOT


@dataclass
class DemoRun:
    """What `tagwright demo scifi` left: its folders, what it printed, and the most memory it held at any time."""

    root: Path
    output: str
    peak_bytes: int
    sample: Path = ROOT / "data" / "sample" / "scifi.jsonl"


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory) -> DemoRun:
    """The real pipeline on the embedded sample, run once for all tests, in a process of its own."""
    work = tmp_path_factory.mktemp("work")
    log = work / "demo.log"
    command = [Path(sys.executable).parent / "tagwright", "demo", "scifi", "--work", work]
    with log.open("w") as file:
        process = psutil.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        peak = 0
        while process.poll() is None:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.1)
    output = log.read_text()
    assert process.returncode == 0, output
    return DemoRun(work / "scifi", output, peak)
