"""Tagging a file: what goes in comes out, whatever the format, the faults in it and the moment of a kill."""

import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from words import SURE, expected, make_rows, make_words_model

from tagwright import bulk
from tagwright.bulk import tag_file
from tagwright.bundle import read_bundle, write_bundle
from tagwright.errors import TagwrightError
from tagwright.rows import scan
from tagwright.stage import alone
from tagwright.tagger import Tagger

SCRIPT = Path(sys.executable).parent / "tagwright"
WORKER = "import sys; from pathlib import Path; from tagwright.bulk import tag_file; tag_file(*map(Path, sys.argv[1:]))"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return make_words_model(tmp_path_factory.mktemp("work") / "words" / "tagger")


def write(path: Path, rows: list[dict]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf8")
    else:
        with path.open("w", encoding="utf8", newline="") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    return path


def read(path: Path) -> list[dict]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf8").splitlines()]
    with path.open(encoding="utf8", newline="") as file:
        return [row | {name: json.loads(row[name]) for name in ("tags", "scores")} for row in csv.DictReader(file)]


def rejected(out: Path) -> list[dict]:
    return read(out.with_name(f"{out.name}.rejected.jsonl"))


# --- what goes in comes out --------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("out_ending", [".parquet", ".csv", ".jsonl"])
def test_every_row_comes_out_in_order_with_its_columns_and_its_tags(model, tmp_path, ending, out_ending):
    rows = make_rows(3 * bulk.CHUNK_ROWS + 5)
    out = tmp_path / f"out{out_ending}"
    counts = tag_file(model, write(tmp_path / f"in{ending}", rows), out)
    tagged = read(out)
    assert [str(row["id"]) for row in tagged] == [str(row["id"]) for row in rows]
    assert list(tagged[0]) == ["id", "title", "body", "line", "tags", "scores"]
    for row, result in zip(rows, tagged, strict=True):
        assert (result["title"], result["body"]) == (row["title"], row["body"])
        assert set(result["tags"]) == expected(row)
        assert result["scores"] == [SURE] * len(result["tags"])
    assert (counts["rows"], counts["written"], counts["rejected"]) == (len(rows), len(rows), {})
    assert {path.name for path in tmp_path.iterdir()} == {f"in{ending}", out.name}


def test_the_tags_are_those_of_the_tagger(model, tmp_path):
    rows = make_rows(500)
    tag_file(model, write(tmp_path / "in.csv", rows), tmp_path / "out.parquet")
    tagged = [list(zip(row["tags"], row["scores"], strict=True)) for row in read(tmp_path / "out.parquet")]
    alone = Tagger.load(model).tag([{"title": row["title"], "body": row["body"]} for row in rows])
    assert tagged == [[(label, round(score, 4)) for label, score in row] for row in alone]


def test_a_txt_file_is_a_text_a_line(model, tmp_path):
    (tmp_path / "in.txt").write_text("salt\r\n\n  rice with eggs", encoding="utf8")
    tag_file(model, tmp_path / "in.txt", tmp_path / "out.jsonl")
    assert [(row["text"], row["line"], row["tags"]) for row in read(tmp_path / "out.jsonl")] == [
        ("salt", 1, ["salt"]), ("  rice with eggs", 3, ["rice", "eggs"])]
    assert rejected(tmp_path / "out.jsonl") == [{"line": 2, "reason": "no text", "detail": "", "row": {"text": ""}}]


def test_one_column_can_be_named_as_the_text(model, tmp_path):
    write(tmp_path / "in.csv", [{"title": "salt", "name": "rice"}])
    tag_file(model, tmp_path / "in.csv", tmp_path / "out.jsonl", text="name")
    assert [row["tags"] for row in read(tmp_path / "out.jsonl")] == [["rice"]]


def test_a_field_that_the_file_lacks_is_empty_and_reported(model, tmp_path):
    counts = tag_file(model, write(tmp_path / "in.csv", [{"title": "salt"}]), tmp_path / "out.csv")
    assert counts["fields_missing"] == ["body"]
    assert read(tmp_path / "out.csv")[0]["tags"] == ["salt"]


def test_columns_that_are_called_like_ours_are_kept(model, tmp_path):
    write(tmp_path / "in.jsonl", [{"title": "salt", "tags": ["sea", "table"]}])
    tag_file(model, tmp_path / "in.jsonl", tmp_path / "once.parquet")
    assert read(tmp_path / "once.parquet") == [
        {"title": "salt", "tags": ["sea", "table"], "line": 1, "tagwright_tags": ["salt"], "scores": [SURE]}]
    with pytest.raises(TagwrightError, match="tagwright_tags: rename"):
        tag_file(model, tmp_path / "once.parquet", tmp_path / "twice.jsonl")


def test_json_lines_keep_their_types(model, tmp_path):
    rows = [{"title": "salt", "n": 1, "x": 1, "mixed": "a", "nested": {"a": [1]}, "yes": True, "none": None, "big": 2**70},
            {"title": "rice", "n": -2, "x": 0.5, "mixed": 3, "nested": {"b": {}}, "yes": False, "none": None, "big": 1,
             "late": 7}]
    write(tmp_path / "in.jsonl", rows)
    tag_file(model, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    for row, result in zip(rows, read(tmp_path / "out.jsonl"), strict=True):
        assert {name: result[name] for name in row} == row
    tag_file(model, tmp_path / "in.jsonl", tmp_path / "out.parquet")
    types = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "out.parquet")}
    assert (types["n"], types["x"], types["yes"], types["late"]) == ("int64", "double", "bool", "int64")
    assert [row["mixed"] for row in read(tmp_path / "out.parquet")] == ['"a"', "3"]


