"""The README says what the code and the results say."""

import json
import re
import subprocess

import pytest

from benchmarks import (
    ablation,
    collection,
    compression,
    hues,
    new_labels,
    pipeline,
    quality,
    service,
    tagging,
    training_profile,
)
from tagwright.dataset import clean
from tagwright.task import ROOT, Task

README = (ROOT / "README.md").read_text(encoding="utf8")


def block(marker: str, page: str = README) -> str:
    return re.search(rf"<!-- {marker} -->\n(.*)\n<!-- /{marker} -->", page, re.DOTALL)[1]


def test_the_results_are_those_that_were_measured():
    assert block("results") == pipeline.render(json.loads(pipeline.RESULTS.read_text(encoding="utf8")))
    assert block("collection") == collection.render()


def measured(benchmark) -> str:
    if not benchmark.RESULTS.exists():
        return "Not measured yet."
    return benchmark.render(json.loads(benchmark.RESULTS.read_text(encoding="utf8")))


@pytest.mark.parametrize(("marker", "benchmark"), [("quality", quality), ("compression", compression), ("tagging", tagging),
                                                     ("service", service), ("new-labels", new_labels), ("hues", hues)])
def test_the_tables_are_those_that_were_measured(marker, benchmark):
    assert block(marker) == measured(benchmark)


@pytest.mark.skipif(not hues.RESULTS.exists(), reason="colours are not measured yet")
def test_the_tasks_colours_come_the_better_way():
    comparison = json.loads(hues.RESULTS.read_text(encoding="utf8"))["parts"]["ways"]["comparison"]
    assert comparison["better"] in (None, Task.load("book_hues").labels.hues)


@pytest.mark.parametrize(("marker", "benchmark"), [("ablation", ablation), ("profile", training_profile)])
def test_the_recipes_tables_are_those_that_were_measured(marker, benchmark):
    assert block(marker, benchmark.PAGE.read_text(encoding="utf8")) == measured(benchmark)


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_every_link_into_the_project_leads_somewhere(target):
    assert (ROOT / target).exists()


def test_the_make_targets_it_names_exist():
    listed = subprocess.run(["make", "-C", ROOT, "help"], capture_output=True, text=True, check=True).stdout
    named = re.findall(r"(?:^|`)make ([\w-]+)", README, re.MULTILINE)
    assert {"demo", "test"} <= set(named)
    for target in named:
        assert f"make {target} " in listed


def test_the_worked_example_works(tmp_path):
    """The README's TOML file, with a CSV file as it describes, goes through cleaning."""
    (tmp_path / "recipes.toml").write_text(re.search(r"```toml\n(name = \"recipes\".*?)```", README, re.DOTALL)[1])
    soups = ["lentil", "pea", "leek", "onion", "tomato", "beet", "carrot", "corn", "bean", "potato", "squash", "celery"]
    rows = [f'{name} {kind},"<p>Rinse the {name}, then {kind} it for {number} minutes.</p>",{kind}|vegan'
            for number, name in enumerate(soups) for kind in ("soup", "stew", "bake")]
    (tmp_path / "recipes.csv").write_text("name,method,keywords\n" + "\n".join(rows) + "\n")
    task = Task.load(tmp_path / "recipes.toml")
    record = clean(task, task.raw_path(), tmp_path / "dataset")
    assert record["rows"]["kept"] == 36
    assert record["labels"]["kept"] == 4
