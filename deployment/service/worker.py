"""The worker. Celery's messages wake it; what is to be done, and whether it is free, the job store says."""

import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

from celery import Celery, signals
from kombu.exceptions import OperationalError

from service import health
from service.jobs import LEASE, Cancelled, Job, JobStore, Lost, Unavailable, folder_of, open_store
from service.registry import Registry
from service.settings import Settings
from tagwright.bulk import tag_file
from tagwright.errors import TagwrightError

TASK = "service.work"
HARD_LIMIT = 24 * 3600  # seconds for a job
TRIES = 5
OUT = {".parquet": ".parquet", ".jsonl": ".jsonl"}  # and .csv for the rest
WATCH = 5.0  # seconds between two looks for jobs that wait
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
        worker_prefetch_multiplier=1, task_time_limit=HARD_LIMIT, broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None, worker_hijack_root_logger=False, worker_enable_remote_control=False,
        broker_transport_options={"socket_timeout": 2, "socket_connect_timeout": 2} if url else {},
    )
    return app


def ring(settings: Settings, job_id: str) -> None:
    """Wake a worker. A message that cannot be sent is no harm: the workers watch the store too."""
    try:
        celery_app(settings).send_task(TASK, [job_id], retry=False)
    except (OperationalError, OSError) as error:
        log.warning("no worker could be woken for job %s: %s", job_id, error)


def main(settings: Settings) -> None:
    """Work until SIGTERM."""
    app, store = celery_app(settings), open_store(settings)

    @app.task(name=TASK)
    def work(job_id: str) -> None:
        run(settings, store, job_id)

    signals.worker_ready.connect(lambda **_: threading.Thread(target=watch, args=(settings, store), daemon=True).start(),
                                 weak=False)
    app.worker_main(["worker", "--concurrency=1", "--pool=threads", "--without-gossip", "--without-mingle",
                     "--loglevel=WARNING", f"--hostname=worker-{os.getpid()}@%h"])


def watch(settings: Settings, store: JobStore) -> None:
    """Ring for jobs that nobody has, and remove what is kept no longer."""
    while True:
        try:
            for job in reversed(store.waiting()):  # the oldest first
                store.change(job.id, lambda job: setattr(job, "heartbeat", max(job.heartbeat, time.time() - LEASE))
                             if job.state == "queued" else None)
                ring(settings, job.id)
            sweep(settings, store)
            health.beat(settings.data)
        except (Unavailable, OSError) as error:
            log.warning("jobs cannot be reached: %s", error)
        time.sleep(WATCH)


def sweep(settings: Settings, store: JobStore) -> None:
    """Remove the files of jobs that ended long ago; a week later the jobs themselves."""
    for job in store._all(None):
        if job.ended and job.finished:
            age = (time.time() - job.finished) / 3600
            if age > settings.keep_results_hours:
                shutil.rmtree(folder_of(settings, job.id), ignore_errors=True)
            if age > settings.keep_results_hours + 7 * 24:
                store.delete(job.id)


def run(settings: Settings, store: JobStore, job_id: str) -> None:
    """Do a job, if it is free, and say how it ended."""
    worker = f"{socket.gethostname()}-{os.getpid()}-{threading.get_ident()}"
    job = store.claim(job_id, worker)
    if job is None:
        return
    heart = Heart(store, job, worker)
    try:
        with heart:
            fields = {"tag": tag, "train": train}[job.kind](settings, job, heart)
    except Cancelled:
        store.end(job_id, worker, "cancelled")
        shutil.rmtree(folder_of(settings, job_id), ignore_errors=True)
    except Lost:
        log.warning("job %s is another worker's now", job_id)
    except TagwrightError as error:
        store.end(job_id, worker, "failed", error=str(error).replace(f"{folder_of(settings, job_id)}/", ""))
    except (OSError, Unavailable) as error:
        again(settings, store, job, worker, error)
    except Exception as error:
        store.end(job_id, worker, "failed", error=f"the worker failed at this job ({type(error).__name__}); its log says why")
        raise
    else:
        store.end(job_id, worker, "succeeded", **fields)


