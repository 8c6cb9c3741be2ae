"""The processes that `benchmarks/service.py` measures, kills and starts again: each listens on a port of its own and writes
what it has to say into a file."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import redis

from tagwright.task import ROOT

READY_WITHIN = 120  # seconds


class Server:
    """A process that runs until its `with` ends. `is_ready` is asked after each start."""

    def __init__(self, log: Path, command: list, is_ready: Callable[[], bool], environment: dict[str, str]):
        self.log, self.command, self.is_ready, self.environment = log, [str(part) for part in command], is_ready, environment

    def start(self) -> None:
        """Raises SystemExit, with the end of what the process said, where it ends or is not ready in time."""
        with self.log.open("a") as output:
            self.process = subprocess.Popen(self.command, stdout=output, stderr=subprocess.STDOUT, cwd=ROOT,
                                            env=self.environment)
        until = time.monotonic() + READY_WITHIN
        while not self.is_ready():
            if self.process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise SystemExit(f"{' '.join(self.command)}: does not answer; it said:\n{self.said()}")
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def said(self, last: int = 2000) -> str:
        """The last characters of its output, of all its starts."""
        return self.log.read_text(encoding="utf8", errors="replace")[-last:]

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.kill()


class Service:
    """The parts of the service with their own registry, jobs and, where it is given, Redis, in `folder`."""

    def __init__(self, folder: Path, model: Path, redis_port: int | None = None):
        self.folder, self.model = folder, model
        self.environment = environment() | {"TAGWRIGHT_MODELS": str(folder / "models"), "TAGWRIGHT_DATA": str(folder / "data")}
        if redis_port:
            self.environment["TAGWRIGHT_REDIS"] = f"redis://127.0.0.1:{redis_port}/0"

    def api(self, port: int) -> Server:
        command = [sys.executable, "-m", "service", "api", "--port", port, "--model", self.model]
        return Server(self.folder / "api.log", command, lambda: answers(f"http://127.0.0.1:{port}/readyz"), self.environment)

    def worker(self) -> Server:
        return Server(self.folder / "worker.log", [sys.executable, "-m", "service", "worker"], lambda: True, self.environment)


def minimal_app(folder: Path, model: Path, port: int) -> Server:
    command = [sys.executable, "-m", "benchmarks.minimal_app", model, "--port", port]
    return Server(folder / "minimal_app.log", command, lambda: answers(f"http://127.0.0.1:{port}/ready"), environment())


def redis_server(folder: Path, port: int) -> Server:
    """As the service is deployed: every job that was accepted is on the disk before it is answered."""
    command = ["redis-server", "--port", port, "--bind", "127.0.0.1", "--dir", folder, "--save", "",
               "--appendonly", "yes", "--appendfsync", "always"]
    return Server(folder / "redis.log", command, lambda: pongs(port), environment())


def environment() -> dict[str, str]:
    """This process's, without settings of a service that runs here otherwise."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("TAGWRIGHT_")}
    return own | {"PYTHONPATH": f"{ROOT}:{ROOT / 'deployment'}"}


def answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


def pongs(port: int) -> bool:
    try:
        return redis.Redis(port=port, socket_timeout=2).ping()
    except (redis.ConnectionError, redis.TimeoutError):
        return False


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
