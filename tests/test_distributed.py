"""Training in two processes on the CPU: the same batches and metrics as in one, and a clear end when one is killed."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fastai.torch_core import set_seed
from tiny import write_tiny

from tagwright.batches import dataloaders
from tagwright.dataset import Dataset
from tagwright.errors import TagwrightError
from tagwright.model import TaggerModel, load_tokenizer
from tagwright.task import Task
from tagwright.training import train

# Runs by itself: the parent computes nothing, so that what it forks can.
KILLS = """
import json, os, signal, socket, sys
from pathlib import Path

from tiny import fork, wait, wait_for
from tagwright import cli
from tagwright.checkpoint import Checkpoint

folder = Path(sys.argv[1])

def start(work, file, *options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    def command():
        sys.argv = ["tagwright", "train", str(folder / file), "--work", str(work), *options]
        cli.main()
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
              "OMP_NUM_THREADS": "1"}  # as accelerate would set it, with a warning
    return [fork(command, folder / f"{work.name}{rank}.log", shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            for rank in range(2)]

def ended(processes, work):
    codes = [wait(process) for process in processes]
    return codes, [(folder / f"{work.name}{rank}.log").read_text() for rank in range(2)]

def prepared(name, dataset=folder / "work" / "books" / "dataset"):
    (folder / name / "books").mkdir(parents=True)
    os.symlink(dataset, folder / name / "books" / "dataset")
    return folder / name

told = {}
for victim in range(2):
    work = prepared(f"victim{victim}")
    processes = start(work, "books.toml")
    wait_for(Checkpoint(work / "books" / "model", {}).file)
    os.kill(processes[victim], signal.SIGKILL)
    told[f"killed {victim}"] = ended(processes, work)
    told[f"resumed {victim}"] = ended(start(work, "books.toml", "--resume"), work)
work = prepared("whole")
told["whole"] = ended(start(work, "books.toml"), work)
work = prepared("unused", folder / "xlnet" / "work" / "books" / "dataset")
told["unused"] = ended(start(work, "xlnet/books.toml"), work)
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, epochs=4)
    (folder / "xlnet").mkdir()
    write_tiny(folder / "xlnet", rows=100, family="xlnet", epochs=1)
    config = folder / "encoder" / "config.json"  # no dropout, which would differ between one process and two
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_dropout_prob": 0.0}))
    return folder


@pytest.fixture(scope="module")
def task(folder) -> Task:
    return Task.load(folder / "books.toml")


@pytest.fixture(scope="module")
def alone(task, folder) -> dict:
    """The record of one process."""
    return train(task, folder / "work" / "books" / "dataset", folder / "alone", bar=False)


@pytest.fixture(scope="module")
def kills(folder) -> dict:
    result = subprocess.run([sys.executable, "-c", KILLS, folder], cwd=Path(__file__).parent, text=True,
                            capture_output=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def metrics_agree(record: dict, alone: dict) -> None:
    ours, theirs = record["history"], alone["history"]
    assert len(ours) == len(theirs)
    for key in ("train_loss", "valid_loss", "micro_f1", "p_at_1"):
        assert np.allclose([row[key] for row in ours], [row[key] for row in theirs], atol=0.05), (key, ours, theirs)
    assert record["metrics"]["validation"]["micro_f1"] == pytest.approx(alone["metrics"]["validation"]["micro_f1"], abs=0.03)


def test_accelerate_launch_trains_in_two_processes_as_one_does(folder, alone):
    work = folder / "launched"
    (work / "books").mkdir(parents=True)
    (work / "books" / "dataset").symlink_to(folder / "work" / "books" / "dataset")
    launch = [Path(sys.executable).parent / "accelerate", "launch", "--multi_gpu", "--num_processes", "2"]
    result = subprocess.run([*launch, "-m", "tagwright.cli", "train", folder / "books.toml", "--work", work], text=True,
                            capture_output=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("train: done in") == 1
    assert result.stdout.count("epoch 1  ") == 1  # one process prints
    record = json.loads((work / "books" / "model" / "run.json").read_text())
    assert record["processes"] == 2
    metrics_agree(record, alone)
    assert not list((work / "books").glob(".*"))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_the_others_with_a_clear_message_and_its_checkpoint_can_be_used(kills, folder, victim):
    codes, logs = kills[f"killed {victim}"]
    assert codes[victim] == -9
    assert codes[1 - victim] == 2, logs
    assert "error: another of the 2 training processes has ended" in logs[1 - victim]
    assert "or with --resume" in logs[1 - victim]
    assert "Traceback" not in logs[1 - victim]
    codes, logs = kills[f"resumed {victim}"]
    assert codes == [0, 0], logs
    assert "going on after run 1, epoch" in logs[0]
    assert "train: done" in logs[0]
    assert "train:" not in logs[1]
    history, undisturbed = (json.loads((folder / name / "books" / "model" / "run.json").read_text())["history"]
                            for name in (f"victim{victim}", "whole"))
    assert history == undisturbed


def test_an_encoder_with_weights_that_it_never_uses_is_trained_too(kills):
    codes, logs = kills["unused"]
    assert codes == [0, 0], logs
    assert "arning" not in "".join(logs)


def test_the_processes_share_the_batches_that_one_would_form(task, folder, monkeypatch):
    dataset = Dataset.load(folder / "work" / "books" / "dataset")
    tokenizer = load_tokenizer(task.model.encoder)
    model = TaggerModel.from_encoder(task.model.encoder, dataset.labels, "mean")
    rows, size = len(dataset.train), 16

    def order(processes: int) -> list[int]:
        monkeypatch.setenv("WORLD_SIZE", str(processes))
        loader = dataloaders(task, dataset, tokenizer, model).train
        set_seed(1)
        return list(loader.get_idxs())

    whole = order(1)
    assert sorted(whole) == list(range(rows))
    for processes in (2, 4):
        dealt = order(processes)
        piece = len(dealt) // processes
        shares = [dealt[process * piece : (process + 1) * piece] for process in range(processes)]
        assert all(len(share) == piece for share in shares)
        part = size // processes
        for number, start in enumerate(range(0, rows, size)):
            batch = [row for share in shares for row in share[number * part : (number + 1) * part]]
            assert set(whole[start : start + size]) <= set(batch)  # the last batch may have a few rows twice
            assert len(batch) == -(-len(whole[start : start + size]) // processes) * processes


def test_a_batch_that_cannot_be_divided_is_refused(task, folder, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    dataset = Dataset.load(folder / "work" / "books" / "dataset")
    model = TaggerModel.from_encoder(task.model.encoder, dataset.labels, "mean")
    with pytest.raises(TagwrightError, match="batch_size is 16, which cannot be divided among 3 processes"):
        dataloaders(task, dataset, load_tokenizer(task.model.encoder), model)
