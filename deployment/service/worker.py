"""The worker. Celery's messages wake it; what is to be done, and whether it is free, the job store says."""

import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from celery import Celery, signals
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from service import health
from service.jobs import TRIES, Cancelled, Job, Lost, Unavailable, folder_of, open_store
from service.settings import Settings
from tagwright.errors import Busy, TagwrightError

TASK = "service.work"
WATCH = 2.0  # seconds between two looks for jobs that wait
SWEEP = 300.0  # seconds between two looks for what is kept no longer
KEEP_JOBS = 7 * 24  # hours for which a job is known after its files have gone
END_WITHIN = 10  # seconds for a job that is told to stop
LOOK = 0.2  # seconds between two looks at its progress
log = logging.getLogger(__name__)


def celery_app(settings: Settings) -> Celery:
    """Redis as the broker, or, for one machine, SQLite."""
    return _app(settings.redis, str(settings.data.resolve()))


@cache
def _app(url: str | None, data: str) -> Celery:
    Path(data).mkdir(parents=True, exist_ok=True)
    app = Celery("service", broker=url or f"sqla+sqlite:///{data}/broker.sqlite")
    app.conf.update(
        accept_content=["json"], task_serializer="json", task_ignore_result=True, task_acks_late=True,
        worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True, broker_connection_max_retries=None,
        worker_hijack_root_logger=False, worker_enable_remote_control=False,
        broker_transport_options={"socket_timeout": 2, "socket_connect_timeout": 2} if url else {},
    )
    return app


def ring(settings: Settings, job_id: str) -> None:
    """Wake a worker. A message that cannot be sent is no harm: the workers watch the store too."""
    try:
        celery_app(settings).send_task(TASK, [job_id], retry=False)
    except (OperationalError, OSError, SQLAlchemyError) as error:
        log.warning("no worker could be woken for job %s: %s", job_id, error)


def main(settings: Settings) -> None:
    """Work until SIGTERM."""
    worker, app = Worker(settings), celery_app(settings)
    app.task(worker.work, name=TASK)

    def ready(**_) -> None:
        threading.Thread(target=worker.watch, daemon=True).start()

    def ending(**_) -> None:
        worker.ending.set()

    signals.worker_ready.connect(ready)
    signals.worker_shutting_down.connect(ending)
    app.worker_main(["--quiet", "worker", "--concurrency=1", "--pool=threads", "--without-gossip", "--without-mingle",
                     "--loglevel=WARNING", f"--hostname=worker-{os.getpid()}@%h"])


class Ending(Exception):
    """The worker is to end; another goes on with its job."""


class Worker:
    """Does one job at a time."""

    def __init__(self, settings: Settings):
        self.settings, self.store = settings, open_store(settings)
        self.busy, self.ending = threading.Lock(), threading.Event()

    def work(self, job_id: str) -> None:
        """What a message asks for: do the job, if it is free, and say how it ended."""
        with self.busy:
            if self.ending.is_set():
                return
            name = f"{socket.gethostname()}-{secrets.token_hex(4)}"
            try:
                job = self.store.claim(job_id, name)
            except Unavailable as error:
                log.warning("job %s cannot be taken now: %s", job_id, error)
                return
            if job:
                with Heart(self, job, name) as heart:
                    self._do(job, name, heart)

    def _do(self, job: Job, name: str, heart: "Heart") -> None:
        folder, store = folder_of(self.settings, job.id), self.store
        try:
            fields = supervise(self.settings, job, heart)
        except Cancelled:
            self._say(lambda: store.end(job.id, name, "cancelled"))
            shutil.rmtree(folder, ignore_errors=True)
        except Lost:
            log.warning("job %s is another worker's now", job.id)
        except Ending:
            self._say(lambda: store.put_back(job.id, name))
        except Busy:  # a worker that was thought to be dead has not stopped yet
            self._say(lambda: store.put_back(job.id, name, not_before=time.time() + WATCH))
        except TagwrightError as error:
            text = str(error)
            self._say(lambda: store.end(job.id, name, "failed", error=text))
        except OSError as error:
            text = str(error)
            if job.tries + 1 < TRIES:
                self._say(lambda: store.put_back(job.id, name, tries=job.tries + 1, message=f"tried again after {text}",
                                                 not_before=time.time() + 5 * 2**job.tries))
            else:
                self._say(lambda: store.end(job.id, name, "failed", error=f"failed {TRIES} times, at last with {text}"))
        except Exception as error:
            text = f"the worker failed at this job ({type(error).__name__}); its log says why"
            self._say(lambda: store.end(job.id, name, "failed", error=text))
            raise
        else:
            self._say(lambda: store.end(job.id, name, "succeeded", **{"message": None} | heart.fields | fields))

    def _say(self, call: Callable[[], None]) -> None:
        """Tell the store, for as long as it takes: what is done is not to be done again."""
        while True:
            try:
                return call()
            except Unavailable as error:
                log.warning("jobs cannot be reached: %s", error)
                if self.ending.wait(WATCH):
                    return

    def watch(self) -> None:
        """While this worker has nothing to do, ring for a job that nobody has; remove what is kept no longer."""
        swept = 0.0
        while not self.ending.wait(WATCH):
            try:
                if not self.busy.locked() and (job := next((job for job in self.store.unfinished() if job.waiting), None)):
                    ring(self.settings, job.id)
                if time.monotonic() - swept > SWEEP:
                    self.sweep()
                    swept = time.monotonic()
                health.beat(self.settings.data)
            except (Unavailable, OSError) as error:
                log.warning("no look at the jobs: %s", error)

    def sweep(self) -> None:
        """Remove the files of jobs that ended long ago, a week later the jobs themselves, and uploads that broke off."""
        limit = time.time() - self.settings.keep_results_hours * 3600
        for job in self.store.finished_before(limit):
            shutil.rmtree(folder_of(self.settings, job.id), ignore_errors=True)
            if job.finished < limit - KEEP_JOBS * 3600:
                self.store.delete(job.id)
        health.remove_old_beats(self.settings.data, limit)
        for folder in folder_of(self.settings, "").glob("*"):
            if folder.stat().st_mtime < limit and self.store.get(folder.name) is None:
                shutil.rmtree(folder, ignore_errors=True)


