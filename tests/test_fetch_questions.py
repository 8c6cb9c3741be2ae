"""The API collector against the stand-in API: its calls, its manners, its faults, and what is stored in the end."""

import json
import random
import signal
import time
from dataclasses import replace

import httpx
import pytest
from scripts import run, run_with_kills, start, stored
from standin import StandInApi, make_questions

from stackapi import fetch_questions
from stackapi.fetch_questions import Api, fetch_ids, fetch_site, read_item, read_items, read_urls
from tagwright.errors import Paused, TagwrightError
from tagwright.store import ItemStore

SCRIPT = "stackapi/fetch_questions.py"
BASE = "https://scifi.stackexchange.com"
QUESTIONS = make_questions(6_000)


def newest(questions, count: int) -> set[str]:
    order = sorted(questions, key=lambda question: (question.created, question.id), reverse=True)
    return {str(question.id) for question in order[:count]}


@pytest.fixture
def sqlite(tmp_path) -> ItemStore:
    return ItemStore(tmp_path / "items.sqlite")


@pytest.fixture
def hurried(monkeypatch):
    """No pause between calls, for tests that are not about it."""
    monkeypatch.setattr(fetch_questions, "DELAY", 0)


def client(api: StandInApi, store: ItemStore, **options) -> Api:
    return Api(store, api.url, **{"timeout": 2, "sleep": lambda seconds: time.sleep(min(seconds, 0.02))} | options)


# --- what is fetched, and in how many calls ---


@pytest.mark.long
def test_thirty_thousand_questions_in_two_days_of_quota_despite_faults(sqlite, hurried):
    """Without a key, 300 calls a day: the first run ends with the quota, the second goes on; 315 calls at most."""
    questions = make_questions(31_000)
    with StandInApi(questions, rate_limit=None, backoff_every=60, backoff_seconds=1) as api:
        api.random_faults(0.02, ["500", "502html", "truncated", "malformed", "drop"], seed=3)
        with pytest.raises(Paused, match="today's quota of API calls is used up; run the same command again from 20"):
            fetch_site(client(api, sqlite, sleep=time.sleep), "scifi", BASE, 30_000)
        assert api.quota_used == 300
        assert sqlite.count("scifi") > 29_000
        api.reset_quota()
        fetch_site(client(api, sqlite, sleep=time.sleep), "scifi", BASE, 30_000)
        assert api.calls <= 315
        assert not api.violations
    ids = {item.id for item in sqlite.items("scifi")}
    assert newest(questions, 30_000) <= ids
    assert len(ids) < 30_100


def test_the_end_of_the_quota_is_one_line_and_code_3(tmp_path):
    with StandInApi(QUESTIONS[:500], quota=2) as api:
        result = run(SCRIPT, "--site", "scifi", "--max", 500, "--db", tmp_path / "a.sqlite", STACK_API_URL=api.url)
    assert result.returncode == 3
    assert result.stderr.startswith("today's quota of API calls is used up; run the same command again from 20")
    assert "STACK_API_KEY" in result.stderr
    assert "scifi: 200 questions (200 new); 2 calls, 0 left today" in result.stderr


def test_every_question_of_a_site_is_stored_as_it_is(sqlite, hurried):
    with StandInApi(QUESTIONS[:2_700], rate_limit=None) as api:
        fetch_site(client(api, sqlite), "scifi", BASE, 10_000)
        assert api.calls == 28  # 25 pages, then 3 of a second window
    items = {item.id: item for item in sqlite.items("scifi")}
    assert len(items) == 2_700
    for question in QUESTIONS[:2_700]:
        item = items[str(question.id)]
        assert (item.title, item.body, item.tags) == (question.title, question.body, question.tags)
        assert (item.score, item.created, item.source) == (question.score, question.created, "api")
        assert item.url == f"{BASE}/questions/{question.id}"


def test_exactly_what_a_limit_needs_and_more_when_it_is_raised(sqlite, hurried):
    with StandInApi(QUESTIONS, rate_limit=None) as api:
        for limit, calls in [(200, 2), (200, 2), (2_500, 25), (2_600, 28), (2_600, 28)]:
            fetch_site(client(api, sqlite), "scifi", BASE, limit)
            assert api.calls == calls  # 2,600: page 25 once more, as it tells where the next window begins, and two new pages
            assert newest(QUESTIONS, limit) <= {item.id for item in sqlite.items("scifi")}


