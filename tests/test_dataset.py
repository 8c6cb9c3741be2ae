"""`clean()`: reading every format, refusing rows with a reason, merging duplicates, splitting, and all or nothing."""

import errno
import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import ROOT, write_jsonl, write_task

import tagwright.dataset
from tagwright.dataset import SPLITS, Dataset, clean
from tagwright.errors import TagwrightError
from tagwright.hues import load_map
from tagwright.stage import sha256
from tagwright.task import Task

VOCABULARY = [f"word{number}" for number in range(2000)]
SHARED = Path(os.environ.get("TAGWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data"))
COOKING = SHARED / "cooking" / "cooking.stackexchange.txt"
AG_NEWS = SHARED / "ag_news"
BOOKS = SHARED / "books" / "books_with_categories.csv"


def make_rows(count: int, labels=("a", "b"), words: int = 12, seed: int = 0) -> list[dict]:
    """Rows of random words, so unlike each other, with one label each."""
    rng = random.Random(seed)
    return [{"text": " ".join(rng.choices(VOCABULARY, k=words)), "tags": [rng.choice(labels)]} for _ in range(count)]


def clean_file(raw: Path, force: bool = False, **tables) -> Dataset:
    """Clean a file with a task made for it, into `out` beside it."""
    task = Task.load(write_task(raw.parent, raw.name, **tables))
    clean(task, raw, raw.parent / "out", force)
    return Dataset.load(raw.parent / "out")


def clean_rows(folder: Path, rows: list[dict], **tables) -> Dataset:
    return clean_file(write_jsonl(folder / "rows.jsonl", rows), **tables)


def refusal(raw: Path, **tables) -> str:
    with pytest.raises(TagwrightError) as error:
        clean_file(raw, **tables)
    assert not (raw.parent / "out").exists()
    return str(error.value)


def everything(data: Dataset) -> pd.DataFrame:
    return pd.concat([data.train, data.validation, data.test]).sort_values("line", ignore_index=True)


def rejected(folder: Path) -> dict[int, tuple[str, str]]:
    entries = [json.loads(line) for line in (folder / "rejected.jsonl").read_text(encoding="utf8").splitlines()]
    return {entry["line"]: (entry["reason"], entry["detail"]) for entry in entries}


def triples(text: str) -> set[tuple]:
    words = re.findall(r"[^\W_]+", text.casefold())
    return {tuple(words[at : at + 3]) for at in range(max(1, len(words) - 2))}


def similarity(one: set, other: set) -> float:
    return len(one & other) / len(one | other)


# --- reading -----------------------------------------------------------------------------------------------------


def write_csv(path: Path, rows, mark="", delimiter=",") -> None:
    lines = [f"text{delimiter}tags"] + [f'"{row["text"]}"{delimiter}{"|".join(row["tags"])}' for row in rows]
    path.write_bytes((mark + "\r\n".join(lines) + "\r\n").encode("utf8"))


WRITERS = {
    "rows.csv": write_csv,
    "marked.csv": lambda path, rows: write_csv(path, rows, mark="\ufeff"),
    "rows.tsv": lambda path, rows: write_csv(path, rows, delimiter="\t"),
    "rows.jsonl": write_jsonl,
    "rows.ndjson": write_jsonl,
    "rows.json": lambda path, rows: path.write_text(json.dumps(rows), encoding="utf8"),
    "answer.json": lambda path, rows: path.write_text(json.dumps({"items": rows, "has_more": False}), encoding="utf8"),
    "marked.jsonl": lambda path, rows: path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8-sig"),
    "rows.parquet": lambda path, rows: pq.write_table(pa.Table.from_pylist(rows), path),
    "rows.txt": lambda path, rows: path.write_text(
        "".join(" ".join(f"__label__{tag}" for tag in row["tags"]) + f" {row['text']}\n" for row in rows), encoding="utf8"),
}


@pytest.mark.parametrize("filename", WRITERS)
def test_every_format_gives_the_same_rows(tmp_path, filename):
    rows = make_rows(30)
    rows[0] |= {"text": "Naïve, “quoted” & 日本 " + rows[0]["text"], "tags": ["a", "b"]}
    WRITERS[filename](tmp_path / filename, rows)
    found = everything(clean_file(tmp_path / filename))
    assert list(found["text"]) == [row["text"] for row in rows]
    assert [list(labels) for labels in found["labels"]] == [row["tags"] for row in rows]
    first = 2 if filename.endswith(("csv", "tsv")) else 1  # the header is line 1
    assert list(found["line"]) == list(range(first, first + len(rows)))


def test_the_format_may_be_named_whatever_the_ending(tmp_path):
    write_csv(tmp_path / "rows.dat", make_rows(30))
    assert "set source.format to one of" in refusal(tmp_path / "rows.dat")
    assert len(everything(clean_file(tmp_path / "rows.dat", source={"format": "csv"}))) == 30


def test_csv_cells_may_hold_line_ends_quotes_and_commas(tmp_path):
    rows = make_rows(20)
    for row in rows:
        row["text"] = row["text"].replace(" ", ', ""\n', 1)
    write_csv(tmp_path / "rows.csv", rows)
    assert list(everything(clean_file(tmp_path / "rows.csv"))["text"]) == [row["text"].replace('""', '"') for row in rows]


@pytest.mark.parametrize(("name", "delimiter"), [("rows.csv", ","), ("rows.tsv", "\t")])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("header", [True, False])
def test_named_columns_read_a_file_with_and_without_a_header(tmp_path, name, delimiter, mark, header):
    rows = make_rows(20)
    write_csv(tmp_path / name, rows, mark=mark, delimiter=delimiter)
    if not header:
        content = (tmp_path / name).read_text(encoding="utf8")
        (tmp_path / name).write_text(mark + content.split("\n", 1)[1], encoding="utf8")
    data = clean_file(tmp_path / name, source={"columns": ["text", "tags"]})
    found = everything(data)
    assert list(found["text"]) == [row["text"] for row in rows]
    assert list(found["line"]) == list(range(1 + header, 21 + header))
    assert data.record["rows"]["read"] == 20


