"""The benchmark of colours on tiny books: the same code as for the real ones, everything really trained."""

import json
import shutil
import sys

import numpy as np
import pandas as pd
import pytest
from test_hues import write_books

from benchmarks import hues, quality, runs
from benchmarks.rivals import Tfidf
from tagwright.dataset import SPLITS, Dataset
from tagwright.errors import TagwrightError
from tagwright.hues import read_table
from tagwright.stage import RECORD, write_json
from tagwright.training import train

pytest.importorskip("fasttext", reason="fastText has wheels for Linux on x86_64 only")
pytestmark = pytest.mark.long


class QuickTfidf(Tfidf):
    search = [30.0]


class QuickTagwright(quality.Tagwright):
    """Without the export, which takes the longest: both forms are PyTorch's."""

    def train(self, task, data_dir, settings, seed, folder):
        train(task, data_dir, folder / "model")
        return 1.0

    def load(self, task, labels, folder, settings, form):
        return quality.PyTorch(folder / "model")

    def files(self, folder, form):
        return [folder / "model" / "model.safetensors"]


SYSTEMS = [QuickTfidf(), QuickTagwright()]


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    task = write_books(tmp_path_factory.mktemp("books"), "mapped")
    return hues.forms_of_labels(task, 2, tmp_path_factory.mktemp("bench"))


@pytest.fixture(scope="module")
def measured(compared) -> dict:
    for task, data_dirs, work in compared:
        hues.make_runs(task, data_dirs, SYSTEMS, [1], work)
    ways = hues.measure(compared, SYSTEMS, [1])
    return ways | {"comparison": hues.compare(compared, SYSTEMS, [1], ways)}


def test_both_ways_are_trained_and_tested_on_the_same_rows(compared):
    (mapped, genres, _), (predicted, colours, _) = compared
    assert (mapped.labels.hues, predicted.labels.hues) == ("mapped", "predicted")
    for one, two in zip(genres, colours, strict=True):
        for split in SPLITS:
            first, second = (pd.read_parquet(folder / f"{split}.parquet") for folder in (one, two))
            assert list(first["line"]) == list(second["line"])
            assert list(map(list, first["hues"])) == list(map(list, second["hues"]))
            assert list(map(list, first["labels"])) != list(map(list, second["labels"]))
        assert (one / "hues.json").read_bytes() == (two / "hues.json").read_bytes()
    assert "horror" in Dataset.load(genres[0]).labels
    assert "black" in Dataset.load(colours[0]).labels


def test_folds_of_other_rows_are_refused(compared, tmp_path):
    task, genres, _ = compared[0]
    few = pd.read_parquet(genres[0] / "test.parquet").iloc[1:]
    for split in SPLITS:
        (few if split == "test" else pd.read_parquet(genres[0] / f"{split}.parquet")).to_parquet(tmp_path / f"{split}.parquet")
    with pytest.raises(TagwrightError, match="holds other rows"):
        runs.data_folders(task, 2, tmp_path / "work", like=[tmp_path])


def test_the_table_has_each_system_both_ways(measured):
    assert set(measured) == {*hues.WAYS, "comparison"}
    for found in (measured[way] for way in hues.WAYS):
        assert list(found["systems"]) == [hues.BASELINE, *quality.Tagwright.forms]
        assert found["folds"] == 2
        assert all(system["hues"]["micro_f1"]["mean"] > 0.5 for system in found["systems"].values())
    books = measured["mapped"] | {"bars": hues.check_bar(measured["mapped"])}
    table = hues.render({"machine": "a machine", "parts": {"ways": measured, "books": {"mapped": books}}})
    lines = [line for line in table.splitlines() if line.startswith("| ")]
    assert [line.split(" | ")[0] for line in lines] == [
        "| labels", *["| genres, then their colours"] * 4, *["| the colours themselves"] * 4, "| system",
        *(f"| {name}" for name in (hues.BASELINE, *quality.Tagwright.forms))]
    assert f"{measured['predicted']['systems'][hues.BASELINE]['hues']['micro_f1']['mean']:.3f}" in lines[5]
    for line, way in ((lines[4], "mapped"), (lines[8], "predicted")):
        micro, macro = (measured[way]["ceiling"][key]["mean"] for key in ("micro_f1", "macro_f1_supported"))
        assert line.endswith(f"| *perfect labels* | {micro:.3f} | {macro:.3f} |")
    assert hues.verdict(measured["comparison"]) in table
    assert "Not measured yet" not in table
    assert "Not measured yet: books." in hues.render({"machine": "a machine", "parts": {"ways": measured}})


