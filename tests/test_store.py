"""`ItemStore`, the same on SQLite and on a real MariaDB: what is stored comes back, work is done exactly once whoever is
killed when, and every fault of a database is one line that gives no password away."""

import gc
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from pathlib import Path

import databases
import pytest
import sqlalchemy as sa
from databases import PROCESSES, claim_and_finish, finish_all, make_item, open_together, run, small_disk, take_turns, walk

import tagwright.store
from tagwright.errors import TagwrightError
from tagwright.store import LEASE, MAX_ATTEMPTS, MAX_RAW, Item, ItemStore, Rejected, Work


def pages(*numbers: int) -> list[Work]:
    return [Work("site", "page", str(number), number) for number in numbers]


def keys(works: list[Work]) -> list[str]:
    return [work.key for work in works]


def ids(store: ItemStore, site: str = "site") -> list[str]:
    return [item.id for item in store.items(site)]


def states(store: ItemStore) -> dict[str, str]:
    return {work.key: state for work, state in store.work("site", "page")}


def execute(store: ItemStore, statement: str, **values) -> None:
    with store._engine.begin() as connection:
        connection.execute(sa.text(statement), values)


# --- items --------------------------------------------------------------------------------------------------------

TEXTS = ["plain", "emoji 🧑‍🚀 𝒳 \U0010ffff", "שלום \u202e עולם", "NUL \0 in it\0",
         "'quotes' \"double\" `back` \\ \\' \\0 %s %(id)s :id ?", " edges \t\r\n", "e\u0301 is not é", "x" * 1_000_000 + "…"]


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: ascii(text[:6]))
def test_items_come_back_as_they_were(store, text):
    items = [make_item("1", body=text, title="t " + text[:1000], url=text[:1000], tags=[text[:50], "b "], score=-5, created=0,
                       author=text[:1000]),
             make_item("2", body=text, tags=[], score=None, created=None, source="dump"),
             make_item("é" * 191, score=2**31 - 1, created=2**40 - 1), make_item("x" * 191, site="site", score=-2**31)]
    store.finish(pages(1), items)
    assert sorted(store.items("site"), key=items.index) == items


def test_no_text_is_too_long_for_one_database_and_not_for_the_other(store):
    long = "x" * 70_000
    work, item = Work("site", "page", "1", 0, {"text": long}), make_item("1", url=long, title=long, tags=[long])
    store.finish([work], [item], [Rejected("2", long, "raw")], [work], reason=long)
    assert (list(store.items("site")), store.work("site", "page")) == ([item], [(work, "done")])
    assert (store.rejected("site")[0].reason, store.summary()["failures"]) == (long, [])


UNLIKE = [("Python", "python"), ("é", "e"), ("é", "e\u0301"), ("ß", "ss"), ("a", "a\0"), ("🧑", "🧒"), ("a_b", "a%b"),
          ("a", "a ")]


@pytest.mark.parametrize("pair", UNLIKE, ids=ascii)
def test_ids_and_keys_that_look_alike_are_different(store, pair):
    store.finish(pages(1), [make_item(one) for one in pair], [Rejected(one, "why", one) for one in pair])
    assert sorted(ids(store)) == sorted(pair)
    assert sorted(entry.raw for entry in store.rejected("site")) == sorted(pair)
    assert store.add([Work("site", "page", one) for one in pair]) == 2
    first = store.claim("site", "page")
    store.finish(first)
    assert sorted(state for _, state in store.work("site", "page")) == ["done", "todo"]


def test_both_schemes_of_mariadb_make_the_same_tables(mariadb):
    store = ItemStore(mariadb.new_database().replace("mysql+", "mariadb+"))
    item = make_item("E", body="🧑" * 50_000)
    store.finish(pages(1), [item, make_item("e"), make_item("é")])
    assert ids(store) == ["E", "e", "é"]
    assert next(store.items("site")) == item


def test_items_are_in_order_of_their_ids_and_numbers_by_value(store):
    given = ["10", "9", "100", "b", "a", "1", "zz", "é", "日本", "Z"]
    store.finish(pages(1), [make_item(one) for one in given])
    assert ids(store) == ["1", "9", "Z", "a", "b", "é", "10", "zz", "日本", "100"]


