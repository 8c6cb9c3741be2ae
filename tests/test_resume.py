"""Trainings that are interrupted: what is saved, what goes on from it, and what does not."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fastai.callback.core import Callback
from tiny import write_tiny

from tagwright.checkpoint import Checkpoint
from tagwright.dataset import Dataset
from tagwright.errors import TagwrightError
from tagwright.task import Task
from tagwright.training import build_learner, fit, train

# Runs by itself: the parent computes nothing, so that what it forks can.
INTERRUPTIONS = """
import json, os, random, signal, sys
from pathlib import Path

from tiny import fork, wait
from tagwright import checkpoint, cli, training
from tagwright.task import Task
from tagwright.training import train

folder = Path(sys.argv[1])
task, data = Task.load(folder / "books.toml"), folder / "work" / "books" / "dataset"
made_of = lambda out: checkpoint.Checkpoint(out, {})
told = {"kills": []}

assert wait(fork(lambda: train(task, data, folder / "undisturbed"), folder / "undisturbed.log")) == 0

def total(state):
    return 3 * state["runs"] + state["epochs"]

def saved(out):
    with checkpoint.safe_open(made_of(out).file, "pt") as tensors:
        return total(json.loads(tensors.metadata()["state"]))

def signalled(number, epoch, run):
    # Sends itself the signal at a random batch of that epoch: one from outside comes when the machine finds time for it.
    share = random.random()

    class Signal(checkpoint.Checkpoint):
        def after_batch(self):
            if self.training and 3 * self.learn.soup.runs + self.epoch == epoch and self.iter >= share * self.n_iter - 1:
                os.kill(os.getpid(), number)

    def patched():
        training.Checkpoint = Signal
        run()

    return patched

killed = folder / "killed"
for epoch in [0, 1, 2, 4]:
    code = wait(fork(signalled(signal.SIGKILL, epoch, lambda: train(task, data, killed)), folder / f"killed{epoch}.log"))
    told["kills"].append([code, saved(killed) if epoch else 0])
told["in the end"] = wait(fork(lambda: train(task, data, killed), folder / "killed.log"))

def half_written(tensors, path, metadata, save=checkpoint.save_file):
    save(tensors, path, metadata)
    if total(json.loads(metadata["state"])) == 5:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)

def train_into_kill():
    checkpoint.save_file = half_written
    train(task, data, folder / "half")

told["half"] = wait(fork(train_into_kill, folder / "half.log"))
told["half again"] = wait(fork(lambda: train(task, data, folder / "half", resume=True), folder / "half2.log"))
told["half log"] = (folder / "half2.log").read_text()

def command(*options):
    sys.argv = ["tagwright", "train", str(folder / "books.toml"), "--work", str(folder / "work"), *options]
    cli.main()

code = wait(fork(signalled(signal.SIGINT, 1, command), folder / "ctrl-c.log"))
told["ctrl-c"] = [code, (folder / "ctrl-c.log").read_text()]
told["resume"] = [wait(fork(lambda: command("--resume"), folder / "resume.log")), (folder / "resume.log").read_text()]
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, epochs=3, soup=2)
    return folder