def test_the_threshold_of_colours_does_not_look_at_test_rows(compared, measured, tmp_path):
    """With other colours in the test rows it stays what it is, and the scores do not."""
    task, data_dirs, work = compared[0]
    run = next(quality.runs_of(task, data_dirs[:1], SYSTEMS[:1], [1], work))
    before = hues.score_colours(run)["forms"][hues.BASELINE]
    run.dataset.test["hues"] = [["crimson"]] * len(run.dataset.test)
    after = hues._score_colours(run, tmp_path)["forms"][hues.BASELINE]
    assert after["threshold"] == before["threshold"]
    assert after["micro_f1"] != before["micro_f1"]


def test_what_another_scoring_left_is_not_used(compared, measured, monkeypatch):
    task, data_dirs, work = compared[0]
    run = next(quality.runs_of(task, data_dirs[:1], SYSTEMS[:1], [1], work))
    assert (hues.colours_folder(run) / RECORD).is_file()
    monkeypatch.setattr(hues, "SCORING", hues.SCORING + 1)
    assert not hues.colours_folder(run).exists()


def test_the_rows_kept_add_up_to_the_scores_and_are_the_same_in_both_ways(compared, measured):
    tables = []
    for task, data_dirs, work in compared:
        for run in quality.runs_of(task, data_dirs, SYSTEMS[1:], [1], work):
            table = pd.read_csv(hues.colours_folder(run) / hues.ROWS)
            assert set(table["form"]) == set(quality.Tagwright.forms)
            for form, counts in table.groupby("form"):
                f1 = 2 * counts["right"].sum() / (counts["given"].sum() + counts["true"].sum())
                assert f1 == pytest.approx(hues.score_colours(run)["forms"][form]["micro_f1"], abs=1e-4)
            tables.append(table)
    mapped, predicted = pd.concat(tables[:2]), pd.concat(tables[2:])
    assert mapped[["form", "line", "true"]].equals(predicted[["form", "line", "true"]])
    assert measured["comparison"]["rows"] == mapped["line"].nunique() == len(mapped) / 2


def test_perfect_labels_miss_the_colours_of_genres_that_are_no_labels(compared, tmp_path):
    task, data_dirs, _ = compared[0]
    assert hues.ceiling(task, data_dirs)["micro_f1"] == {"mean": 1.0, "spread": None}
    poorer = shutil.copytree(data_dirs[0], tmp_path / "poorer")
    dataset = Dataset.load(poorer)
    test = dataset.test.assign(labels=[[label for label in labels if label != "horror"] for labels in dataset.test["labels"]])
    test.to_parquet(poorer / "test.parquet")
    missed = sum("horror" in labels for labels in dataset.test["labels"]) * len(read_table()["horror"].hues)
    right = sum(map(len, test["hues"])) - missed
    expected = (1 + 2 * right / (2 * right + missed)) / 2  # the mean over both folds
    assert 0 < missed < right + missed
    assert hues.ceiling(task, [poorer, data_dirs[1]])["micro_f1"]["mean"] == pytest.approx(expected, abs=1e-4)


def counts(given: list[int], right: list[int], true: list[int]) -> np.ndarray:
    return np.array([np.transpose([given, right, true])] * 2)


def test_the_interval_is_that_of_a_plain_bootstrap():
    generator = np.random.default_rng(5)
    true = generator.integers(1, 5, 60)
    one, two = (counts(true + generator.integers(0, 3, 60), generator.binomial(true, share), true) for share in (0.8, 0.7))
    plain, draws = [], np.random.default_rng(0)
    for _ in range(1000):
        rows = draws.integers(60, size=60)
        plain.append(np.mean([2 * way[0, rows, 1].sum() / (way[0, rows, 0].sum() + way[0, rows, 2].sum()) * sign
                              for way, sign in ((one, 2), (two, -2))]))
    assert hues.paired_bootstrap(one, two) == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=1e-4)
    assert hues.paired_bootstrap(one, one) == (0, 0)


