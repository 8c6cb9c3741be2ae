"""`python -m service`: the API and one worker together; `… api` or `… worker` alone, where they are on several machines."""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import uvicorn

from service.registry import Registry
from service.settings import Settings
from tagwright.errors import TagwrightError

END_WITHIN = 20  # seconds; after that a child is killed, and its job goes on at the next start


def main() -> None:
    parser = argparse.ArgumentParser(prog="service", description=__doc__)
    parser.add_argument("part", nargs="?", choices=["all", "api", "worker"], default="all")
    parser.add_argument("--model", type=Path, help="a model folder to take into the registry; it answers if none does yet")
    parser.add_argument("--name", help="the model's name in the registry (default: that of its task)")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0: reachable from outside; set TAGWRIGHT_TOKEN then")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--processes", type=int, default=1, help="of the API")
    options = parser.parse_args()
    settings = Settings()
    try:
        if options.model:
            take_in(Registry(settings), options.model, options.name)
        if options.part == "worker":
            from service.worker import main as work

            work(settings)
        elif options.part == "api":
            serve(options)
        else:
            together(options)
    except TagwrightError as error:
        sys.exit(f"error: {error}")


def serve(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as folder:
        if options.processes > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
        uvicorn.run("service.api:create_app", factory=True, host=options.host, port=options.port, workers=options.processes,
                    log_level="warning", server_header=False, http="h11",  # httptools takes headers of any size
                    timeout_graceful_shutdown=END_WITHIN // 2)


def take_in(registry: Registry, folder: Path, name: str | None) -> None:
    from tagwright.bundle import read_bundle

    manifest = read_bundle(folder)
    name = name or manifest.task
    if name not in registry.names() or registry.manifest(name).checksum != manifest.checksum:
        registry.add(folder, name)
    if registry.state()["active"] is None:
        registry.activate(name)
    print(f"service: {registry.state()['active']} answers")


def together(options: argparse.Namespace) -> None:
    """API and worker as two processes that end together."""
    own = [sys.executable, "-m", "service"]
    api = [*own, "api", "--host", options.host, "--port", str(options.port), "--processes", str(options.processes)]
    children = [subprocess.Popen(command) for command in (api, [*own, "worker"])]
    print(f"service: http://{options.host}:{options.port}", flush=True)

    told = False

    def end(*signals) -> None:
        nonlocal told
        told = told or bool(signals)
        for child in children:
            child.terminate()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    first = wait_for_one(children)
    end()
    for child in children:
        try:
            child.wait(END_WITHIN)
        except subprocess.TimeoutExpired:
            child.kill()
    sys.exit(0 if told else abs(first) or 1)


def wait_for_one(children: list[subprocess.Popen]) -> int:
    while True:
        for child in children:
            try:
                return child.wait(0.5)
            except subprocess.TimeoutExpired:
                continue


if __name__ == "__main__":
    main()
