"""Several item stores into one: `tagwright merge`, on SQLite and MariaDB."""

import sqlite3

import databases
import pytest
from databases import make_item
from test_cli import refusal, run

import tagwright.store
from tagwright.errors import TagwrightError
from tagwright.merging import merge
from tagwright.store import Item, ItemStore, Rejected, Work, work_table


def filled(path, items: list[Item], works=(), at: float = 1_700_000_000, monkeypatch=None) -> ItemStore:
    """A store with items that were fetched at a moment, and works to do."""
    store = ItemStore(path)
    with monkeypatch.context() as patch:
        patch.setattr(tagwright.store.time, "time", lambda: at)
        store.add([Work("site", "listing", "1")])
        store.finish([Work("site", "listing", "1")], items)
        store.add(works)
    return store


def items(store: ItemStore) -> dict[str, Item]:
    return {item.id: item for item in store.items("site")}


def works(store: ItemStore, kind: str = "book") -> dict[str, str]:
    return {work.key: state for work, state in store.work("site", kind)}


def test_each_item_comes_once_in_its_better_version(store, tmp_path, monkeypatch):
    """The more complete one; of two that are equally so, the newer; and both stores stay as they were."""
    whole, poor = make_item("1", author="Ann"), make_item("1", body="", tags=[], author=None)
    old, new = make_item("2", title="Old"), make_item("2", title="New")
    a = filled(tmp_path / "a.sqlite", [whole, old, make_item("3")], at=1_000, monkeypatch=monkeypatch)
    b = filled(tmp_path / "b.sqlite", [poor, new, make_item("4")], at=2_000, monkeypatch=monkeypatch)
    counts = merge([a, b], store)
    assert items(store) == {"1": whole, "2": new, "3": make_item("3"), "4": make_item("4")}
    assert [(row.items, row.new, row.better) for row in counts] == [(3, 3, 0), (3, 1, 1)]
    assert items(a) == {"1": whole, "2": old, "3": make_item("3")}
    copy = ItemStore(tmp_path / "copy.sqlite")
    merge([store], copy)
    assert items(copy) == items(store)
    again = merge([b, a], store)
    assert [(row.new, row.better, row.work) for row in again] == [(0, 0, 0), (0, 0, 0)]
    assert items(store)["2"] == new


def test_the_order_of_the_stores_does_not_matter(tmp_path, monkeypatch):
    chosen = [make_item(str(number), title=f"{number} {name}", body=name if number % 3 else "") for name in "ab"
              for number in range(1200)]  # more than one batch
    a = filled(tmp_path / "a.sqlite", chosen[:1000], at=1_000, monkeypatch=monkeypatch)
    b = filled(tmp_path / "b.sqlite", chosen[1200:], at=2_000, monkeypatch=monkeypatch)
    one, other = ItemStore(tmp_path / "one.sqlite"), ItemStore(tmp_path / "other.sqlite")
    assert [row.new for row in merge([a, b], one)] == [1000, 200]
    assert [row.new for row in merge([b, a], other)] == [1200, 0]
    assert items(one) == items(other)
    assert len(items(one)) == 1200


def test_work_goes_on_where_the_furthest_store_was(store, tmp_path, monkeypatch):
    def book(key: str) -> Work:
        return Work("site", "book", key, int(key), {"url": f"https://site/{key}", "category": "Fiction"})

    a = filled(tmp_path / "a.sqlite", [], [book(key) for key in "124"], monkeypatch=monkeypatch)
    b = filled(tmp_path / "b.sqlite", [], [book(key) for key in "12356"], monkeypatch=monkeypatch)
    a.finish(a.claim("site", "book"), [make_item("1")])
    a.fail(a.claim("site", "book")[0], "HTTP 404", final=True)
    b.fail(b.claim("site", "book")[0], "HTTP 404", final=True)
    b.finish(b.claim("site", "book"), [make_item("2")])
    held = b.claim("site", "book")[0]
    merge([a, b], store)
    assert works(store) == {"1": "done", "2": "done", held.key: "todo", "4": "todo", "5": "todo", "6": "todo"}
    assert store.claim("site", "book", key="3") == [book("3")]  # it is nobody's here
    assert works(b)["3"] == "taken"
    assert set(items(store)) == {"1", "2"}