def test_the_last_write_wins_and_sites_are_apart(store):
    store.finish(pages(1), [make_item("1"), make_item("2"), make_item("1", title="same call")])
    other = make_item("1", site="other", title="other")
    store.finish(pages(1), [make_item("2", title="new", tags=["b"], score=None), other])
    assert [item.title for item in store.items("site")] == ["same call", "new"]
    assert list(store.items("other")) == [other]
    assert [store.count(site) for site in ("site", "other", "none")] == [2, 1, 0]
    assert list(store.items("none")) == []


def test_items_are_streamed_while_others_write(store):
    body = "x" * 5000
    store.finish(pages(1), [make_item(str(number), body=body) for number in range(4000)])
    gc.collect()
    tracemalloc.start()
    seen = 0
    for seen, item in enumerate(store.items("site"), 1):  # noqa: B007 - counted
        if seen % 500 == 0:
            store.finish(pages(1), [make_item(f"new{seen}"), make_item(item.id, title="changed")])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (seen, store.count("site")) == (4000, 4008)
    assert peak < 15_000_000  # all at once are 20 MB and more
    for _ in range(20):  # a reader that stops early gives its connection back
        assert next(store.items("site")).id == "0"


@pytest.mark.parametrize(("field", "value"), [
    ("id", ""), ("id", "x" * 192), ("title", ""), ("title", " \n\u00a0"), ("tags", ["a", ""]), ("tags", [1]), ("tags", [None]),
    ("score", 2**31), ("score", -2**31 - 1), ("created", -1), ("created", 2**40),
    *((field, "half \ud83d") for field in ("site", "id", "url", "title", "body", "author")), ("tags", ["a", "\udc00"])])
def test_an_item_no_database_would_hold_is_refused_by_field(field, value):
    values = {"site": "site", "id": "1", "url": "u", "title": "t", "body": "b", "tags": [], "score": 1, "created": 1,
              "source": "api"}
    assert Item(**values)
    with pytest.raises(ValueError, match=f"^{field}: "):
        Item(**values | {field: value})


# --- work ---------------------------------------------------------------------------------------------------------


def test_work_is_added_once_and_claimed_in_order(store):
    assert store.add(pages(10, 9, 2, 1)) == 4
    assert store.add([*pages(9, 3), Work("site", "page", "3", 7, {"other": 1})]) == 1
    assert store.add([]) == 0
    store.add([Work("site", "list", "1"), Work("other", "page", "1")])
    assert keys(store.claim("site", "page")) == ["1"]
    assert keys(store.claim("site", "page", 3)) == ["2", "3", "9"]
    assert keys(store.claim("site", "page", 3)) == ["10"]
    assert store.claim("site", "page", 3) == []
    assert store.count_work("site", "page") == {"taken": 5}
    assert store.count_work("site", "list") == {"todo": 1}
    assert store.add(pages(1, 2)) == 0  # taken stays taken
    assert store.claim("site", "page") == []


def test_finished_work_is_stored_with_what_it_gave_and_led_to(store):
    store.add([Work("site", "page", "1", 1, {"from": "é", "list": [1, None]})])
    works = store.claim("site", "page")
    assert works == [Work("site", "page", "1", 1, {"from": "é", "list": [1, None]})]
    store.finish(works, [make_item("1")], [Rejected("7", "why", "raw")], [*pages(2), Work("site", "list", "x")], source="api")
    assert (ids(store), states(store)) == (["1"], {"1": "done", "2": "todo"})
    assert store.rejected("site") == [("7", "why", "raw")]
    assert store.claim("site", "list") == [Work("site", "list", "x")]
    store.finish(pages(2), found=pages(1, 3))  # what is done is not to do again because something leads to it
    assert states(store) == {"1": "done", "2": "done", "3": "todo"}


@pytest.mark.parametrize("broken", ["item", "found", "mark"])
def test_work_whose_storing_fails_midway_leaves_nothing(store, monkeypatch, broken):
    store.add(pages(1))
    works = store.claim("site", "page")
    items = [make_item(str(number)) for number in range(5)]
    found = pages(2, 3)
    error = sa.exc.IntegrityError
    if broken == "item":
        items.append(make_item("5", source=None))
    elif broken == "found":
        found.append(Work("site", "page", "4", None))
    else:
        error = ZeroDivisionError
        monkeypatch.setattr(store, "_mark", lambda *_, **__: 1 / 0)
    with pytest.raises(error):
        store.finish(works, items, [Rejected("7", "why", "raw")], found)
    assert (store.count("site"), store.rejected("site"), states(store)) == (0, [], {"1": "taken"})
    monkeypatch.undo()
    store.finish(works, items[:5], found=found[:2])
    assert (store.count("site"), states(store)) == (5, {"1": "done", "2": "todo", "3": "todo"})


