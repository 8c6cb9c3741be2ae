"""Folders that are written whole or not at all, whoever else writes them and wherever a kill falls."""

import os
import signal
import subprocess
import sys

import pytest

from tagwright import stage
from tagwright.errors import TagwrightError
from tagwright.stage import Stage, content_id, replacing


@pytest.fixture
def folder(tmp_path):
    with replacing(tmp_path / "model") as partial:
        (partial / "weights").write_text("old")
    return tmp_path / "model"


def test_a_folder_is_replaced_as_a_whole_and_nothing_else_is_left(folder):
    with replacing(folder) as partial:
        (partial / "weights").write_text("new")
        assert (folder / "weights").read_text() == "old"
    assert (folder / "weights").read_text() == "new"
    assert os.listdir(folder.parent) == ["model"]


def test_what_a_killed_run_left_half_written_does_not_get_in(folder):
    code = """
import os, signal, sys
from pathlib import Path
from tagwright.stage import replacing

with replacing(Path(sys.argv[1])) as partial:
    (partial / "half").mkdir()
    (partial / "half" / "file").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code, folder]).returncode == -signal.SIGKILL
    assert (folder / "weights").read_text() == "old"
    with replacing(folder) as partial:
        assert os.listdir(partial) == []
        (partial / "weights").write_text("new")
    assert os.listdir(folder) == ["weights"]


def test_two_cannot_write_a_folder_at_once_and_the_first_is_not_disturbed(folder):
    with replacing(folder) as partial:
        (partial / "weights").write_text("first")
        with pytest.raises(TagwrightError, match="model: another process is writing it"), replacing(folder):
            pass
        assert (partial / "weights").read_text() == "first"
    assert (folder / "weights").read_text() == "first"


@pytest.mark.parametrize("dies", [True, False])
def test_a_replacement_that_ends_between_its_two_renamings_is_put_back(folder, monkeypatch, dies):
    rename = os.rename

    def fails(source, target):
        if target == folder and str(source).endswith(".partial"):
            if dies:
                monkeypatch.setattr(stage, "_put_back", lambda folder: None)  # as after a kill, when nobody is there to do it
            raise OSError(5, "no such luck")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fails)
    with pytest.raises(OSError, match="no such luck"), replacing(folder):
        pass
    monkeypatch.undo()
    assert folder.exists() == (not dies)
    Stage("train", folder, [], {})  # whoever comes next finds the old one
    assert (folder / "weights").read_text() == "old"


def test_a_reader_between_the_two_renamings_leaves_the_writer_alone(folder, monkeypatch):
    rename = os.rename

    def read_then_rename(source, target):
        if target == folder:
            assert not folder.exists()
            stage.recover(folder)
            assert not folder.exists()
        rename(source, target)

    monkeypatch.setattr(os, "rename", read_then_rename)
    with replacing(folder) as partial:
        (partial / "weights").write_text("new")
    assert (folder / "weights").read_text() == "new"


def test_who_starts_when_the_writer_has_just_ended_keeps_the_folder_he_made(folder, monkeypatch):
    rename = os.rename

    def rename_then_start(source, target):
        rename(source, target)
        if target == folder:
            source.mkdir()
            (source / "weights").write_text("of the next writer")

    monkeypatch.setattr(os, "rename", rename_then_start)
    with replacing(folder) as partial:
        (partial / "weights").write_text("new")
    assert (folder / "weights").read_text() == "new"
    assert (partial / "weights").read_text() == "of the next writer"


def test_a_folder_that_no_stage_wrote_is_known_by_what_is_in_it(tmp_path):
    (tmp_path / "encoder" / "deep").mkdir(parents=True)
    (tmp_path / "encoder" / "deep" / "weights").write_text("one")
    first = content_id(tmp_path / "encoder")
    assert content_id(tmp_path / "encoder") == first
    (tmp_path / "encoder" / "deep" / "weights").write_text("two")
    assert content_id(tmp_path / "encoder") != first