def test_a_header_is_looked_for_in_the_first_line_only(tmp_path):
    lines = [f"{row['text']},{row['tags'][0]}" for row in make_rows(20)]
    (tmp_path / "rows.csv").write_text("\n".join([*lines, "text,tags", "three,cells,here"]) + "\n")
    data = clean_file(tmp_path / "rows.csv", source={"columns": ["text", "tags"]})
    assert data.record["rows"]["read"] == 22
    assert rejected(tmp_path / "out")[22] == ("unreadable row", "not 2 cells, as the header has")


def test_named_columns_must_hold_the_fields(tmp_path):
    write_csv(tmp_path / "rows.csv", make_rows(20))
    assert "no field 'tags', which books.toml names in labels.field" in refusal(
        tmp_path / "rows.csv", source={"columns": ["text", "labels"]})


def test_named_columns_are_for_files_that_have_columns(tmp_path):
    raw = write_jsonl(tmp_path / "rows.jsonl", make_rows(20))
    assert "source.columns is for CSV and TSV files" in refusal(raw, source={"columns": ["text", "tags"]})


def test_damaged_html_is_mended_and_cleaned(tmp_path):
    rows = [{"text": f"{row['text']}\\It #39;s &lt;b&gt;...&lt;/b&gt;", "tags": row["tags"]} for row in make_rows(20)]
    data = clean_rows(tmp_path, rows, input={"damaged_html": ["text"]})
    assert all(re.fullmatch(r"[word\d ]+ It's \.\.\.", text) for text in everything(data)["text"])


def test_html_fields_are_cleaned_and_the_others_are_not(tmp_path):
    rows = [{"title": f"<b>{row['text']}</b>", "body": "1 <b>2</b>", "tags": row["tags"]} for row in make_rows(20)]
    data = clean_rows(tmp_path, rows, input={"fields": ["title", "body"], "html": ["title"], "template": "{title}\n\n{body}"})
    assert all(re.fullmatch(r"word[^<]*\n\n1 <b>2</b>", text) for text in everything(data)["text"])


# --- refused rows ------------------------------------------------------------------------------------------------


def test_every_refused_row_has_its_line_and_its_reason_and_the_counts_add_up(tmp_path):
    rows = make_rows(40)
    lines = [json.dumps(row) for row in rows]
    twin = rows[0]["text"] + " one"
    lines += [
        json.dumps({"text": " \u00a0", "tags": ["a"]}),
        json.dumps({"text": None, "tags": ["a"]}),
        json.dumps({"text": "labels are missing", "tags": []}),
        json.dumps({"text": "labels are absent"}),
        json.dumps({"text": "labels are broken", "tags": "['a',"}),
        json.dumps({"text": "labels are numbers", "tags": [1]}),
        "{not json}",
        '["an", "array"]',
        "",
        json.dumps(rows[1]),
        json.dumps({"text": twin, "tags": ["a"]}),
        json.dumps({"text": "a label that nobody else has", "tags": ["rare"]}),
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(lines) + "\n")
    data = clean_file(tmp_path / "rows.jsonl", labels={"min_rows": 2})
    found = rejected(tmp_path / "out")
    assert {line: reason for line, (reason, _) in found.items()} == {
        41: "no text", 42: "no text", 43: "no labels", 44: "no labels", 45: "unreadable labels", 46: "unreadable labels",
        47: "unreadable row", 48: "unreadable row", 50: "duplicate", 51: "near duplicate", 52: "only rare labels",
    }
    assert found[50][1] == "of line 2"
    assert found[51][1] == "of line 1"
    counts = data.record["rows"]
    assert counts["read"] == 51  # the blank line is no row
    assert counts["rejected"] == Counter(reason for reason, _ in found.values())
    assert counts["kept"] == 40 == sum(counts[split] for split in SPLITS) == len(everything(data))
    assert counts["read"] == counts["kept"] + sum(counts["rejected"].values())
    assert set(data.labels) == {"a", "b"}
    assert data.record["labels"]["rare"] == 1


def test_the_refused_row_itself_is_kept(tmp_path):
    clean_rows(tmp_path, [*make_rows(20), {"text": "é \ud800", "tags": None, "id": 7}])
    entry = json.loads((tmp_path / "out" / "rejected.jsonl").read_text(encoding="utf8"))
    assert entry["row"] == {"text": "é \ud800", "tags": None, "id": 7}


def test_raw_labels_are_translated_and_one_without_a_name_is_refused(tmp_path):
    names = {"labels.names": {"1": "Sci/Tech", "2": "World", "3": "World"}}
    rows = [{"text": row["text"], "tags": row["tags"]} for row in make_rows(40, "123")]
    rows[0]["tags"] = ["2", "3", "1"]
    data = clean_rows(tmp_path, [*rows, {"text": "a class of its own", "tags": ["2", "4"]}], **names)
    assert set(data.labels) == {"Sci/Tech", "World"}
    found = everything(data)
    assert list(found["labels"][0]) == ["World", "Sci/Tech"]
    assert [set(tags) for tags in found["labels"]] == [{names["labels.names"][tag] for tag in row["tags"]} for row in rows]
    assert rejected(tmp_path / "out") == {41: ("unknown label", "tags: '4' is not in labels.names")}


def test_a_file_whose_labels_mostly_lack_a_name_is_refused(tmp_path):
    raw = write_jsonl(tmp_path / "rows.jsonl", make_rows(20, "12"))
    message = refusal(raw, **{"labels.names": {"0": "World"}})
    assert "20 of 20 rows cannot be read; the first is line 1: unknown label: tags: '" in message


def test_a_multiclass_row_has_one_label(tmp_path):
    rows = make_rows(20)
    rows[4]["tags"], rows[5]["tags"], rows[6]["tags"] = ["a", "b"], "a", ["a", "a"]
    data = clean_rows(tmp_path, rows, kind="multiclass")
    assert rejected(tmp_path / "out") == {5: ("several labels", 'tags: a, b; labels.format = "single" takes a whole cell for '
                                              "one label")}
    assert all(len(labels) == 1 for labels in everything(data)["labels"])
    assert (data.targets(data.train).sum(1) == 1).all()


