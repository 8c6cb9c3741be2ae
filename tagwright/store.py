"""Where collected items live, with what is still to fetch: one SQL database, a SQLite file or MySQL/MariaDB by URL.

A collector claims work, fetches it, and finishes it: the items it gave, the work it led to and the mark that it is done
are one transaction. So a collector may be killed at any moment and loses and doubles nothing, and several may share one
database, on one machine or many. Reading pages and answers is not done here.
"""

import json
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import psutil
import sqlalchemy as sa
import tenacity
from sqlalchemy.dialects import mysql, sqlite

from tagwright.errors import TagwrightError
from tagwright.task import ROOT

DEFAULT = ROOT / "data" / "collected" / "items.sqlite"
LEASE = 3600  # seconds after which another machine's claim is void; a dead process's on this machine is void at once
MAX_ATTEMPTS = 3
DAY = 86_400  # seconds
MAX_RAW = 10_000  # characters kept of a refused item
# MySQL's lock wait time-out, deadlock, and a table or column that another process made first: the transaction may be tried
# again.
LOST_RACE = {1205, 1213, 1050, 1060}

LONG = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
MYSQL = {f"{scheme}_{option}": value for scheme in ("mysql", "mariadb") for option, value in
         {"engine": "InnoDB", "charset": "utf8mb4", "collate": "utf8mb4_bin"}.items()}
metadata = sa.MetaData()


@sa.event.listens_for(metadata, "before_create")
def _tell_trailing_spaces_apart(_, connection, **__) -> None:
    """utf8mb4_bin takes "a" and "a " for one key; the collation that does not has a name of its own in each server."""
    if connection.dialect.name != "sqlite":
        collation = "utf8mb4_nopad_bin" if connection.dialect.is_mariadb else "utf8mb4_0900_bin"
        for table in metadata.tables.values():
            table.dialect_options[connection.dialect.name]["collate"] = collation


items_table = sa.Table(
    "items", metadata,
    sa.Column("site", sa.String(100), primary_key=True),
    sa.Column("id", sa.String(191), primary_key=True),
    sa.Column("url", LONG, nullable=False),
    sa.Column("title", LONG, nullable=False),
    sa.Column("body", LONG, nullable=False),
    sa.Column("tags", LONG, nullable=False),  # a JSON list
    sa.Column("score", sa.Integer),
    sa.Column("created", sa.BigInteger),  # Unix seconds, as `fetched` is
    sa.Column("source", sa.String(16), nullable=False),
    sa.Column("fetched", sa.BigInteger, nullable=False),
    sa.Column("author", LONG),  # the last, as databases from before there was one get it
    **MYSQL)

work_table = sa.Table(
    "work", metadata,
    sa.Column("site", sa.String(100), primary_key=True),
    sa.Column("kind", sa.String(16), primary_key=True),
    sa.Column("key", sa.String(191), primary_key=True),
    sa.Column("position", sa.BigInteger, nullable=False),  # the order in which it is claimed
    sa.Column("payload", LONG, nullable=False),  # a JSON object
    sa.Column("state", sa.String(8), nullable=False),  # todo, taken, done, failed or void
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("reason", LONG, nullable=False),
    sa.Column("owner", sa.String(191), nullable=False),
    sa.Column("changed", sa.BigInteger, nullable=False),
    sa.Index("work_by_state", "site", "kind", "state", "position"),
    **MYSQL)

rejected_table = sa.Table(
    "rejected", metadata,
    sa.Column("site", sa.String(100), primary_key=True),
    sa.Column("source", sa.String(16), primary_key=True),
    sa.Column("key", sa.String(191), primary_key=True),
    sa.Column("reason", LONG, nullable=False),
    sa.Column("raw", LONG, nullable=False),
    sa.Column("seen", sa.BigInteger, nullable=False),
    **MYSQL)

hosts_table = sa.Table(
    "hosts", metadata,
    sa.Column("host", sa.String(191), primary_key=True),
    sa.Column("free_at", sa.Double, nullable=False),  # Unix seconds before which no turn is given, as others have theirs
    sa.Column("held_until", sa.Double, nullable=False),  # Unix seconds before which the host wants to be left alone
    **MYSQL)