def test_a_parquet_file_keeps_its_types(model, tmp_path):
    table = pa.table({"title": pa.array(["salt", "rice"]).dictionary_encode(), "day": pa.array([1, None], pa.date32()),
                      "price": pa.array([1, 2], pa.decimal128(9, 2)), "at": pa.array([5, 6], pa.timestamp("ns", "UTC"))})
    pq.write_table(table, tmp_path / "in.parquet")
    tag_file(model, tmp_path / "in.parquet", tmp_path / "out.parquet")
    out = pq.read_table(tmp_path / "out.parquet")
    assert out.select(table.column_names).equals(table)
    assert out["tags"].to_pylist() == [["salt"], ["rice"]]
    tag_file(model, tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl")[0]["day"] == "1970-01-02"


# --- rows that cannot be read ------------------------------------------------------------------------------------


def test_a_csv_row_that_cannot_be_read_costs_itself_only(model, tmp_path):
    lines = [b"title,id", b"salt,1", b'"a stray quote,2', b"rice,3", b",4", b"too,many,cells", b'"eggs', b'and fish",5',
             b"caf\xe9,6", b"", b'bread,"7']
    (tmp_path / "in.csv").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    counts = tag_file(model, tmp_path / "in.csv", tmp_path / "out.jsonl")
    assert [(row["line"], row["id"], row["tags"]) for row in read(tmp_path / "out.jsonl")] == [
        (2, "1", ["salt"]), (4, "3", ["rice"]), (7, "5", ["fish", "eggs"])]
    assert [(entry["line"], entry["reason"]) for entry in rejected(tmp_path / "out.jsonl")] == [
        (3, "not CSV"), (5, "no text"), (6, "wrong number of cells"), (9, "not UTF-8"), (11, "not CSV")]
    assert rejected(tmp_path / "out.jsonl")[3]["row"] == {"(unreadable)": "caf\udce9,6"}
    assert (counts["rows"], counts["written"], sum(counts["rejected"].values())) == (8, 3, 5)


def test_a_quote_that_is_never_closed_does_not_swallow_the_rest(model, tmp_path):
    rows = ["salt,1\n"] * 3000
    rows[1000] = '"salt,1\n'
    (tmp_path / "in.csv").write_text("title,id\n" + "".join(rows))
    counts = tag_file(model, tmp_path / "in.csv", tmp_path / "out.csv")
    assert (counts["written"], counts["rejected"]) == (2999, {"not CSV": 1})


def test_a_json_line_that_cannot_be_read_costs_itself_only(model, tmp_path):
    lines = [b'{"title": "salt"}', b"{oops", b"[1]", b'{"title": "\\ud83d"}', b'{"title": "\xe9"}', b'{"title": null}',
             b"[" * 10**5, b'{"title": "rice \\ud83d\\ude00"}', b'{"title": "eg']
    (tmp_path / "in.jsonl").write_bytes(b"\n".join(lines))
    tag_file(model, tmp_path / "in.jsonl", tmp_path / "out.parquet")
    assert [(row["line"], row["title"], row["tags"]) for row in read(tmp_path / "out.parquet")] == [
        (1, "salt", ["salt"]), (8, "rice 😀", ["rice"])]
    assert [(entry["line"], entry["reason"]) for entry in rejected(tmp_path / "out.parquet")] == [
        (2, "not JSON"), (3, "not a JSON object"), (4, "not UTF-8"), (5, "not UTF-8"), (6, "no text"), (7, "not JSON"),
        (9, "not JSON")]


def test_a_rejected_file_of_an_earlier_run_does_not_stay(model, tmp_path):
    (tmp_path / "in.txt").write_text("salt\n\n")
    tag_file(model, tmp_path / "in.txt", tmp_path / "out.csv")
    assert len(rejected(tmp_path / "out.csv")) == 1
    (tmp_path / "in.txt").write_text("salt\n")
    tag_file(model, tmp_path / "in.txt", tmp_path / "out.csv")
    assert not (tmp_path / "out.csv.rejected.jsonl").exists()


# --- files that cannot be tagged ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "content", "message"), [
    ("in.xlsx", b"", r"the ending must be one of \.csv"),
    ("in.csv", b"", "holds no rows"),
    ("in.csv", b"title\n", "holds no rows"),
    ("in.jsonl", b"\n\n", "holds no rows"),
    ("in.jsonl", b"title\nsalt\n", "none of its 2 rows can be read; line 1: not JSON"),
    ("in.csv", b"titel,body2\nsalt,x\n", "no column 'title' or 'body'.*--text; did you mean 'titel'"),
    ("in.csv", b"title,title\nsalt,x\n", "two columns are called 'title'"),
    ("in.csv", "title\nsalt\n".encode("utf16"), "line 1.*not UTF-8"),
    ("in.parquet", b"PAR1 salt", "not readable"),
    ("in/x.csv", None, "cannot be read: No such file"),
])
def test_a_file_that_cannot_be_tagged_is_refused(model, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(TagwrightError, match=message):
        tag_file(model, tmp_path / name, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_outputs_that_cannot_be_written_are_refused_before_any_work(model, tmp_path):
    source = write(tmp_path / "in.csv", [{"title": "salt"}])
    with pytest.raises(TagwrightError, match="ending must be"):
        tag_file(model, source, tmp_path / "out.xlsx")
    with pytest.raises(TagwrightError, match="is the input"):
        tag_file(model, source, source)
    with pytest.raises(TagwrightError, match="cannot be written"):
        tag_file(model, source, source / "out.csv")
    assert source.read_text() == "title\nsalt\n"


def test_a_file_that_changes_while_it_is_read_is_refused(model, tmp_path, monkeypatch):
    source, out = write(tmp_path / "in.csv", make_rows(30_000)), tmp_path / "out.csv"

    def append(running, bar, wait=bulk._await) -> int:
        monkeypatch.setattr(bulk, "_await", wait)
        with source.open("a") as file:
            file.write("30000,salt,\n")
        return wait(running, bar)

    monkeypatch.setattr(bulk, "_await", append)
    with pytest.raises(TagwrightError, match="changed while it was read"):
        tag_file(model, source, out)
    assert not out.exists()
    assert tag_file(model, source, out)["resumed"] == 0
    assert len(read(out)) == 30_001


def test_a_number_among_the_texts_leaves_the_others_what_they_are(model, tmp_path):
    rows = [{"title": 'the "salt"\nand rice'}, {"title": 1984}, {"title": ""}, {"title": ["fish"]}, {"title": None}]
    out = tmp_path / "out.jsonl"
    reader = bulk.Reading(["title"], read_bundle(model))
    source = scan(write(tmp_path / "in.jsonl", rows))
    chunk, = bulk.read_chunks(source, reader)
    assert chunk.texts == ['the "salt"\nand rice', "1984", "['fish']"]
    counts = tag_file(model, source.path, out)
    assert counts["rejected"] == {"no text": 2}
    assert [row["title"] for row in read(out)] == [rows[0]["title"], 1984, ["fish"]]
    assert set(read(out)[0]["tags"]) == {"salt", "rice"}


def test_fields_that_held_html_in_training_are_read_as_html(model, tmp_path):
    folder = Path(shutil.copytree(model, tmp_path / "html"))
    write_bundle(folder, replace(read_bundle(folder), html=["title"]))
    row = {"title": "<p>sa<b>lt</b> &amp; rice<script>eggs</script></p>", "body": "<fish>"}
    chunk, = bulk.read_chunks(scan(write(tmp_path / "in.csv", [row])), bulk.Reading(["title", "body"], read_bundle(folder)))
    assert chunk.texts == ["salt & rice\n\n<fish>"]
    tag_file(folder, tmp_path / "in.csv", tmp_path / "out.jsonl")
    assert set(read(tmp_path / "out.jsonl")[0]["tags"]) >= {"salt", "rice"}
    assert read(tmp_path / "out.jsonl")[0]["title"] == row["title"]


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".parquet"])
def test_a_parquet_row_that_is_no_utf8_costs_itself_only(model, tmp_path, ending):
    cells = pa.array([b"salt", b"\xff rice", b"fish"], pa.binary())
    bad = pa.StringArray.from_buffers(3, cells.buffers()[1], cells.buffers()[2])  # Arrow does not look
    pq.write_table(pa.table({"title": bad, "raw": cells}), tmp_path / "in.parquet")
    counts = tag_file(model, tmp_path / "in.parquet", tmp_path / f"out{ending}")
    assert (counts["written"], counts["rejected"]) == (2, {"not UTF-8": 1})
    assert [row["tags"] for row in read(tmp_path / f"out{ending}")] == [["salt"], ["fish"]]
    assert [entry["line"] for entry in rejected(tmp_path / f"out{ending}")] == [2]
    tag_file(model, tmp_path / "in.parquet", tmp_path / "raw.jsonl", text="raw")  # bytes that nobody calls text
    assert read(tmp_path / "raw.jsonl")[0]["tags"] == ["salt"]


