"""Jobs and where they are kept. What a store says of a job is the truth; Celery's messages only wake a worker.

A worker that takes a job holds a lease, which each beat of its heart renews. A job whose lease has run out (its worker was
killed) or that nobody has taken (its message was lost) is `waiting`, and is rung for again by any worker's watch.
"""

import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import redis

from service.settings import Settings

LEASE = 30.0  # seconds without a heartbeat after which another worker may take the job
RING_AGAIN = 10.0  # seconds after which a job that nobody has taken is rung for again
ENDED = ("succeeded", "failed", "cancelled")


class Unavailable(Exception):
    """The store cannot be reached."""


class Cancelled(Exception):
    """The job is to stop."""


class Lost(Exception):
    """Another worker has the job now."""


@dataclass
class Job:
    """Times are seconds since 1970; `arguments` are what the worker needs, `name` what the user called the file or task."""

    id: str
    kind: str  # tag | train
    arguments: dict
    name: str
    created: float
    state: str = "queued"
    started: float | None = None
    finished: float | None = None
    done: int = 0
    total: int | None = None
    message: str | None = None
    error: str | None = None
    model: str | None = None
    result: str | None = None  # a file in the job's folder
    curve: list[dict] = field(default_factory=list)
    counts: dict = field(default_factory=dict)
    tries: int = 0
    worker: str | None = None
    heartbeat: float = 0.0
    cancel: bool = False

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def waiting(self) -> bool:
        now = time.time()
        return (self.state == "queued" and now - max(self.created, self.heartbeat) > RING_AGAIN
                or self.state == "running" and now - self.heartbeat > LEASE)


class JobStore:
    """What both stores do; `_read`, `_all`, `_delete`, `_insert` and the atomic `change` differ."""

    def add(self, kind: str, name: str, arguments: dict, job_id: str | None = None) -> Job:
        job = Job(job_id or new_id(), kind, arguments, name, time.time())
        self._insert(job)
        return job

    def get(self, job_id: str) -> Job | None:
        return self._read(job_id)

    def newest(self, limit: int = 100) -> list[Job]:
        """The newest first."""
        return self._all(limit)

    def waiting(self) -> list[Job]:
        return [job for job in self._all(None) if job.waiting]

    def claim(self, job_id: str, worker: str) -> Job | None:
        """Take the job, if it is free."""
        taken = False

        def take(job: Job) -> None:
            nonlocal taken
            taken = job.state == "queued" or job.state == "running" and time.time() - job.heartbeat > LEASE
            if taken:
                job.state, job.worker, job.heartbeat, job.started = "running", worker, time.time(), job.started or time.time()

        job = self.change(job_id, take)
        return job if taken else None

    def beat(self, job_id: str, worker: str, **fields) -> None:
        """Renew the lease and set some fields. Raises Cancelled where the job is to stop, Lost where it is another's."""
        def renew(job: Job) -> None:
            if job.worker != worker or job.state != "running":
                raise Lost(job_id)
            if job.cancel:
                raise Cancelled(job_id)
            job.heartbeat = time.time()
            for name, value in fields.items():
                setattr(job, name, value)

        if self.change(job_id, renew) is None:
            raise Lost(job_id)

    def end(self, job_id: str, worker: str, state: str, **fields) -> None:
        """Say how the job ended, unless it is another's by now."""
        def finish(job: Job) -> None:
            if job.worker == worker and job.state == "running":
                job.state, job.finished, job.worker = state, time.time(), None
                for name, value in fields.items():
                    setattr(job, name, value)

        self.change(job_id, finish)

    def cancel(self, job_id: str) -> Job | None:
        """A queued job ends here; a running one is told to."""
        def stop(job: Job) -> None:
            job.cancel = True
            if job.state == "queued":
                job.state, job.finished = "cancelled", time.time()

        return self.change(job_id, stop)

    def delete(self, job_id: str) -> None:
        self._delete(job_id)

    def change(self, job_id: str, change: Callable[[Job], None]) -> Job | None:
        raise NotImplementedError


class SqliteJobs(JobStore):
    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, created REAL, document TEXT)")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self.path, timeout=20, isolation_level=None)
        try:
            yield database
        except sqlite3.OperationalError as error:
            raise Unavailable(f"{self.path}: {error}") from None
        finally:
            database.close()

    def _insert(self, job: Job) -> None:
        with self._open() as database:
            database.execute("INSERT INTO jobs VALUES (?, ?, ?)", (job.id, job.created, json.dumps(asdict(job))))

    def _read(self, job_id: str) -> Job | None:
        with self._open() as database:
            row = database.execute("SELECT document FROM jobs WHERE id = ?", (job_id,)).fetchone()
        return Job(**json.loads(row[0])) if row else None

    def _all(self, limit: int | None) -> list[Job]:
        with self._open() as database:
            rows = database.execute("SELECT document FROM jobs ORDER BY created DESC LIMIT ?", (limit or -1,))
            return [Job(**json.loads(document)) for (document,) in rows]

    def _delete(self, job_id: str) -> None:
        with self._open() as database:
            database.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def change(self, job_id: str, change: Callable[[Job], None]) -> Job | None:
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            row = database.execute("SELECT document FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is None:
                return None
            job = Job(**json.loads(row[0]))
            change(job)
            database.execute("UPDATE jobs SET document = ? WHERE id = ?", (json.dumps(asdict(job)), job_id))
            database.execute("COMMIT")
        return job


class RedisJobs(JobStore):
    ORDER, KEY = "tagwright:jobs", "tagwright:job:"

    def __init__(self, url: str):
        self.redis = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2, decode_responses=True)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise Unavailable(f"Redis: {error}") from None

    def _insert(self, job: Job) -> None:
        with self._errors(), self.redis.pipeline() as pipeline:
            pipeline.set(self.KEY + job.id, json.dumps(asdict(job)))
            pipeline.zadd(self.ORDER, {job.id: job.created})
            pipeline.execute()

    def _read(self, job_id: str) -> Job | None:
        with self._errors():
            document = self.redis.get(self.KEY + job_id)
        return Job(**json.loads(document)) if document else None

    def _all(self, limit: int | None) -> list[Job]:
        with self._errors():
            ids = self.redis.zrevrange(self.ORDER, 0, -1 if limit is None else limit - 1)
            documents = self.redis.mget([self.KEY + job_id for job_id in ids]) if ids else []
        return [Job(**json.loads(document)) for document in documents if document]

    def _delete(self, job_id: str) -> None:
        with self._errors(), self.redis.pipeline() as pipeline:
            pipeline.delete(self.KEY + job_id)
            pipeline.zrem(self.ORDER, job_id)
            pipeline.execute()

    def change(self, job_id: str, change: Callable[[Job], None]) -> Job | None:
        key = self.KEY + job_id
        with self._errors(), self.redis.pipeline() as pipeline:
            while True:
                with suppress(redis.WatchError):  # another has changed it meanwhile: once more
                    pipeline.watch(key)
                    document = pipeline.get(key)
                    if document is None:
                        return None
                    job = Job(**json.loads(document))
                    change(job)
                    pipeline.multi()
                    pipeline.set(key, json.dumps(asdict(job)))
                    pipeline.execute()
                    return job


def new_id() -> str:
    return secrets.token_hex(8)


def open_store(settings: Settings) -> JobStore:
    return RedisJobs(settings.redis) if settings.redis else SqliteJobs(settings.data / "jobs.sqlite")


def folder_of(settings: Settings, job_id: str) -> Path:
    """Where a job's files are: what was uploaded, and its result."""
    return settings.data / "jobs" / job_id
