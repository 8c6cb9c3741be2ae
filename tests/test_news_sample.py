"""The embedded samples of news and of blurbs hold what their data cards say."""

import csv
import json
import re
from collections import Counter

import pandas as pd
import pytest
from conftest import ROOT

from tagwright.dataset import SPLITS, Dataset, clean
from tagwright.hues import genre_parts, hues_of, read_table
from tagwright.task import Task

NEWS = ROOT / "data" / "sample" / "ag_news"
BLURBS = ROOT / "data" / "sample" / "book_hues.jsonl"


def card_of(path) -> str:
    return " ".join(path.read_text(encoding="utf8").split())


def test_news_go_through_cleaning_whole_and_mended(tmp_path):
    task = Task.load("ag_news").with_data("sample")
    clean(task, task.raw_path(), tmp_path)
    dataset = Dataset.load(tmp_path)
    parts = {name: getattr(dataset, name) for name in SPLITS}
    assert {name: len(part) for name, part in parts.items()} == {"train": 144, "validation": 16, "test": 40}
    assert (tmp_path / "rejected.jsonl").read_text() == ""
    rows = pd.concat(parts.values())
    counts = Counter(labels[0] for labels in rows["labels"])
    assert counts == {"World": 50, "Sports": 50, "Business": 50, "Sci/Tech": 50}
    assert not [text for text in rows["text"] if re.search(r"\\|#\d+;|&lt;|<b>|  ", text)]


@pytest.mark.parametrize("name", ["train.csv", "test.csv"])
def test_the_faults_in_the_news_are_as_many_as_the_card_says(name):
    with (NEWS / name).open(encoding="utf8", newline="") as file:
        rows = [" | ".join(row[1:]) for row in csv.reader(file)]
    patterns = {"` #39;`": r" #39;", "`\\\\` for an empty line": r"\\\\", "`&lt;b&gt;": "&lt;b&gt;", "two spaces": "[^ ]  [^ ]"}
    card = (NEWS / "README.md").read_text(encoding="utf8")
    for start, pattern in patterns.items():
        line = next(line for line in card.splitlines() if line.startswith(f"| {start}"))
        said = int(line.rstrip(" |").split("|")[-2 if name == "train.csv" else -1])
        assert sum(bool(re.search(pattern, row)) for row in rows) == said, start


def test_blurbs_are_of_one_shape_and_all_kept_ones_have_hues():
    books = [json.loads(line) for line in BLURBS.read_text(encoding="utf8").splitlines()]
    assert [book["id"] for book in books] == list(range(1, 151))
    assert all(list(book) == ["id", "title", "author", "blurb", "genres"] for book in books)
    table = read_table()
    lists = {book["id"]: book["genres"] if isinstance(book["genres"], list) else book["genres"].split(";") for book in books}
    assert [number for number, paths in lists.items() if not hues_of(paths, table)] == [120]
    assert [book["id"] for book in books if not book["blurb"]] == [79]
    assert "120" in card_of(BLURBS.with_suffix(".md"))
    broad = Counter(part for paths in lists.values() for part in {part for path in paths for part in genre_parts(path)})
    assert all(broad[genre] >= 8 for genre in ("romance", "horror", "travel", "poetry", "children’s books"))