def test_a_long_text_is_one_row(model, tmp_path):
    rows = [{"title": "a line\n" * 400_000 + "rice"}, {"title": "salt"}]
    assert tag_file(model, write(tmp_path / "in.csv", rows), tmp_path / "out.jsonl", "title")["written"] == 2


# --- interruption ------------------------------------------------------------------------------------------------


# Dies by its own hand, milliseconds after the given chunk was begun: a kill from outside comes when the machine has time.
DIES_AT_CHUNK = """
import itertools, os, signal, threading
from tagwright import bulk

begun, tag_chunk = itertools.count(), bulk._tag_chunk

def tag_and_die(*arguments):
    if next(begun) == {chunk}:
        threading.Timer({delay}, os.kill, [os.getpid(), signal.SIGKILL]).start()
    tag_chunk(*arguments)

bulk._tag_chunk = tag_and_die
"""
DIES_WHILE_JOINING = """
import os, signal
from tagwright import bulk

def write_and_die(path, schema, groups, write=bulk.WRITERS[".csv"]):
    def some():
        yield next(groups)
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, schema, some())

bulk.WRITERS[".csv"] = write_and_die
"""


def start(model: Path, source: Path, out: Path, patch: str = "") -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", patch + WORKER, model, source, out], stderr=subprocess.PIPE, text=True)


