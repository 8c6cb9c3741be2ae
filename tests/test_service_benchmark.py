"""What the benchmark of the service makes of what it finds: rows lost or doubled, memory that grows, sections left out."""

import itertools

import pyarrow as pa
import pytest

from benchmarks import service

SENT = ["first", "second", "third", "fourth"]
LOAD = {"requests_a_second": 300.0, "p50_ms": 90.0, "p99_ms": 180.0, "errors": 0}
RESULTS = {
    "load": {"machine": "M", "connections": 32, "turn_seconds": 20, "times_as_many": 4.0, "same_tags": 0.98,
             "medians": {service.OURS: LOAD, service.MINIMAL: LOAD | {"requests_a_second": 75.0, "errors": 3}},
             "turns": {service.OURS: [LOAD] * 3, service.MINIMAL: [LOAD] * 3}},
    "memory": {"machine": "M", "seconds": 600, "first_mb": 240.0, "last_mb": 241.0, "max_mb": 242.0, "mb_a_minute": 0.1},
    "jobs": {"machine": "M", "state": "succeeded", "seconds": 300.0, "killed": {"worker": 3, "API": 3}, "rows_in": 100_000,
             "rows_out": 100_000, "missing": 0, "doubled": 0},
}


@pytest.mark.parametrize(("numbers", "titles", "expected"), [
    ([0, 1, 2, 3], SENT, {"rows_out": 4, "missing": 0, "doubled": 0, "changed": 0}),
    ([0, 1, 3], ["first", "second", "fourth"], {"rows_out": 3, "missing": 1, "doubled": 0, "changed": 0}),
    ([0, 1, 1, 2, 3], ["first", "second", "second", "third", "fourth"],
     {"rows_out": 5, "missing": 0, "doubled": 1, "changed": 0}),
    ([0, 1, 2, 2], ["first", "second", "third", "fourth"], {"rows_out": 4, "missing": 1, "doubled": 1, "changed": 1}),
])
def test_rows_that_are_missing_doubled_or_changed_are_found(numbers, titles, expected):
    assert service.compare(SENT, pa.table({"number": numbers, "title": titles})) == {"rows_in": 4} | expected


def test_without_a_result_every_row_is_missing():
    assert service.compare(SENT, None) == {"rows_in": 4, "rows_out": 0, "missing": 4, "doubled": 0, "changed": 0}


def test_memory_that_grows_steadily_is_not_flat():
    seconds = range(0, 600, 5)
    growing = service.trend([(second, 300 + second / 60) for second in seconds])
    assert growing["mb_a_minute"] == pytest.approx(1)
    assert growing["rise"] == pytest.approx(595 / 60 / 300, abs=1e-4)
    assert growing["rise"] > service.FLAT
    noisy = service.trend([(second, 300 + (second // 5) % 2) for second in seconds])
    assert noisy["rise"] < service.FLAT
    assert noisy["max_mb"] == 301


@pytest.mark.parametrize("sections", [names for size in (1, 2, 3) for names in itertools.combinations(RESULTS, size)])
def test_sections_that_were_not_measured_are_left_out(sections):
    block = service.render({"machine": "M", "commit": None} | {name: RESULTS[name] for name in sections})
    assert [name for name, said in [("load", "requests/s"), ("memory", "MB a minute"), ("jobs", "SIGKILL")]
            if said in block] == list(sections)
    assert block.endswith("On M, which the load shares.")
