"""Measure the service as its users meet it, over HTTP and in processes of its own: `make bench-service` (about 25 minutes).

`load`: one API process under CONNECTIONS connections that each ask for the tags of one title after another, and, in turns with
it, the app that takes ten lines (`minimal_app.py`) with the same network in the transformers pipeline; medians of the turns.
`memory`: the resident memory of one API process under the same load. `jobs`: a file tagged by a worker, while worker, Redis and
API are killed with SIGKILL and started again; every row must be in the result once.

Writes each section into `results/service.json` as soon as it is measured, then the README's block. The load comes from `wrk`,
which has to share the cores with what it measures.
"""

import argparse
import contextlib
import json
import random
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import httpx
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from benchmarks.report import commit, machine, results_file, update_readme, write_results
from benchmarks.servers import Server, Service, free_port, minimal_app, redis_server
from benchmarks.tagging import endless
from tagwright.bundle import read_bundle
from tagwright.pipeline import Folders
from tagwright.task import Task

RESULTS = results_file("service")
WRK_SCRIPT = Path(__file__).with_name("tags.lua")
CONNECTIONS = 32
COMPARED = 50  # texts whose tags are compared
FLAT = 0.02  # of the memory after the warm-up: what the line through the curve may rise by over the whole of it
THINNED = 3  # one of so many points of the curve is kept
KILLED_BETWEEN = (0.05, 0.9)  # of the rows done
STALLED = 180  # seconds without progress after which a job is given up; a killed worker's job is free again after 30
OURS, MINIMAL = "the service", "FastAPI and the transformers pipeline"


@dataclass
class Plan:
    """How long everything takes; seconds."""

    turns: int = 3
    turn: int = 20
    warm_up: int = 5
    memory: int = 600
    memory_warm_up: int = 60
    memory_every: int = 5
    rows: int = 100_000
    kills: int = 3  # of the worker, of Redis and of the API


QUICK = Plan(turns=1, turn=3, warm_up=2, memory=12, memory_warm_up=3, memory_every=1, rows=20_000, kills=1)


def sample_titles(task: Task) -> list[str]:
    rows = map(json.loads, task.raw_path().read_text(encoding="utf8").splitlines())
    return [row["title"] for row in rows if row["title"]]


def start_wrk(url: str, bodies: Path, seconds: int) -> subprocess.Popen:
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "-s", WRK_SCRIPT, url, "--", bodies]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def counted(wrk: subprocess.Popen) -> dict:
    """What wrk counted, once it has ended: good answers a second, milliseconds, errors by kind."""
    output, _ = wrk.communicate()
    if wrk.returncode:
        raise SystemExit(f"wrk ended with {wrk.returncode}: {output}")
    row = json.loads(output.splitlines()[-1])
    errors = {kind: row[kind] for kind in ("refused", "connect", "read", "write", "timeout") if row[kind]}
    return {"requests_a_second": round((row["requests"] - row["refused"]) / row["seconds"], 1), "p50_ms": row["p50_ms"],
            "p99_ms": row["p99_ms"], "requests": row["requests"], "errors": errors}


def bar(measured: float | str, reached: bool) -> dict:
    return {"measured": measured, "reached": bool(reached)}


# --- load --------------------------------------------------------------------------------------------------------


def measure_load(model: Path, titles: list[str], folder: Path, plan: Plan) -> dict:
    bodies, ports = write_bodies(folder, titles), {OURS: free_port(), MINIMAL: free_port()}
    urls = {OURS: f"http://127.0.0.1:{ports[OURS]}/v1/tags", MINIMAL: f"http://127.0.0.1:{ports[MINIMAL]}/tags"}
    asked = titles[:COMPARED]
    with Service(folder, model).api(ports[OURS]), minimal_app(folder, model, ports[MINIMAL]):
        warm_up = start_wrk(urls[OURS], bodies, plan.warm_up)
        ours = [labels(answer["results"][0]["tags"]) for answer in ask(urls[OURS], asked)]  # in batches with what wrk asks
        counted(warm_up)
        counted(start_wrk(urls[MINIMAL], bodies, plan.warm_up))
        theirs = [labels(answer) for answer in ask(urls[MINIMAL], asked)]
        turns: dict[str, list[dict]] = {name: [] for name in urls}
        for _ in range(plan.turns):
            for name, url in urls.items():
                turns[name].append(counted(start_wrk(url, bodies, plan.turn)))
                print(f"{name}: {turns[name][-1]}", flush=True)
    medians = {name: {key: round(statistics.median(row[key] for row in rows), 1)
                      for key in ("requests_a_second", "p50_ms", "p99_ms")}
               | {"errors": sum(sum(row["errors"].values()) for row in rows)} for name, rows in turns.items()}
    row, times = medians[OURS], medians[OURS]["requests_a_second"] / medians[MINIMAL]["requests_a_second"]
    same = sum(one == other for one, other in zip(ours, theirs, strict=True)) / len(asked)
    return {
        "connections": CONNECTIONS, "turn_seconds": plan.turn, "medians": medians, "times_as_many": round(times, 2),
        "same_tags": same, "turns": turns,
        "bars": {"at least 250 requests/s": bar(row["requests_a_second"], row["requests_a_second"] >= 250),
                 "p99 below 250 ms": bar(row["p99_ms"], row["p99_ms"] < 250), "no error": bar(row["errors"], not row["errors"]),
                 "at least 2.5 times as many requests as the minimal app": bar(round(times, 2), times >= 2.5),
                 "the same tags for at least 90 % of the texts": bar(same, same >= 0.9)},
    }


