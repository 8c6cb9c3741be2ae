"""Jobs and where they are kept. What a store says of a job is the truth; Celery's messages only wake a worker.

A worker that takes a job holds a lease, which each beat of its heart renews. A job whose lease has run out (its worker was
killed) or that nobody has taken (its message was lost) is `waiting`; an idle worker finds it and rings for it again.
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
from redis.backoff import NoBackoff
from redis.retry import Retry

from service.settings import Settings

LEASE = 15.0  # seconds without a heartbeat after which another worker may take the job
RING_AGAIN = 10.0  # seconds after which a job that nobody has taken is rung for again
TRIES = 5  # of a job that fails for a reason which may pass, or takes its worker with it
PATIENCE = 1.0  # seconds for Redis to answer, twice; who asks for a job waits no longer
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
    not_before: float = 0.0  # a job that failed for a reason which may pass waits until then
    worker: str | None = None
    heartbeat: float = 0.0
    cancel: bool = False

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def free(self) -> bool:
        """Whether a worker may take it."""
        now = time.time()
        return self.state == "queued" and now >= self.not_before or self.state == "running" and now - self.heartbeat > LEASE

    @property
    def waiting(self) -> bool:
        """Whether it is free and no message for it is on its way."""
        return self.free and (self.state == "running" or time.time() - self.created > RING_AGAIN)


class JobStore:
    """What both stores do; how they read and write differs."""

    def add(self, kind: str, name: str, arguments: dict, job_id: str | None = None) -> Job:
        job = Job(job_id or new_id(), kind, arguments, name, time.time())
        self._insert(job)
        return job

    def get(self, job_id: str) -> Job | None:
        raise NotImplementedError

    def newest(self, limit: int = 100) -> list[Job]:
        """The newest first."""
        raise NotImplementedError

    def unfinished(self) -> list[Job]:
        """Those that have not ended, the oldest first."""
        raise NotImplementedError

    def finished_before(self, time: float) -> list[Job]:
        raise NotImplementedError

    def delete(self, job_id: str) -> None:
        raise NotImplementedError

    def change(self, job_id: str, change: Callable[[Job], None]) -> Job | None:
        """Change a job as no one else does at the same time; None where there is none. What `change` raises changes nothing;
        it may be called more than once."""
        raise NotImplementedError

    def _insert(self, job: Job) -> None:
        raise NotImplementedError

    def claim(self, job_id: str, worker: str) -> Job | None:
        """Take the job, if it is free; `worker` is a name that is used for this once."""
        taken = False

        def take(job: Job) -> None:
            nonlocal taken
            taken = job.free or job.worker == worker  # already ours: Redis took it, and its answer was lost
            if job.state == "running" and taken and job.worker != worker:
                job.tries += 1
                if job.tries >= TRIES:
                    taken, job.state, job.finished = False, "failed", time.time()
                    job.error = f"{TRIES} workers have ended in the midst of it"
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

    def put_back(self, job_id: str, worker: str, **fields) -> None:
        """Give the job up, for any worker to take."""
        def free(job: Job) -> None:
            if job.worker == worker and job.state == "running":
                job.state, job.worker = "queued", None
                for name, value in fields.items():
                    setattr(job, name, value)

        self.change(job_id, free)

    def cancel(self, job_id: str) -> Job | None:
        """A queued job ends here; a running one is told to."""
        def stop(job: Job) -> None:
            job.cancel = True
            if job.state == "queued":
                job.state, job.finished = "cancelled", time.time()

        return self.change(job_id, stop)


class SqliteJobs(JobStore):
    """One file, for one machine; several processes may use it."""

    def __init__(self, path: Path):
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        with self._open() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(
                "CREATE TABLE IF NOT EXISTS jobs (id TEXT PRIMARY KEY, created REAL, finished REAL, document TEXT)")
            database.execute("CREATE INDEX IF NOT EXISTS by_end ON jobs (finished, created)")
            database.execute("CREATE INDEX IF NOT EXISTS by_age ON jobs (created)")

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        database = sqlite3.connect(self.path, timeout=20, isolation_level=None)
        try:
            yield database
        except sqlite3.OperationalError as error:
            raise Unavailable(f"{self.path.name}: {error}") from None
        finally:
            database.close()

    def _select(self, rest: str, *values) -> list[Job]:
        with self._open() as database:
            return [_job(document) for (document,) in database.execute(f"SELECT document FROM jobs {rest}", values)]

    def _insert(self, job: Job) -> None:
        with self._open() as database:
            database.execute("INSERT INTO jobs VALUES (?, ?, ?, ?)", (job.id, job.created, job.finished, _document(job)))

    def get(self, job_id: str) -> Job | None:
        return next(iter(self._select("WHERE id = ?", job_id)), None)

    def newest(self, limit: int = 100) -> list[Job]:
        return self._select("ORDER BY created DESC LIMIT ?", limit)

    def unfinished(self) -> list[Job]:
        return self._select("WHERE finished IS NULL ORDER BY created")

    def finished_before(self, time: float) -> list[Job]:
        return self._select("WHERE finished < ?", time)

    def delete(self, job_id: str) -> None:
        with self._open() as database:
            database.execute("DELETE FROM jobs WHERE id = ?", (job_id,))

    def change(self, job_id: str, change: Callable[[Job], None]) -> Job | None:
        with self._open() as database:
            database.execute("BEGIN IMMEDIATE")
            row = database.execute("SELECT document FROM jobs WHERE id = ?", (job_id,)).fetchone()
            if row is None:
                return None
            job = _job(row[0])
            change(job)
            database.execute("UPDATE jobs SET finished = ?, document = ? WHERE id = ?", (job.finished, _document(job), job_id))
            database.execute("COMMIT")
        return job


class RedisJobs(JobStore):
    """For any number of machines."""

    KEY, BY_AGE, OPEN, BY_END = "tagwright:job:", "tagwright:jobs", "tagwright:open", "tagwright:finished"

    def __init__(self, url: str):
        self.redis = redis.Redis.from_url(url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE,
                                          retry=Retry(NoBackoff(), 1), decode_responses=True)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except redis.RedisError as error:
            raise Unavailable(f"Redis: {error}") from None

    def _read(self, ids: list[str]) -> list[Job]:
        documents = self.redis.mget([self.KEY + job_id for job_id in ids]) if ids else []
        return [_job(document) for document in documents if document]

    def _write(self, pipeline, job: Job) -> None:
        pipeline.set(self.KEY + job.id, _document(job))
        pipeline.zadd(self.BY_AGE, {job.id: job.created})
        if job.finished is None:
            pipeline.zadd(self.OPEN, {job.id: job.created})
        else:
            pipeline.zrem(self.OPEN, job.id)
            pipeline.zadd(self.BY_END, {job.id: job.finished})

    def _insert(self, job: Job) -> None:
        with self._errors(), self.redis.pipeline() as pipeline:
            self._write(pipeline, job)
            pipeline.execute()

    def get(self, job_id: str) -> Job | None:
        with self._errors():
            return next(iter(self._read([job_id])), None)

    def newest(self, limit: int = 100) -> list[Job]:
        with self._errors():
            return self._read(self.redis.zrevrange(self.BY_AGE, 0, limit - 1))

    def unfinished(self) -> list[Job]:
        with self._errors():
            return self._read(self.redis.zrange(self.OPEN, 0, -1))

    def finished_before(self, time: float) -> list[Job]:
        with self._errors():
            return self._read(self.redis.zrangebyscore(self.BY_END, 0, time))

    def delete(self, job_id: str) -> None:
        with self._errors(), self.redis.pipeline() as pipeline:
            pipeline.delete(self.KEY + job_id)
            for index in (self.BY_AGE, self.OPEN, self.BY_END):
                pipeline.zrem(index, job_id)
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
                    job = _job(document)
                    change(job)
                    pipeline.multi()
                    self._write(pipeline, job)
                    pipeline.execute()
                    return job


def _document(job: Job) -> str:
    return json.dumps(asdict(job))


def _job(document: str) -> Job:
    return Job(**json.loads(document))


def new_id() -> str:
    return secrets.token_hex(8)


def open_store(settings: Settings) -> JobStore:
    return RedisJobs(settings.redis) if settings.redis else SqliteJobs(settings.data / "jobs.sqlite")


def folder_of(settings: Settings, job_id: str) -> Path:
    """Where a job's files are: what was uploaded, and its result."""
    return settings.data / "jobs" / job_id
