"""The service's parts as processes of their own, and a Redis of the test's own, which can be killed and started again."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import redis

from tagwright.task import ROOT


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Process:
    """A child whose output goes to a file; `kill` is SIGKILL to it and its children."""

    def __init__(self, command: list, log: Path, environ: dict[str, str]):
        with log.open("a") as output:
            self.child = subprocess.Popen([*map(str, command)], stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
                                          env=os.environ | environ, start_new_session=True)

    def kill(self) -> None:
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait()

    def stop(self, within: float = 30) -> int:
        self.child.terminate()
        return self.child.wait(within)


class Redis:
    def __init__(self, folder: Path):
        self.folder, self.port = folder, free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None

    def start(self) -> None:
        self.process = Process([shutil.which("redis-server"), "--port", self.port, "--dir", self.folder, "--bind", "127.0.0.1",
                                "--appendonly", "yes", "--appendfsync", "always", "--save", ""], self.folder / "redis.log", {})
        client = redis.Redis.from_url(self.url)
        wait_for(lambda: answers(client), 20, "Redis")


def answers(client: redis.Redis) -> bool:
    try:
        return client.ping()
    except redis.RedisError:
        return False


class Services:
    """The service of one folder: `home/models` is its registry, `home/data` its files."""

    def __init__(self, home: Path, redis_url: str | None = None, **settings):
        self.home, self.port, self.processes = home, free_port(), []
        (home / "data").mkdir(parents=True, exist_ok=True)
        self.environ = {"TAGWRIGHT_MODELS": str(home / "models"), "TAGWRIGHT_DATA": str(home / "data"), "OMP_NUM_THREADS": "1",
                        "PYTHONPATH": os.pathsep.join([str(ROOT / "deployment"), str(ROOT)]),
                        **({"TAGWRIGHT_REDIS": redis_url} if redis_url else {}),
                        **{f"TAGWRIGHT_{name.upper()}": str(value) for name, value in settings.items()}}
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)

    def start(self, part: str, *options) -> Process:
        if part in ("api", "all"):
            options = ("--port", self.port, *options)
        process = Process([sys.executable, "-m", "service", part, *options], self.home / f"{part}.log", self.environ)
        self.processes.append(process)
        if part in ("api", "all"):
            wait_for(self.ready, 60, part)
        return process

    def ready(self) -> bool:
        try:
            return self.http.get("/healthz").status_code == 200
        except httpx.HTTPError:
            return False

    def stop(self) -> None:
        self.http.close()
        for process in self.processes:
            process.kill()

    def job(self, job_id: str) -> dict:
        return self.http.get(f"/v1/jobs/{job_id}").raise_for_status().json()

    def ended(self, job_id: str, within: float = 120) -> dict:
        wait_for(lambda: self.job(job_id)["state"] in ("succeeded", "failed", "cancelled"), within, f"the end of job {job_id}")
        return self.job(job_id)

    def running(self, job_id: str, done: int = 1, within: float = 60) -> dict:
        """Wait until so much of a job is done."""
        wait_for(lambda: self.job(job_id)["progress"]["done"] >= done, within, f"{done} rows of job {job_id}")
        return self.job(job_id)


def wait_for(condition, within: float, what: str) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"waited {within} s for {what}"
        time.sleep(0.1)
