"""Data sets that are broken on purpose, each in its own way: what validation finds, and where; and the report."""

import json
import random
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import write_jsonl, write_task
from rich.console import Console

from tagwright.dataset import SPLITS, clean
from tagwright.errors import TagwrightError
from tagwright.task import Task
from tagwright.validation import EXPLAINED, LONGEST_TEXT, InvalidDataset, show_checks, summary, validate

LABELS = ["cats", "ships", "soups"]
SCRIPT = Path(sys.executable).parent / "tagwright"


def random_text(chance: random.Random) -> str:
    return " ".join(f"word{chance.randrange(500)}" for _ in range(12))


def make(folder: Path, kind: str, rows: int = 300, **tables) -> Task:
    """A task and its cleaned rows, in `folder/work/books/dataset`."""
    chance = random.Random(0)
    shared = [{"text": random_text(chance), "tags": chance.sample(LABELS, 1 if kind == "multiclass" else chance.choice([1, 2]))}
              for _ in range(rows)]
    write_jsonl(folder / "rows.jsonl", shared)
    task = Task.load(write_task(folder, "rows.jsonl", kind=kind, **tables))
    clean(task, task.raw_path(), folder / "work" / "books" / "dataset")
    return task


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> dict[str, tuple[Task, Path]]:
    """Sound data sets: task and folder by kind."""
    found = {}
    for name, kind, tables in [("multilabel", "multilabel", {}), ("multiclass", "multiclass", {}),
                               ("published", "multiclass", {"split": {"by": "position", "test_rows": 60}}),
                               ("colours", "multilabel", {"labels": {"hues": "mapped"}})]:
        folder = tmp_path_factory.mktemp(name)
        found[name] = make(folder, kind, **tables), folder / "work" / "books" / "dataset"
    return found


class Broken:
    """A copy of a sound data set whose files a test changes."""

    def __init__(self, task: Task, source: Path, folder: Path):
        self.task, self.out = task, folder / "validation"
        self.data = Path(shutil.copytree(source, folder / "dataset"))

    def frame(self, split: str) -> pd.DataFrame:
        return pd.read_parquet(self.data / f"{split}.parquet")

    def set(self, split: str, row: int, **cells) -> int:
        """Change cells of a row, counted from 0; returns its raw line."""
        frame = self.frame(split)
        for name, value in cells.items():
            frame[name] = [value if at == row else cell for at, cell in enumerate(frame[name])]
        self.write(split, frame)
        return int(frame["line"].iloc[row])

    def write(self, split: str, frame: pd.DataFrame) -> None:
        frame.to_parquet(self.data / f"{split}.parquet", index=False)

    def checks(self) -> dict[str, dict]:
        """What validation found, by the checks' names; and that it stops where one of them fails, and only then."""
        try:
            record, stopped = validate(self.task, self.data, self.out), None
        except InvalidDataset as fault:
            record, stopped = fault.record, str(fault)
        checks = {check["name"]: check for check in json.loads((self.out / "checks.json").read_text())["checks"]}
        assert {name: check["status"] for name, check in record["checks"].items()} == {
            name: check["status"] for name, check in checks.items()}
        failed = [check for check in checks.values() if check["status"] == "fail"]
        assert bool(failed) == bool(stopped)
        if failed:
            assert failed[0]["name"] in stopped
            assert str(self.out / "report.html") in stopped
            assert all(example["detail"] in stopped for example in failed[0]["examples"][:3])
        assert (self.out / "run.json").is_file()
        assert (self.out / "report.html").is_file()
        return checks

    def only(self, name: str, status: str = "fail") -> list[dict]:
        """The examples of the one check that did not pass."""
        checks = self.checks()
        assert {key: check["status"] for key, check in checks.items() if check["status"] != "pass"} == {name: status}
        assert checks[name]["count"] >= len(checks[name]["examples"]) > 0
        return checks[name]["examples"]


@pytest.fixture
def many(made, tmp_path) -> Broken:
    return Broken(*made["multilabel"], tmp_path)


@pytest.fixture
def one(made, tmp_path) -> Broken:
    return Broken(*made["multiclass"], tmp_path)