def test_a_multiclass_file_with_several_labels_throughout_is_refused(tmp_path):
    raw = write_jsonl(tmp_path / "rows.jsonl", [row | {"tags": "science fiction"} for row in make_rows(20)])
    assert "20 of 20 rows cannot be read; the first is line 1: several labels" in refusal(raw, kind="multiclass")
    data = clean_rows(tmp_path, [row | {"tags": tag} for row, tag in zip(make_rows(20), ["Sci/Tech, new", "World"] * 10,
                                                                         strict=True)],
                      kind="multiclass", labels={"format": "single"})
    assert set(data.labels) == {"Sci/Tech, new", "World"}


@pytest.mark.parametrize("line", ["too,many,cells", "few"])
def test_csv_rows_of_another_width_are_refused_alone(tmp_path, line):
    write_csv(tmp_path / "rows.csv", make_rows(20))
    with (tmp_path / "rows.csv").open("a") as file:
        file.write(line + "\r\n")
    assert len(everything(clean_file(tmp_path / "rows.csv"))) == 20
    assert rejected(tmp_path / "out")[22][0] == "unreadable row"


@pytest.mark.parametrize("line", [
    '{"text": "t", "tags": ["a"], "n": ' + "1" * 5000 + "}", '{"text": "t", "tags": ' + "[" * 100_000 + "}",
    "nan", '"text"', "\x00",
], ids=["huge number", "deep", "nan", "a string", "nul"])
def test_hostile_json_lines_are_refused_alone(tmp_path, line):
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in make_rows(20)) + f"\n{line}\n")
    assert len(everything(clean_file(tmp_path / "rows.jsonl"))) == 20
    assert rejected(tmp_path / "out")[21][0] == "unreadable row"


HOSTILE_CELLS = ["[" * 10_000, "x" * 30_000, "[__import__('os').system('x')]", 5, {"a": 1}]


@pytest.mark.parametrize("cell", HOSTILE_CELLS, ids=["deep", "long", "code", "number", "object"])
def test_hostile_label_cells_are_refused_alone(tmp_path, cell):
    data = clean_rows(tmp_path, [*make_rows(20), {"text": "a text", "tags": cell}])
    assert len(everything(data)) == 20
    assert rejected(tmp_path / "out")[21][0] == "unreadable labels"


# --- duplicates --------------------------------------------------------------------------------------------------


def test_exact_duplicates_are_merged_and_their_labels_united(tmp_path):
    rows = make_rows(20, labels=["a"])
    rows += [{"text": rows[3]["text"], "tags": ["b", "a"]}, {"text": f"  {rows[3]['text']}\n", "tags": ["c"]}]
    data = clean_rows(tmp_path, rows + make_rows(9, "bc", seed=1))
    found = everything(data).set_index("line")
    assert list(found.loc[4, "labels"]) == ["a", "b", "c"]
    assert rejected(tmp_path / "out") == {21: ("duplicate", "of line 4"), 22: ("duplicate", "of line 4")}


@pytest.mark.parametrize("change", [str.upper, lambda text: text.replace(" ", ", ", 1), lambda text: text + " again"])
def test_near_duplicates_are_merged_and_their_labels_united(tmp_path, change):
    rows = make_rows(20, labels=["a"], words=30)
    data = clean_rows(tmp_path, [*rows, {"text": change(rows[3]["text"]), "tags": ["b"]}, *make_rows(9, "b", seed=1)])
    assert list(everything(data).set_index("line").loc[4, "labels"]) == ["a", "b"]
    assert rejected(tmp_path / "out") == {21: ("near duplicate", "of line 4")}


def test_multiclass_duplicates_keep_the_first_label_and_say_what_contradicts_it(tmp_path):
    rows = make_rows(20, labels=["a"], words=30) + make_rows(9, "b", seed=1)
    rows += [{"text": rows[3]["text"], "tags": ["b"]}, {"text": rows[4]["text"], "tags": ["a"]},
             {"text": rows[5]["text"] + " again", "tags": ["b"]}]
    data = clean_rows(tmp_path, rows, kind="multiclass")
    found = everything(data).set_index("line")
    assert [list(found.loc[line, "labels"]) for line in (4, 5, 6)] == [["a"]] * 3
    assert rejected(tmp_path / "out") == {
        30: ("duplicate", "of line 4, which it contradicts: b here, a there"), 31: ("duplicate", "of line 5"),
        32: ("near duplicate", "of line 6, which it contradicts: b here, a there"),
    }


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 1.0])
def test_merging_finds_exactly_the_pairs_that_brute_force_finds(tmp_path, threshold):
    rng = random.Random(1)
    texts = []
    for row in make_rows(40, words=25):
        for changes in (0, 0, 1, 2, 3, 5, 8):
            words = row["text"].split()
            for at in rng.sample(range(len(words)), changes):
                words[at] = rng.choice(VOCABULARY)
            texts.append(" ".join(words))
    rng.shuffle(texts)
    rows = [{"text": text, "tags": [rng.choice("ab")]} for text in texts]
    data = clean_rows(tmp_path, rows, split={"near_duplicate": threshold})
    kept = [triples(text) for text in everything(data)["text"]]
    assert all(similarity(one, other) < threshold for at, one in enumerate(kept) for other in kept[:at])
    dropped = rejected(tmp_path / "out")
    assert dropped
    for line, (_, detail) in dropped.items():
        twin = int(detail.removeprefix("of line "))
        assert twin not in dropped
        assert similarity(triples(texts[line - 1]), triples(texts[twin - 1])) >= threshold


def test_no_near_duplicates_straddle_the_splits_of_the_sample(sample):
    threshold = Task.load("scifi").split.near_duplicate
    sets = [(split, triples(text)) for split in SPLITS for text in getattr(sample, split)["text"]]
    near = [1 for at, (split, one) in enumerate(sets) for other_split, other in sets[:at]
            if split != other_split and similarity(one, other) >= threshold]
    assert not near


# --- labels and splits -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [{"min_rows": 5}, {"min_share": 0.05}])
def test_rare_labels_are_dropped_and_rows_keep_their_others(tmp_path, limits):
    rows = make_rows(100)
    for row in rows[:4]:
        row["tags"] = ["rare", "a"]
    for row in rows[4:9]:
        row["tags"] = ["frequent", "a"]
    data = clean_rows(tmp_path, rows, labels=limits)
    assert set(data.labels) == {"a", "b", "frequent"}
    assert list(everything(data)["labels"][0]) == ["a"]
    assert not rejected(tmp_path / "out")