def die(model: Path, source: Path, out: Path, patch: str) -> Path:
    """A run that ends by SIGKILL; returns the folder it leaves."""
    process = start(model, source, out, patch)
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    return out.with_name(f".{out.name}.parts")


def chunks(parts: Path) -> int:
    return len(list(parts.glob("*.parquet")))


@pytest.mark.parametrize("ending", [".parquet", ".csv"])
def test_killed_at_random_moments_no_row_is_lost_or_doubled(model, tmp_path, ending):
    source, out, whole = tmp_path / "in.csv", tmp_path / f"out{ending}", tmp_path / f"whole{ending}"
    rows = make_rows(40_000, seed=1)
    write(source, rows)
    source.write_text(source.read_text(encoding="utf8") + "one,two\n", encoding="utf8")
    tag_file(model, source, whole)
    chance, parts = random.Random(ending), tmp_path / f".{out.name}.parts"
    for chunk in (0, 4, 1, 6, 0, 5):  # of about 40
        before = chunks(parts)
        die(model, source, out, DIES_AT_CHUNK.format(chunk=chunk, delay=chance.uniform(0, 0.01)))
        assert chunks(parts) >= before  # it went on, and did not begin anew
        assert not out.exists()
    counts = tag_file(model, source, out)
    assert counts["resumed"] > 0
    assert out.read_bytes() == whole.read_bytes()
    assert rejected(out) == rejected(whole)
    assert [int(row["id"]) for row in read(out)] == list(range(len(rows)))
    assert not parts.exists()


