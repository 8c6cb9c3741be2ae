"""The notebooks: all five are run, small, for tasks of each kind, and the numbers they record are checked; the committed copies
are clean."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

from tagwright import metrics
from tagwright.task import Task

pytestmark = pytest.mark.long

FOLDER = Path(__file__).parent.parent / "notebooks"
NAMES = ["01_cleaning", "02_eda", "03_finetuning", "04_evaluation", "05_onnx_quantization"]

spec = importlib.util.spec_from_file_location("execute", FOLDER / "execute.py")
runner = importlib.util.module_from_spec(spec)
spec.loader.exec_module(runner)


TASKS = ["scifi", "ag_news", "book_hues"]
REFUSED = {
    "scifi": {"duplicate": 3, "near duplicate": 3, "no labels": 2, "no text": 1, "unreadable labels": 1},
    "ag_news": {},
    "book_hues": {"duplicate": 2, "near duplicate": 2, "no text": 1, "no labels": 1},
}
SIZES = {"scifi": (474, 464), "ag_news": (200, 200), "book_hues": (150, 144)}  # rows read and kept


@pytest.fixture(scope="module", params=TASKS)
def run(request, tmp_path_factory):
    """A task's name, and the folder with the executed copies of a quick run of all five on its sample."""
    folder = tmp_path_factory.mktemp("notebooks")
    command = [sys.executable, FOLDER / "execute.py", "--quick", "--work", folder / "work", "--out", folder / "out"]
    command += ["--task", request.param] if request.param != "scifi" else []  # which is in the notebooks
    before = {path.name: path.read_bytes() for path in runner.notebooks()}
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert result.returncode == 0, result.stderr[-4000:]
    assert result.stderr == ""  # neither a warning of a library nor one of the kernel
    assert before == {path.name: path.read_bytes() for path in runner.notebooks()}
    return request.param, folder / "out"


def recorded(folder: Path, name: str) -> dict:
    return runner.recorded(nbformat.read(folder / f"{name}.ipynb", as_version=4))


def shown(folder: Path, name: str, source: str) -> str:
    """What the cell with `source` in it put out, as text; a picture counts as its size."""
    notebook = nbformat.read(folder / f"{name}.ipynb", as_version=4)
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code" and source in cell.source)
    return "\n".join(output.get("text") or output.data["text/plain"] for output in cell.outputs)


def test_cleaning_keeps_the_rows_it_should(run):
    task, out = run
    numbers = recorded(out, "01_cleaning")
    assert (numbers["rows_read"], numbers["rows_kept"]) == SIZES[task]
    assert numbers["rows_kept"] == numbers["train"] + numbers["validation"] + numbers["test"]
    assert numbers["refused"] == REFUSED[task]
    forms = shown(out, "01_cleaning", "def labels_of")
    assert {"scifi": "movie, aliens", "ag_news": "Sci/Tech", "book_hues": "romance, historical"}[task] in forms
    assert ("none here" in shown(out, "01_cleaning", "SequenceMatcher(None")) == ("near duplicate" not in REFUSED[task])
    assert ("published test rows: 40 in" in shown(out, "01_cleaning", "task.test_path()")) == (task == "ag_news")


def test_the_look_at_the_data_sees_the_training_rows(run):
    task, out = run
    cleaned, numbers = recorded(out, "01_cleaning"), recorded(out, "02_eda")
    assert (numbers["rows"], numbers["labels"]) == (cleaned["train"], cleaned["labels"])
    low, high = {"scifi": (2.5, 3.5), "ag_news": (1, 1), "book_hues": (1.5, 3.5)}[task]
    assert low <= numbers["labels_per_row"] <= high
    assert (numbers["share_cut"] > 0.05) == (task == "scifi")
    assert ("none come together" in shown(out, "02_eda", "plots.cooccurrence")) == (task == "ag_news")


def test_one_quick_epoch_already_learns(run):
    task, out = run
    numbers = recorded(out, "03_finetuning")
    headline = metrics.HEADLINE[Task.load(task).kind]
    assert numbers["epochs_run"] == numbers["best_epoch"] == 1
    assert numbers["validation"][headline] > {"scifi": 0.4, "ag_news": 0.7, "book_hues": 0.3}[task]
    assert abs(numbers["compared"][numbers["encoder"]] - numbers["validation"][headline]) < 0.07  # int8 and PyTorch, 16 rows
    assert numbers["best"] == numbers["encoder"]
    assert numbers["not_to_be_had"] == Task.load(task).models  # the tests have no hub


def test_the_model_beats_the_baseline_on_test_rows(run):
    task, out = run
    numbers = recorded(out, "04_evaluation")
    headline = metrics.HEADLINE[Task.load(task).kind]
    assert numbers["test_rows"] == recorded(out, "01_cleaning")["test"]
    assert numbers[headline] > max({"scifi": 0.35, "ag_news": 0.7, "book_hues": 0.3}[task], numbers[f"baseline_{headline}"])
    trivial = {"scifi": {"micro-F1": 0}, "ag_news": {"accuracy": 0.25, "macro-F1": 0.1}, "book_hues": {"micro-F1": 0}}
    assert trivial[task].items() <= numbers["trivial"].items()
    if headline == "micro_f1":
        assert numbers["trivial"]["share of cells right"] > 0.8
    assert ("no threshold" in shown(out, "04_evaluation", "plots.threshold_curve")) == (task == "ag_news")
    assert ("Figure" in shown(out, "04_evaluation", "plots.confusion")) == (task == "ag_news")
    assert list(numbers["label_errors"]) == ["validation", "test"]
    assert (task != "ag_news") <= sum(numbers["label_errors"].values()) < numbers["test_rows"]  # of 56 rows perhaps none


def test_onnx_is_the_same_model_and_small_weights_nearly_so(run):
    task, out = run
    numbers = recorded(out, "05_onnx_quantization")
    headline = metrics.HEADLINE[Task.load(task).kind]
    assert numbers["fp32_agreement"] == 1.0
    assert numbers["int8_agreement"] > 0.98
    assert numbers["q4_agreement"] > (0.97 if headline == "micro_f1" else 0.92)  # of 160 cells a changed row is two
    assert numbers["int8_products"] == numbers["q4_products"] == 37
    assert numbers["megabytes"]["ONNX q4"] < numbers["megabytes"]["ONNX int8"] < 0.3 * numbers["megabytes"]["PyTorch"]
    assert numbers[headline]["PyTorch"] == recorded(out, "04_evaluation")[headline]
    palette = shown(out, "05_onnx_quantization", "plots.swatches")
    assert ("Figure" in palette) == (task == "book_hues")


def test_executed_copies_are_clean(run):
    for name in NAMES:
        check_clean(run[1] / f"{name}.ipynb")


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