class Heart:
    """Beats for a job while it is worked at, with its progress; what it learns is raised in the work at its next `tell`."""

    def __init__(self, worker: Worker, job: Job, name: str):
        self.worker, self.job, self.name = worker, job, name
        self.fields: dict = {}
        self.stopped: Exception | None = None
        self._until = time.monotonic() + worker.settings.max_job_hours * 3600
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._end.set()
        self._thread.join()

    def tell(self, **fields) -> None:
        """Say how far the work is. Raises Cancelled, Lost or Ending where it is to stop, TagwrightError where it took too
        long."""
        self.fields.update(fields)
        if self.stopped:
            raise self.stopped
        if self.worker.ending.is_set():
            raise Ending
        if time.monotonic() > self._until:
            raise TagwrightError(f"took longer than {self.worker.settings.max_job_hours} hours (TAGWRIGHT_MAX_JOB_HOURS)")

    def _beat(self) -> None:
        while not self._end.wait(1.0):
            try:
                self.worker.store.beat(self.job.id, self.name, **self.fields)
            except (Cancelled, Lost) as stopped:
                self.stopped = stopped
                return
            except Unavailable as error:  # it comes back, or the lease runs out
                log.warning("jobs cannot be reached: %s", error)


def supervise(settings: Settings, job: Job, heart: Heart) -> dict:
    """Have a process of its own do the job; returns the fields that it ended with. Raises what the heart does, TagwrightError
    for a fault that stays, OSError for one that may pass, and Busy."""
    folder = folder_of(settings, job.id)
    folder.mkdir(parents=True, exist_ok=True)
    outcome, log_file = folder / "outcome.json", folder / "work.log"
    outcome.unlink(missing_ok=True)
    command = [sys.executable, "-m", "service.work", job.kind, job.id, json.dumps(job.arguments | {"model": job.model}),
               settings.model_dump_json(include={"models", "data", "threads"})]
    paths = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}  # it finds what this process finds
    with log_file.open("ab") as output:
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=paths)
        try:
            while child.poll() is None:
                heart.tell(**_read(folder / "progress.json"))
                time.sleep(LOOK)
        finally:
            child.terminate()
            try:
                child.wait(END_WITHIN)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            child.stdin.close()
    heart.tell(**_read(folder / "progress.json"))
    fields = _read(outcome)
    if child.returncode < 0:
        raise ChildProcessError(f"the process that did it was ended by signal {-child.returncode}")
    if not fields:
        raise RuntimeError(f"job {job.id}: {log_file.read_text(errors='replace')[-2000:]}")
    if "busy" in fields:
        raise Busy(fields["busy"])
    if "again" in fields:
        raise OSError(fields["error"])
    if "error" in fields:
        raise TagwrightError(fields["error"])
    return fields


def _read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