def test_killed_while_the_chunks_are_joined_there_is_no_half_a_file(model, tmp_path):
    source, out = write(tmp_path / "in.csv", make_rows(40_000)), tmp_path / "out.csv"
    assert (die(model, source, out, DIES_WHILE_JOINING) / "whole.csv").exists()
    assert not out.exists()
    assert tag_file(model, source, out)["resumed"] == 40_000
    assert [int(row["id"]) for row in read(out)] == list(range(40_000))


def interrupted(model: Path, source: Path, out: Path) -> Path:
    """A run that was killed when a few chunks were done; returns the folder it leaves."""
    return die(model, source, out, DIES_AT_CHUNK.format(chunk=6, delay=0))


def test_another_input_model_or_column_begins_anew(model, tmp_path):
    source, out = write(tmp_path / "in.csv", make_rows(30_000)), tmp_path / "out.jsonl"
    interrupted(model, source, out)
    assert tag_file(model, source, out, text="title")["resumed"] == 0
    assert set(read(out)[1]["tags"]) == expected({"title": make_rows(30_000)[1]["title"]})
    interrupted(model, source, out)
    rows = make_rows(30_000, seed=5)
    assert tag_file(model, write(source, rows), out)["resumed"] == 0
    assert all(set(result["tags"]) == expected(row) for row, result in zip(rows, read(out), strict=True))


def test_a_damaged_chunk_is_named(model, tmp_path):
    source, out = write(tmp_path / "in.csv", make_rows(30_000)), tmp_path / "out.jsonl"
    part = sorted(interrupted(model, source, out).glob("*.parquet"))[0]
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(TagwrightError, match=part.name):
        tag_file(model, source, out)
    part.unlink()
    assert tag_file(model, source, out)["written"] == 30_000