@pytest.fixture(scope="module")
def interruptions(folder) -> dict:
    result = subprocess.run([sys.executable, "-c", INTERRUPTIONS, folder], cwd=Path(__file__).parent, text=True,
                            capture_output=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def outcome(folder: Path) -> tuple:
    record = json.loads((folder / "run.json").read_text())
    return record["metrics"], record["history"], record["files"]["model.safetensors"]["sha256"]


def test_a_training_killed_at_random_moments_ends_as_an_undisturbed_one(folder, interruptions):
    assert interruptions["kills"] == [[-9, 0], [-9, 1], [-9, 2], [-9, 4]]
    assert interruptions["in the end"] == 0
    assert outcome(folder / "killed") == outcome(folder / "undisturbed")
    assert not list(folder.glob(".*"))


def test_a_kill_in_the_middle_of_writing_leaves_the_checkpoint_before(folder, interruptions):
    assert (interruptions["half"], interruptions["half again"]) == (-9, 0)
    assert "going on after run 2, epoch 1\n" in interruptions["half log"]
    assert outcome(folder / "half") == outcome(folder / "undisturbed")


def test_ctrl_c_ends_with_130_and_says_how_to_go_on(folder, interruptions):
    code, said = interruptions["ctrl-c"]
    assert code == 130, said
    assert ": run the same command again, or with --resume" in said
    assert "Traceback" not in said
    code, said = interruptions["resume"]
    assert code == 0, said
    assert "train: going on after run 1, epoch " in said
    assert outcome(folder / "work" / "books" / "model") == outcome(folder / "undisturbed")


class Interrupt(Callback):
    """Ctrl-C at the end of an epoch, just after its checkpoint."""

    order = 64

    def __init__(self, epoch: int):
        self.at = epoch

    def after_validate(self):
        if self.epoch == self.at:
            raise KeyboardInterrupt


def interrupted(task: Task, dataset: Dataset, out: Path, epoch: int, made_of: dict | None = None) -> Checkpoint:
    checkpoint = Checkpoint(out, made_of or {})
    with pytest.raises(KeyboardInterrupt):
        fit(task, build_learner(task, dataset, bar=False), [checkpoint, Interrupt(epoch)])
    return checkpoint


@pytest.fixture(scope="module")
def task(folder) -> Task:
    task = Task.load(folder / "books.toml")
    return task.model_copy(update={"training": task.training.model_copy(update={"soup": 1})})


@pytest.fixture(scope="module")
def dataset(folder) -> Dataset:
    return Dataset.load(folder / "work" / "books" / "dataset")


def test_a_training_that_had_decided_to_stop_trains_no_further_epoch(task, dataset, tmp_path):
    wild = task.training.model_copy(update={"encoder_lr": 1e-9, "head_lr": 1e-9, "patience": 1})  # learns nothing: stops
    task = task.model_copy(update={"training": wild})
    history = fit(task, build_learner(task, dataset, bar=False))
    assert len(history) == 2
    interrupted(task, dataset, tmp_path / "model", epoch=1)
    checkpoint = Checkpoint(tmp_path / "model", {})
    assert checkpoint.open() == ""
    again = fit(task, build_learner(task, dataset, bar=False), [checkpoint], checkpoint.runs, checkpoint.epochs)
    assert again.equals(history)


def test_a_checkpoint_of_another_training_is_refused_and_says_what_differs(task, dataset, tmp_path):
    made_of = {"code": "a" * 64, "settings": {"training": {"head_lr": 0.005}}, "inputs": ["b" * 64]}
    interrupted(task, dataset, tmp_path / "model", 0, made_of)
    assert Checkpoint(tmp_path / "model", made_of).open() == ""
    other = made_of | {"code": "c" * 64, "settings": {"training": {"head_lr": 0.004}}}
    fault = Checkpoint(tmp_path / "model", other).open()
    assert "of another training: code has changed; settings.training.head_lr was 0.005, is now 0.004" in fault
    file = Checkpoint(tmp_path / "model", made_of).file
    file.write_bytes(file.read_bytes()[:1000])
    assert "cannot be read" in Checkpoint(tmp_path / "model", made_of).open()


def test_resume_refuses_where_there_is_nothing_to_go_on_from(task, folder, tmp_path):
    data = folder / "work" / "books" / "dataset"
    with pytest.raises(TagwrightError, match="nothing to resume: there is no checkpoint at .*without --resume"):
        train(task, data, tmp_path / "model", resume=True)
    with pytest.raises(TagwrightError, match="only one of them"):
        train(task, data, tmp_path / "model", resume=True, force=True)


def test_a_disk_without_room_is_told_before_training(task, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(TagwrightError, match="train will write .* but its disk has only 1 MB free"):
        train(task, folder / "work" / "books" / "dataset", tmp_path / "model")
