"""The notebooks: all five are run, small, and the numbers they record are checked; the committed copies are clean."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from tagwright.task import Task

pytestmark = pytest.mark.long

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = ["01_cleaning", "02_eda", "03_finetuning", "04_evaluation", "05_onnx_quantization"]

spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """The folder with the executed copies of a quick run of all five."""
    folder = tmp_path_factory.mktemp("notebooks")
    command = [sys.executable, FOLDER / "execute.py", "--quick", "--work", folder / "work", "--out", folder / "out"]
    before = {path.name: path.read_bytes() for path in runner.notebooks()}
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stderr == ""  # neither a warning of a library nor one of the kernel
    assert before == {path.name: path.read_bytes() for path in runner.notebooks()}
    return folder / "out"


def recorded(folder: Path, name: str) -> dict:
    return runner.recorded(nbformat.read(folder / f"{name}.ipynb", as_version=4))


def test_cleaning_keeps_the_rows_it_should(out):
    numbers = recorded(out, "01_cleaning")
    assert numbers["rows_read"] == 474
    assert numbers["rows_kept"] == 464 == numbers["train"] + numbers["validation"] + numbers["test"]
    assert numbers["refused"] == {"duplicate": 3, "near duplicate": 3, "no labels": 2, "no text": 1, "unreadable labels": 1}


def test_the_look_at_the_data_sees_the_training_rows(out):
    cleaned, numbers = recorded(out, "01_cleaning"), recorded(out, "02_eda")
    assert (numbers["rows"], numbers["labels"]) == (cleaned["train"], cleaned["labels"])
    assert 2.5 < numbers["labels_per_row"] < 3.5
    assert 0.05 < numbers["share_cut"] < 0.2


def test_one_quick_epoch_already_learns(out):
    numbers = recorded(out, "03_finetuning")
    assert numbers["epochs_run"] == numbers["best_epoch"] == 1
    assert numbers["validation"]["micro_f1"] > 0.4
    assert abs(numbers["compared"][numbers["encoder"]] - numbers["validation"]["micro_f1"]) < 0.02  # int8 and PyTorch
    assert numbers["not_to_be_had"] == Task.load("scifi").models  # the tests have no hub


def test_the_model_beats_the_baseline_on_test_rows(out):
    numbers = recorded(out, "04_evaluation")
    assert numbers["test_rows"] == recorded(out, "01_cleaning")["test"]
    assert numbers["micro_f1"] > max(0.35, numbers["baseline_micro_f1"])
    assert numbers["cells_right_if_nothing_is_predicted"] > 0.9


def test_onnx_is_the_same_model_and_small_weights_nearly_so(out):
    numbers = recorded(out, "05_onnx_quantization")
    assert numbers["fp32_agreement"] == 1.0
    assert numbers["int8_agreement"] > 0.98
    assert numbers["q4_agreement"] > 0.97
    assert numbers["int8_products"] == numbers["q4_products"] == 37
    assert numbers["megabytes"]["ONNX q4"] < numbers["megabytes"]["ONNX int8"] < 0.3 * numbers["megabytes"]["PyTorch"]
    assert numbers["micro_f1"]["PyTorch"] == recorded(out, "04_evaluation")["micro_f1"]


@pytest.mark.parametrize("name", NAMES)
def test_executed_copies_are_clean(out, name):
    check_clean(out / f"{name}.ipynb")


@pytest.mark.parametrize("name", NAMES)
def test_committed_notebooks_are_clean(name):
    check_clean(FOLDER / f"{name}.ipynb")


@pytest.mark.parametrize("name", NAMES[1:])
def test_committed_notebooks_belong_to_one_run(name):
    first, this = recorded(FOLDER, NAMES[0]), recorded(FOLDER, name)
    same = {"rows": "train", "test_rows": "test", "labels": "labels"}
    assert all(this[key] == first[other] for key, other in same.items() if key in this)


def test_all_notebooks_share_their_set_up():
    cells = [nbformat.read(FOLDER / f"{name}.ipynb", as_version=4).cells for name in NAMES]
    set_ups = {next(cell.source for cell in each if "COLAB_RELEASE_TAG" in cell.source) for each in cells}
    assert len(set_ups) == 1
    assert [path.stem for path in runner.notebooks()] == NAMES


def test_a_missing_stage_stops_and_names_the_notebook_that_makes_it(tmp_path):
    with pytest.raises(CellExecutionError, match=r"run 01_cleaning\.ipynb first .*tagwright clean scifi"):
        runner.execute(FOLDER / "02_eda.ipynb", {"WORK": str(tmp_path)})


def test_cleaning_an_executed_notebook_again_changes_nothing():
    notebook = nbformat.read(FOLDER / "04_evaluation.ipynb", as_version=4)
    before = nbformat.writes(notebook)
    assert runner.clean(notebook) == []
    assert nbformat.writes(notebook) == before


def test_the_runner_names_an_unknown_notebook():
    result = subprocess.run([sys.executable, FOLDER / "execute.py", "99"], capture_output=True, text=True)
    assert result.returncode == 1
    assert "no notebook 99" in result.stderr


def check_clean(path: Path) -> None:
    """Executed once and in order, no error, no stderr, no litter, not too large, its own parameters and no others."""
    assert os.path.getsize(path) < 1_000_000
    notebook = json.loads(path.read_text(encoding="utf8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    outputs = [output for cell in code for output in cell["outputs"]]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    tags = [tag for cell in notebook["cells"] for tag in cell["metadata"].get("tags", [])]
    assert tags.count("parameters") == 1
    assert set(tags) <= {"parameters", "progress"}
    text = json.dumps([output for output in outputs if "image/png" not in output.get("data", {})])
    assert "it/s]" not in text
    assert "Warning" not in text
    assert len(text) < 3 * sum(len("".join(cell["source"])) for cell in notebook["cells"])
