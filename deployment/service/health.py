"""The images' health checks, `python -m service.health api|worker`: exit code 0 where the process beside it is well.

The API is asked for /healthz on port 8000. A worker cannot be asked: its watch leaves a beat in the data folder each time it
has gone round, so one that hangs, or that has nothing to do and cannot look for jobs, is known by the age of its beat.
"""

import socket
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

STALE = 30.0  # seconds; the watch goes round every 2, and may take a while


def beat(data: Path) -> None:
    """Say that the worker of this host (a container is one) is well."""
    _beat_of_this_host(data).touch()


def worker_is_well(data: Path) -> bool:
    try:
        return time.time() - _beat_of_this_host(data).stat().st_mtime < STALE
    except FileNotFoundError:  # it has not begun yet
        return False


def remove_old_beats(data: Path, limit: float) -> None:
    """Those of hosts that have not beaten since the time `limit`."""
    for path in data.glob("worker-*.alive"):
        if path.stat().st_mtime < limit:
            path.unlink(missing_ok=True)


def _beat_of_this_host(data: Path) -> Path:
    return data / f"worker-{socket.gethostname()}.alive"


def api_is_well(port: int = 8000) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=4)  # urllib would go through a proxy that the environment names
    connection.request("GET", "/healthz")
    return connection.getresponse().status == 200


def main(part: str) -> int:
    try:
        if part == "api":
            return not api_is_well()
        from service.settings import Settings  # here, since the API's check runs often and needs none of it

        return not worker_is_well(Settings().data)
    except OSError as error:
        print(f"{part}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