@dataclass(frozen=True)
class Item:
    """One collected item, as every reader gives it and every collector stores it.

    `title` is plain text; `body` is HTML as received; `created` is in Unix seconds (UTC); `score`, `created` and `author` are
    None where they are unknown, or, as the authors of questions, not collected.
    Raises ValueError, saying which field, for what no database would hold.
    """

    site: str
    id: str
    url: str
    title: str
    body: str
    tags: list[str]
    score: int | None
    created: int | None
    source: str  # "api", "dump" or "browser"
    author: str | None = None

    def __post_init__(self):
        if not self.id or len(self.id) > 191:
            raise ValueError(f"id: {self.id[:40]!r} is empty or too long")
        if not self.site or len(self.site) > 100:
            raise ValueError(f"site: {self.site[:40]!r} is empty or too long")
        if not self.title.strip():
            raise ValueError("title: empty")
        if not all(isinstance(tag, str) and tag for tag in self.tags):
            raise ValueError(f"tags: not a list of texts: {str(self.tags)[:60]}")
        if self.score is not None and not -2**31 <= self.score < 2**31:
            raise ValueError(f"score: out of range: {self.score}")
        if self.created is not None and not 0 <= self.created < 2**40:
            raise ValueError(f"created: out of range: {self.created}")
        texts = {"site": self.site, "id": self.id, "url": self.url, "title": self.title, "body": self.body,
                 "tags": "".join(self.tags), "author": self.author or ""}
        for name, text in texts.items():
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise ValueError(f"{name}: no valid text at character {error.start}: half of a surrogate pair") from None


class Rejected(NamedTuple):
    """An item that was refused: why, and what it was."""

    key: str
    reason: str
    raw: str


@dataclass(frozen=True)
class Work:
    """Something to fetch: a page of an API's answer, a page of a listing, a question, or a dump to import."""

    site: str
    kind: str
    key: str
    position: int = 0
    payload: dict = field(default_factory=dict)