def test_labels_are_ordered_by_frequency_and_targets_follow_them(tmp_path):
    data = clean_rows(tmp_path, [*make_rows(60, ["b"]), *make_rows(40, ["a"], seed=1)])
    assert data.labels == ["b", "a"]
    targets = data.targets(data.test)
    assert targets.shape == (len(data.test), 2)
    found = [[data.labels[column] for column in row.nonzero()[0]] for row in targets]
    assert found == [list(tags) for tags in data.test["labels"]]


def test_the_split_follows_its_seed(tmp_path):
    lines = []
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        (tmp_path / name).mkdir()
        lines.append(list(clean_rows(tmp_path / name, make_rows(100), split={"seed": seed}).test["line"]))
    assert lines[0] == lines[1] != lines[2]


def test_the_result_does_not_hang_on_the_hash_seed_of_python(tmp_path):
    raw = write_jsonl(tmp_path / "rows.jsonl", make_rows(100, "abcdefgh") + make_rows(20, "abcdefgh"))
    task = write_task(tmp_path, raw.name)
    code = ("import sys; from pathlib import Path; from tagwright.dataset import clean; from tagwright.task import Task; "
            "task = Task.load(sys.argv[1]); clean(task, task.raw_path(), Path(sys.argv[2]))")
    for seed in "12":
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, task, tmp_path / seed], env=environment, check=True)
    names = [f"{split}.parquet" for split in SPLITS] + ["labels.json", "rejected.jsonl"]
    assert [sha256(tmp_path / "1" / name) for name in names] == [sha256(tmp_path / "2" / name) for name in names]


def test_every_label_is_shared_out_alike(tmp_path):
    rng = random.Random(3)
    labels = [f"label{number}" for number in range(15)]
    rows = make_rows(800)
    for row in rows:
        row["tags"] = [label for rank, label in enumerate(labels) if rng.random() < 1 / (rank + 2)] or ["label0"]
    data = clean_rows(tmp_path, rows, split={"test": 0.2, "validation": 0.1})
    total = Counter(label for row in rows for label in row["tags"])
    in_test = Counter(label for tags in data.test["labels"] for label in tags)
    assert len(data.test) == pytest.approx(160, rel=0.1)
    frequent = [label for label in labels if total[label] >= 20]
    assert len(frequent) > 10
    for label in frequent:
        assert in_test[label] == pytest.approx(0.2 * total[label], rel=0.4), label


def test_splits_are_disjoint_and_whole(sample):
    lines = [set(getattr(sample, split)["line"]) for split in SPLITS]
    assert len(set.union(*lines)) == sum(map(len, lines)) == sample.record["rows"]["kept"]


def test_a_split_by_position_keeps_the_last_rows_as_they_are(tmp_path):
    rows = make_rows(100)
    rows[90]["text"] = rows[95]["text"]  # both in the test
    rows[10] = {"text": rows[99]["text"], "tags": ["b"]}  # its twin is in the test
    rows[99]["tags"] = ["a"]
    data = clean_rows(tmp_path, rows, split={"by": "position", "test_rows": 20})
    assert list(data.test["line"]) == list(range(81, 101))
    assert [list(tags) for tags in data.test["labels"]] == [row["tags"] for row in rows[80:]]
    assert rejected(tmp_path / "out") == {11: ("duplicate", "of line 100")}


BY_FILE = {"source": {"test_path": "test.jsonl"}, "split": {"by": "file"}}


def entries(folder: Path) -> list[tuple]:
    lines = (folder / "rejected.jsonl").read_text(encoding="utf8").splitlines()
    return [tuple(json.loads(line)[key] for key in ("file", "line", "reason", "detail")) for line in lines]


def test_a_test_file_is_the_test_set_as_it_is(tmp_path):
    rows, test = make_rows(60), make_rows(20, seed=1)
    rows[10] = {"text": test[9]["text"], "tags": ["b"]}  # its twin is in the test
    test[9]["tags"] = ["a"]
    test[3]["text"] = test[7]["text"]  # both in the test
    rows[20] = rows[22]
    test[12]["text"] = rows[30]["text"] = " "
    write_jsonl(tmp_path / "test.jsonl", test)
    data = clean_rows(tmp_path, rows, **BY_FILE)
    usable = [number for number in range(1, 21) if number != 13]
    assert list(data.test["line"]) == usable
    assert [list(tags) for tags in data.test["labels"]] == [test[number - 1]["tags"] for number in usable]
    assert sorted([*data.train["line"], *data.validation["line"]]) == [n for n in range(1, 61) if n not in (11, 23, 31)]
    assert entries(tmp_path / "out") == [
        ("rows.jsonl", 11, "duplicate", "of line 10 of test.jsonl"), ("rows.jsonl", 23, "duplicate", "of line 21"),
        ("rows.jsonl", 31, "no text", ""), ("test.jsonl", 13, "no text", ""),
    ]
    assert data.record["rows"]["read"] == 80
    assert data.record["rows"]["kept"] == 76


def test_a_contradiction_to_the_test_file_is_told(tmp_path):
    rows, test = make_rows(60), make_rows(20, seed=1)
    rows[10], test[9]["tags"] = {"text": test[9]["text"], "tags": ["b"]}, ["a"]
    write_jsonl(tmp_path / "test.jsonl", test)
    clean_rows(tmp_path, rows, kind="multiclass", **BY_FILE)
    assert entries(tmp_path / "out") == [
        ("rows.jsonl", 11, "duplicate", "of line 10 of test.jsonl, which it contradicts: b here, a there")]


def test_a_changed_test_file_runs_again(tmp_path):
    write_jsonl(tmp_path / "test.jsonl", make_rows(20, seed=1))
    clean_rows(tmp_path, make_rows(60), **BY_FILE)
    assert not run_again(tmp_path, **BY_FILE)
    write_jsonl(tmp_path / "test.jsonl", make_rows(20, seed=2))
    assert run_again(tmp_path, **BY_FILE)