def test_two_runs_at_once_do_not_mix(model, tmp_path):
    source, out = write(tmp_path / "in.csv", make_rows(2_000)), tmp_path / "out.csv"
    with alone(tmp_path / ".out.csv.parts", "tagwright tag"):
        process = start(model, source, out)
        _, errors = process.communicate()
    assert process.returncode == 1
    assert "another `tagwright tag` is at work there" in errors
    assert tag_file(model, source, out)["written"] == 2_000


PEAK = WORKER + "; print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"  # KB


@pytest.mark.long
def test_memory_does_not_grow_with_the_file(model, tmp_path):
    peaks = []
    for count in (20_000, 100_000):
        source = write(tmp_path / f"{count}.csv", [row | {"body": "salt " * 100} for row in make_rows(count)])
        command = [sys.executable, "-c", PEAK, model, source, tmp_path / "out.parquet"]
        peaks.append(int(subprocess.run(command, capture_output=True, text=True, check=True).stdout) / 1000)
    assert peaks[1] < peaks[0] + 40  # MB; the larger file has 40 MB more, and is read quicker than it is tagged


# --- the command -------------------------------------------------------------------------------------------------


def run(*arguments) -> subprocess.CompletedProcess:
    plain = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run([SCRIPT, "tag", *map(str, arguments)], capture_output=True, text=True, env=plain, timeout=300)


def test_the_command_takes_the_only_model_and_tells_what_it_did(model, tmp_path):
    (tmp_path / "in.csv").write_text("title\nsalt\n \nrice\n")
    result = run(tmp_path / "in.csv", "--out", tmp_path / "out.parquet", "--work", model.parent.parent)
    assert (result.returncode, result.stderr) == (0, "")
    assert f"2 of 3 rows tagged with {model} → {tmp_path / 'out.parquet'}" in result.stdout
    assert "also reads body" in result.stdout
    assert "1 rejected (1 × no text)" in result.stdout
    assert [row["tags"] for row in read(tmp_path / "out.parquet")] == [["salt"], ["rice"]]


def test_the_command_tags_texts_with_a_model_folder(model):
    for arguments in [(model, "salt and rice", "x"), ("salt and rice", "x", "--model", model)]:
        result = run(*arguments)
        assert (result.returncode, result.stderr) == (0, "")
        assert result.stdout == "\nsalt and rice\n    salt 0.98  rice 0.98\n\nx\n    no label above its threshold\n"


def test_wrong_commands_end_in_one_line_that_says_what_to_do(model, tmp_path):
    (tmp_path / "in.csv").write_text("title\nsalt\n")
    for name in ("first", "second"):
        (tmp_path / "two" / name).mkdir(parents=True)
        (tmp_path / "two" / name / "tagger").symlink_to(model)
    for arguments, message in [
        ((tmp_path / "in.csv",), "--out tags.parquet"),
        (("cooking",), "tagwright tag cooking 'a text'"),
        ((tmp_path / "in.csv", "--out", "x.csv", "--work", tmp_path), "holds no model yet"),
        ((tmp_path / "in.csv", "--out", "x.csv", "--work", tmp_path / "two"), "--model: first, second"),
        ((tmp_path / "in.csv", "b.csv", "--out", "x.csv"), "one file"),
    ]:
        result = run(*arguments)
        assert (result.returncode, result.stdout) == (2, "")
        assert result.stderr.count("\n") == 1
        assert message in result.stderr


def test_ctrl_c_keeps_what_is_tagged(model, tmp_path):
    source, out = write(tmp_path / "in.csv", make_rows(40_000)), tmp_path / "out.csv"
    process = subprocess.Popen([SCRIPT, "tag", source, "--out", out, "--model", model], stderr=subprocess.PIPE, text=True)
    while chunks(tmp_path / ".out.csv.parts") < 2:
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors == "stopped; what is tagged is kept, and the same command goes on from there\n"
    result = run(source, "--out", out, "--model", model)
    assert "rows had been tagged by an earlier run" in result.stdout
    assert len(read(out)) == 40_000