@pytest.fixture
def published(made, tmp_path) -> Broken:
    return Broken(*made["published"], tmp_path)


def test_hues_are_lists_of_names(made, tmp_path):
    data = Broken(*made["colours"], tmp_path)
    data.set("train", 3, hues=None)
    (example,) = data.checks()["schema"]["examples"]
    assert (example["row"], example["detail"]) == (4, "hues: no value")


@pytest.mark.parametrize("name", ["multilabel", "multiclass", "published", "colours"])
def test_a_sound_data_set_passes_and_is_not_checked_again(made, name, tmp_path):
    data = Broken(*made[name], tmp_path)
    checks = data.checks()
    assert list(checks) == list(EXPLAINED)
    assert {check["status"] for check in checks.values()} == {"pass"}
    before = (data.out / "run.json").read_bytes()
    assert validate(data.task, data.data, data.out)["skipped"]
    assert (data.out / "run.json").read_bytes() == before
    assert "skipped" not in validate(data.task, data.data, data.out, force=True)


def test_the_shipped_sample_is_sound(sample_folder, tmp_path):
    record = validate(Task.load("scifi"), sample_folder, tmp_path / "validation")
    assert summary(record) == "13 of 13 checks passed"


def test_a_file_that_was_changed_is_checked_again_and_fails_each_time(many):
    many.checks()
    many.set("train", 4, labels=["dogs"])
    first = many.only("labels")
    assert many.only("labels") == first
    many.set("train", 4, labels=["cats"])
    assert {check["status"] for check in many.checks().values()} == {"pass"}


@pytest.mark.parametrize(("labels", "detail"), [
    (["cats", "dogs"], "unknown label: 'dogs'"), ([], "no label"), (["cats", "cats"], "a label twice: 'cats', 'cats'")])
def test_labels_that_may_not_be(many, labels, detail):
    line = many.set("validation", 3, labels=labels)
    (example,) = many.only("labels")
    assert (example["file"], example["row"], example["line"], example["source"]) == (
        "validation.parquet", 4, line, "rows.jsonl")
    assert example["detail"] == detail


def test_two_labels_are_too_many_for_multiclass(one):
    line = one.set("test", 2, labels=["cats", "ships"])
    (example,) = one.only("labels")
    assert (example["line"], example["detail"]) == (line, "several labels: 'cats', 'ships'")


def test_where_a_fault_is_is_said_in_the_message(many):
    line = many.set("train", 6, labels=["dogs"])
    place = f"train.parquet row 7 .line {line} of rows.jsonl."
    with pytest.raises(InvalidDataset, match=f"labels: 1 fault: {place}: unknown label"):
        validate(many.task, many.data, many.out)