def test_with_a_key_the_larger_quota_is_used(tmp_path):
    with StandInApi(QUESTIONS[:3_000], quota=10) as api:
        result = run(SCRIPT, "--site", "scifi", "--max", 2_000, "--db", tmp_path / "a.sqlite", STACK_API_URL=api.url,
                     STACK_API_KEY="secret-key")
        assert result.returncode == 0, result.stderr
        assert "20 calls, 9,980 left today" in result.stdout
        assert "secret-key" not in result.stdout + result.stderr


def test_given_addresses_are_fetched_a_hundred_a_call(tmp_path):
    urls = [f"https://scifi.stackexchange.com/questions/{question.id}/{question.slug}" for question in QUESTIONS[:250]]
    urls += ["https://scifi.stackexchange.com/q/999999999", urls[0]]
    (tmp_path / "urls.csv").write_text("title,url\n" + "".join(f"x,{url}\n" for url in urls))
    with StandInApi(QUESTIONS) as api:
        command = (SCRIPT, "--urls", tmp_path / "urls.csv", "--db", tmp_path / "a.sqlite")
        result = run(*command, STACK_API_URL=api.url)
        assert result.returncode == 0, result.stderr
        assert api.calls == 3
        assert set(stored(tmp_path / "a.sqlite", "scifi")) == {str(question.id) for question in QUESTIONS[:250]}
        failures = ItemStore(tmp_path / "a.sqlite").summary()["failures"]
        assert failures == [("scifi", "question", "not given by the API: deleted, or no question", 1)]
        assert "0 calls" in run(*command, STACK_API_URL=api.url).stdout
        assert "1 calls" in run(*command, "--retry-failed", STACK_API_URL=api.url).stdout


def test_two_at_once_fetch_nothing_twice(database_url):
    with StandInApi(QUESTIONS, latency=0.03) as api:
        command = (SCRIPT, "--site", "scifi", "--max", 6_000, "--db", database_url)
        both = [start(*command, STACK_API_URL=api.url) for _ in range(2)]
        for process in both:
            _, err = process.communicate(timeout=60)
            assert process.returncode == 0, err
        assert api.calls == 61
        assert not api.violations
        pages = [entry.path for entry in api.log]
        assert len(set(pages)) == len(pages)
    assert len(stored(database_url, "scifi")) == 6_000


# --- manners and faults ---


def test_backoff_is_obeyed(sqlite, hurried):
    with StandInApi(QUESTIONS[:500], backoff_every=2, backoff_seconds=1) as api:
        fetch_site(client(api, sqlite, sleep=time.sleep), "scifi", BASE, 500)
        assert not api.violations
        assert api.calls == 5


@pytest.mark.parametrize("fault", ["500", "502html", "503", "timeout", "truncated", "malformed", "html", "wrong_types", "drop"])
def test_a_passing_fault_is_tried_again(sqlite, hurried, fault):
    with StandInApi(QUESTIONS[:300], rate_limit=None) as api:
        fetch_site(client(api, sqlite), "scifi", BASE, 100)
        api.fault(fault, times=2)
        fetch_site(client(api, sqlite, timeout=0.5), "scifi", BASE, 300)
        assert api.calls == 5
    assert sqlite.count("scifi") == 300


def test_a_lasting_fault_ends_the_run_and_the_next_one_goes_on(sqlite, hurried):
    with StandInApi(QUESTIONS[:300], rate_limit=None) as api:
        fetch_site(client(api, sqlite), "scifi", BASE, 100)
        api.fault("502html", times=6)
        with pytest.raises(TagwrightError, match="HTTP 502, and no JSON object, 6 times in a row"):
            fetch_site(client(api, sqlite), "scifi", BASE, 300)
        fetch_site(client(api, sqlite), "scifi", BASE, 300)
        assert sqlite.count("scifi") == 300


@pytest.mark.parametrize(("error_id", "name"), [(400, "bad_parameter"), (402, "invalid_access_token"), (403, "access_denied"),
                                                (404, "no_method"), (405, "key_required")])