def test_progress_keeps_the_work_claimed_and_says_how_far_it_is(store):
    store.add(pages(1))
    work, = store.claim("site", "page")
    store.progress(work, {"row": 500}, [make_item("1")], [Rejected("7", "why", "raw")], "dump")
    assert (ids(store), len(store.rejected("site"))) == (["1"], 1)
    assert store.work("site", "page") == [(Work("site", "page", "1", 1, {"row": 500}), "taken")]
    assert store.claim("site", "page") == []
    store.release([work])
    assert store.claim("site", "page") == [Work("site", "page", "1", 1, {"row": 500})]


def test_failed_work_is_tried_again_and_then_given_up(store):
    store.add(pages(1, 2))
    given_up = [store.fail(store.claim("site", "page")[0], f"no {attempt}") for attempt in range(MAX_ATTEMPTS)]
    assert given_up == [False] * (MAX_ATTEMPTS - 1) + [True]
    assert store.fail(store.claim("site", "page")[0], "gone", final=True)
    assert states(store) == {"1": "failed", "2": "failed"}
    assert sorted(store.summary()["failures"]) == [("site", "page", "gone", 1), ("site", "page", "no 2", 1)]
    assert store.claim("site", "page", 5) == []
    assert store.retry_failed("site", "page") == 2
    assert store.retry_failed("site", "page") == 0
    first, second = store.claim("site", "page", 5)
    assert not store.fail(first, "anew")  # its attempts count from the beginning
    store.finish([second], reason="fine")
    assert states(store) == {"1": "todo", "2": "done"}


def test_work_is_forgotten_unless_held(store):
    store.add([*pages(0, 1, 2, 3, 4), Work("site", "list", "3", 3)])
    store.finish(store.claim("site", "page"))
    store.claim("site", "page", 2)
    store.forget("site", "page", "4")
    assert states(store) == {"0": "done", "1": "taken", "2": "taken", "3": "todo"}
    store.forget("site", "page")
    assert states(store) == {"1": "taken", "2": "taken"}
    assert store.count_work("site", "list") == {"todo": 1}


def test_work_behind_an_end_is_void(store):
    store.add(pages(0, 1, 2, 3))
    held = store.claim("site", "page", 2)
    store.end("site", "page", 0)
    assert states(store) == {"0": "taken", "1": "taken", "2": "void", "3": "void"}
    store.finish(held)
    assert store.claim("site", "page") == []


def test_only_what_this_process_still_holds_is_given_back(store):
    store.add(pages(1, 2, 3))
    done, failed, held = store.claim("site", "page", 3)
    store.finish([done])
    store.fail(failed, "gone", final=True)
    execute(store, "UPDATE work SET owner = 'else|where|1|5' WHERE position = 3")
    store.release([done, failed, held])
    assert states(store) == {"1": "done", "2": "failed", "3": "taken"}


def test_one_piece_of_work_can_be_claimed_by_its_key(store):
    store.add(pages(1, 2, 3))
    assert keys(store.claim("site", "page", key="2")) == ["2"]
    assert store.claim("site", "page", key="2") == []


def test_a_database_file_that_is_removed_is_missed_at_once(tmp_path):
    store = ItemStore(tmp_path / "items.sqlite")
    store.add(pages(1))
    (tmp_path / "items.sqlite").unlink()
    with pytest.raises(TagwrightError, match="is gone"):
        store.finish(pages(1), [make_item("1")])


def test_a_host_is_held_for_everybody_and_never_longer_than_a_day(store):
    assert store.held("host") == 0
    store.hold("host", 5)
    store.hold("host", 1)
    assert 4 < store.held("host") <= 5
    assert 4 < store.turn("host", 1) <= 5
    assert store.turn("host", 1) > 5
    assert store.held("host") <= 5  # turns that others have taken are no hold
    store.hold("host", 1e12)
    assert store.held("host") <= 86_400


