"""The search for a better recipe, on a tiny encoder and few rows: what is tried, what is stopped, and that it goes on."""

import fcntl
import json
import math
import random
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import optuna
import pytest
import torch
from conftest import write_jsonl, write_task
from encoders import make_encoder
from rich.console import Console

from tagwright import tuning
from tagwright.dataset import clean
from tagwright.errors import TagwrightError
from tagwright.task import Task, Training
from tagwright.tuning import STARTUP, STEPS, WARM_UP, search_space, show_tuning, tune

LABELS = ["robots", "dragons", "time-travel", "space", "magic", "detectives"]
TRIALS = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A task file `books.toml`, its tiny encoder, and its cleaned rows in `work/books/dataset`."""
    folder = tmp_path_factory.mktemp("tuning")
    chance = random.Random(0)
    words = [f"{chance.choice('bdfgkl')}{chance.choice('aeiou')}{chance.choice('mnrst')}" for _ in range(60)]
    rows = []
    for _ in range(110):
        label = chance.choice(LABELS)
        start = 10 * LABELS.index(label)  # each label has words of its own, and each text some of any
        rows.append({"text": " ".join(chance.sample(words[start:start + 10], 2) + chance.choices(words, k=4)), "tags": label})
    make_encoder("bert", folder / "encoder", [row["text"] for row in rows])
    write_jsonl(folder / "rows.jsonl", rows)
    file = write_task(folder, "rows.jsonl", model={"encoder": str(folder / "encoder"), "max_length": 16},
                      training={"epochs": 4, "encoder_lr": 2e-3})
    task = Task.load(file)
    clean(task, task.raw_path(), folder / "work" / "books" / "dataset")
    return folder


@pytest.fixture(scope="module")
def task(folder) -> Task:
    return Task.load(folder / "books.toml")


@pytest.fixture(scope="module")
def data(folder) -> Path:
    return folder / "work" / "books" / "dataset"


@pytest.fixture(scope="module")
def searched(task, data, folder) -> dict:
    """An undisturbed search."""
    return tune(task, data, folder / "undisturbed", TRIALS)


def load_study(folder: Path, record: dict) -> optuna.Study:
    return optuna.load_study(study_name=record["study"], storage=f"sqlite:///{folder / 'study.sqlite'}")


def changed(task: Task, **training) -> Task:
    return task.model_copy(update={"training": task.training.model_copy(update=training)})


def test_the_first_trial_is_the_tasks_own_recipe_and_the_best_is_at_least_as_good(searched, task):
    first = searched["trials"][0]
    recipe = task.training.for_rows(searched["rows"]["train"]).model_dump()
    assert first["params"] == {key: recipe[key] for key in first["params"]}
    assert (first["number"], first["state"]) == (searched["default"], "complete")
    assert searched["trials"][searched["best"]]["value"] == max(
        trial["value"] for trial in searched["trials"] if trial["state"] == "complete")
    assert searched["trials"][searched["best"]]["value"] >= first["value"]
    assert searched["finished"] == len(searched["trials"]) == TRIALS


def test_trials_differ(searched):
    assert len({json.dumps(trial["params"]) for trial in searched["trials"]}) == TRIALS


def test_a_trial_below_the_median_is_stopped_once_the_learning_rates_have_risen(searched, task, data, tmp_path):
    record = tune(task, data, tmp_path, STARTUP + 1, timeout=0)
    study, first = load_study(tmp_path, record), searched["trials"][0]["params"]
    space = search_space(task.training.for_rows(record["rows"]["train"]), task.kind, record["rows"]["train"])
    for _ in range(STARTUP):  # perfect from beginning to end
        study.add_trial(optuna.trial.create_trial(params=first, distributions=space, value=1.0, user_attrs={"scores": [1.0]},
                                                  intermediate_values=dict.fromkeys(range(1, STEPS + 1), 1.0)))
    stopped = tune(task, data, tmp_path, STARTUP + 1)["trials"][0]  # the default, which had been waiting
    assert stopped["state"] == "pruned"
    assert len(stopped["scores"]) == math.ceil(stopped["params"]["epochs"] * WARM_UP / STEPS) < stopped["params"]["epochs"]


def test_scores_are_compared_at_the_same_share_of_the_training(searched, folder):
    seen = set()
    for trial in load_study(folder / "undisturbed", searched).trials[:STARTUP]:
        steps, epochs, scores = trial.intermediate_values, trial.params["epochs"], trial.user_attrs["scores"]
        if len(scores) == epochs:  # not ended by the recipe's patience
            assert sorted(steps) == list(range(STEPS // epochs, STEPS + 1))
            assert steps[STEPS] == scores[-1]
        if 4 % epochs == 0 or epochs % 4 == 0:
            seen.add(epochs)
            halfway = epochs // 2 - 1
            assert epochs == 1 or steps[STEPS // 2] == pytest.approx(scores[halfway])
    assert 4 in seen


def test_the_record_and_the_picture_are_written_and_nothing_else(searched, folder):
    out = folder / "undisturbed"
    assert {path.name for path in out.iterdir()} == {"lock", "study.sqlite", "tuning.json", "tuning.png"}
    record = json.loads((out / "tuning.json").read_text())
    assert record["trials"] == searched["trials"]
    for trial in record["trials"]:
        assert set(trial) == {"number", "state", "value", "scores", "seconds", "params"}
        assert trial["value"] == max(trial["scores"])
    assert sum(record["importances"].values()) == pytest.approx(1)
    assert (out / "tuning.png").stat().st_size > 10_000


def test_the_lines_to_paste_are_a_valid_task(searched, folder, capsys):
    show_tuning(searched | {"best": 1}, Console(width=100))
    printed = capsys.readouterr().out
    assert str(folder / "books.toml") in printed
    lines = tomllib.loads(printed[printed.index("[training]"):])["training"]
    assert Training(**lines).epochs == searched["trials"][1]["params"]["epochs"]
    assert lines["encoder_lr"] == pytest.approx(searched["trials"][1]["params"]["encoder_lr"], rel=0.01)
    assert lines.keys() == searched["trials"][1]["params"].keys()
    show_tuning(searched | {"best": 0}, Console(width=100))
    assert "keep it" in capsys.readouterr().out


def test_ctrl_c_and_a_kill_lose_only_the_running_trial_and_the_same_command_goes_on(searched, task, folder, data):
    """The search that was stopped twice tries what the undisturbed one tried, and finds the same."""
    command = [Path(sys.executable).parent / "tagwright", "tune", folder / "books.toml", "--work", folder / "work",
               "--trials", "3"]
    out = folder / "work" / "books" / "tuning"
    process = started(command, until="trial 0:")
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=300)[1]
    assert process.returncode == 130, errors
    assert errors.splitlines()[-1].startswith("stopped: 1 of 3 trials are finished and kept in")
    assert "the same command goes on" in errors
    assert "Traceback" not in errors

    process = started(command, until="trial ")
    time.sleep(0.15)  # into the next trial
    process.kill()
    process.communicate(timeout=300)
    record = tune(task, data, out, 3)
    assert record["study"] == searched["study"]
    finished = [trial for trial in record["trials"] if trial["state"] != "interrupted"]
    assert len(finished) == record["finished"] == 3
    assert len(record["trials"]) > 3  # the interrupted ones have numbers, and do not count
    for trial, undisturbed in zip(finished, searched["trials"], strict=False):
        assert trial["params"] == undisturbed["params"]
        assert trial["value"] == pytest.approx(undisturbed["value"], abs=5e-4)
    assert {path.name for path in (folder / "work" / "books").iterdir()} == {"dataset", "tuning"}  # no model, no checkpoint


def started(command: list, until: str) -> subprocess.Popen:
    """The command, running, once it has printed a line that begins so."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith(until):
            return process
    raise AssertionError(process.communicate()[1])