def test_the_apis_own_errors_are_told_by_name(tmp_path, error_id, name):
    with StandInApi(QUESTIONS[:100]) as api:
        api.fault("error400", error_id=error_id, error_name=name)
        result = run(SCRIPT, "--site", "scifi", "--db", tmp_path / "a.sqlite", STACK_API_URL=api.url)
        assert result.returncode == 2
        assert f"error: the API refused the call: {name} (error {error_id})" in result.stderr
        assert api.calls == 1


def test_an_unknown_site_is_refused_by_the_api(tmp_path):
    with StandInApi(QUESTIONS[:100]) as api:
        result = run(SCRIPT, "--site", "nosuchsite", "--db", tmp_path / "a.sqlite", STACK_API_URL=api.url)
    assert result.returncode == 2
    assert "bad_parameter" in result.stderr


def test_an_api_that_cannot_be_reached_is_one_line_that_names_the_sample(tmp_path):
    result = run(SCRIPT, "--site", "scifi", "--db", tmp_path / "a.sqlite", STACK_API_URL="http://127.0.0.1:9/2.3")
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert "http://127.0.0.1:9/2.3 cannot be reached" in result.stderr
    assert "embedded sample" in result.stderr


@pytest.mark.parametrize("url", ["http://[x", "api.stackexchange.com/2.3", "ftp://x/2.3"])
def test_a_wrong_address_of_the_api_is_one_line(tmp_path, url):
    result = run(SCRIPT, "--site", "scifi", "--db", tmp_path / "a.sqlite", STACK_API_URL=url)
    assert result.returncode == 2
    assert result.stderr.startswith("error: STACK_API_URL: not a web address")


def test_a_small_site_that_was_fetched_costs_no_call(sqlite, hurried):
    with StandInApi(QUESTIONS[:250], rate_limit=None) as api:
        for _ in range(2):
            fetch_site(client(api, sqlite), "scifi", BASE, 10_000)
            assert api.calls == 3


def test_a_long_ban_ends_the_run_with_the_time_to_go_on(sqlite, hurried):
    with StandInApi(QUESTIONS[:100], quota=0) as api, pytest.raises(Paused, match="quota of API calls is used up") as ending:
        fetch_site(client(api, sqlite), "scifi", BASE, 100)
    assert ending.value.code == 3


@pytest.mark.parametrize(("lines", "message"), [
    ("url\nhttps://scifi.stackexchange.com/users/5\n", "line 2: not a question's address"),
    ("https://scifi.stackexchange.com/questions/5\nrubbish\n", "line 2: not a question's address: 'rubbish'"),
    ("http://[x/questions/2\n", "line 1: not a question's address"), ("/questions/2/foo\n", "line 1: not a question's"),
    ("url\n", "no addresses in it"), ("\xff", "cannot be read"),
])
def test_a_wrong_list_of_addresses_is_refused_with_its_line(tmp_path, lines, message):
    (tmp_path / "urls.csv").write_bytes(lines.encode("latin-1"))
    with pytest.raises(TagwrightError, match=message):
        read_urls(tmp_path / "urls.csv")


def test_addresses_of_several_sites_are_told_apart(tmp_path):
    (tmp_path / "urls.csv").write_text("\ufeffhttps://superuser.com/questions/7/a\r\nhttps://es.stackoverflow.com/q/8\r\n")
    works = {site: [work.key for work in found] for site, found in read_urls(tmp_path / "urls.csv").items()}
    assert works == {"superuser": ["7"], "es.stackoverflow": ["8"]}


# --- items ---

GOOD = {"question_id": 5, "title": "A &quot;B&quot; &lt;C&gt;", "body": "<p>x</p>", "tags": ["c++", "日本"], "score": -2,
        "creation_date": 1_300_000_000, "owner": {"user_id": 1}}


def test_an_item_is_read_with_its_title_as_plain_text():
    item = read_item(GOOD, "scifi", BASE)
    assert (item.title, item.body, item.tags, item.score) == ('A "B" <C>', "<p>x</p>", ["c++", "日本"], -2)