class ItemStore:
    """The database. Its methods may be called from several threads; each writing one is a transaction.

    All raise TagwrightError where the database cannot be reached, is no database, or has no room left.
    """

    def __init__(self, url: str | Path | None = None, create: bool = True):
        """Open, and create where it is missing unless `create` is false, the SQLite file at a path or the database at an
        SQLAlchemy URL; None stands for `$TAGWRIGHT_DB`, or else `data/collected/items.sqlite`."""
        given = str(url or os.environ.get("TAGWRIGHT_DB") or DEFAULT)
        try:
            parsed = sa.make_url(given) if "://" in given else sa.URL.create("sqlite", database=given)
            is_file = parsed.get_backend_name() == "sqlite"
            self.name = str(parsed.database) if is_file else parsed.render_as_string(hide_password=True)
            if "@" in (parsed.host or ""):
                raise ValueError
            if parsed.get_backend_name() not in ("sqlite", "mysql", "mariadb"):
                raise TagwrightError(f"--db {self.name}: neither SQLite nor MySQL/MariaDB")
            options = {} if is_file else {"isolation_level": "READ COMMITTED"}
            if parsed.drivername.endswith("+pymysql"):
                options["connect_args"] = {"connect_timeout": 10, "read_timeout": 60, "write_timeout": 60}
            self._engine = sa.create_engine(parsed, pool_pre_ping=True, **options)
        except ValueError:  # not its text, which may hold a part of the password
            raise TagwrightError("--db: no valid URL; in a password, write @ : / as %40 %3A %2F") from None
        except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
            raise TagwrightError(f"--db: {error}; give a file, or mysql+pymysql://user:password@host/database") from None
        if self._engine.dialect.name == "sqlite":
            if not create and not os.path.isfile(self.name):
                raise TagwrightError(f"{self.name}: no such file")
            _prepare_sqlite(self._engine, parsed.database)
        self._reader = self._engine.execution_options(read_only=True)
        try:
            if not create:
                self._check_tables()
            self._write(_make_tables, "cannot be opened")
        except (TypeError, LookupError, OSError, RuntimeError) as error:  # the driver's, for options in the URL
            raise TagwrightError(f"--db {self.name}: refused by its driver: {error}") from None

    # --- work ---

    def add(self, works: Iterable[Work]) -> int:
        """Add work (of one site and kind) that is not known yet; returns how much of it was new."""
        return self._write(lambda connection: self._add(connection, list(works)))

    def claim(self, site: str, kind: str, limit: int = 1, key: str | None = None) -> list[Work]:
        """Take up to `limit` pieces of work, in order of position, that no living collector holds; or the one with `key`."""
        wanted = _of(site, kind) if key is None else sa.and_(_of(site, kind), work_table.c.key == key)

        def take(connection) -> list[Work]:
            self._void_dead_claims(connection, site, kind)
            rows = connection.execute(
                sa.select(work_table).where(wanted, work_table.c.state == "todo")
                .order_by(work_table.c.position, work_table.c.key).limit(limit).with_for_update(skip_locked=True)).all()
            self._mark(connection, [_work(row) for row in rows], state="taken", owner=_me())
            return [_work(row) for row in rows]

        return self._write(take)

    def claims(self, site: str, kind: str, limit: int = 1, stop: threading.Event | None = None) -> Iterator[list[Work]]:
        """Claim work until there is none or `stop` is set, waiting for what others hold, as they may fail.

        What is claimed when the iterator is closed early is given back: use `contextlib.closing`.
        """
        stop = stop or threading.Event()
        while not stop.is_set():
            works = self.claim(site, kind, limit)
            if not works and not self.count_work(site, kind).get("taken"):
                return
            if not works:
                stop.wait(0.2)
                continue
            try:
                yield works
            except GeneratorExit:
                with suppress(TagwrightError):  # what made it end early is the fault to tell
                    self.release(works)
                raise

    def finish(self, works: list[Work], items: Iterable[Item] = (), rejected: Iterable[Rejected] = (),
               found: Iterable[Work] = (), reason: str = "", source: str = "") -> None:
        """Store what the works gave and led to, and mark them done, all at once. `source` goes with `rejected`."""
        def write(connection):
            self._save(connection, works[0].site, list(items), list(rejected), source)
            self._add(connection, list(found))
            self._mark(connection, works, state="done", reason=reason)
        self._write(write)

    def progress(self, work: Work, payload: dict, items: Iterable[Item], rejected: Iterable[Rejected], source: str) -> None:
        """Store a part of what a long work gives, and in its payload how far it has come; it stays claimed."""
        def write(connection):
            self._save(connection, work.site, list(items), list(rejected), source)
            self._mark(connection, [work], payload=json.dumps(payload))
        self._write(write)

    def fail(self, work: Work, reason: str, final: bool = False) -> bool:
        """Note a failed attempt; True where the work is given up: if `final`, or after MAX_ATTEMPTS."""
        def write(connection):
            attempts = 1 + connection.execute(sa.select(work_table.c.attempts).where(_is(work))).scalar_one()
            given_up = final or attempts >= MAX_ATTEMPTS
            self._mark(connection, [work], state="failed" if given_up else "todo", reason=reason, attempts=attempts)
            return given_up
        return self._write(write)

    def release(self, works: list[Work]) -> None:
        """Give work back, undone, as far as this process still holds it."""
        def write(connection):
            for work in works:
                held = sa.and_(_is(work), work_table.c.state == "taken", work_table.c.owner == _me())
                connection.execute(sa.update(work_table).where(held).values(state="todo"))
        self._write(write)

    def retry_failed(self, site: str, kind: str) -> int:
        """Make failed work to do again; returns how much."""
        failed = sa.and_(_of(site, kind), work_table.c.state == "failed")
        statement = sa.update(work_table).where(failed).values(state="todo", attempts=0)
        return self._write(lambda connection: connection.execute(statement).rowcount)

    def forget(self, site: str, kind: str, key: str | None = None) -> None:
        """Forget the work with a key, or all of a kind, unless a living collector holds it."""
        wanted = _of(site, kind) if key is None else sa.and_(_of(site, kind), work_table.c.key == key)

        def write(connection):
            self._void_dead_claims(connection, site, kind)
            connection.execute(sa.delete(work_table).where(wanted, work_table.c.state != "taken"))
        self._write(write)

    def end(self, site: str, kind: str, position: int) -> None:
        """Mark work behind a position as void, as there turned out to be nothing."""
        beyond = sa.and_(_of(site, kind), work_table.c.position > position, work_table.c.state == "todo")
        statement = sa.update(work_table).where(beyond).values(state="void")
        self._write(lambda connection: connection.execute(statement))

    def work(self, site: str, kind: str) -> list[tuple[Work, str]]:
        """All work of a kind with its state, in order of position."""
        query = sa.select(work_table).where(_of(site, kind)).order_by(work_table.c.position, work_table.c.key)
        return [(_work(row), row.state) for row in self._read(query)]

    def count_work(self, site: str, kind: str) -> dict[str, int]:
        """How much work of a kind is in each state; states without any are absent."""
        query = sa.select(work_table.c.state, sa.func.count()).where(_of(site, kind)).group_by(work_table.c.state)
        return {state: count for state, count in self._read(query)}

    # --- politeness, shared by all that use the database ---

    def turn(self, host: str, delay: float) -> float:
        """Reserve the next free moment to ask a host, `delay` seconds after the one before; returns seconds to wait."""
        def reserve(connection):
            now = time.time()
            at = max(now, self._free_at(connection, host))
            connection.execute(sa.update(hosts_table).where(hosts_table.c.host == host).values(free_at=at + delay))
            return at - now
        return self._write(reserve)

    def hold(self, host: str, seconds: float) -> None:
        """Let nobody ask a host for so many seconds from now, as it asked us to; never for more than a day."""
        def extend(connection):
            free_at, until = self._free_at(connection, host), time.time() + min(seconds, DAY)
            later = sa.case((hosts_table.c.held_until > until, hosts_table.c.held_until), else_=until)
            connection.execute(sa.update(hosts_table).where(hosts_table.c.host == host)
                               .values(free_at=max(free_at, until), held_until=later))
        self._write(extend)

    def held(self, host: str) -> float:
        """For how many more seconds a host wants to be left alone; 0 where it does not."""
        rows = self._read(sa.select(hosts_table.c.held_until).where(hosts_table.c.host == host))
        return max(0.0, rows[0][0] - time.time()) if rows else 0.0

    # --- items ---

    def count(self, site: str) -> int:
        """How many items of a site there are."""
        return self._read(sa.select(sa.func.count()).select_from(items_table).where(items_table.c.site == site))[0][0]

    def items(self, site: str) -> Iterator[Item]:
        """A site's items in order of their ids (numbers by value), streamed."""
        query = (sa.select(items_table).where(items_table.c.site == site)
                 .order_by(sa.func.char_length(items_table.c.id), items_table.c.id))
        with self._translated(), self._reader.connect() as connection:
            for row in connection.execution_options(yield_per=1000).execute(query):
                values = row._asdict()
                del values["fetched"]
                yield Item(**values | {"tags": json.loads(row.tags)})

    def rejected(self, site: str) -> list[Rejected]:
        """What was refused of a site, with its reason."""
        query = sa.select(rejected_table.c.key, rejected_table.c.reason, rejected_table.c.raw).where(
            rejected_table.c.site == site).order_by(rejected_table.c.source, rejected_table.c.key)
        return [Rejected(*row) for row in self._read(query)]

    def summary(self) -> dict[str, list]:
        """What the database holds, as rows: `items` (site, source, count, oldest, newest, last fetched), `work` (site,
        kind, state, count), `failures` and `rejected` (site, kind or source, reason, count)."""
        item, work, refused = items_table.c, work_table.c, rejected_table.c
        count = sa.func.count()
        return {
            "items": self._read(sa.select(item.site, item.source, count, sa.func.min(item.created), sa.func.max(item.created),
                                          sa.func.max(item.fetched)).group_by(item.site, item.source).order_by(item.site)),
            "work": self._read(sa.select(work.site, work.kind, work.state, count).group_by(work.site, work.kind, work.state)),
            "failures": self._read(sa.select(work.site, work.kind, work.reason, count).where(work.state == "failed")
                                   .group_by(work.site, work.kind, work.reason).order_by(count.desc())),
            "rejected": self._read(sa.select(refused.site, refused.source, refused.reason, count)
                                   .group_by(refused.site, refused.source, refused.reason).order_by(count.desc())),
        }

    # --- whole tables, for one store to take in another ---

    def rows(self, size: int) -> Iterator[tuple[sa.Table, list[dict]]]:
        """All that the database holds at one moment, `size` rows of a table at a time."""
        moment = {} if self._engine.dialect.name == "sqlite" else {"isolation_level": "REPEATABLE READ"}
        with self._translated(), self._reader.connect() as connection:
            connection = connection.execution_options(**moment, yield_per=size)
            for table in (items_table, rejected_table, hosts_table, work_table):  # what work gave before that it is done
                for part in connection.execute(sa.select(table)).mappings().partitions():
                    yield table, [dict(row) for row in part]

    def take_in(self, table: sa.Table, rows: list[dict], rank: Callable[[dict], tuple]) -> tuple[int, int]:
        """Store rows of a table, each where there is none with its key, or one of a lower rank; returns how many rows were
        new, and how many took another's place."""
        keys = list(table.primary_key)

        def take(connection) -> tuple[int, int]:
            wanted = sa.tuple_(*keys).in_([tuple(row[key.name] for key in keys) for row in rows])
            there = {tuple(row[key.name] for key in keys): row
                     for row in connection.execute(sa.select(table).where(wanted).with_for_update()).mappings()}
            held = [there.get(tuple(row[key.name] for key in keys)) for row in rows]
            better = [row for row, other in zip(rows, held, strict=True) if other is None or rank(row) > rank(other)]
            if better:
                connection.execute(self._upsert(table), better)
            new = held.count(None)
            return new, len(better) - new
        return self._write(take)

    # --- the rest is internal ---

    def _check_tables(self) -> None:
        with self._translated("cannot be opened"), self._reader.connect() as connection:
            if not sa.inspect(connection).has_table("items"):
                raise TagwrightError(f"{self.name}: no item store")

    def _save(self, connection, site: str, items: list[Item], rejected: list[Rejected], source: str) -> None:
        now = int(time.time())
        if items:
            rows = [vars(item) | {"tags": json.dumps(item.tags, ensure_ascii=False), "fetched": now} for item in items]
            connection.execute(self._upsert(items_table), rows)
        if rejected:
            rows = [{"site": site, "source": source, "key": _valid(entry.key[:191]), "reason": _valid(entry.reason),
                     "raw": _valid(entry.raw[:MAX_RAW]), "seen": now} for entry in rejected]
            connection.execute(self._upsert(rejected_table), rows)

    def _add(self, connection, works: list[Work]) -> int:
        if not works:
            return 0
        rows = [asdict(work) | {"payload": json.dumps(work.payload), "state": "todo", "attempts": 0, "reason": "",
                                "owner": "", "changed": int(time.time())} for work in works]
        known = sa.select(sa.func.count()).where(_of(works[0].site, works[0].kind))
        before = connection.execute(known).scalar_one()
        connection.execute(self._upsert(work_table, keep=True), rows)
        return connection.execute(known).scalar_one() - before

    def _void_dead_claims(self, connection, site: str, kind: str) -> None:
        taken = sa.and_(_of(site, kind), work_table.c.state == "taken")
        holders = connection.execute(sa.select(work_table.c.owner, work_table.c.changed).where(taken).distinct()).all()
        for owner, since in holders:
            if not _is_alive(owner, since):
                dead = sa.and_(taken, work_table.c.owner == owner, work_table.c.changed == since)
                connection.execute(sa.update(work_table).where(dead).values(state="todo"))

    def _mark(self, connection, works: list[Work], **values) -> None:
        values["changed"] = int(time.time())
        for work in works:
            connection.execute(sa.update(work_table).where(_is(work)).values(**values))

    def _free_at(self, connection, host: str) -> float:
        connection.execute(self._upsert(hosts_table, keep=True), [{"host": host, "free_at": 0.0, "held_until": 0.0}])
        query = sa.select(hosts_table.c.free_at).where(hosts_table.c.host == host)
        return connection.execute(query.with_for_update()).scalar_one()

    def _upsert(self, table: sa.Table, keep: bool = False):
        """INSERT that replaces a row with the same key, or, with `keep`, leaves it as it is."""
        keys = [column.name for column in table.primary_key]
        names = keys[:1] if keep else [column.name for column in table.c if column.name not in keys]
        if self._engine.dialect.name == "sqlite":
            statement = sqlite.insert(table)
            return statement.on_conflict_do_update(index_elements=keys, set_={name: statement.excluded[name] for name in names})
        statement = mysql.insert(table)
        return statement.on_duplicate_key_update({name: statement.inserted[name] for name in names})

    def _read(self, query) -> list:
        with self._translated(), self._reader.connect() as connection:
            return list(connection.execute(query).all())

    def _write(self, change: Callable, fault: str = "failed"):
        """Call `change` with a connection, in a transaction; lost races are run again."""
        retrying = tenacity.Retrying(retry=tenacity.retry_if_exception(_is_lost_race), reraise=True,
                                     stop=tenacity.stop_after_delay(30), wait=tenacity.wait_random(0.01, 0.2))
        with self._translated(fault):
            return retrying(self._in_transaction, change)

    def _in_transaction(self, change: Callable):
        with _uninterrupted(), self._engine.begin() as connection:
            return change(connection)

    @contextmanager
    def _translated(self, fault: str = "failed") -> Iterator[None]:
        """Faults of the database (gone, full, locked, damaged) as one line; those of our own SQL as they are."""
        try:
            yield
        except (sa.exc.ProgrammingError, sa.exc.IntegrityError, sa.exc.DataError):
            raise
        except sa.exc.DBAPIError as error:
            raise TagwrightError(f"the database {self.name} {fault}: {error.orig}. What was stored before is safe: "
                                 "mend this and run the same command again") from None