def test_a_test_file_must_be_readable_and_leave_rows_on_both_sides(tmp_path):
    raw = write_jsonl(tmp_path / "rows.jsonl", make_rows(60))
    assert "source.test_path: no such file" in refusal(raw, **BY_FILE)
    (tmp_path / "test.jsonl").write_text("not json\n" * 20)
    assert "test.jsonl: 20 of 20 rows cannot be read" in refusal(raw, **BY_FILE)
    write_jsonl(tmp_path / "test.jsonl", make_rows(20, ["new"], seed=1))
    assert "no test row is left after cleaning (20 × only rare labels)" in refusal(raw, **BY_FILE)
    write_jsonl(raw, make_rows(5))
    assert "only 5 rows are left besides the test rows" in refusal(raw, **BY_FILE)
    write_jsonl(raw, make_rows(20, ["new"]))
    write_jsonl(tmp_path / "test.jsonl", make_rows(20, seed=1))
    assert "only one label, 'new', is left" in refusal(raw, **BY_FILE)


def test_labels_that_only_test_rows_have_are_counted_and_dropped(tmp_path):
    rows = make_rows(60)
    rows[59]["tags"], rows[58]["tags"] = ["new"], ["new", "a"]
    data = clean_rows(tmp_path, rows, split={"by": "position", "test_rows": 10})
    assert data.record["labels"] == data.record["labels"] | {"kept": 2, "only_in_test": 1}
    assert list(data.test["line"]) == list(range(51, 60))
    assert rejected(tmp_path / "out") == {60: ("only rare labels", "")}


def test_the_public_cooking_split_is_kept(tmp_path):
    if not COOKING.is_file():
        pytest.skip(f"the cooking data are not at {COOKING}")
    record = clean(Task.load("cooking"), COOKING, tmp_path / "out")
    data = Dataset.load(tmp_path / "out")
    assert record["rows"]["read"] == 15_404
    assert list(data.test["line"]) == list(range(12_405, 15_405))
    assert max(data.train["line"].max(), data.validation["line"].max()) <= 12_404
    assert len(data.labels) == 735
    assert record["rows"]["kept"] + sum(record["rows"]["rejected"].values()) == 15_404


def test_the_news_of_ag_are_cleaned_with_their_test_set(tmp_path):
    if not AG_NEWS.is_dir():
        pytest.skip(f"AG's news are not at {AG_NEWS}")
    task = Task.load("ag_news")
    two_files = {"path": "ag_news/train_20k.csv", "member": None, "test_path": "ag_news/test.csv", "test_member": None}
    task = task.model_copy(update={"source": task.source.model_copy(update=two_files)})
    start = time.process_time()
    record = clean(task, task.raw_path(), tmp_path / "out")
    assert time.process_time() - start < 60
    data = Dataset.load(tmp_path / "out")
    assert record["rows"]["read"] == 27_600
    assert set(data.labels) == {"World", "Sports", "Business", "Sci/Tech"}
    assert len(data.test) == 7_600
    assert data.test["line"].min() == 1  # no header in this file, one in the other
    assert data.train["line"].min() == 2
    assert set(record["rows"]["rejected"]) == {"duplicate", "near duplicate"}
    assert 19_000 < len(data.train) + len(data.validation) < 20_000
    found = everything(data)
    assert all(len(labels) == 1 for labels in found["labels"])
    for damage in (r"#\d+;", r"\b(?:quot|amp|nbsp);", r"\\", "&lt;", r"</?[abp]\b"):
        assert found["text"].str.contains(damage).sum() <= 1, damage
    assert data.test["text"][1].startswith("The Race is On: Second Private Team Sets Launch Date for Human Spaceflight "
                                           "(SPACE.com). SPACE.com - TORONTO, Canada -- A second team of rocketeers "
                                           "competing for the $10 million Ansari X Prize")


# --- genres and colours ------------------------------------------------------------------------------------------


def paths_of(rows: list[dict], paths) -> list[dict]:
    return [row | {"tags": path} for row, path in zip(rows, paths, strict=True)]


def labels_by_line(data: Dataset) -> dict[int, list[str]]:
    found = everything(data)
    return {line: list(labels) for line, labels in zip(found["line"], found["labels"], strict=True)}


def test_each_part_of_a_genre_path_is_a_label_but_for_those_that_say_too_little(tmp_path):
    paths = [["Fiction » Romance » Historical", "Fiction » General"], "fiction»ROMANCE »  historical ; Fiction » general",
             ["Cooking, Food, Wine, Spirits » Baking"], "Nonfiction » Children's  books", ["Fiction » General"], "Nonfiction"]
    data = clean_rows(tmp_path, paths_of(make_rows(60), paths * 10), labels={"format": "paths"})
    found = labels_by_line(data)
    assert [found[line] for line in range(1, 7)] == [
        ["romance", "historical"], ["romance", "historical"], ["cooking, food, wine, spirits", "baking"], ["children’s books"],
        ["fiction", "general"], ["nonfiction"]]  # the last two rows have nothing better
    assert "hues" not in data.train
    assert not (tmp_path / "out" / "hues.json").exists()


def test_of_many_labels_those_stay_that_tell_most_and_can_be_learnt(tmp_path):
    """`broad` is on 60 rows, `middle` on 40, `narrow` on 20, `small` on 20 as well, `rare` on 2."""
    tags = [["broad", *["middle"] * (number < 40), *["narrow"] * (number < 20), *["small"] * (number < 20),
             *["rare"] * (number < 2)] for number in range(60)]
    data = clean_rows(tmp_path, paths_of(make_rows(60), tags), labels={"min_rows": 5, "most_telling": 2})
    found = labels_by_line(data)
    assert found[1] == found[20] == ["narrow", "small"]  # whatever the order in the list, and not `rare`
    assert found[21] == ["broad", "middle"]
    assert found[60] == ["broad"]
    data = clean_rows(tmp_path, paths_of(make_rows(60), tags), labels={"min_rows": 5, "most_telling": 1})
    found = labels_by_line(data)
    assert (found[1], found[21], found[60]) == (["narrow"], ["middle"], ["broad"])  # a tie goes by the name
    assert data.record["labels"] == data.record["labels"] | {"kept": 3, "rare": 2}  # and `small`, which no row is left with