@pytest.mark.parametrize(("change", "reason"), [
    ({"title": None}, "title: NoneType, not str"), ({"title": "  "}, "title: empty"), ({"body": 5}, "body: int, not str"),
    ({"tags": "a b"}, "tags: str, not list"), ({"tags": ["a", 5]}, "tags: not a list of texts"), ({"tags": [""]}, "tags"),
    ({"question_id": True}, "question_id: bool, not int"), ({"question_id": -5}, "question_id: not positive"),
    ({"score": 2**40}, "score: out of range"), ({"creation_date": -1}, "created: out of range"),
    ({"creation_date": "2011"}, "creation_date: str, not int"), ({"body": "x" * 1_000_001}, "body: more than 1,000,000"),
    ({"title": "\ud800"}, "title: no valid text"), ({"question_id": 10**300}, "id: "),
])
def test_a_wrong_item_is_refused_with_the_field(change, reason):
    items, rejected = read_items([GOOD | change, GOOD], "scifi", BASE)
    assert [item.id for item in items] == ["5"]
    assert rejected[0].reason.startswith(reason)


@pytest.mark.parametrize("name", ["question_id", "title", "body", "tags", "score", "creation_date"])
def test_a_missing_field_is_named(name):
    with pytest.raises(ValueError, match=f"{name}: missing"):
        read_item({key: value for key, value in GOOD.items() if key != name}, "scifi", BASE)


JUNK = [None, True, False, 0, -1, 2**63, 10**400, 1.5, float("nan"), "", "x", "\ud800", "<b>\0", [], [[]], {}, {"items": []}]


def garble(chance: random.Random, value, depth: int = 0):
    """A JSON value with a few things in it replaced, removed or added."""
    if chance.random() < 0.04:
        return chance.choice(JUNK)
    if isinstance(value, dict):
        return {key: garble(chance, inner, depth + 1) for key, inner in value.items() if chance.random() > 0.02}
    if isinstance(value, list):
        kept = [garble(chance, inner, depth + 1) for inner in value if chance.random() > 0.02]
        return kept + [chance.choice(JUNK)] * (chance.random() < 0.05)
    return value


def random_response(chance: random.Random, number: int) -> httpx.Response:
    items = [GOOD | {"question_id": 10 * number + index + 1, "creation_date": 1_700_000_000 - number} for index in range(3)]
    answer = garble(chance, {"items": items, "has_more": True, "quota_max": 300, "quota_remaining": 200}
                    | chance.choice([{}, {}, {"backoff": 0}, {"error_id": 502, "error_name": "throttle_violation"}]))
    content = json.dumps(answer).encode()
    status = chance.choice([200] * 12 + [400, 404, 429, 500, 502, 503])
    kind = chance.random()
    if kind < 0.05:
        content = content[: chance.randrange(len(content))]
    elif kind < 0.08:
        content = b"<!DOCTYPE html><title>502</title>" * chance.randrange(200)
    elif kind < 0.10:
        content = chance.randbytes(300)
    elif kind < 0.105:
        content = b"[" * 200_000
    elif kind < 0.11:
        content = b'{"items":[' + b'"' + b"x" * 3_000_000 + b'"' + b"]}"
    headers = {"content-encoding": "gzip"} if kind > 0.98 else {}
    headers |= {"retry-after": chance.choice(["1", "-5", "x", "99999999999999"])} if chance.random() < 0.02 else {}
    return httpx.Response(status, headers=headers, stream=httpx.ByteStream(content))


@pytest.mark.long
def test_ten_thousand_random_responses_crash_nothing_and_lose_nothing(sqlite, hurried, monkeypatch):
    chance, number, judged = random.Random(11), 0, []
    monkeypatch.setattr(fetch_questions, "MAX_BYTES", 2_000_000)

    def respond(_):
        nonlocal number
        number += 1
        return random_response(chance, number)

    def judge(objects, site, base):
        items, rejected = read_items(objects, site, base)
        assert len(items) + len(rejected) == len(objects)
        judged.append((items, rejected))
        return items, rejected

    monkeypatch.setattr(fetch_questions, "read_items", judge)
    monkeypatch.setattr(sqlite, "turn", lambda *_: 0)  # two writes less for each of them
    endings = set()
    while number < 10_000:  # another address each time, as an answer may ask us to leave the last one alone for a day
        api = Api(sqlite, f"http://api-{number}.test", transport=httpx.MockTransport(respond), sleep=lambda _: None)
        try:
            fetch_site(api, "scifi", BASE, 10**9)
        except (TagwrightError, Paused) as ending:
            endings.add(str(ending)[:60])
        sqlite.forget("scifi", "api")
    assert len(endings) > 3
    items = {item.id: item for found, _ in judged for item in found}
    refused = {entry.key: entry.reason for _, found in judged for entry in found}
    assert len(items) > 5_000
    assert len(refused) > 1_000
    assert {item.id for item in sqlite.items("scifi")} == set(items)
    assert {entry.key: entry.reason for entry in sqlite.rejected("scifi")} == refused