def write_bodies(folder: Path, titles: list[str]) -> Path:
    file = folder / "bodies.jsonl"
    file.write_text("".join(json.dumps({"text": title}) + "\n" for title in titles), encoding="utf8")
    return file


def ask(url: str, texts: list[str]) -> list:
    with httpx.Client(timeout=60) as client:
        return [client.post(url, json={"text": text}).raise_for_status().json() for text in texts]


def labels(tags: list[dict]) -> set[str]:
    return {tag["label"] for tag in tags}


# --- memory ------------------------------------------------------------------------------------------------------


def measure_memory(model: Path, titles: list[str], folder: Path, plan: Plan) -> dict:
    port, curve = free_port(), []
    with Service(folder, model).api(port) as api:
        process = psutil.Process(api.process.pid)
        wrk = start_wrk(f"http://127.0.0.1:{port}/v1/tags", write_bodies(folder, titles), plan.memory_warm_up + plan.memory)
        started = time.monotonic()
        while wrk.poll() is None:
            curve.append((time.monotonic() - started, process.memory_info().rss / 1e6))
            time.sleep(plan.memory_every)
        load = counted(wrk)
    found, errors = trend([point for point in curve if point[0] >= plan.memory_warm_up]), sum(load["errors"].values())
    return {"load": load, "seconds": plan.memory, **found,
            "curve_mb": {f"{seconds:.0f}": round(megabytes, 1) for seconds, megabytes in curve[::THINNED]},
            "bars": {f"flat: the line through it rises by less than {FLAT:.0%}": bar(found["rise"], found["rise"] < FLAT),
                     "no error": bar(errors, not errors)}}


def trend(curve: list[tuple[float, float]]) -> dict[str, float]:
    """What the curve, of (seconds, MB), comes to. `mb_a_minute` is the slope of the line of least squares, `rise` what that
    makes over the whole of the curve, as a share of its first value."""
    seconds, megabytes = np.array(curve).T
    slope = float(np.polyfit(seconds, megabytes, 1)[0])
    return {"first_mb": round(megabytes[0], 1), "last_mb": round(megabytes[-1], 1), "max_mb": round(megabytes.max(), 1),
            "mb_a_minute": round(60 * slope, 3), "rise": round(slope * (seconds[-1] - seconds[0]) / megabytes[0], 4)}


# --- jobs --------------------------------------------------------------------------------------------------------


def measure_jobs(model: Path, titles: list[str], folder: Path, plan: Plan) -> dict:
    rows, file = list(islice(endless(titles), plan.rows)), folder / "titles.parquet"
    pq.write_table(pa.table({"number": range(len(rows)), "title": rows}), file)
    ports = {"Redis": free_port(), "API": free_port()}
    service, url = Service(folder, model, ports["Redis"]), f"http://127.0.0.1:{ports['API']}/v1/jobs"
    with (redis_server(folder, ports["Redis"]) as redis, service.api(ports["API"]) as api, service.worker() as worker,
          httpx.Client(timeout=60) as client):
        started = time.monotonic()
        with file.open("rb") as content:
            job = client.post(f"{url}/tag", files={"file": content}).raise_for_status().json()
        job, events = follow(client, f"{url}/{job['id']}", {"worker": worker, "Redis": redis, "API": api}, plan)
        seconds = time.monotonic() - started
        result = folder / "result.parquet"
        if job["state"] == "succeeded":
            result.write_bytes(client.get(f"{url}/{job['id']}/result").raise_for_status().content)
    found = compare(rows, pq.read_table(result) if result.exists() else None)
    killed, faults = Counter(event["killed"] for event in events), found["missing"] + found["doubled"] + found["changed"]
    return {
        "state": job["state"], "error": job["error"], "seconds": round(seconds, 1), "killed": dict(killed), **found,
        "events": events,
        "bars": {"the job succeeds": bar(job["state"], job["state"] == "succeeded"),
                 f"{3 * plan.kills} kills while it runs": bar(len(events), len(events) == 3 * plan.kills),
                 "no row missing, doubled or changed": bar(faults, not faults)},
    }