def test_a_label_that_more_telling_ones_leave_too_few_rows_makes_room_for_the_next(tmp_path):
    """Of 20 rows with `b`, 18 have `a` as well, which tells more; 2 are too few to learn `b`, so that they go by `c`."""
    tags = [["a", "b"]] * 18 + [["b", "c"]] * 2 + [["c"]] * 40
    data = clean_rows(tmp_path, paths_of(make_rows(60), tags), labels={"min_rows": 5, "most_telling": 1})
    found = labels_by_line(data)
    assert (found[1], found[19], found[60]) == (["a"], ["c"], ["c"])
    assert set(data.labels) == {"a", "c"}


WAYS = ("mapped", "predicted")
SAMPLE_ROWS = {80: "duplicate", 119: "duplicate", 140: "near duplicate", 144: "near duplicate", 79: "no text", 120: "no labels"}


@pytest.fixture(scope="module", params=WAYS)
def book_hues(request, tmp_path_factory) -> tuple[str, Path]:
    """The way, and the shipped task's data set made that way."""
    return request.param, clean_blurbs(tmp_path_factory.mktemp(request.param), request.param)


def clean_blurbs(folder: Path, way: str) -> Path:
    task = Task.load("book_hues")
    task = task.model_copy(update={"labels": task.labels.model_copy(update={"hues": way})})
    clean(task, task.raw_path(), folder)
    return folder


def test_the_blurbs_of_the_sample_come_out_as_their_card_says(book_hues):
    way, folder = book_hues
    data = Dataset.load(folder)
    assert {line: reason for line, (reason, _) in rejected(folder).items()} == SAMPLE_ROWS
    assert len(everything(data)) == 144
    assert all(data.train["text"].str.count("<|&[a-z]+;") == 0)
    labels = labels_by_line(data)
    if way == "mapped":
        assert labels[138] == ["romance", "historical", "horror"]  # "fiction»romance »  Historical » regency", regency is rare
        assert labels[65] == ["historical", "fantasy"]  # one text, with ";" between
        assert labels[137] == ["thriller & suspense", "mystery & detective"]  # its last path is cut off
        assert not {"fiction", "nonfiction", "general", "by region", "police proc"} & set(data.labels)
    else:
        assert len(data.labels) == 52
        assert "darkolivegreen" not in data.labels  # on fewer than eight books


def test_both_ways_have_the_same_rows_in_each_part_and_the_same_truth(book_hues, tmp_path):
    way, folder = book_hues
    mine = Dataset.load(folder)
    other = Dataset.load(clean_blurbs(tmp_path / "other", WAYS[1 - WAYS.index(way)]))
    for split in SPLITS:
        one, two = getattr(mine, split), getattr(other, split)
        assert list(one["line"]) == list(two["line"])
        assert [list(row) for row in one["hues"]] == [list(row) for row in two["hues"]]
    assert (folder / "hues.json").read_bytes() == (tmp_path / "other" / "hues.json").read_bytes()


def test_the_truth_is_the_colours_of_all_genres_the_rare_ones_too(book_hues):
    _, folder = book_hues
    reasons = load_map(folder / "hues.json")
    row = everything(Dataset.load(folder)).set_index("line").loc[138]
    expected = [hue for genre in ("romance", "historical", "regency", "horror", "ghost") for hue in reasons[genre].hues]
    assert list(row["hues"]) == list(dict.fromkeys(expected))


def test_rows_without_a_colour_are_no_rows_where_colours_are_the_labels(tmp_path):
    paths = ["Fiction » Horror", "Poetry", "Fiction » General"] * 20
    data = clean_rows(tmp_path, paths_of(make_rows(60), paths), labels={"format": "paths", "hues": "predicted"})
    assert len(everything(data)) == 40
    assert set(rejected(tmp_path / "out").values()) == {("no hues", "")}
    assert all(set(labels) == set(found) for labels, found in zip(data.test["labels"], data.test["hues"], strict=True))
    raw = write_jsonl(tmp_path / "none.jsonl", paths_of(make_rows(60), ["Fiction » General"] * 60))
    shutil.rmtree(tmp_path / "out")
    assert "no train row is left after cleaning (60 × no hues)" in refusal(raw, labels={"format": "paths", "hues": "predicted"})


def test_a_row_without_a_required_field_has_no_text(tmp_path):
    rows = [{"title": row["text"], "body": "<p>a body</p>", "tags": row["tags"]} for row in make_rows(20)]
    rows += [{"title": f"no body {number}", "body": body, "tags": ["a"]}
             for number, body in enumerate((None, " ", "<p> &nbsp;</p>"))]
    fields = {"fields": ["title", "body"], "template": "{title} {body}", "html": ["body"]}
    assert len(everything(clean_rows(tmp_path, rows, input=fields))) == 23
    assert len(everything(clean_rows(tmp_path, rows, input=fields | {"required": ["body"]}))) == 20
    assert rejected(tmp_path / "out") == {line: ("no text", "body is empty") for line in (21, 22, 23)}


def test_thousands_of_raw_genres_take_seconds(tmp_path):
    """7,500 different lists of paths, of 600 genres that the table does not name."""
    rng = random.Random(2)
    genres = [f"{first} {second}" for first in VOCABULARY[:120] for second in ("whales", "castles", "pies", "duels", "opera")]
    rows = [row | {"tags": [f"Fiction » {' » '.join(rng.sample(genres, 3))}" for _ in range(5)]} for row in make_rows(7500)]
    start = time.process_time()
    data = clean_rows(tmp_path, rows, labels={"format": "paths", "most_telling": 10, "min_rows": 8, "hues": "mapped"})
    assert time.process_time() - start < 30
    found = everything(data)["labels"]
    assert max(map(len, found)) == 10
    assert min(Counter(label for labels in found for label in labels).values()) >= 8
    assert data.record["labels"]["kept"] + data.record["labels"]["rare"] == 600
    assert data.record["labels"]["kept"] > 500  # almost every row has ten that tell more than the commonest