def test_a_crawl_that_goes_on_meanwhile_leaves_no_work_done_without_its_items(store):
    """All is read as it was at one moment: else the page's mark would be read, and its item not."""
    store.add([Work("site", "book", "1", 1), Work("site", "book", "2", 2)])
    store.finish(store.claim("site", "book"), [make_item("1")])
    rows = store.rows(1)
    assert next(rows)[1][0]["id"] == "1"
    store.finish(store.claim("site", "book"), [make_item("2")])
    states = {row["key"]: row["state"] for table, part in rows if table is work_table for row in part}
    assert states == {"1": "done", "2": "todo"}
    assert works(store) == {"1": "done", "2": "done"}


def test_refusals_and_waits_are_joined_too(store, tmp_path, monkeypatch):
    a = filled(tmp_path / "a.sqlite", [], monkeypatch=monkeypatch)
    a.finish([Work("site", "listing", "1")], [], [Rejected("7", "body: missing", "{}")], source="api")
    a.hold("host", 1000)
    merge([a], store)
    assert store.rejected("site") == [Rejected("7", "body: missing", "{}")]
    assert store.held("host") > 900


def test_a_store_from_before_items_had_authors(tmp_path):
    """It is opened, read and written; what it holds has none."""
    file = tmp_path / "old.sqlite"
    ItemStore(file).finish([Work("site", "listing", "1")], [make_item("1")])
    with sqlite3.connect(file) as connection:
        connection.execute("ALTER TABLE items DROP COLUMN author")
    store = ItemStore(file)
    assert items(store) == {"1": make_item("1")}
    store.finish([Work("site", "listing", "2")], [make_item("2", author="Ann")])
    assert [item.author for item in ItemStore(file).items("site")] == [None, "Ann"]


def test_an_old_mariadb_too(mariadb):
    url = mariadb.new_database()
    ItemStore(url).finish([Work("site", "listing", "1")], [make_item("1")])
    databases.execute(url, "ALTER TABLE items DROP COLUMN author")
    assert items(ItemStore(url)) == {"1": make_item("1")}


def test_the_command_shows_counts(tmp_path, monkeypatch):
    filled(tmp_path / "a.sqlite", [make_item(str(number)) for number in range(5)], monkeypatch=monkeypatch)
    filled(tmp_path / "b.sqlite", [make_item(str(number)) for number in range(3, 9)], monkeypatch=monkeypatch)
    result = run("merge", tmp_path / "a.sqlite", tmp_path / "b.sqlite", "--to", tmp_path / "both.sqlite")
    assert result.returncode == 0, result.stderr
    rows = [line.replace("│", " ").split()[-5:] for line in result.stdout.splitlines() if "│" in line]
    assert rows == [["5", "5", "0", "0", "1"], ["6", "4", "0", "2", "0"]]
    assert len(items(ItemStore(tmp_path / "both.sqlite"))) == 9


def test_wrong_requests_are_one_line(tmp_path):
    assert "none.sqlite: no such file" in refusal("merge", tmp_path / "none.sqlite", "--to", tmp_path / "b.sqlite")
    assert not list(tmp_path.iterdir())
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        connection.execute("CREATE TABLE x (y)")
    assert "other.sqlite: no item store" in refusal("merge", tmp_path / "other.sqlite", "--to", tmp_path / "b.sqlite")
    with sqlite3.connect(tmp_path / "other.sqlite") as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("x",)]
    (tmp_path / "text.sqlite").write_text("no database" * 100)
    assert "not a database" in refusal("merge", tmp_path / "text.sqlite", "--to", tmp_path / "b.sqlite")
    ItemStore(tmp_path / "a.sqlite")
    (tmp_path / "link.sqlite").symlink_to(tmp_path / "a.sqlite")
    with pytest.raises(TagwrightError, match="into itself"):
        merge([ItemStore(tmp_path / "a.sqlite")], ItemStore(tmp_path / "link.sqlite"))
