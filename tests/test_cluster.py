"""Tagging parquet by Ray: the same as on one machine without it, whatever the files, the faults in them and the moment of a
kill."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from words import SURE, make_rows, make_words_model

from tagwright import cluster
from tagwright.bulk import CHUNK_ROWS, tag_file
from tagwright.bundle import read_bundle, write_bundle
from tagwright.cluster import PIECE_ROWS, tag_parquet
from tagwright.errors import TagwrightError
from tagwright.rows import read_tables, scan

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parent.parent
ENVIRON = {"RAY_AUTH_MODE": "disabled",  # no token, which Ray would look for, and write, in the user's home
           "RAY_gcs_server_port_wait_time_s": "30",
           "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_words_model(tmp_path_factory.mktemp("work") / "words" / "tagger")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray cluster of two cores, one for all tests of this file, since it takes seconds to start."""
    with pytest.MonkeyPatch.context() as here:
        for name, value in ENVIRON.items():
            here.setenv(name, value)
        yield from _cluster()


def _cluster() -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:  # a short path: sockets lie in it
        log = Path(folder) / "start.log"
        with log.open("w") as file:
            head = psutil.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", f"--port={port}", "--num-cpus=2",
                 "--node-ip-address=127.0.0.1", f"--temp-dir={folder}", f"--object-store-memory={80 << 20}",
                 "--include-dashboard=false", "--disable-usage-stats"],
                env=os.environ | ENVIRON, stdout=file, stderr=subprocess.STDOUT)
        while "Ray runtime started" not in log.read_text():
            assert head.poll() is None, log.read_text()
            time.sleep(0.05)
        yield f"127.0.0.1:{port}"
        for process in (processes := [*head.children(recursive=True), head]):
            process.kill()
        psutil.wait_procs(processes, 10)


def write(path: Path, rows: list[dict], group: int = 1 << 20) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=group)
    return path


def rejected(out: Path) -> list[dict]:
    return [json.loads(line) for line in out.with_name(f"{out.name}.rejected.jsonl").read_text(encoding="utf8").splitlines()]


def run(*arguments) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "tagwright.cli", "bulk", *map(str, arguments)], capture_output=True, text=True,
                          env=os.environ | ENVIRON | {"NO_COLOR": "1", "COLUMNS": "200"}, timeout=120)


# --- reading from the middle of a file ---------------------------------------------------------------------------


@pytest.mark.parametrize("group", [7, 1000, 1024, 5000])
def test_a_file_can_be_read_from_any_piece_on(tmp_path, group):
    table = pa.table({"id": range(5003), "kind": pa.array(["a", "b", "c"] * 1667 + ["d"] * 2).dictionary_encode()})
    pq.write_table(table, tmp_path / "in.parquet", row_group_size=group)
    source = scan(tmp_path / "in.parquet")
    for start in (0, 1024, 2048, 4096, 5002, 5003):
        found = list(read_tables(source, 1024, start))
        assert [rows.read for rows in found[:-1]] == [1024] * (len(found) - 1)
        assert [line for rows in found for line in rows.lines] == list(range(start + 1, 5004))
        assert [row for rows in found for row in rows.table.to_pylist()] == table.slice(start).to_pylist()


# --- what goes in comes out --------------------------------------------------------------------------------------


def test_the_output_is_that_of_tagging_without_ray(model, address, tmp_path):  # noqa: F811
    """A file of several pieces whose row groups end anywhere, one of many small groups, one of no rows, and one in a folder."""
    rows = make_rows(2 * PIECE_ROWS + 700)
    for number in (3, PIECE_ROWS + 5, PIECE_ROWS + 6):
        rows[number] |= {"title": " ", "body": ""}
    source, out = tmp_path / "in", tmp_path / "out"
    write(source / "large.parquet", rows, group=3000)
    write(source / "small" / "many.parquet", [row | {"tags": ["sea"]} for row in make_rows(300, seed=2)], group=7)
    write(source / "one.parquet", make_rows(1))
    pq.write_table(pq.read_table(source / "one.parquet").slice(0, 0), source / "none.parquet")
    (source / "_SUCCESS.parquet").write_text("another program's")
    (source / ".hidden").mkdir()
    (source / ".hidden" / "x.parquet").write_text("another program's")
    counts = tag_parquet(model, source, out, address=address)
    for name in ("large.parquet", "small/many.parquet", "one.parquet", "none.parquet"):
        (tmp_path / "alone").mkdir(exist_ok=True)
        alone = tmp_path / "alone" / Path(name).name
        tag_file(model, source / name, alone)
        assert pq.read_table(out / name).replace_schema_metadata().equals(pq.read_table(alone)), name
        assert pq.ParquetFile(out / name).num_row_groups == pq.ParquetFile(alone).num_row_groups
    assert rejected(out / "large.parquet") == rejected(tmp_path / "alone" / "large.parquet")
    assert [entry["line"] for entry in rejected(out / "large.parquet")] == [4, PIECE_ROWS + 6, PIECE_ROWS + 7]
    assert pq.read_schema(out / "small/many.parquet").names[3:] == ["tags", "line", "tagwright_tags", "scores"]
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
        "large.parquet", "large.parquet.rejected.jsonl", "small/many.parquet", "one.parquet", "none.parquet"}
    assert (counts["files"], counts["skipped"], counts["rows"]) == (4, 0, len(rows) + 301)
    assert (counts["written"], counts["rejected"], counts["resumed"]) == (len(rows) + 298, {"no text": 3}, 0)


