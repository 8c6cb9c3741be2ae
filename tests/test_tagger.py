"""The Tagger's own behaviour, and the serving install."""

import shutil
import subprocess
import sys
import venv

import numpy as np
import pytest

from tagwright.errors import TagwrightError
from tagwright.tagger import Tagger
from tagwright.task import ROOT


@pytest.fixture(scope="module")
def tagger(demo_run):
    return Tagger.load(demo_run.root / "tagger")


def test_tags_come_best_first_and_above_their_thresholds(tagger):
    (tags,) = tagger.tag([{"title": "Why did Daenerys trust her dragons?", "body": "In Game of Thrones."}])
    assert tags
    assert [score for _, score in tags] == sorted((score for _, score in tags), reverse=True)
    assert all(score >= tagger.thresholds[tagger.labels.index(label)] for label, score in tags)


def test_a_mapping_and_its_composed_text_give_the_same_scores(tagger):
    as_fields = tagger.scores([{"title": "A title", "body": "A body."}])
    assert np.array_equal(as_fields, tagger.scores(["A title\n\nA body."]))


def test_a_missing_field_counts_as_empty(tagger):
    assert np.array_equal(tagger.scores([{"title": "A title"}]), tagger.scores(["A title"]))


def test_results_come_in_the_order_of_the_texts(demo_run):
    tagger = Tagger.load(demo_run.root / "tagger", "fp32")
    texts = ["long " * 100, "short", "medium " * 20]
    assert np.allclose(tagger.scores(texts), np.concatenate([tagger.scores([text]) for text in texts]), atol=1e-5)


def test_no_texts_give_no_rows(tagger):
    assert tagger.tag([]) == []
    assert tagger.scores([]).shape == (0, len(tagger.labels))


@pytest.mark.parametrize("single", ["a text", {"title": "a text"}])
def test_a_single_text_is_refused_with_a_hint(tagger, single):
    with pytest.raises(TypeError, match=r"\[text\]"):
        tagger.tag(single)


def test_an_unknown_field_is_refused(tagger):
    with pytest.raises(TagwrightError, match="heading"):
        tagger.tag([{"heading": "x"}])


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(TagwrightError, match="no model folder"):
        Tagger.load(tmp_path)


def test_a_model_that_was_never_quantized_names_the_command(demo_run):
    with pytest.raises(TagwrightError, match="tagwright quantize scifi"):
        Tagger.load(demo_run.root / "model")


def test_a_changed_byte_in_the_model_is_refused_by_name(demo_run, tmp_path):
    folder = shutil.copytree(demo_run.root / "tagger", tmp_path / "tagger")
    path = folder / "onnx" / "model_quantized.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(TagwrightError, match="model_quantized.onnx"):
        Tagger.load(folder)


def test_the_serving_install_tags_a_text(demo_run, tmp_path):
    """A fresh environment with only what pyproject.toml names as dependencies."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    pins = [line for line in (ROOT / "deployment/gradio/requirements.txt").read_text().splitlines() if "==" in line]
    subprocess.run([python, "-m", "pip", "install", "-q", *pins], check=True, stderr=subprocess.DEVNULL)
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", ROOT], check=True, stderr=subprocess.DEVNULL)
    code = (f"import sys; from tagwright.tagger import Tagger; print(Tagger.load({str(demo_run.root / 'tagger')!r})"
            ".tag([{'title': 'Which Dune book explains the spice?'}]));"
            "assert not {'torch', 'transformers', 'fastai', 'blurr'} & set(sys.modules)")
    result = subprocess.run([python, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "'dune'" in result.stdout


def test_serving_modules_import_nothing_of_training():
    code = ("import sys, tagwright.tagger; heavy = {'torch', 'transformers', 'fastai', 'blurr', 'pandas', 'pydantic'};"
            "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)")
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
