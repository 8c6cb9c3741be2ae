"""The embedded sample holds what its data card says: enough questions, enough tags, and every fault on purpose."""

import json
import re
from collections import Counter

import pandas as pd
import pytest
from conftest import ROOT

from tagwright.dataset import SPLITS, Dataset
from tagwright.task import Task
from tagwright.text import parse_labels

FOLDER = ROOT / "data" / "sample"
ROWS = [json.loads(line) for line in (FOLDER / "scifi.jsonl").read_text(encoding="utf8").splitlines()]
CARD = FOLDER / "README.md"


@pytest.fixture(scope="module")
def cleaned(sample: Dataset) -> pd.DataFrame:
    return pd.concat([getattr(sample, split) for split in SPLITS], ignore_index=True)


@pytest.fixture(scope="module")
def rejected(sample_folder) -> dict[int, str]:
    lines = (sample_folder / "rejected.jsonl").read_text(encoding="utf8").splitlines()
    return {entry["line"]: entry["reason"] for entry in map(json.loads, lines)}


def test_it_holds_at_least_four_hundred_questions_of_one_shape():
    assert len(ROWS) >= 400
    assert all(list(row) == ["id", "title", "body", "tags"] for row in ROWS)
    assert [row["id"] for row in ROWS] == list(range(1, len(ROWS) + 1))


def test_every_sound_question_has_one_to_five_tags(rejected):
    sound = [parse_labels(row["tags"]) for row in ROWS if rejected.get(row["id"]) not in ("no labels", "unreadable labels")]
    assert len(sound) >= 400
    assert {len(tags) for tags in sound} == {1, 2, 3, 4, 5}
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9.-]*", tag) for tags in sound for tag in tags)


def test_at_least_thirty_tags_have_ten_questions(cleaned, sample):
    counts = Counter(tag for tags in cleaned["labels"] for tag in tags)
    assert counts.keys() == set(sample.labels)
    assert sum(count >= 10 for count in counts.values()) >= 30
    assert min(counts.values()) >= Task.load("scifi").labels.min_rows


def test_there_is_a_long_tail_of_rare_tags(sample):
    assert sample.record["labels"]["rare"] > 3 * sample.record["labels"]["kept"]


def test_no_two_cleaned_texts_share_more_than_half_of_their_five_word_phrases(cleaned):
    phrases = []
    for text in cleaned["text"]:
        words = re.findall(r"\w+", text.casefold())
        phrases.append({tuple(words[at : at + 5]) for at in range(len(words) - 4)})
    assert all(phrases)
    shared = [(cleaned["line"][at], cleaned["line"][other]) for at in range(len(phrases)) for other in range(at)
              if len(phrases[at] & phrases[other]) > 0.5 * min(len(phrases[at]), len(phrases[other]))]
    assert not shared


@pytest.mark.parametrize("reason", ["duplicate", "near duplicate", "no text", "no labels", "unreadable labels"])
def test_each_fault_is_there_to_be_found(rejected, reason):
    assert reason in rejected.values()


def test_cleaning_drops_the_deliberate_faults_and_little_else(sample):
    assert 0 < sum(sample.record["rows"]["rejected"].values()) <= 0.05 * len(ROWS)


def test_some_entities_are_escaped_twice_as_in_the_wild():
    assert any(re.search(r"&amp;(#\d+|[a-z]+);", row["title"] + row["body"]) for row in ROWS)
    assert any(re.search(r"&(#\d+|[a-z]+);", row["title"]) for row in ROWS)


@pytest.mark.parametrize(("name", "pattern"), [
    ("JSON text", r'\["[^\']+\]'), ("Python text", r"\['[^\"]+\]"), ("angle brackets", r"(<[^<>]+>)+"),
    ("pipes", r"[^|]+(\|[^|]+)+"), ("pipes around", r"\|([^|]+\|)+"), ("spaces", r"[^\s,|<\[]+( [^\s,|<\[]+)+"),
])
def test_each_written_form_of_a_tag_list_is_there(name, pattern):
    cells = [row["tags"] for row in ROWS if isinstance(row["tags"], str) and re.fullmatch(pattern, row["tags"])]
    assert len(cells) >= 3
    assert all(parse_labels(cell) for cell in cells)


def test_most_tag_lists_are_lists():
    assert sum(isinstance(row["tags"], list) for row in ROWS) > 0.8 * len(ROWS)


def test_the_data_card_states_the_true_numbers(sample):
    card = CARD.read_text(encoding="utf8")
    rows = sample.record["rows"]
    assert f"{len(ROWS)} questions" in card
    assert f"{rows['kept']} questions" in card
    assert f"{sample.record['labels']['kept']} tags" in card
    assert f"{sample.record['labels']['rare']} rarer" in card
    for reason, count in rows["rejected"].items():
        assert f"| {reason} | {count} |" in card