@pytest.mark.parametrize("reaped", [True, False])
def test_a_killed_collectors_work_is_free_at_once_and_a_living_ones_is_not(store, database_url, reaped):
    store.add(pages(1, 2, 3))
    code = "import sys; sys.path.insert(0, sys.argv[1]); from databases import *; claim_and_wait(sys.argv[2])"
    with subprocess.Popen([sys.executable, "-c", code, Path(__file__).parent, database_url], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline().split() == [b"1", b"2"]
            assert keys(store.claim("site", "page", 5)) == ["3"]
        finally:
            process.kill()
        if reaped:
            process.wait()
        else:  # as where the parent does not care, like the first process of a container
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert keys(store.claim("site", "page", 5)) == ["1", "2"]


def test_another_machines_claim_holds_until_its_lease_has_passed(store):
    store.add(pages(1, 2, 3))
    store.claim("site", "page", 3)
    now = int(time.time())
    execute(store, "UPDATE work SET owner = 'else|where|1|5', changed = :then", then=now - LEASE + 60)
    assert store.claim("site", "page", 5) == []
    execute(store, "UPDATE work SET changed = :then WHERE position < 3", then=now - LEASE - 1)
    assert keys(store.claim("site", "page", 5)) == ["1", "2"]  # and not what it took since
    execute(store, "UPDATE work SET owner = :owner", owner=f"{tagwright.store._machine()}|{os.getpid()}|12345")
    assert len(store.claim("site", "page", 5)) == 3  # of a process whose id another one, this here, was given


# --- many at once -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("attempt", range(4))
def test_four_processes_create_one_database_together(database_url, attempt):
    barrier = PROCESSES.Barrier(4)
    finish_all([run(open_together, database_url, barrier) for _ in range(4)], within=30)
    assert ItemStore(database_url).count_work("site", "page") == {"todo": 4}


def check_each_done_once(store: ItemStore, logs: list[Path], count: int) -> None:
    done = [line for log in logs for line in log.read_text().split()]
    assert sorted(done, key=int) == [str(number) for number in range(count)]
    assert sum(log.stat().st_size > 0 for log in logs) > 1  # or nothing was shared
    assert store.count_work("site", "page") == {"done": count}
    assert ids(store) == [str(number) for number in range(count)]


def test_four_processes_do_every_work_exactly_once(store, database_url, tmp_path):
    store.add(pages(*range(600)))
    logs, barrier = [tmp_path / f"{number}.log" for number in range(4)], PROCESSES.Barrier(4)
    finish_all([run(databases.work_through, database_url, log, barrier) for log in logs], within=20)
    check_each_done_once(store, logs, 600)


def test_eight_threads_do_every_work_exactly_once(store, tmp_path):
    store.add(pages(*range(200)))
    logs = [tmp_path / f"{number}.log" for number in range(8)]
    threads = [threading.Thread(target=claim_and_finish, args=(store, log), daemon=True) for log in logs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    check_each_done_once(store, logs, 200)


def test_killed_ten_times_nothing_is_lost_or_doubled(store, database_url):
    delays, count = random.Random(7), 500
    store.add(pages(0))
    done = []
    for _ in range(10):
        receiver, sender = PROCESSES.Pipe(duplex=False)
        process = run(walk, database_url, count, sender)
        assert receiver.recv() == "open"
        time.sleep(delays.uniform(0, 0.12))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        done.append(store.count_work("site", "page").get("done", 0))
        assert store.count("site") == 3 * done[-1]
    assert 0 < done[-1] < count  # the kills hit it at work
    finish_all([run(walk, database_url, count)], within=30)
    assert store.count_work("site", "page") == {"done": count}
    assert sorted(ids(store)) == sorted(f"{page}-{part}" for page in range(count) for part in range(3))


# --- politeness ---------------------------------------------------------------------------------------------------


def test_turns_are_spaced_over_all_processes(database_url):
    ItemStore(database_url).turn("host", 0.5)  # all three queue behind this one
    pipes = [PROCESSES.Pipe(duplex=False) for _ in range(3)]
    processes = [run(take_turns, database_url, 0.02, 10, sender) for _, sender in pipes]
    finish_all(processes, within=20)
    moments = sorted(moment for receiver, _ in pipes for moment in receiver.recv())
    gaps = [later - earlier for earlier, later in zip(moments, moments[1:], strict=False)]
    assert len(gaps) == 29
    assert min(gaps) > 0.02 - 1e-5  # what a double loses of a time


def test_a_host_that_asks_for_it_is_left_alone(store):
    assert store.turn("host", 0.0) == 0
    store.hold("host", 50)
    store.hold("host", 5)  # does not shorten it
    assert 40 < store.turn("host", 10) <= 50
    assert 50 < store.turn("host", 10) <= 60
    assert store.turn("other", 10) == 0
    store.hold("other", 1e9)  # a host's mistake, not a wish
    assert 86_000 < store.turn("other", 10) <= 86_400


# --- what is in it ------------------------------------------------------------------------------------------------


def test_the_summary_has_a_row_for_each_group(store):
    started = int(time.time())
    store.add(pages(1, 2, 3))
    store.finish(store.claim("site", "page"), [make_item(str(n), created=created) for n, created in enumerate([5, 7, None])])
    store.finish(pages(2), [make_item("4", source="dump", created=None)], [Rejected(str(n), "no title", "") for n in range(2)],
                 source="dump")
    rows = store.summary()
    assert {row[:5] for row in rows["items"]} == {("site", "api", 3, 5, 7), ("site", "dump", 1, None, None)}
    assert all(started <= row[5] <= time.time() for row in rows["items"])
    assert sorted(rows["work"]) == [("site", "page", "done", 2), ("site", "page", "todo", 1)]
    assert (rows["rejected"], rows["failures"]) == ([("site", "dump", "no title", 2)], [])


def test_refused_items_are_kept_once_with_the_beginning_of_what_they_were(store):
    raw = "🧑\0\ud83d'" + "x" * MAX_RAW
    for reason in ("first", "half \ud83d"):
        store.finish(pages(1), (), [Rejected("k" * 300, reason, raw), Rejected("half \udc00", "why", "")], source="api")
    store.finish(pages(1), (), [Rejected("k" * 300, "why", "")], source="dump")
    assert store.rejected("site") == [("half ?", "why", ""), ("k" * 191, "half ?", "🧑\0?'" + "x" * (MAX_RAW - 4)),
                                      ("k" * 191, "why", "")]
    assert ItemStore(":memory:").rejected("site") == []


# --- where it is --------------------------------------------------------------------------------------------------


def test_the_database_is_where_it_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.delenv("TAGWRIGHT_DB", raising=False)
    assert tagwright.store.DEFAULT.parts[-3:] == ("data", "collected", "items.sqlite")
    monkeypatch.setattr(tagwright.store, "DEFAULT", tmp_path / "new" / "folder" / "default.sqlite")
    for name, given in ("new/folder/default", None), ("variable", None), ("url", f"sqlite:///{tmp_path}/url.sqlite"), \
                       ("given", tmp_path / "given.sqlite"), ("a %20 b?c=d #ü+", f"{tmp_path}/a %20 b?c=d #ü+.sqlite"):
        store = ItemStore(given)
        store.finish(pages(1), [make_item("1")])
        assert (tmp_path / f"{name}.sqlite").exists()
        assert store.name == str(tmp_path / f"{name}.sqlite")
        assert ids(ItemStore(given)) == ["1"]
        monkeypatch.setenv("TAGWRIGHT_DB", str(tmp_path / "variable.sqlite"))


# --- faults -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", [
    "mysql+pymysql://me:secret@127.0.0.1:1/name", "postgresql://me:secret@host/name", "nonsense://me:secret@host/name",
    "mysql+nonsense://me:secret@host/name", "mysql://me:secret@127.0.0.1:1/name", "mysql+pymysql://me:secret@host:port/name",
    "mysql+pymysql://me:secret@127.0.0.1:70000/name", "mysql+pymysql://me:half@secret@127.0.0.1/name",
    "://me:secret@host", "/proc/items.sqlite", "/proc/no/items.sqlite", "/dev/null/items.sqlite", "/tmp", __file__])