def test_one_file_with_its_text_in_one_column(model, address, tmp_path):  # noqa: F811
    source = write(tmp_path / "in.parquet", [{"title": "salt", "name": "rice"}])
    tag_parquet(model, source, tmp_path / "out", text="name", address=address)
    assert pq.read_table(tmp_path / "out" / "in.parquet").to_pylist() == [
        {"title": "salt", "name": "rice", "line": 1, "tags": ["rice"], "scores": [SURE]}]


# --- again -------------------------------------------------------------------------------------------------------


def times(out: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.parquet")}


def test_only_what_changed_is_done_again(model, address, tmp_path):  # noqa: F811
    source, out = tmp_path / "in", tmp_path / "out"
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    for name in "abc":
        write(source / f"{name}.parquet", make_rows(10))
    tag_parquet(folder, source, out, address=address)
    first = times(out)
    write(source / "b.parquet", make_rows(11))
    (out / "c.parquet").write_bytes((out / "c.parquet").read_bytes()[:-9])
    assert tag_parquet(folder, source, out, address=address)["skipped"] == 1
    second = times(out)
    assert second["a.parquet"] == first["a.parquet"]
    assert pq.read_metadata(out / "b.parquet").num_rows == 11
    assert pq.read_metadata(out / "c.parquet").num_rows == 10
    assert tag_parquet(folder, source, out, address="nowhere:1") | {"seconds": 0} == {  # nothing to do: no cluster is asked
        "files": 3, "skipped": 3, "rows": 0, "written": 0, "rejected": {}, "resumed": 0, "seconds": 0}
    assert times(out) == second
    manifest = read_bundle(folder)
    write_bundle(folder, replace(manifest, thresholds=[1.0] * len(manifest.labels)))
    assert tag_parquet(folder, source, out, address=address)["skipped"] == 0
    assert not any(tags for name in "abc" for tags in pq.read_table(out / f"{name}.parquet")["tags"].to_pylist())


def test_killed_on_the_way_it_goes_on_and_no_row_is_lost_or_doubled(model, address, tmp_path):  # noqa: F811
    source, out = tmp_path / "in", tmp_path / "out"
    names = [f"{number}.parquet" for number in range(4)]
    for number, name in enumerate(names):
        write(source / name, make_rows((5 if number == 3 else 1) * PIECE_ROWS, seed=number))
    process = subprocess.Popen([sys.executable, "-m", "tagwright.cli", "bulk", model, source, out, "--address", address],
                               env=os.environ | ENVIRON, stderr=subprocess.PIPE, text=True)
    last = cluster.WORK + "/*/000000000000.parquet"
    while len(times(out)) < 3 or not list(out.glob(last)):  # a piece of the last file is there
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (out / names[3]).exists()
    before = times(out)
    counts = tag_parquet(model, source, out, address=address)
    assert (counts["skipped"], counts["rows"]) == (3, 5 * PIECE_ROWS)
    assert PIECE_ROWS <= counts["resumed"] < 5 * PIECE_ROWS
    assert {name: at for name, at in times(out).items() if name != names[3]} == before
    for number, name in enumerate(names):
        rows = (5 if number == 3 else 1) * PIECE_ROWS
        assert pq.read_table(out / name)["id"].to_pylist() == list(range(rows))
        assert pq.read_table(out / name)["line"].to_pylist() == list(range(1, rows + 1))
    assert not (out / cluster.WORK).exists()


# --- faults ------------------------------------------------------------------------------------------------------


def test_a_damaged_file_is_named_when_the_others_are_done(model, address, tmp_path):  # noqa: F811
    source, out = tmp_path / "in", tmp_path / "out"
    whole = write(source / "whole.parquet", make_rows(10))
    (source / "cut.parquet").write_bytes(whole.read_bytes()[:-9])
    bad = bytearray(write(source / "bad.parquet", make_rows(3 * CHUNK_ROWS), group=CHUNK_ROWS).read_bytes())
    at = pq.read_metadata(source / "bad.parquet").row_group(2).column(1).data_page_offset
    bad[at : at + 40] = b"\xff" * 40  # its metadata is sound
    (source / "bad.parquet").write_bytes(bad)
    with pytest.raises(TagwrightError, match=r"2 of 3 files.*cut\.parquet.*bad\.parquet") as error:
        tag_parquet(model, source, out, address=address)
    assert "not readable" in str(error.value)
    assert set(times(out)) == {"whole.parquet"}
    write(source / "cut.parquet", make_rows(10))
    write(source / "bad.parquet", make_rows(10))
    assert tag_parquet(model, source, out, address=address)["skipped"] == 1
    assert len(times(out)) == 3


def test_a_file_that_changes_meanwhile_is_named(model, address, tmp_path, monkeypatch):  # noqa: F811
    source = write(tmp_path / "in.parquet", make_rows(10))

    def change(*arguments, tag=cluster._tag_pieces):
        os.utime(source, (1, 1))
        return tag(*arguments)

    monkeypatch.setattr(cluster, "_tag_pieces", change)
    with pytest.raises(TagwrightError, match="changed while it was read"):
        tag_parquet(model, source, tmp_path / "out", address=address)
    assert not times(tmp_path / "out")


CHANGED = """
import shutil, sys
from pathlib import Path
from tagwright import cluster

tag = cluster._tag_pieces

def changed(pieces, worker):
    {change}
    return tag(pieces, worker)

cluster._tag_pieces = changed
cluster.tag_parquet(*map(Path, sys.argv[1:4]), address=sys.argv[4])
"""


@pytest.mark.parametrize(("change", "message"), [
    ("shutil.rmtree(Path(pieces[0]['part']).parent)", "cannot be written on .*No such file"),
    ("worker = (worker[0], 'another checksum', worker[2])", "is another model than where"),
])
def test_what_only_a_worker_finds_wrong_ends_the_run(model, address, tmp_path, change, message):  # noqa: F811
    source = write(tmp_path / "in.parquet", make_rows(10))
    code = CHANGED.format(change=change)
    ended = subprocess.run([sys.executable, "-c", code, model, source, tmp_path / "out", address],
                           capture_output=True, text=True, env=os.environ | ENVIRON, timeout=120)
    assert ended.returncode == 1
    assert re.search(f"TagwrightError: .*{message}", ended.stderr)


def test_what_cannot_be_done_is_said_before_any_work(model, tmp_path, monkeypatch):  # noqa: F811
    source, out = tmp_path / "in", tmp_path / "out"
    write(source / "a.parquet", make_rows(3))
    monkeypatch.setattr(cluster, "_tag_pieces", None)
    for there in (source, source / "out", tmp_path):
        with pytest.raises(TagwrightError, match="lie one in the other"):
            tag_parquet(model, source, there)
    with pytest.raises(TagwrightError, match="the input lies there"):
        tag_parquet(model, source / "a.parquet", source)
    with pytest.raises(TagwrightError, match="no parquet file is there"):
        tag_parquet(model, tmp_path / "nothing", out)
    with pytest.raises(TagwrightError, match=r"a\.parquet: no column 'titel'.*did you mean 'title'"):
        tag_parquet(model, source, out, text="titel")
    with pytest.raises(TagwrightError, match="127.0.0.1:1: no Ray cluster is reached there: Connection refused"):
        tag_parquet(model, source, out, address="127.0.0.1:1")
    monkeypatch.setitem(sys.modules, "ray.data", None)
    with pytest.raises(TagwrightError, match="Ray Data is not installed"):
        tag_parquet(model, source, out)
    assert not list(out.glob("*.parquet"))


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_tags_on_this_machine(model, tmp_path):  # noqa: F811
    write(tmp_path / "in" / "a.parquet", [*make_rows(20), {"id": 20, "title": "", "body": None}])
    out = tmp_path / "out"
    result = run(model, tmp_path / "in", out)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"1 of 1 files tagged with {model} → {out}\n  1 rejected (1 × no text) → {out}/*.rejected")
    assert "Traceback" not in result.stderr
    assert result.stderr.count("\n") <= 2  # Ray's own lines cannot all be silenced
    assert pq.read_metadata(out / "a.parquet").num_rows == 20
    result = run(model, tmp_path / "in", out, "--text", "nowhere")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)


def test_other_commands_do_not_load_ray():
    code = "import sys, tagwright.cli, tagwright.bulk; sys.exit('ray' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], env=os.environ | ENVIRON, check=True)