# --- interruptions ---


def test_killed_at_random_moments_it_ends_as_if_undisturbed(database_url, tmp_path):
    arguments = ("--site", "scifi", "--max", 3_000, "--db")
    with StandInApi(QUESTIONS[:4_000], latency=0.05) as api:
        assert run(SCRIPT, *arguments, tmp_path / "whole.sqlite", STACK_API_URL=api.url).returncode == 0
        undisturbed, calls = api.calls, api.calls
        killed = run_with_kills(3, 0.5, 1, lambda: api.calls, SCRIPT, *arguments, database_url, STACK_API_URL=api.url)
        calls = api.calls - undisturbed
    assert killed == 3
    assert stored(database_url, "scifi") == stored(tmp_path / "whole.sqlite", "scifi")
    assert calls <= undisturbed + killed  # a call may have been answered but not yet stored


def test_ctrl_c_ends_it_within_five_seconds_and_says_what_is_saved(tmp_path):
    with StandInApi(QUESTIONS, latency=0.2) as api:
        process = start(SCRIPT, "--site", "scifi", "--db", tmp_path / "a.sqlite", STACK_API_URL=api.url)
        while api.calls < 4:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=5)
        assert process.returncode == 130
        assert "stopped. In " in err
        assert f"scifi: {len(stored(tmp_path / 'a.sqlite', 'scifi'))} questions" in err
        assert "Traceback" not in err
    assert not ItemStore(tmp_path / "a.sqlite").count_work("scifi", "api").get("taken")


def test_a_database_that_goes_away_ends_it_and_loses_nothing(mariadb):
    url = mariadb.new_database()
    with StandInApi(QUESTIONS, latency=0.05) as api:
        process = start(SCRIPT, "--site", "scifi", "--max", 3_000, "--db", url, STACK_API_URL=api.url)
        while api.calls < 8:
            time.sleep(0.01)
        mariadb.stop()
        _, err = process.communicate(timeout=30)
        mariadb.start()
        assert process.returncode == 2
        assert "the database mysql+pymysql://tagwright:***@" in err
        assert "Traceback" not in err
        assert 600 <= len(stored(url, "scifi")) <= 1_000
        assert run(SCRIPT, "--site", "scifi", "--max", 3_000, "--db", url, STACK_API_URL=api.url).returncode == 0
        assert newest(QUESTIONS, 3_000) <= set(stored(url, "scifi"))


def test_ids_and_pages_may_wait_side_by_side(sqlite, hurried, tmp_path):
    (tmp_path / "urls.csv").write_text(f"url\n{BASE}/questions/{QUESTIONS[0].id}\n")
    with StandInApi(QUESTIONS[:300], rate_limit=None) as api:
        sqlite.add(read_urls(tmp_path / "urls.csv")["scifi"])
        fetch_site(client(api, sqlite), "scifi", BASE, 100)
        fetch_ids(client(api, sqlite), "scifi", BASE)
        assert sqlite.count("scifi") == 101


def test_more_questions_in_one_second_than_pages_show_are_an_error_that_keeps_them(sqlite, hurried):
    crowd = [replace(question, created=QUESTIONS[0].created) for question in QUESTIONS[:2_600]]
    with StandInApi(crowd, rate_limit=None) as api:
        collector = client(api, sqlite)
        with pytest.raises(TagwrightError, match="2,500 questions or more in one second"):
            fetch_site(collector, "scifi", BASE, 10_000)
    assert sqlite.count("scifi") == 2_500