def again(settings: Settings, store: JobStore, job: Job, worker: str, error: Exception) -> None:
    """Put a job back that failed for a reason which may pass: 2, 4, 8 … seconds later it is rung for."""
    if job.tries + 1 >= TRIES:
        store.end(job.id, worker, "failed", error=f"failed {TRIES} times, at last with: {error}")
        return

    def put_back(job: Job) -> None:
        if job.worker == worker and job.state == "running":
            job.state, job.worker, job.tries, job.message = "queued", None, job.tries + 1, f"tried again after: {error}"

    store.change(job.id, put_back)
    celery_app(settings).send_task(TASK, [job.id], countdown=2 ** (job.tries + 1), retry=False)


class Heart:
    """Beats for a job while it is worked at, with its progress; what it learns is raised in the work at its next `tell`."""

    def __init__(self, store: JobStore, job: Job, worker: str):
        self.store, self.job, self.worker = store, job, worker
        self.fields: dict = {}
        self.stopped: Exception | None = None
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._end.set()
        self._thread.join()

    def tell(self, **fields) -> None:
        self.fields.update(fields)
        if self.stopped:
            raise self.stopped

    def _beat(self) -> None:
        while not self._end.wait(1.0):
            try:
                self.store.beat(self.job.id, self.worker, **self.fields)
            except (Cancelled, Lost) as stopped:
                self.stopped = stopped
                return
            except Unavailable as error:  # it comes back, or the lease runs out
                log.warning("jobs cannot be reached: %s", error)


def tag(settings: Settings, job: Job, heart: Heart) -> dict:
    registry, folder = Registry(settings), folder_of(settings, job.id)
    name = job.model or registry.state()["active"]
    if name is None:
        raise TagwrightError("no model is active; activate one and send the file again")
    heart.tell(model=name)
    source = folder / job.arguments["file"]
    result = f"tagged{OUT.get(source.suffix, '.csv')}"
    counts = tag_file(registry.folder(name), source, folder / result, job.arguments["text"],
                      lambda done, total: heart.tell(done=done, total=total))
    return {"result": result, "model": name, "done": counts["rows"], "total": counts["rows"],
            "counts": {key: counts[key] for key in ("rows", "written", "rejected")}}


def train(settings: Settings, job: Job, heart: Heart) -> dict:
    """Train in a process of its own, whose memory goes back to the system."""
    folder = folder_of(settings, job.id)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.log").open("a") as output:
        child = subprocess.Popen([sys.executable, "-m", "service.training", folder, json.dumps(job.arguments)],
                                 stdout=output, stderr=subprocess.STDOUT)
        try:
            while (code := child.poll()) is None:
                heart.tell(**read(folder / "progress.json"))
                time.sleep(0.5)
        finally:
            if child.poll() is None:
                child.send_signal(signal.SIGTERM)
                child.wait()
    outcome = read(folder / "outcome.json")
    if code or "error" in outcome:
        raise TagwrightError(outcome.get("error", f"the training process ended with {code}; its log is kept with the job"))
    heart.tell(**read(folder / "progress.json"))
    return go_live(settings, job, folder, outcome)


def go_live(settings: Settings, job: Job, folder: Path, outcome: dict) -> dict:
    """Take the new model in; it answers from now on if it beats the one that does, on the same test rows."""
    from service.training import score_of

    registry, model = Registry(settings), folder / outcome["model"]
    name = f"{outcome['task']}-{job.id[:8]}"
    registry.add(model, name)
    active, new = registry.state()["active"], outcome["score"]
    if active is None:
        registry.activate(name)
        return {"model": name, "message": f"{outcome['measure']} {new:.3f} on its test rows; no model was active, so it is now"}
    old = score_of(registry.folder(active), folder / outcome["dataset"])
    if old is None:
        return {"model": name, "message": f"{outcome['measure']} {new:.3f} on its test rows; {active} has other labels and was "
                                          "not compared, so it stays active"}
    message = f"{outcome['measure']} {new:.3f} against {old:.3f} of {active} on the same test rows"
    if new > old:
        registry.activate(name)
    return {"model": name, "message": f"{message}: {'it is active now' if new > old else f'{active} stays active'}"}


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}