def follow(client: httpx.Client, url: str, servers: dict[str, Server], plan: Plan, seed: int = 0) -> tuple[dict, list[dict]]:
    """Kill each server `plan.kills` times at random moments while the job runs, and start it again; wait for the job's end.
    Returns the job as the API last showed it, `stalled` where it came to no end, and what was killed, when."""
    chance, events, began = random.Random(seed), [], time.monotonic()
    due = sorted((chance.uniform(*KILLED_BETWEEN), name) for name in servers for _ in range(plan.kills))
    job, moved = {"state": "queued", "error": None, "progress": {"done": 0}}, time.monotonic()
    while job["state"] in ("queued", "running"):
        if time.monotonic() - moved > STALLED:
            for name, server in servers.items():
                print(f"{name} said:\n{server.said()}", flush=True)
            return job | {"state": "stalled"}, events
        time.sleep(chance.uniform(0, 1))
        with contextlib.suppress(httpx.TransportError):
            reply = client.get(url)
            if reply.status_code == 503:  # Redis is away
                continue
            before, job = job, reply.raise_for_status().json()
            if job["progress"] != before["progress"] or job["state"] != before["state"]:
                moved = time.monotonic()
        if job["state"] == "running" and due and job["progress"]["done"] >= due[0][0] * plan.rows:
            _, name = due.pop(0)
            servers[name].kill()
            events.append({"killed": name, "second": round(time.monotonic() - began, 1), "rows": job["progress"]["done"]})
            print(f"killed: {events[-1]}", flush=True)
            time.sleep(chance.uniform(0, 3))
            servers[name].start()
    return job, events


def compare(rows: list[str], table: pa.Table | None) -> dict[str, int]:
    """Rows of the result (None: there is none) against those that were sent, by their numbers."""
    numbers = table["number"].to_pylist() if table else []
    found = table["title"].to_pylist() if table else []
    return {"rows_in": len(rows), "rows_out": len(numbers), "missing": len(set(range(len(rows))) - set(numbers)),
            "doubled": len(numbers) - len(set(numbers)),
            "changed": sum(title != rows[number] for number, title in zip(numbers, found, strict=True))}


# --- all of it ---------------------------------------------------------------------------------------------------

SECTIONS = {"load": measure_load, "memory": measure_memory, "jobs": measure_jobs}


def render(results: dict) -> str:
    """The README's block, in Markdown, of the sections that were measured."""
    parts = []
    if load := results.get("load"):
        parts += [f"| one process, {load['connections']} connections, a title each | requests/s | p50, ms | p99, ms | errors |",
                  "|---|---|---|---|---|"]
        parts += [f"| {name} | {row['requests_a_second']:,.0f} | {row['p50_ms']:,.0f} | {row['p99_ms']:,.0f} | "
                  f"{row['errors']:,} |" for name, row in load["medians"].items()]
        parts += ["", f"{load['times_as_many']:.1f} times as many requests; medians of {len(load['turns'][OURS])} turns of "
                      f"{load['turn_seconds']} s each, one after the other; both give {100 * load['same_tags']:.0f} % of "
                      f"{COMPARED} titles the same tags (int8 and fp32)."]
    if memory := results.get("memory"):
        parts.append(f"Memory of the API under this load for {memory['seconds'] / 60:.0f} minutes, after one to warm up: "
                     f"{memory['first_mb']:.0f} MB at first, {memory['last_mb']:.0f} MB at last, never more than "
                     f"{memory['max_mb']:.0f} MB ({memory['mb_a_minute']:+.2f} MB a minute).")
    if jobs := results.get("jobs"):
        killed = ", ".join(f"{name} {count} times" for name, count in jobs["killed"].items())
        parts.append(f"A file of {jobs['rows_in']:,} rows, with SIGKILL at random moments ({killed}): {jobs['state']} after "
                     f"{jobs['seconds']:.0f} s, {jobs['rows_out']:,} rows in the result, {jobs['missing']} missing, "
                     f"{jobs['doubled']} doubled.")
    machines = sorted({results[name]["machine"] for name in SECTIONS if name in results})
    return "\n".join([*parts, f"On {' or '.join(machines)}, which the load shares."])


def show(measured: dict[str, dict]) -> None:
    table = Table(title="The service", title_justify="left")
    for column in ("section", "bar", "measured", "reached"):
        table.add_column(column, justify="right" if column == "measured" else "left")
    for section, result in measured.items():
        for name, found in result["bars"].items():
            table.add_row(section, name, str(found["measured"]), "yes" if found["reached"] else "NO")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--model", type=Path, help="a model folder (default: the task's)")
    parser.add_argument("--quick", action="store_true", help="see in two minutes that it works, and write nothing")
    options = parser.parse_args()
    task, plan = Task.load("scifi"), QUICK if options.quick else Plan()
    model, titles = options.model or Folders.of(task).answering, sample_titles(task)
    checksum, measured_at = read_bundle(model).checksum, commit()  # before the files that are written here change it
    before = json.loads(RESULTS.read_text(encoding="utf8")) if RESULTS.exists() else {}
    measured = {name: before[name] for name in SECTIONS if name in before} if before.get("model") == checksum else {}
    for name in options.sections:
        with tempfile.TemporaryDirectory() as folder:
            measured[name] = {"machine": machine(), "commit": measured_at, **SECTIONS[name](model, titles, Path(folder), plan)}
        if not options.quick:
            write_results("service", {"commit": measured_at, "task": task.name, "model": checksum, **measured})
            update_readme("service", render(measured))
    print(render(measured))
    show({name: measured[name] for name in options.sections})


if __name__ == "__main__":
    main()