@pytest.mark.parametrize(("interval", "predicted", "better", "said"), [
    ((0.01, 0.09), 0.55, "mapped", "**genres, then their colours** are better"),
    ((-0.09, -0.01), 0.65, "predicted", "**the colours themselves** are better"),
    ((-0.01, 0.11), 0.55, None, "no clear difference"), ((0.0, 0.1), 0.55, None, "no clear difference"),
    ((0.01, 0.09), 0.6, None, "no clear difference"),
])
def test_a_way_is_better_only_where_the_interval_bears_it_out(monkeypatch, interval, predicted, better, said):
    monkeypatch.setattr(hues, "paired_bootstrap", lambda one, two: interval)
    monkeypatch.setattr(hues.quality, "runs_of", lambda *args: [])
    monkeypatch.setattr(hues, "row_counts", lambda runs: np.zeros((3, 150, 3)))
    ways = {way: {"systems": {hues.DECISIVE: {"hues": {"micro_f1": {"mean": value}}}}}
            for way, value in (("mapped", 0.6), ("predicted", predicted))}
    found = hues.compare([("", [], "")] * 2, SYSTEMS, [1, 2, 3], ways)
    assert (found["better"], found["rows"], found["interval"]) == (better, 150, [*interval])
    assert said in hues.verdict(found)


def test_each_part_names_its_own_machine(measured):
    def moved(part: dict, machine: str, trained_on: str) -> dict:
        systems = {form: system | {"trained_on": [trained_on if form == hues.DECISIVE else machine]}
                   for form, system in part["systems"].items()}
        return part | {"machine": machine, "systems": systems}

    ways = {way: moved(measured[way], "a laptop", "a GPU") for way in hues.WAYS} | {"comparison": measured["comparison"]}
    books = moved(measured["mapped"] | {"bars": []}, "a server", "a server")
    table = hues.render({"machine": "the last", "parts": {"ways": ways, "books": {"mapped": books}}})
    first, second = table.split("**Real books**")
    assert "On a laptop, " in first
    assert f"{hues.DECISIVE}: trained on a GPU." in first
    assert "On a server, " in second
    assert table.count("trained on") == 1
    assert "the last" not in table


@pytest.mark.parametrize(("ours", "met"), [(0.55, True), (0.5499, False)])
def test_the_bar_is_five_points_above_the_baseline(ours, met):
    scores = {hues.BASELINE: 0.5, **dict.fromkeys(quality.Tagwright.forms, ours)}
    systems = {form: {"metrics": {"macro_f1": {"mean": value}}} for form, value in scores.items()}
    assert [check["met"] for check in hues.check_bar({"systems": systems})] == [met, met]


def test_it_is_made_in_parts_and_written_when_a_part_is_whole(compared, measured, tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("<!-- hues -->\n<!-- /hues -->\n")
    monkeypatch.setattr(hues, "SYSTEMS", {"ways": SYSTEMS, "books": []})
    monkeypatch.setattr(hues, "SEEDS", [1])
    monkeypatch.setattr(hues, "variants", lambda part, work: compared)
    monkeypatch.setattr(hues, "RESULTS", tmp_path / "hues.json")
    monkeypatch.setattr(hues, "write_results",
                        lambda name, results: write_json(tmp_path / f"{name}.json", {"machine": "a machine", **results}))
    monkeypatch.setattr(hues, "update_readme", lambda marker, block: page.write_text(block))
    before = {path: path.stat().st_mtime_ns for task, _, work in compared for path in work.rglob(RECORD)}
    monkeypatch.setattr(sys, "argv", ["hues.py", "--parts", "ways", "--systems", "tfidf"])
    hues.main()
    assert "These runs are kept." in capsys.readouterr().out
    assert not (tmp_path / "hues.json").exists()
    monkeypatch.setattr(sys, "argv", ["hues.py", "--parts", "ways"])
    hues.main()
    assert "kept from before" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert json.loads((tmp_path / "hues.json").read_text())["parts"]["ways"]["comparison"] == measured["comparison"]
    assert page.read_text() == hues.render(json.loads((tmp_path / "hues.json").read_text()))