@pytest.mark.parametrize(("check", "status", "cells"), [
    ("texts", "fail", {"text": " \n\t"}), ("line numbers", "fail", {"line": 0}),
    ("text lengths", "warn", {"text": "word " * (LONGEST_TEXT // 5 + 1)})])
def test_values_out_of_range(many, check, status, cells):
    line = many.set("test", 5, **cells)
    (example,) = many.only(check, status)
    assert (example["file"], example["row"], example["line"]) == ("test.parquet", 6, line)
    assert len(example["text"]) <= 160


def test_all_faults_of_a_check_are_counted_and_the_first_shown(many):
    for row in range(8):
        many.set("train", row, labels=[])
    examples = many.only("labels")
    assert [example["row"] for example in examples] == [1, 2, 3, 4, 5]
    assert many.checks()["labels"]["count"] == 8


@pytest.mark.parametrize(("change", "detail"), [
    (lambda frame: frame.drop(columns="text"), "text: the column is missing"),
    (lambda frame: frame.assign(score=1.0), "score: a column that does not belong there"),
    (lambda frame: frame.assign(line=frame["line"].astype(str)), "line: not whole numbers"),
    (lambda frame: frame.assign(text=range(len(frame))), "text: not strings"),
    (lambda frame: frame.assign(labels="cats"), "labels: not lists of strings"),
    (lambda frame: frame[:0], "no rows"),
])
def test_a_file_of_another_form_fails_and_nothing_else_is_looked_at(many, change, detail):
    many.write("validation", change(many.frame("validation")))
    checks = many.checks()
    assert checks["schema"]["status"] == "fail"
    assert checks["schema"]["examples"][0]["file"] == "validation.parquet"
    assert detail in checks["schema"]["examples"][0]["detail"]
    assert {check["status"] for check in checks.values() if check["name"] not in ("schema", "label list")} == {"not run"}


@pytest.mark.parametrize("column", ["line", "text", "labels"])
def test_a_cell_without_a_value(many, column):
    table = pq.read_table(many.data / "train.parquet")
    cells = table[column].to_pylist()
    cells[9] = None
    place = table.schema.get_field_index(column)
    table = table.set_column(place, table.schema.field(place), pa.array(cells, table.schema.field(place).type))
    pq.write_table(table, many.data / "train.parquet")
    example = many.checks()["schema"]["examples"][0]
    assert (example["file"], example["row"]) == ("train.parquet", 10)
    assert example["detail"] == f"{column}: no value"
    assert many.checks()["schema"]["count"] == 1


def test_labels_with_nothing_among_them(many):
    many.set("train", 9, labels=["cats", None])
    example = many.checks()["schema"]["examples"][0]
    assert (example["row"], example["detail"]) == (10, "labels: not lists of strings")


@pytest.mark.parametrize(("labels", "detail"), [
    ("cats", "not a list of names"), (["cats", 3], "not a list of names"), (["cats", "ships", "cats"], "'cats' twice"),
    (["cats"], "fewer than two labels")])
def test_a_list_of_labels_that_is_none(many, labels, detail):
    (many.data / "labels.json").write_text(json.dumps(labels))
    (example,) = many.checks()["label list"]["examples"]
    assert example["file"] == "labels.json"
    assert detail in example["detail"]


def test_a_text_twice_in_a_file(many):
    row = many.frame("train").iloc[2]
    line = many.set("train", 7, text=row["text"], labels=list(row["labels"]))
    (example,) = many.only("duplicates")
    assert (example["file"], example["row"], example["line"]) == ("train.parquet", 8, line)
    assert example["detail"] == "the same text as row 3"


def test_a_text_with_other_labels_elsewhere_in_its_file(one):
    one.set("train", 2, labels=["cats"])
    line = one.set("train", 7, text=one.frame("train")["text"][2], labels=["ships"])
    checks = one.checks()
    (example,) = checks["contradictions"]["examples"]
    assert {name for name, check in checks.items() if check["status"] == "fail"} == {"duplicates", "contradictions"}
    assert (example["file"], example["row"], example["line"]) == ("train.parquet", 8, line)
    assert example["detail"] == "'ships' here, 'cats' in train.parquet row 3"


def test_the_order_of_labels_contradicts_nothing(many):
    many.set("train", 2, labels=["cats", "ships"])
    many.set("train", 7, text=many.frame("train")["text"][2], labels=["ships", "cats"])
    assert many.checks()["contradictions"]["status"] == "pass"


def test_a_published_test_set_may_repeat_and_contradict_itself(published):
    published.set("test", 2, labels=["cats"])
    published.set("test", 7, text=published.frame("test")["text"][2], labels=["ships"])
    checks = published.checks()
    assert {name for name, check in checks.items() if check["status"] != "pass"} == {"duplicates", "contradictions"}
    assert checks["duplicates"]["status"] == checks["contradictions"]["status"] == "warn"
    published.set("train", 7, text=published.frame("train")["text"][2])
    assert published.checks()["duplicates"]["status"] == "fail"  # and its training rows may not


@pytest.mark.parametrize(("origin", "leak"), [("test", "train"), ("validation", "train"), ("validation", "test")])
def test_a_text_in_two_files(many, origin, leak):
    row = many.frame(origin).iloc[4]
    many.set(leak, 6, text=row["text"], labels=list(row["labels"]))
    (example,) = many.only("leakage")
    later, earlier = sorted([(leak, 7), (origin, 5)], key=lambda place: -SPLITS.index(place[0]))
    assert (example["file"], example["row"]) == (f"{later[0]}.parquet", later[1])
    assert example["detail"] == f"the same text as {earlier[0]}.parquet row {earlier[1]}"


@pytest.mark.parametrize(("held", "leak"), [("test", "train"), ("validation", "train"), ("test", "validation")])
def test_nearly_the_same_text_in_two_files(many, held, leak):
    words = many.frame(held)["text"][4].split()
    line = many.set(leak, 6, text=" ".join([*words, "more"]))
    (example,) = many.only("near leakage")
    assert (example["file"], example["row"], example["line"]) == (f"{leak}.parquet", 7, line)
    assert example["detail"] == f"nearly the same text as {held}.parquet row 5"


def test_a_near_duplicate_is_found_though_its_own_file_has_one_too(many):
    words = many.frame("validation")["text"][4].split()
    many.set("train", 6, text=" ".join([*words, "more"]))
    many.set("train", 3, text=" ".join([*words, "less"]))
    assert [example["row"] for example in many.only("near leakage")] == [4, 7]


def test_the_task_says_what_is_near(many):
    words = many.frame("test")["text"][4].split()
    many.set("train", 6, text=" ".join(words[:9]))  # 7 of its 10 sequences
    assert many.checks()["near leakage"]["status"] == "pass"
    many.task = many.task.model_copy(update={"split": many.task.split.model_copy(update={"near_duplicate": 0.65})})
    many.only("near leakage")


def test_labels_out_of_balance_warn(tmp_path, made):
    chance = random.Random(1)
    data = Broken(*made["multiclass"], tmp_path)
    train = pd.DataFrame({"line": range(1, 1001), "text": [random_text(chance) for _ in range(1000)]})
    data.write("train", train.assign(labels=[["cats"] if row % 200 else ["ships"] for row in range(1000)]))
    for split in ("validation", "test"):
        part = train[:20].assign(text=[random_text(chance) for _ in range(20)])
        data.write(split, part.assign(labels=[["cats"]] * 19 + [["soups"]]))
    checks = data.checks()
    assert checks["class balance"]["status"] == "warn"
    details = [example["detail"] for example in checks["class balance"]["examples"]]
    assert details == ["1,033 rows of 'cats' for 2 of 'soups'", "no row of 'soups' to learn it from",
                       "no row of 'ships' to score it on"]
    assert "labels without a training row: 1, without a test row: 1" in checks["class balance"]["found"]


def test_a_label_whose_share_drifts_warns_and_chance_does_not(made, tmp_path):
    data = Broken(*made["multiclass"], tmp_path)
    frame = data.frame("test")
    data.write("test", frame.assign(labels=[["cats"] if row % 3 else given for row, given in enumerate(frame["labels"])]))
    found = data.only("drift", "warn")
    assert found[0]["detail"].startswith("'cats': ")
    assert "of the test rows" in found[0]["detail"]


def test_drift_is_not_seen_in_splits_by_chance(made, tmp_path):
    """Two hundred random splits, of which about two may be said to drift."""
    from tagwright.validation import _drift

    chance, seen = np.random.default_rng(0), 0
    for _ in range(200):
        parts = {split: pd.DataFrame({"labels": [(LABELS[index],) for index in chance.choice(3, size, p=[0.6, 0.3, 0.1])]})
                 for split, size in (("train", 600), ("validation", 80), ("test", 150))}
        seen += _drift(LABELS, parts).status == "warn"
    assert seen <= 5


def test_many_rejected_rows_warn_with_their_reasons(tmp_path):
    chance = random.Random(2)
    rows = [{"text": random_text(chance), "tags": [LABELS[number % 3]]} for number in range(200)]
    write_jsonl(tmp_path / "rows.jsonl", rows + [{"text": "", "tags": ["cats"]}] * 50 + [{"text": "x y", "tags": []}] * 20)
    task = Task.load(write_task(tmp_path, "rows.jsonl"))
    clean(task, task.raw_path(), tmp_path / "sound")
    (examples,) = [Broken(task, tmp_path / "sound", tmp_path).only("rejected rows", "warn")]
    assert [(example["line"], example["source"], example["detail"]) for example in examples] == [
        (201, "rows.jsonl", "no text"), (251, "rows.jsonl", "no labels")]
    found = json.loads((tmp_path / "validation" / "run.json").read_text())["checks"]["rejected rows"]["found"]
    assert found == "70 of 270 (25.9%): 50 × no text, 20 × no labels"


def test_a_data_set_without_its_rejected_rows_names_the_command(many):
    (many.data / "rejected.jsonl").unlink()
    with pytest.raises(TagwrightError, match=r"rejected.jsonl: not there; make it again with `tagwright clean books --force`"):
        validate(many.task, many.data, many.out)


class Page(HTMLParser):
    """The tags of a page with what they ask for, and its text."""

    def __init__(self, source: str):
        super().__init__()
        self.tags, self.links, self.texts = [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href", "xlink:href", "srcset", "action")]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.texts.append(data)


def test_hostile_texts_and_names_are_shown_and_not_run(made, tmp_path):
    task, source = made["multilabel"]
    hostile = '<script>alert(1)</script><img src=x onerror="alert(2)">\'"&amp;<!--'
    data = Broken(task.model_copy(update={"title": hostile}), source, tmp_path)
    (data.data / "labels.json").write_text(json.dumps([*LABELS, hostile]))
    with (data.data / "rejected.jsonl").open("a") as file:
        file.write(json.dumps({"file": hostile, "line": 1, "reason": hostile, "detail": hostile, "row": {}}) + "\n")
    data.set("train", 3, text=f"{hostile} in a text", labels=["<script>"])
    data.set("train", 4, labels=[hostile])
    checks = data.checks()
    page = Page((data.out / "report.html").read_text(encoding="utf8"))
    assert "script" not in page.tags
    assert "img" not in page.tags
    assert all(link.startswith("#") for link in page.links)
    shown = "".join(page.texts)
    assert shown.count(hostile) >= 5  # the title, the label, the reason and its detail, its file
    assert f"{hostile} in a text" in shown
    assert checks["labels"]["examples"][0]["detail"] == "unknown label: '<script>'"


def test_the_report_shows_every_check_in_words_and_loads_nothing(many):
    many.set("train", 6, labels=["dogs"])
    many.checks()
    source = (many.out / "report.html").read_text(encoding="utf8")
    page = Page(source)
    shown = "".join(page.texts)
    assert all(name in shown and explanation in shown for name, explanation in EXPLAINED.items())
    assert "Not fit to train on" in shown
    assert {"link", "script", "iframe", "object", "base"}.isdisjoint(page.tags)
    assert "url(" not in source
    assert page.tags.count("rect") >= 3 * len(LABELS)
    assert all(f'id="{link[1:]}"' in source for link in page.links)


def test_the_table_shows_markup_of_the_data_as_it_is(many):
    (many.data / "labels.json").write_text(json.dumps([*LABELS, "[bold]x[/bold]"]))
    data_set = validate(many.task, many.data, many.out)
    console = Console(record=True, width=140)
    data_set["checks"]["labels"]["found"] = "[bold]x[/bold]"
    show_checks(data_set, many.out, console)
    printed = console.export_text()
    assert "[bold]x[/bold]" in printed
    assert str(many.out / "report.html") in printed
    assert "warnings: class balance" in summary(data_set)


def test_the_command_prints_the_table_and_the_report_also_where_it_refuses(tmp_path):
    make(tmp_path, "multilabel")
    data = tmp_path / "work" / "books" / "dataset"
    command = [SCRIPT, "validate", tmp_path / "books.toml", "--work", tmp_path / "work"]
    sound = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (sound.returncode, sound.stderr) == (0, "")
    assert all(name in sound.stdout for name in EXPLAINED)
    assert f"report: {data.parent / 'validation' / 'report.html'}" in sound.stdout
    frame = pd.read_parquet(data / "test.parquet")
    frame["line"] = 0
    frame.to_parquet(data / "test.parquet", index=False)
    broken = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert broken.returncode == 2
    assert "fail" in broken.stdout
    assert broken.stderr.startswith("error: ")
    assert broken.stderr.count("\n") == 1
    assert "line numbers" in broken.stderr
    assert "test.parquet row 1" in broken.stderr
