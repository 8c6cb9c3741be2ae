"""From the item store to a table and a task file that `clean` reads: `tagwright collected` and `tagwright export`."""

import csv
import json

import pyarrow.parquet as pq
import pytest
from test_cli import refusal, run

from tagwright.dataset import Dataset, clean
from tagwright.errors import TagwrightError
from tagwright.export import export, form_of, write_task
from tagwright.store import Item, ItemStore, Rejected, Work
from tagwright.task import Task

WORDS = ["dune", "robot", "wizard", "ship", "time", "ghost", "planet", "dragon", "android", "clone", "portal", "virus"]


def make_items(count: int) -> list[Item]:
    items = []
    for number in range(1, count + 1):
        words = [WORDS[(number * step) % len(WORDS)] for step in (1, 5, 7)]
        title = f'{words[0]}, "{words[1]}" & <{words[2]}> no. {number}'
        body = f"<p>Line one of {number * 7919}\nand {words[0]} &amp; {words[1]} 🚀</p>"
        items.append(Item("scifi", str(number), f"https://scifi.stackexchange.com/questions/{number}", title, body,
                          [words[0], "c++"], number, 5, "api"))
    return items


@pytest.fixture
def store(store) -> ItemStore:
    """The store on each kind of database, with a hundred questions in it."""
    works = [Work("scifi", "question", str(number), number) for number in (1, 2, 3)]
    store.add(works)
    store.finish(works[:1], make_items(100), [Rejected("7", "body: missing", "{}"), Rejected("8", "body: missing", "{}")],
                 source="api")
    store.fail(works[1], "HTTP 404: no such page (any more)", final=True)
    return store


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_an_export_holds_every_item_and_goes_through_cleaning(store, tmp_path, ending):
    file = tmp_path / f"scifi.{ending}"
    assert export(store, "scifi", file) == 100
    task_file = write_task("scifi", file)
    if ending == "parquet":
        rows = pq.read_table(file).to_pylist()
    elif ending == "csv":
        with file.open(newline="", encoding="utf8") as stream:
            rows = [row | {"tags": json.loads(row["tags"])} for row in csv.DictReader(stream)]
    else:
        rows = [json.loads(line) for line in file.read_text(encoding="utf8").splitlines()]
    assert list(rows[0]) == ["title", "url", "description", "tags"]
    assert [tuple(row.values()) for row in rows] == [(item.title, item.url, item.body, item.tags) for item in make_items(100)]
    task = Task.load(task_file)
    assert task.source.attribution == "Questions and tags by the users of scifi."
    record = clean(task, task.raw_path(), tmp_path / "dataset")
    assert record["rows"]["read"] == 100
    assert record["rows"]["kept"] == 100
    texts = Dataset.load(tmp_path / "dataset").train["text"]
    assert all("& <" in text and "🚀" in text and "&amp;" not in text for text in texts)
    assert not list(tmp_path.glob(".*partial"))


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_books_become_a_table_of_blurbs_and_genres(tmp_path, ending):
    store, file = ItemStore(tmp_path / "items.sqlite"), tmp_path / f"books.{ending}"
    genres = [["Fiction » Romance", "Fiction » Historical, old"], ["Nonfiction » Travel"]]
    works = [Work("shop", "book", str(number)) for number in range(60)]
    store.add(works)
    store.finish(works, [
        Item("shop", work.key, f"https://shop/{work.key}", f"Book {work.key}", f"<p>{WORDS[number % 12]} &amp; {number * 7919}",
             genres[number % 2], None, None, "browser", "Ann" if number % 2 else None) for number, work in enumerate(works)])
    assert export(store, "shop", file) == 60
    task = Task.load(write_task("shop", file, form_of(store, "shop")))
    assert (task.input.fields, task.labels.field) == (["title", "blurb"], "genres")
    clean(task, task.raw_path(), tmp_path / "dataset")
    dataset = Dataset.load(tmp_path / "dataset")
    assert sorted(dataset.labels) == ["historical, old", "romance", "travel"]
    assert all(len(row) for row in dataset.train["hues"])
    if ending == "csv":
        with file.open(newline="", encoding="utf8") as stream:
            first, second, *_ = csv.DictReader(stream)
        assert list(first) == ["title", "author", "blurb", "genres", "url"]
        assert (json.loads(first["genres"]), first["author"], second["author"]) == (genres[0], "", "Ann")


def test_a_task_file_that_is_there_is_left_alone(tmp_path):
    task = write_task("es.stackoverflow", tmp_path / "x.csv")
    assert Task.load(task).name == "es-stackoverflow-collected"
    task.write_text("mine")
    assert write_task("es.stackoverflow", tmp_path / "x.csv").read_text() == "mine"


def test_the_commands_show_and_export(store, tmp_path):
    db = str(store._engine.url.render_as_string(hide_password=False))
    shown = run("collected", "--db", db)
    assert shown.returncode == 0, shown.stderr
    for text in ("api", "100", "1970-01-01", "questions by", "HTTP 404: no such page (any more)", "body: missing"):
        assert text in shown.stdout
    exported = run("export", "scifi", "--db", db, "--out", tmp_path / "s.csv")
    assert exported.returncode == 0, exported.stderr
    assert "100 rows → " in exported.stdout
    assert f"make demo TASK={tmp_path / 's.toml'}" in exported.stdout.replace("\n", " ")


def test_wrong_requests_are_one_line(tmp_path):
    db = tmp_path / "items.sqlite"
    assert "is empty" in run("collected", "--db", db).stdout
    assert "holds no items of 'scifi'; it holds: none at all" in refusal("export", "scifi", "--db", db)
    ItemStore(db).finish([Work("scifi", "x", "1")], make_items(2))
    for site, out, message in [("scifi", tmp_path / "a.txt", "must be one of .parquet, .csv, .jsonl"),
                               ("skifi", tmp_path / "a.csv", "it holds: scifi"), ("scifi", db / "a.csv", "cannot be written")]:
        with pytest.raises(TagwrightError, match=message):
            export(ItemStore(db), site, out)
