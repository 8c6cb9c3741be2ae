"""The service's API as a process of its own, as it is run: a crash, and its memory, show."""

import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

ROOT = Path(__file__).resolve().parent.parent


@dataclass
class Api:
    port: int
    home: Path
    process: psutil.Process
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def data(self) -> Path:
        return self.home / "data"

    def memory(self, anew: bool = False) -> int:
        """The most bytes in use at once, so far or, from now on, `anew`."""
        system = Path(f"/proc/{self.process.pid}")
        if anew:
            (system / "clear_refs").write_text("5")
        peak = next(line for line in (system / "status").read_text().splitlines() if line.startswith("VmHWM:"))
        return int(peak.split()[1]) * 1024


@contextmanager
def api(model: Path, home: Path, **settings: str):
    """`python -m service api` with a model that answers; `settings` are environment variables without TAGWRIGHT_."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shutil.copytree(model, home / "models" / "scifi")
    (home / "models" / "active.json").write_text('{"active": "scifi", "previous": null}')
    (home / "tmp").mkdir()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TAGWRIGHT_")} | {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'deployment'}", "TAGWRIGHT_MODELS": str(home / "models"),
        "TAGWRIGHT_DATA": str(home / "data"), "TAGWRIGHT_JOBS_PER_HOUR": "0", "TAGWRIGHT_THREADS": "1",
        "TMPDIR": str(home / "tmp")} | {f"TAGWRIGHT_{key.upper()}": value for key, value in settings.items()}
    log = home / "api.log"
    with log.open("w") as output:
        child = subprocess.Popen([sys.executable, "-m", "service", "api", "--port", str(port)], cwd=home, env=environment,
                                 stdout=output, stderr=subprocess.STDOUT)
    try:
        running = Api(port, home, psutil.Process(child.pid), log)
        _wait_until_ready(running, child)
        yield running
    finally:
        child.kill()  # at SIGTERM it would wait for clients that are slow
        child.wait()


def _wait_until_ready(running: Api, child: subprocess.Popen) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{running.url}/readyz", timeout=10).status_code == 200:
                return
        except httpx.TransportError:
            pass
        assert child.poll() is None, running.log.read_text()
        assert time.monotonic() < deadline, running.log.read_text()
        time.sleep(0.1)