def test_a_finished_search_trains_nothing_more(searched, task, data, folder, monkeypatch):
    monkeypatch.setattr(tuning, "build_learner", None)
    assert tune(task, data, folder / "undisturbed", TRIALS)["trials"] == searched["trials"]


def test_a_killed_default_is_tried_again_before_anything_else(searched, task, data, folder, tmp_path):
    """Killed twice: before the default's trial began, and in it."""
    default = searched["trials"][0]["params"]
    study = tuning._open_study(tmp_path / "study.sqlite", searched["study"], default)
    study = tuning._open_study(tmp_path / "study.sqlite", searched["study"], default)
    assert len(study.trials) == 1
    study.ask()  # running now, and its process dies before the settings are stored
    record = tune(task, data, tmp_path, 1)
    assert [trial["state"] for trial in record["trials"]] == ["interrupted", "complete"]
    assert record["trials"][1]["params"] == default
    assert load_study(tmp_path, record).trials[0].state == optuna.trial.TrialState.FAIL


def test_no_test_row_is_at_hand_and_rows_takes_that_many(task, data, tmp_path, monkeypatch, capsys):
    given = []

    def spy(task, dataset, bar):
        given.append(dataset)
        return original(task, dataset, bar)

    original = tuning.build_learner
    monkeypatch.setattr(tuning, "build_learner", spy)
    record = tune(task, data, tmp_path, 1, rows=40)
    assert [(len(dataset.train), len(dataset.test)) for dataset in given] == [(40, 0)]
    assert record["rows"]["train"] == 40 < record["rows"]["of"]
    trial = record["trials"][0]
    show_tuning(record | {"best": 1, "trials": [trial, trial | {"number": 1, "value": 0.99}]}, Console(width=100))
    assert "found on 40 of " in capsys.readouterr().out


