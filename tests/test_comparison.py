"""What a comparison of models shows, and which model it calls the best; the training itself is in test_encoders."""

import json

import pytest
from conftest import write_task
from rich.console import Console

from tagwright.comparison import best_model, comparison_table, show_comparison
from tagwright.task import Task


def row(encoder: str, score: float, int8: float) -> dict:
    scores = {"accuracy": score, "micro_f1": score, "macro_f1": score - 0.1, "p_at_1": 0.99}
    small = {"accuracy": int8, "micro_f1": int8, "macro_f1": int8 - 0.1, "p_at_1": 0.99}
    return {"encoder": encoder, "train_seconds": 90.0, "validation": scores, "validation_int8": small, "parameters": 22_500_000,
            "bytes": 23_300_000, "ms_per_text": 8.153}


@pytest.fixture(params=["multiclass", "multilabel"])
def task(request, tmp_path):
    file = write_task(tmp_path, "rows.jsonl", request.param, model={"encoder": "own"})
    return Task.load(file).model_copy(update={"models": ["bert", "xlnet"]})


def test_both_scores_of_both_forms_are_shown(task):
    found = {"rows": [row("own", 0.912, 0.908)], "missing": {"bert": "not [b]there[/b]"}}
    headline = "accuracy" if task.kind == "multiclass" else "micro-F1"
    table = comparison_table(task.kind, found)
    assert list(table) == ["encoder", headline, f"{headline}, int8", "macro-F1", "macro-F1, int8", "million parameters",
                           "minutes of training", "MB", "ms a text"]
    assert table.iloc[0, 1:].tolist() == pytest.approx([0.912, 0.908, 0.812, 0.808, 22.5, 1.5, 23.3, 8.153])
    console = Console(record=True, width=160)
    show_comparison(task, found, console)
    shown = console.export_text()
    cells = [cell.strip() for line in shown.splitlines() if "own" in line for cell in line.strip("│ ").split("│")]
    assert cells == ["own", "0.912", "0.908", "0.812", "0.808", "22.5", "1.5", "23.3", "8.15"]
    assert "bert: not [b]there[/b]" in shown


@pytest.mark.parametrize(("rows", "best"), [
    ([], "own"),
    ([row("own", 0.9, 0.8), row("bert", 0.95, 0.79)], "own"),  # int8 is what is served
    ([row("bert", 0.9, 0.8), row("own", 0.9, 0.8)], "own"),  # no better, so no reason to change
    ([row("own", 0.9, 0.8), row("bert", 0.9, 0.81), row("xlnet", 0.9, 0.9)], "xlnet"),
    ([row("own", 0.9, 0.8), row("no longer listed", 0.9, 0.9)], "own"),
])
def test_the_best_model_is_that_of_the_best_int8_score(task, tmp_path, rows, best):
    models = tmp_path / "models"
    models.mkdir()
    (models / "comparison.json").write_text(json.dumps({"rows": rows}))
    expected = tmp_path / "model" if best == "own" else models / best / "model"
    assert best_model(task, tmp_path / "model", models) == (best, expected)


def test_nothing_compared_leaves_the_tasks_own(task, tmp_path):
    assert best_model(task, tmp_path / "model", tmp_path / "models") == ("own", tmp_path / "model")