def _make_tables(connection) -> None:
    metadata.create_all(connection)
    known = {column["name"] for column in sa.inspect(connection).get_columns("items")}
    if "author" not in known:  # a database from before items had one
        column = sa.schema.CreateColumn(items_table.c.author).compile(dialect=connection.dialect)
        connection.execute(sa.text(f"ALTER TABLE items ADD COLUMN {column}"))


def _prepare_sqlite(engine: sa.Engine, file: str | None) -> None:
    """Write-ahead logging, so that readers and writers do not wait for one another, and transactions that take the
    write lock when they begin, so that none is refused half-way."""
    if file:
        try:
            Path(file).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TagwrightError(f"--db {file}: its folder cannot be made: {error.strerror}") from None

    @sa.event.listens_for(engine, "connect")
    def connect(connection, _):
        connection.isolation_level = None  # sqlite3 shall begin no transactions of its own
        for setting in ("busy_timeout = 1000", "journal_mode = WAL", "synchronous = NORMAL"):
            connection.execute(f"PRAGMA {setting}")

    @sa.event.listens_for(engine, "begin")
    def begin(connection):
        if file and file != ":memory:" and not os.path.exists(file):  # SQLite would write on into what nobody will find
            raise TagwrightError(f"the database {file} is gone: somebody moved or removed it")
        connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get("read_only") else "BEGIN IMMEDIATE")


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back until a transaction has ended: stopped in its middle, SQLite would stay locked."""
    pressed: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    handlers = [signal.signal(number, lambda number, _: pressed.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, handlers, strict=True):
            signal.signal(number, handler)
        if pressed:
            raise KeyboardInterrupt


def _is_lost_race(error: BaseException) -> bool:
    if not isinstance(error, sa.exc.OperationalError):
        return False
    return error.orig.args[0] in LOST_RACE or getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY


def _valid(text: str) -> str:
    """The text, with ? for halves of surrogate pairs, which no database would hold."""
    return text.encode(errors="replace").decode()


def _of(site: str, kind: str):
    return sa.and_(work_table.c.site == site, work_table.c.kind == kind)


def _is(work: Work):
    return sa.and_(work_table.c.site == work.site, work_table.c.kind == work.kind, work_table.c.key == work.key)


def _work(row) -> Work:
    return Work(row.site, row.kind, row.key, row.position, json.loads(row.payload))


@cache
def _machine() -> str:
    return socket.gethostname()


def _me() -> str:
    """This process: a process id alone may be given to another one later."""
    return f"{_machine()}|{os.getpid()}|{psutil.Process().create_time():.0f}"


def _is_alive(owner: str, since: int) -> bool:
    machine, process, started = owner.rsplit("|", 2)
    if machine != _machine():
        return time.time() - since < LEASE
    try:
        holder = psutil.Process(int(process))
        # a killed process that its parent does not ask for stays, as a zombie
        return holder.status() != psutil.STATUS_ZOMBIE and abs(holder.create_time() - float(started)) < 2
    except psutil.NoSuchProcess:
        return False