def test_another_setting_data_set_or_number_of_rows_is_another_study(searched, task, data, folder, tmp_path):
    other_rows = [json.loads(line) for line in (folder / "rows.jsonl").read_text().splitlines()]
    other_rows[0]["text"] += " again"
    clean(task, write_jsonl(tmp_path / "rows.jsonl", other_rows), tmp_path / "dataset")
    studies = [tune(*arguments, tmp_path, timeout=0, rows=rows)["study"] for *arguments, rows in [
        (task, data, None), (task, data, 50), (task, tmp_path / "dataset", None), (changed(task, seed=1), data, None),
        (changed(task, epochs=3), data, None)]]
    assert len(set(studies)) == 5
    assert studies[0] == searched["study"]


def test_no_trial_begins_after_the_timeout(task, data, tmp_path, capsys):
    record = tune(task, data, tmp_path, 3, timeout=0)
    assert (record["finished"], record["best"]) == (0, None)
    show_tuning(record, Console())
    assert "no trial is finished yet" in capsys.readouterr().out
    record = tune(task, data, tmp_path, 3, timeout=0.01)
    assert record["finished"] == 1
    show_tuning(record, Console())
    assert "1 of 3 trials are finished; the same command goes on" in capsys.readouterr().out


def test_a_trial_that_does_not_fit_into_memory_counts_as_stopped(task, data, tmp_path, monkeypatch, capsys):
    def fit(task, learner, callbacks):
        if task.training.batch_size == 32:
            learner.loss_func = no_memory
        return original(task, learner, callbacks)

    def no_memory(logits, targets):
        raise torch.OutOfMemoryError("CUDA out of memory")

    original = tuning.fit
    monkeypatch.setattr(tuning, "fit", fit)
    monkeypatch.setattr(tuning, "search_space", lambda *given: search_space(*given) | {
        "batch_size": optuna.distributions.CategoricalDistribution([16, 32]),
        "epochs": optuna.distributions.IntDistribution(1, 1)})
    record = tune(changed(task, epochs=1), data, tmp_path, 4)
    assert {trial["params"]["batch_size"]: trial["state"] for trial in record["trials"]} == {16: "complete", 32: "pruned"}
    assert "out of GPU memory" in capsys.readouterr().out
    assert not torch.is_autocast_enabled("cpu")
    assert torch.autocast_increment_nesting() == 1  # or torch would keep its copies of weights in bfloat16 for ever
    torch.autocast_decrement_nesting()
    with pytest.raises(TagwrightError, match=r"books.toml: the recipe does not fit .* lower training.batch_size \(now 32\)"):
        tune(changed(task, epochs=1, batch_size=32), data, tmp_path, 4)


def test_multiclass_is_searched_by_accuracy(task, data, tmp_path):
    record = tune(task.model_copy(update={"kind": "multiclass"}), data, tmp_path, 1)
    assert record["score"] == "accuracy"
    assert 0 < record["trials"][0]["value"] <= 1


def test_two_searches_in_one_folder_are_refused(task, data, tmp_path):
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TagwrightError, match="another `tagwright tune` is at work there"):
            tune(task, data, tmp_path, 1)


def test_a_damaged_study_is_one_clear_error(task, data, tmp_path):
    (tmp_path / "study.sqlite").write_bytes(b"no database at all, but some other file" * 100)
    with pytest.raises(TagwrightError, match=r"study.sqlite: the study cannot be read or written: file is not a database"):
        tune(task, data, tmp_path, 1)


def test_a_folder_that_cannot_be_written_is_one_clear_error(task, data, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TagwrightError, match="cannot be written"):
        tune(task, data, tmp_path / "file" / "tuning", 1)


@pytest.mark.parametrize("kind", ["multilabel", "multiclass"])
@pytest.mark.parametrize("recipe", [
    Training().for_rows(100), Training().for_rows(1_000_000), Training(epochs=1, batch_size=1, weight_decay=0).for_rows(9),
    Training(epochs=30, batch_size=64, encoder_lr=1e-6, head_lr=3.0, weight_decay=2.5).for_rows(20),
])
def test_every_range_is_around_the_recipe_and_every_key_is_one_of_the_recipes(recipe, kind):
    for key, distribution in search_space(recipe, kind, rows=20).items():
        value = getattr(recipe, key)
        assert distribution._contains(distribution.to_internal_repr(value)), key
        assert key == "batch_size" or not distribution.single()
    sizes = search_space(recipe, kind, rows=20)["batch_size"].choices
    assert all(size <= 20 or size == recipe.batch_size for size in sizes)