def test_a_database_that_cannot_be_is_one_line_without_the_password(url):
    before = Path(__file__).read_bytes()
    with pytest.raises(TagwrightError) as error:
        ItemStore(url)
    assert "secret" not in str(error.value)
    assert error.value.__cause__ is None
    assert Path(__file__).read_bytes() == before
    assert str(error.value).startswith(("--db", "the database "))


def check_refusal(attempt, password: str) -> None:
    with pytest.raises(TagwrightError, match=r":\*\*\*@127") as error:
        attempt()
    assert password not in str(error.value)


@pytest.mark.parametrize("wrong", ["password", "database", "username"])
def test_a_server_that_refuses_us_is_one_line_without_the_password(mariadb, wrong):
    url = sa.make_url(mariadb.new_database()).set(**{wrong: "wrong-one"})
    check_refusal(lambda: ItemStore(url.render_as_string(hide_password=False)), url.password)


def test_a_damaged_file_is_said_to_be_so(tmp_path):
    file = tmp_path / "items.sqlite"
    store = ItemStore(file)
    store.finish(pages(1), [make_item(str(number), body="x" * 5000) for number in range(50)])
    store._engine.dispose()
    file.write_bytes(file.read_bytes()[:4096] + random.Random(1).randbytes(200_000))
    with pytest.raises(TagwrightError, match="items.sqlite.*malformed"):
        ids(ItemStore(file))