def test_real_books_have_one_category_each_in_one_spelling(tmp_path):
    if not BOOKS.is_file():
        pytest.skip(f"the books are not at {BOOKS}")
    task = Task.load("books")
    record = clean(task, BOOKS, tmp_path / "out")
    data = Dataset.load(tmp_path / "out")
    assert record["rows"]["read"] == 5_197
    assert record["rows"]["rejected"]["no labels"] == 30
    assert {"fiction", "juvenile fiction", "body, mind & spirit", "children’s stories"} <= set(data.labels)
    assert not {"Fiction", "FICTION", "life on other planets"} & set(data.labels)
    assert len(data.labels) == 35
    assert all(len(labels) == 1 for labels in everything(data)["labels"])
    reasons = load_map(tmp_path / "out" / "hues.json")
    assert set(data.labels) <= set(reasons)
    assert all(list(row.hues) == reasons[row.labels[0]].hues for row in data.test.itertuples())


# --- files that cannot be used -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl", "rows.txt"])
def test_a_file_that_is_not_utf8_is_refused_naming_the_line(tmp_path, name):
    WRITERS[name](tmp_path / name, make_rows(20))
    lines = (tmp_path / name).read_bytes().splitlines(keepends=True)
    lines[6] = lines[6].replace(b"word", b"w\xf6rd", 1)
    (tmp_path / name).write_bytes(b"".join(lines))
    message = refusal(tmp_path / name)
    assert f"{name}: line 7, byte " in message
    assert "not UTF-8" in message


def test_a_truncated_jsonl_file_is_refused(tmp_path):
    raw = write_jsonl(tmp_path / "rows.jsonl", make_rows(20))
    raw.write_bytes(raw.read_bytes()[:-20])
    assert "line 20: the last line ends in the middle of a JSON object; the file looks truncated" in refusal(raw)


def test_a_jsonl_file_without_a_last_line_end_is_whole(tmp_path):
    raw = write_jsonl(tmp_path / "rows.jsonl", make_rows(20))
    raw.write_bytes(raw.read_bytes().rstrip())
    assert len(everything(clean_file(raw))) == 20


def test_a_truncated_csv_file_is_refused(tmp_path):
    write_csv(tmp_path / "rows.csv", make_rows(20))
    raw = tmp_path / "rows.csv"
    raw.write_bytes(raw.read_bytes()[:-30])  # inside the quotes of the last row
    message = refusal(raw)
    assert "line 21" in message
    assert "truncated?" in message


@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.99])
def test_a_truncated_parquet_file_is_refused(tmp_path, share):
    raw = tmp_path / "rows.parquet"
    WRITERS[raw.name](raw, make_rows(200))
    raw.write_bytes(raw.read_bytes()[: int(share * raw.stat().st_size)])
    assert "rows.parquet: not a readable parquet file (truncated?)" in refusal(raw)


def test_a_parquet_file_with_damaged_text_is_refused(tmp_path):
    raw = tmp_path / "rows.parquet"
    pq.write_table(pa.Table.from_pylist(make_rows(20)), raw, compression="none", use_dictionary=False)
    content = raw.read_bytes()
    assert content.count(b" word") > 100
    raw.write_bytes(content.replace(b" word", b" w\xffrd"))
    assert "rows.parquet: " in refusal(raw)


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet"])
def test_a_missing_field_is_refused_with_the_nearest_and_the_key_that_names_it(tmp_path, name):
    WRITERS[name](tmp_path / name, make_rows(20))
    message = refusal(tmp_path / name, input={"fields": ["texts"], "template": "{texts}"})
    assert "no field 'texts', which books.toml names in input.fields; did you mean 'text'?" in message
    message = refusal(tmp_path / name, labels={"field": "tag"})
    assert "no field 'tag', which books.toml names in labels.field; did you mean 'tags'?" in message


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.jsonl", "rows.parquet", "rows.txt"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    assert name in refusal(tmp_path / name)


@pytest.mark.parametrize(("name", "content"), [
    ("rows.csv", "text,tags\n"), ("rows.jsonl", "\n\n"), ("rows.parquet", None),
], ids=["csv header", "blank jsonl", "parquet schema"])
def test_a_file_without_rows_is_refused(tmp_path, name, content):
    if content is None:
        pq.write_table(pa.table({"text": pa.array([], pa.string()), "tags": pa.array([], pa.string())}), tmp_path / name)
    else:
        (tmp_path / name).write_text(content)
    assert "holds no rows" in refusal(tmp_path / name)


@pytest.mark.parametrize(("name", "content", "line"), [
    ("rows.csv", "text,tags\n" + "a,b,c\n" * 20, 2),
    ("rows.jsonl", "not json\n" * 20, 1),
    ("rows.jsonl", '"no object"\n' * 20, 1),
    ("rows.jsonl", '{"text": "t", "tags": "[1]"}\n' * 20, 1),
], ids=["csv", "no json", "no objects", "labels"])
def test_a_file_whose_rows_are_all_unreadable_is_refused_with_the_first(tmp_path, name, content, line):
    (tmp_path / name).write_text(content)
    assert f"20 of 20 rows cannot be read; the first is line {line}: unreadable" in refusal(tmp_path / name)


def test_a_few_unreadable_rows_are_no_reason_to_refuse_the_file(tmp_path):
    (tmp_path / "rows.jsonl").write_text("not json\n" * 15 + "\n".join(json.dumps(row) for row in make_rows(20)) + "\n")
    assert len(everything(clean_file(tmp_path / "rows.jsonl"))) == 20


def test_too_few_rows_are_refused_with_the_reasons(tmp_path):
    raw = write_jsonl(tmp_path / "rows.jsonl", [*make_rows(9), {"text": "", "tags": "a"}])
    assert "only 9 of 10 rows are left after cleaning (1 × no text)" in refusal(raw)


def test_a_single_label_is_nothing_to_tell_apart(tmp_path):
    assert "only one label" in refusal(write_jsonl(tmp_path / "rows.jsonl", make_rows(50, labels=["a"])))


@pytest.mark.parametrize("test_rows", [19, 20, 21])
def test_a_split_by_position_must_leave_rows_to_learn_from(tmp_path, test_rows):
    raw = write_jsonl(tmp_path / "rows.jsonl", make_rows(20))
    assert "test_rows" in refusal(raw, split={"by": "position", "test_rows": test_rows})


