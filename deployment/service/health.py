"""The images' health checks, `python -m service.health api|worker`: exit code 0 where the process beside it answers.

The API is asked for /healthz on port 8000. A worker is asked, through the broker, for a pong: one that has lost its broker
gives none.
"""

import socket
import sys
import urllib.request


def api_answers() -> bool:
    with urllib.request.urlopen("http://127.0.0.1:8000/healthz", timeout=4) as answer:
        return answer.status == 200


def worker_answers() -> bool:
    from service.settings import Settings  # here, since the API's check runs often and needs none of it
    from service.worker import celery_app

    return bool(celery_app(Settings()).control.inspect([f"celery@{socket.gethostname()}"], timeout=5).ping())


if __name__ == "__main__":
    sys.exit(not {"api": api_answers, "worker": worker_answers}[sys.argv[1]]())