def test_a_server_that_is_killed_loses_nothing_that_was_finished(mariadb, monkeypatch):
    url = mariadb.new_database()
    store, password = ItemStore(url), sa.make_url(url).password
    store.add(pages(*range(10)))
    store.finish(store.claim("site", "page", 3), [make_item(str(number), body="x" * 5000) for number in range(5000)])
    works = store.claim("site", "page", 3)
    readings = [store.items("site")]
    assert next(readings[0]).id == "0"
    mariadb.stop()
    try:
        check_refusal(lambda: store.finish(works, [make_item("new")]), password)
        with monkeypatch.context() as patch:  # PyMySQL complains once more when it drops the answer that broke off
            patch.setattr(sys, "unraisablehook", lambda _: None)
            check_refusal(lambda: list(readings.pop()), password)
            gc.collect()
        check_refusal(lambda: ItemStore(url), password)
    finally:
        mariadb.start()
    assert (store.count("site"), store.count_work("site", "page")) == (5000, {"done": 3, "taken": 3, "todo": 4})
    store.finish(works, [make_item("new")])  # the same store goes on
    assert (store.count("site"), ItemStore(url).count_work("site", "page")) == (5001, {"done": 6, "todo": 4})
    mariadb.stop()
    mariadb.start()
    assert len(store.claim("site", "page", 10)) == 4  # nor does it mind what it did not see


def fill(store: ItemStore, items: list[Item], stored: list[Item]) -> None:
    for item in items:
        store.finish(pages(int(item.id)), [item, make_item(f"x{item.id}")], found=pages(int(item.id) + 1))
        stored.append(item)


def test_a_full_disk_loses_nothing_and_once_there_is_room_writing_goes_on(database_url, tmp_path, request):
    size, folder = "2m", tmp_path / "disk"
    if "://" in database_url:  # each of its databases is a folder, whose files it makes larger by whole megabytes
        size, folder = "8m", request.getfixturevalue("mariadb").data / sa.make_url(database_url).database
    with small_disk(folder, size):
        store = ItemStore(database_url if "://" in database_url else folder / "items.sqlite")
        try:
            # of a few KB each: where the disk is full, MariaDB 10.11 undoes longer texts by killing itself
            items, stored = [make_item(str(number), body=str(number % 10) * 6000) for number in range(600)], []
            with pytest.raises(TagwrightError, match="full") as error:
                fill(store, items, stored)
            assert store.name in str(error.value)
            assert len(stored) > 10
            assert [item for item in store.items("site") if item.id.isdigit()] == stored
            assert store.count("site") == 2 * len(stored)
            subprocess.run(["mount", "-o", "remount,size=64m", folder], check=True)
            fill(store, items[len(stored):], stored)
            assert [item for item in store.items("site") if item.id.isdigit()] == items
        finally:
            tagwright.store.metadata.drop_all(store._engine)  # before its disk goes: the server would miss the files
            store._engine.dispose()


def test_a_missing_server_program_is_named_with_its_package(monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(RuntimeError, match="apt-get install mariadb-server"):
        databases.MariaDb()