# --- size, interruption, repetition ------------------------------------------------------------------------------


def test_thirty_thousand_rows_of_html_are_cleaned_in_fifteen_seconds(tmp_path):
    rng = random.Random(5)
    labels = [f"label{number}" for number in range(40)]
    footer = "<p>This question is mirrored here under the licence of the site, with thanks to <a href='#'>authors</a>.</p>"
    with (tmp_path / "rows.jsonl").open("w") as file:
        for _ in range(30_000):
            words = rng.choices(VOCABULARY, k=100)
            body = f"<p>{' '.join(words[:50])} &amp; <em>{' '.join(words[50:60])}</em></p>\n<ul><li>{' '.join(words[60:])}</ul>"
            file.write(json.dumps({"text": body + footer, "tags": rng.sample(labels, rng.randint(1, 3))}) + "\n")
    start = time.process_time()  # not the clock on the wall: other work on the machine does not count
    data = clean_file(tmp_path / "rows.jsonl", input={"html": ["text"]})
    assert time.process_time() - start < 15
    assert data.record["rows"]["kept"] == 30_000


def interrupt(*_):
    raise KeyboardInterrupt


def test_an_interrupted_run_leaves_nothing_behind(tmp_path, monkeypatch):
    raw = write_jsonl(tmp_path / "rows.jsonl", make_rows(20))
    monkeypatch.setattr(tagwright.dataset, "write_json", interrupt)  # the parquet files are written by then
    with pytest.raises(KeyboardInterrupt):
        clean_file(raw)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["books.toml", "rows.jsonl"]


def contents(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in folder.iterdir()}


def test_an_interrupted_run_leaves_the_earlier_result_as_it_was(tmp_path, monkeypatch):
    raw = write_jsonl(tmp_path / "rows.jsonl", make_rows(20))
    clean_file(raw)
    before = contents(tmp_path / "out")
    monkeypatch.setattr(tagwright.dataset, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        clean_file(raw, force=True)
    assert contents(tmp_path / "out") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["books.toml", "out", "rows.jsonl"]


@pytest.mark.parametrize("fault", [
    OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)),
    pa.ArrowException("Error writing bytes to file. Detail: [errno 28] No space left on device"),
], ids=["disk", "quota", "arrow"])
def test_a_full_disk_is_told_in_words(tmp_path, monkeypatch, fault):
    def full(*_):
        raise fault

    raw = write_jsonl(tmp_path / "rows.jsonl", make_rows(20))
    monkeypatch.setattr(tagwright.dataset.pq, "write_table", full)
    assert "no space left on the disk" in refusal(raw)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["books.toml", "rows.jsonl"]


def run_again(folder: Path, **tables) -> bool:
    """Whether a second `clean` did any work."""
    task = Task.load(write_task(folder, "rows.jsonl", **tables))
    return not clean(task, task.raw_path(), folder / "out").get("skipped")


@pytest.fixture
def cleaned(tmp_path) -> Path:
    clean_rows(tmp_path, make_rows(30))
    return tmp_path


def test_unchanged_inputs_are_skipped(cleaned):
    before = (cleaned / "out" / "run.json").stat().st_mtime_ns
    assert not run_again(cleaned)
    assert not run_again(cleaned, training={"epochs": 9})  # no matter to this stage
    assert (cleaned / "out" / "run.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("tables", [
    {"split": {"seed": 1}}, {"labels": {"min_rows": 2}}, {"input": {"html": ["text"]}}, {"split": {"near_duplicate": 0.7}},
    {"kind": "multiclass"},
])
def test_changed_settings_run_again(cleaned, tables):
    assert run_again(cleaned, **tables)
    assert not run_again(cleaned, **tables)


def test_a_changed_raw_file_runs_again(cleaned):
    write_jsonl(cleaned / "rows.jsonl", make_rows(30, seed=1))
    assert run_again(cleaned)


@pytest.mark.parametrize("name", [*(f"{split}.parquet" for split in SPLITS), "labels.json", "rejected.jsonl", "run.json"])
def test_a_deleted_file_runs_again(cleaned, name):
    (cleaned / "out" / name).unlink()
    assert run_again(cleaned)
    assert (cleaned / "out" / name).is_file()


@pytest.mark.parametrize("record", [b"", b"{", b"{}", b"[]", b"\xff", b'{"files": {}}'])
def test_a_damaged_record_runs_again(cleaned, record):
    (cleaned / "out" / "run.json").write_bytes(record)
    assert run_again(cleaned)


def test_force_runs_again(cleaned):
    task = Task.load(cleaned / "books.toml")
    assert "skipped" not in clean(task, task.raw_path(), cleaned / "out", force=True)


def test_loading_what_is_not_there_names_the_command(tmp_path):
    with pytest.raises(TagwrightError, match="tagwright clean scifi"):
        Dataset.load(tmp_path / "out", "scifi")


@pytest.mark.parametrize("name", ["test.parquet", "labels.json"])
def test_loading_a_folder_that_lost_a_file_names_the_command(cleaned, name):
    (cleaned / "out" / name).unlink()
    with pytest.raises(TagwrightError, match="tagwright clean books"):
        Dataset.load(cleaned / "out", "books")


def test_the_record_tells_settings_versions_and_checksums(sample_folder, sample):
    record = sample.record
    assert record["settings"]["name"] == "scifi"
    assert record["settings"]["split"]["seed"] == 42
    assert record["versions"]["python"]
    assert record["files"].keys() == {f"{split}.parquet" for split in SPLITS} | {"labels.json", "rejected.jsonl"}
    assert all(entry["sha256"] == sha256(sample_folder / name) for name, entry in record["files"].items())


@pytest.mark.parametrize("content", ['[{"text": "a", ', '{"rows": []}', "3", "[" * 100_000])
def test_a_json_file_that_is_no_list_of_objects_is_refused(tmp_path, content):
    (tmp_path / "rows.json").write_text(content)
    with pytest.raises(TagwrightError, match=r"rows\.json: (not JSON|neither a list)"):
        clean_file(tmp_path / "rows.json")
