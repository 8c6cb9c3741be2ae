"""`python -m service.work KIND JOB ARGUMENTS SETTINGS`: does a job, in a process of its own, which ends with its worker and
which a file that is made to fill the memory may cost.

In the job's folder, `progress.json` says how far it is and `outcome.json` how it ended: the job's fields, or an `error`, with
`again` where the next try may succeed, or `busy`.
"""

import json
import os
import resource
import sys
import threading
import time
from pathlib import Path

from service.jobs import folder_of
from service.registry import Registry
from service.settings import Settings
from tagwright.bulk import tag_file
from tagwright.errors import Busy, TagwrightError
from tagwright.stage import alone, write_json

MEMORY = 4 << 30  # bytes for tagging a file; training, which only the token's bearer may ask for, takes what it needs
TELL_EVERY = 0.3  # seconds
OUT = {".parquet": ".parquet", ".jsonl": ".jsonl"}  # and .csv for the rest


def main(kind: str, job_id: str, arguments: dict, settings: Settings) -> None:
    threading.Thread(target=_end_with_the_worker, daemon=True).start()
    folder = folder_of(settings, job_id)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with alone(folder / "work", "job"):
            outcome = {"tag": tag, "train": train}[kind](folder, arguments, settings)
    except Busy as error:
        outcome = {"busy": str(error)}
    except TagwrightError as error:
        outcome = {"error": str(error).replace(f"{folder}/", "")}
    except MemoryError:
        outcome = {"error": f"needs more than the {MEMORY >> 30} GB of memory that a file may take; send it in smaller rows"}
    except OSError as error:
        outcome = {"error": f"{type(error).__name__}: {error.strerror or error}", "again": True}
    write_json(folder / "outcome.json", outcome)


def _end_with_the_worker() -> None:
    os.read(sys.stdin.fileno(), 1)  # returns when the worker has gone, however it went
    os._exit(1)


def tag(folder: Path, arguments: dict, settings: Settings) -> dict:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    registry = Registry(settings)
    name = arguments["model"] or registry.state()["active"]  # one that was begun with a model ends with it
    if name is None:
        raise TagwrightError("no model is active; activate one and send the file again")
    told = 0.0

    def tell(done: int, total: int | None) -> None:
        nonlocal told
        if time.monotonic() - told > TELL_EVERY:
            write_json(folder / "progress.json", {"model": name, "done": done, "total": total})
            told = time.monotonic()

    source = folder / arguments["file"]
    result = f"tagged{OUT.get(source.suffix, '.csv')}"
    counts = tag_file(registry.folder(name), source, folder / result, arguments["text"], tell)
    return {"result": result, "model": name, "done": counts["rows"], "total": counts["rows"],
            "counts": {key: counts[key] for key in ("rows", "written", "rejected")}}


def train(folder: Path, arguments: dict, settings: Settings) -> dict:
    from service.training import run  # pandas and more, which the image that only tags does not have

    return run(folder, arguments, settings)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3]), Settings(**json.loads(sys.argv[4])))
