"""The console script, run as a user runs it: what it says and how it ends."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_jsonl, write_task

from tagwright.cli import app

SCRIPT = Path(sys.executable).parent / "tagwright"


def run(*arguments) -> subprocess.CompletedProcess:
    plain = os.environ | {"COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run([SCRIPT, *map(str, arguments)], capture_output=True, text=True, env=plain, timeout=120)


def refusal(*arguments) -> str:
    """The one line of a refused run."""
    result = run(*arguments)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1 == result.stderr.count("error: ")
    assert "Traceback" not in result.stderr + result.stdout
    assert result.stdout == ""
    return result.stderr


ROWS = [{"text": f"some words about number {number} and {number * number} more", "tags": ["a", "b"][number % 2]}
        for number in range(40)]


def test_help_lists_every_command():
    result = run("--help")
    commands = {command.name or command.callback.__name__.replace("_", "-") for command in app.registered_commands}
    assert commands >= {"clean", "train", "evaluate", "quantize", "tag", "demo"}
    assert result.returncode == 0
    listed = {line.split()[1] for line in result.stdout.splitlines() if line.startswith("│") and len(line.split()) > 2}
    assert commands <= listed


def test_clean_says_what_it_did_and_then_that_nothing_has_changed(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    task = write_task(tmp_path, "rows.jsonl")
    result = run("clean", task, "--work", tmp_path / "work")
    assert (result.returncode, result.stderr) == (0, "")
    assert "rows  read  40" in result.stdout
    assert "clean: done in " in result.stdout
    assert (tmp_path / "work" / "books" / "dataset" / "run.json").is_file()
    assert "clean: skipped" in run("clean", task, "--work", tmp_path / "work").stdout


@pytest.mark.parametrize("command", ["clean", "demo"])
def test_an_unknown_task_is_refused(command):
    assert "unknown task 'scifu': did you mean 'scifi'?" in refusal(command, "scifu")


def test_a_missing_task_file_is_refused(tmp_path):
    assert "no such task file" in refusal("clean", tmp_path / "books.toml")


def test_a_missing_raw_file_is_refused(tmp_path):
    assert "source.path: no such file" in refusal("clean", write_task(tmp_path, "rows.jsonl"))


def test_a_faulty_task_is_refused(tmp_path):
    assert "did you mean 'epochs'?" in refusal("clean", write_task(tmp_path, "rows.jsonl", training={"epoch": 1}))


def test_train_without_a_data_set_names_the_command_that_makes_it(tmp_path):
    assert "tagwright clean scifi" in refusal("train", "scifi", "--work", tmp_path)


def test_tag_without_a_model_names_the_command_that_makes_it(tmp_path):
    assert "tagwright quantize" in refusal("tag", "scifi", "Who built the first robot?", "--work", tmp_path)


def test_a_file_that_is_not_utf8_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_bytes("text,tags\nna\u00efve,a\n".encode("latin1"))
    message = refusal("clean", write_task(tmp_path, "rows.csv"), "--work", tmp_path)
    assert "rows.csv: line 2" in message
    assert "not UTF-8" in message


def test_a_csv_file_without_the_needed_column_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("txt,tags\nwords,a\n")
    assert "no field 'text', which books.toml names in input.fields; did you mean 'txt'?" in refusal(
        "clean", write_task(tmp_path, "rows.csv"), "--work", tmp_path)


def test_a_damaged_parquet_file_is_refused_in_one_line(tmp_path):
    raw = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(ROWS), raw)
    content = bytearray(raw.read_bytes())
    length = int.from_bytes(content[-8:-4], "little")
    content[-8 - length : -8] = bytes(length)  # the footer, zeroed
    raw.write_bytes(content)
    assert "rows.parquet: not a readable parquet file" in refusal("clean", write_task(tmp_path, raw.name), "--work", tmp_path)


def test_a_work_folder_that_cannot_be_made_is_refused(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "file").touch()
    assert str(tmp_path / "file") in refusal("clean", write_task(tmp_path, "rows.jsonl"), "--work", tmp_path / "file")


def test_a_wrong_option_is_refused():
    result = run("clean", "scifi", "--wrok", "x")
    assert result.returncode == 2
    assert "--work" in result.stderr


@pytest.mark.long
def test_ctrl_c_in_the_middle_of_training_leaves_nothing_half_written(sample_folder, tmp_path):
    work = tmp_path / "work"
    (work / "scifi").mkdir(parents=True)
    (work / "scifi" / "dataset").symlink_to(sample_folder)
    command = [SCRIPT, "train", "scifi", "--work", work]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout.readline().startswith("run 1  epoch 1")
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert [path.name for path in (work / "scifi").iterdir()] == ["dataset"]


def test_a_full_disk_is_one_clear_line(sample_folder, tmp_path):
    """A real one: a 30 MB file system, on which the data set fits and the model does not."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=30m", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("this machine lets no file system be mounted")
    try:
        shutil.copytree(sample_folder, tmp_path / "scifi" / "dataset")
        result = subprocess.run([SCRIPT, "train", "scifi", "--work", tmp_path], capture_output=True, text=True)
        assert result.returncode == 2
        assert re.fullmatch(r"error: train will write \d+ MB to .* but its disk has only \d+ MB free; .*\n", result.stderr)
        assert not (tmp_path / "scifi" / "model").exists()
    finally:
        subprocess.run(["umount", tmp_path], check=True)
