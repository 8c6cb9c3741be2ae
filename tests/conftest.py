"""What several tests share: task files made on the spot, and the embedded sample, cleaned once."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: no test may wait for a network

from tagwright.dataset import Dataset, clean
from tagwright.task import Task

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs, and their children, ignore it
ROOT = Path(__file__).resolve().parent.parent
LONGEST = [  # minutes each
    "test_notebooks", "test_service_jobs", "test_service_training", "test_deployment", "test_cluster", "test_parity",
    "test_encoders", "test_fetch_questions", "test_bulk", "test_browser_package"]


def pytest_collection_modifyitems(items):
    """The files that take longest come first, so that no worker is left with one when the others have ended."""
    items.sort(key=lambda item: item.path.stem not in LONGEST)



def write_task(folder: Path, raw: str, kind: str = "multilabel", **tables) -> Path:
    """Write `folder/books.toml`: one `text` field from the file `raw`, unless `tables` (section=dict) say otherwise."""
    sections = {"source": {"path": raw}, "input": {"fields": ["text"], "template": "{text}"}}
    for name, keys in tables.items():
        sections[name] = sections.get(name, {}) | keys
    lines = ['name = "books"', 'title = "Blurbs to genres"', f'kind = "{kind}"']
    for name, keys in sections.items():
        lines += ["", f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    file = folder / "books.toml"
    file.write_text("\n".join(lines) + "\n", encoding="utf8")
    return file


def write_jsonl(path: Path, rows: list[dict]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    return path


@pytest.fixture(scope="session")
def sample_folder(tmp_path_factory) -> Path:
    """The embedded sample, cleaned with the shipped task."""
    folder = tmp_path_factory.mktemp("sample") / "dataset"
    task = Task.load("scifi")
    clean(task, task.raw_path(), folder)
    return folder


@pytest.fixture(scope="session")
def sample(sample_folder) -> Dataset:
    return Dataset.load(sample_folder)


@dataclass
class DemoRun:
    """What `tagwright demo scifi` left: its folders, what it printed, and the most memory it held at any time."""

    root: Path
    output: str
    peak_bytes: int
    sample: Path = ROOT / "data" / "sample" / "scifi.jsonl"


@pytest.fixture(scope="session")
def demo_run(tmp_path_factory) -> DemoRun:
    """The real pipeline on the embedded sample, run once for all tests (also where several processes share them), in a
    process of its own."""
    base = tmp_path_factory.getbasetemp()
    work = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "demo"
    work.mkdir(exist_ok=True)
    log, peak_file = work / "demo.log", work / "peak.txt"
    with (work / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not peak_file.exists():
            peak_file.write_text(str(_run_demo(work, log)))
    return DemoRun(work / "scifi", log.read_text(), int(peak_file.read_text()))


def _run_demo(work: Path, log: Path) -> int:
    """Run `tagwright demo scifi`; returns the most memory that it held, in bytes."""
    command = [Path(sys.executable).parent / "tagwright", "demo", "scifi", "--work", work]
    with log.open("w") as file:
        process = psutil.Popen(command, stdout=file, stderr=subprocess.STDOUT)
        peak = 0
        while process.poll() is None:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.1)
    assert process.returncode == 0, log.read_text()
    return peak


@pytest.fixture(scope="session")
def mariadb():
    """A MariaDB server, for all tests that need one."""
    from databases import MariaDb  # here, since most runs need no database

    with MariaDb() as server:
        yield server


@pytest.fixture(params=["sqlite", "mariadb"])
def database_url(request, tmp_path) -> str:
    """A new, empty database of each kind: a path or a URL."""
    if request.param == "sqlite":
        return str(tmp_path / "items.sqlite")
    return request.getfixturevalue("mariadb").new_database()


@pytest.fixture
def store(database_url):
    from tagwright.store import ItemStore

    store = ItemStore(database_url)
    yield store
    store._engine.dispose()  # or the server runs out of connections before the last test
