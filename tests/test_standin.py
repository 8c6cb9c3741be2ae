"""The stand-ins imitate what they stand in for: paging, quota, throttles, faults, and the markup of both ages."""

import gzip
import html
import json
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import httpx
import pytest
from lxml import html as lxml_html
from standin import StandInApi, StandInSite, make_questions

QUESTIONS = make_questions(520)
OLDEST = [question.id for question in QUESTIONS]
CREATION = {"site": "scifi", "sort": "creation", "order": "asc", "pagesize": 100}
BODY = {"today": "s-prose js-post-body", "old": "post-text"}


@pytest.fixture(scope="module")
def client():
    with httpx.Client(timeout=5) as client:
        yield client


@pytest.fixture
def api():
    with StandInApi(QUESTIONS, rate_limit=None) as api:
        yield api


@pytest.fixture
def site():
    with StandInSite(QUESTIONS) as site:
        yield site


def ask(client, api, path="/questions", **params) -> dict:
    answer = client.get(api.url + path, params=CREATION | params)
    assert answer.status_code == (400 if "error_id" in answer.json() else 200)
    return answer.json()


def ids(answer: dict) -> list[int]:
    return [item["question_id"] for item in answer["items"]]


def tree(client, url: str):
    answer = client.get(url, follow_redirects=True)
    assert answer.status_code == 200
    return lxml_html.fromstring(answer.text)


# --- questions ---


def test_questions_are_the_same_every_time_and_untidy_enough():
    assert make_questions(480) == QUESTIONS[:480]
    assert make_questions(20, seed=8) != QUESTIONS[:20]
    assert len(set(OLDEST)) == len({question.title for question in QUESTIONS}) == 520
    assert sorted(QUESTIONS, key=lambda question: (question.created, question.id)) == QUESTIONS
    assert len({question.created for question in QUESTIONS}) < 520
    assert {question.closed for question in QUESTIONS} == {None, "closed", "duplicate"}
    for piece in ('"', "'", "<", "&", "é"):
        assert any(piece in question.title for question in QUESTIONS)
    assert all(1 <= len(question.tags) <= 5 and question.body and question.slug for question in QUESTIONS)


def test_thirty_thousand_questions_are_quick_to_make_and_to_serve(client):
    started = time.monotonic()
    many = make_questions(30_000)
    assert time.monotonic() - started < 3
    with StandInApi(many, rate_limit=None) as api:
        started = time.monotonic()
        for page in range(1, 51):
            assert len(ask(client, api, page=page * 6, filter="withbody", key="k")["items"]) == 100
        assert time.monotonic() - started < 1


# --- the API ---


def test_pages_follow_one_another_without_gap_or_overlap(client, api):
    pages = [ask(client, api, page=page) for page in range(1, 8)]
    assert [id for page in pages for id in ids(page)] == OLDEST
    assert [page["has_more"] for page in pages] == [True] * 5 + [False] * 2
    assert [len(page["items"]) for page in pages] == [100] * 5 + [20, 0]
    assert [page["quota_remaining"] for page in pages] == list(range(299, 292, -1))
    assert ids(ask(client, api, order="desc")) == OLDEST[:-101:-1]
    assert len(ask(client, api, pagesize=30, page=18)["items"]) == 10


def test_has_more_is_false_where_the_last_page_is_full(client):
    with StandInApi(QUESTIONS[:200]) as api:
        assert ask(client, api, page=1)["has_more"]
        assert not ask(client, api, page=2)["has_more"]


def test_windows_of_dates_hold_both_their_ends(client, api):
    first, second, third, after = QUESTIONS[50:54]
    assert first.created == second.created == third.created < after.created
    before = QUESTIONS[49].created
    same = [first.id, second.id, third.id]
    assert ids(ask(client, api, fromdate=first.created, todate=first.created)) == same
    assert ids(ask(client, api, fromdate=before + 1, todate=after.created - 1)) == same
    assert ids(ask(client, api, fromdate=before, todate=after.created)) == OLDEST[49:54]
    assert ids(ask(client, api, min=first.created, max=first.created, order="desc")) == same[::-1]
    assert ids(ask(client, api, fromdate=first.created + 1, todate=first.created)) == []
    assert ids(ask(client, api, todate=after.created, pagesize=4, page=13)) == OLDEST[48:52]


def test_questions_by_id(client, api):
    wanted = OLDEST[5:105]
    answer = ask(client, api, "/questions/" + ";".join(map(str, wanted)))
    assert ids(answer) == wanted
    assert not answer["has_more"]
    answer = ask(client, api, f"/questions/{OLDEST[3]};999999999")
    assert ids(answer) == OLDEST[3:4]
    assert ask(client, api, "/questions/" + ";".join(map(str, OLDEST[:101])))["error_message"] == "ids"
    assert len(ask(client, api, "/questions/" + ";".join(map(str, wanted)), pagesize=30)["items"]) == 30


def test_items_look_like_the_real_ones(client, api):
    plain, full = (ask(client, api, page=5, **params)["items"] for params in ({}, {"filter": "withbody"}))
    recorded = {"tags", "owner", "is_answered", "view_count", "answer_count", "score", "last_activity_date", "creation_date"}
    for item, with_body, question in zip(plain, full, QUESTIONS[400:500], strict=True):
        assert recorded | {"question_id", "content_license", "link", "title"} <= item.keys()
        assert with_body == item | {"body": question.body}
        assert html.unescape(item["title"]) == question.title
        assert item["title"] == item["title"].translate({ord(sign): None for sign in "\"'<>é"})
        assert item["link"] == f"https://scifi.stackexchange.com/questions/{question.id}/{question.slug}"
        assert ("closed_date" in item) == ("closed_reason" in item) == (question.closed is not None)
    assert any("&quot;" in item["title"] for item in plain)
    assert any("&#39;" in item["title"] for item in plain)


@pytest.mark.parametrize(
    ("params", "id", "name", "message"),
    [
        ({"pagesize": 101}, 400, "bad_parameter", "pagesize"),
        ({"page": 0}, 400, "bad_parameter", "page"),
        ({"page": "x"}, 400, "bad_parameter", "page"),
        ({"fromdate": "May"}, 400, "bad_parameter", "fromdate"),
        ({"sort": "luck"}, 400, "bad_parameter", "sort"),
        ({"site": "nowhere"}, 400, "bad_parameter", "No site found for name `nowhere`"),
        ({"page": 26}, 403, "access_denied", "page above 25 requires access token or app key"),
        ({"path": "/nothing"}, 404, "no_method", "no method found with this name"),
        ({"path": "/questions/1;x"}, 404, "no_method", "no method found with this name"),
    ],
)
def test_errors_have_names(client, api, params, id, name, message):
    assert ask(client, api, **params) == {"error_id": id, "error_name": name, "error_message": message}


def test_a_key_opens_the_later_pages_and_a_larger_quota(client, api):
    answer = ask(client, api, page=26, pagesize=20, key="k")
    assert ids(answer) == OLDEST[500:520]
    assert answer["quota_max"] == 10_000
    assert ask(client, api, page=25, pagesize=20)["quota_max"] == 300


def test_the_quota_ends_and_comes_back(client):
    with StandInApi(QUESTIONS, quota=3) as api:
        assert [ask(client, api)["quota_remaining"] for _ in range(3)] == [2, 1, 0]
        refused = ask(client, api)
        assert (refused["error_id"], refused["error_name"]) == (502, "throttle_violation")
        assert refused["error_message"] == "too many requests from this IP, more requests available in 86400 seconds"
        assert (api.quota_used, api.calls, api.violations) == (3, 4, [])
        api.reset_quota()
        assert ask(client, api)["quota_remaining"] == 2


def test_too_many_calls_a_second_bar_the_client(client):
    with StandInApi(QUESTIONS, ban=0.3) as api:
        answers = [ask(client, api, pagesize=1) for _ in range(32)]
        assert [answer.get("error_id") for answer in answers] == [None] * 30 + [502] * 2
        assert "available in 1 seconds" in answers[-1]["error_message"]
        assert [kind for kind, _ in api.violations] == ["rate", "ban"]
        assert (api.calls, api.quota_used) == (32, 30)
        time.sleep(1)
        assert "items" in ask(client, api)


def test_backoff_holds_for_its_method_only(client):
    with StandInApi(QUESTIONS, backoff_every=2, backoff_seconds=1) as api:
        assert "backoff" not in ask(client, api)
        assert ask(client, api)["backoff"] == 1
        assert "items" in ask(client, api, f"/questions/{OLDEST[0]}")
        refused = ask(client, api)
        assert (refused["error_name"], refused["error_message"]) == ("throttle_violation", "Violation of backoff parameter")
        assert [kind for kind, _ in api.violations] == ["backoff"]
        time.sleep(1)
        assert "items" in ask(client, api)
        assert len(api.violations) == 1


def test_a_backoff_nobody_could_read_is_not_held_against_them(client):
    with StandInApi(QUESTIONS, backoff_every=1, backoff_seconds=30) as api:
        for kind in ("malformed", "wrong_types", "truncated"):
            api.fault(kind)
        for _ in range(2):
            client.get(f"{api.url}/questions", params=CREATION)
        with pytest.raises(httpx.HTTPError):
            client.get(f"{api.url}/questions", params=CREATION)
        assert ask(client, api)["backoff"] == 30
        assert api.violations == []


def test_answers_are_compressed_for_who_can_read_them(client, api):
    url = f"{api.url}/questions?site=scifi"
    with client.stream("GET", url, headers={"Accept-Encoding": "gzip"}) as answer:
        assert answer.headers["Content-Encoding"] == "gzip"
        assert json.loads(gzip.decompress(b"".join(answer.iter_raw())))["items"]
    answer = client.get(url, headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in answer.headers
    assert answer.json()["items"]


# --- the site ---


@pytest.mark.parametrize(("markup", "summary"), [("today", "s-post-summary"), ("old", "question-summary")])
def test_listings_lead_from_the_newest_to_the_oldest(client, markup, summary):
    with StandInSite(QUESTIONS, markup, page_size=200) as site:
        url, found, numbers = f"{site.url}/questions?tab=newest&page=1", [], []
        while url:
            page = tree(client, url)
            rows = page.xpath(f"//div[contains(concat(' ', @class, ' '), ' {summary} ')]")
            found += [int(row.get("id").rpartition("-")[2]) for row in rows]
            assert all(row.xpath(".//h3/a[starts-with(@href, '/questions/')]") for row in rows)
            numbers.append((len(rows), bool(page.xpath("//a[@rel='prev']"))))
            url = "".join(site.url + link for link in page.xpath("//a[@rel='next']/@href"))
        assert found == OLDEST[::-1]
        assert numbers == [(200, False), (200, True), (120, True)]
        beyond = tree(client, f"{site.url}/questions?tab=newest&page=4")
        assert not beyond.xpath(f"//*[contains(@class, '{summary}')]")
        assert not beyond.xpath("//a[@rel]")


@pytest.mark.parametrize("markup", ["today", "old"])
def test_question_pages_hold_the_question(client, markup):
    with StandInSite(QUESTIONS, markup) as site:
        for question in QUESTIONS[440:520]:
            page = tree(client, f"{site.url}/questions/{question.id}")
            (title,) = page.xpath("//div[@id='question-header']/h1/a[@class='question-hyperlink']")
            assert title.text_content() == question.title + (f" [{question.closed}]" if question.closed else "")
            (block,) = page.xpath("//div[@id='question']")
            (body,) = block.xpath(f".//div[@class='{BODY[markup]}'][@itemprop='text']")
            (taglist,) = block.xpath(".//div[contains(concat(' ', @class, ' '), ' post-taglist ')]")
            assert taglist.xpath(".//a[contains(@class, 'post-tag')]/text()") == question.tags
            assert block.xpath("string(.//*[@itemprop='upvoteCount'])").strip() == str(question.score)
            stamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(question.created))
            asked = block.xpath(".//div[contains(@class, 'owner')]//span[@class='relativetime']/@title")
            assert asked == [stamp]
            if markup == "today":
                assert page.xpath("//time[@itemprop='dateCreated']/@datetime")[0] == stamp
                assert taglist.xpath(".//ul/li[contains(@class, 'js-post-tag-list-item')]/a/text()") == question.tags
            notice = body.xpath("./aside | ./div[contains(@class, 'question-status')]")
            assert len(notice) == (question.closed is not None)
            for element in notice:
                element.drop_tree()
            assert body.text_content().split() == lxml_html.fromstring(f"<div>{question.body}</div>").text_content().split()
            assert len(page.xpath("//div[@id='answers']//div[@itemprop='text']")) == len(question.answers)


def test_question_pages_try_to_mislead_and_weigh_as_much_as_real_ones(client, site):
    question = QUESTIONS[443]  # has three answers
    answer = client.get(f"{site.url}/questions/{question.id}/{question.slug}")
    assert 60_000 < len(answer.content) < 100_000
    page = lxml_html.fromstring(answer.text)
    assert "answer-only" in page.xpath("//a[contains(@class, 'post-tag')]/text()")
    assert len(page.xpath("//a[contains(@class, 'question-hyperlink')]")) > 20
    for path in page.xpath("//link/@href | //script/@src | //img/@src"):
        resource = client.get(site.url + path)
        assert resource.status_code == 200
        assert len(resource.content) > 10_000
    assert client.get(f"{site.url}/static/face.woff2").status_code == 200


def test_mixed_markup_goes_by_parity(client):
    with StandInSite(QUESTIONS, "mixed") as site:
        for question in QUESTIONS[:6]:
            page = tree(client, f"{site.url}/questions/{question.id}")
            assert bool(page.xpath("//div[@class='post-text']")) == (question.id % 2 == 0)
        assert tree(client, f"{site.url}/questions?page=2").xpath("//div[@class='question-summary']")


def test_addresses_lead_to_the_one_with_the_title(client, site):
    question = QUESTIONS[0]
    for path in (f"/questions/{question.id}", f"/q/{question.id}", f"/questions/{question.id}/another-title"):
        answer = client.get(site.url + path)
        assert (answer.status_code, answer.headers["Location"]) == (302, f"/questions/{question.id}/{question.slug}")


def test_removed_and_migrated_questions(client, site):
    site.removed.add(OLDEST[0])
    site.migrated[OLDEST[1]] = "https://elsewhere.example/questions/5"
    gone = client.get(f"{site.url}/questions/{OLDEST[0]}")
    assert (gone.status_code, "Page not found" in gone.text) == (404, True)
    moved = client.get(f"{site.url}/questions/{OLDEST[1]}")
    assert (moved.status_code, moved.headers["Location"]) == (302, "https://elsewhere.example/questions/5")
    assert client.get(f"{site.url}/questions/1").status_code == client.get(f"{site.url}/nowhere").status_code == 404


def test_robots_txt_can_be_set(client, site):
    assert client.get(f"{site.url}/robots.txt").text == "User-agent: *\nDisallow: /search\n"
    with StandInSite(QUESTIONS, robots="User-agent: *\nDisallow: /\n") as strict:
        assert client.get(f"{strict.url}/robots.txt").text.endswith("Disallow: /\n")


# --- faults ---


def test_faults_of_the_site(client, site):
    url = f"{site.url}/questions?tab=newest&page=1"
    for kind, options in {
        "429": {"retry_after": 7},
        "503": {"retry_after": 2},
        "500": {},
        "404": {},
        "challenge": {},
        "redirect": {"url": "https://elsewhere.example/"},
        "garbage": {},
    }.items():
        site.fault(kind, **options)
    answers = [client.get(url) for _ in range(8)]
    assert [answer.status_code for answer in answers] == [429, 503, 500, 404, 403, 302, 200, 200]
    assert [answer.headers.get("Retry-After") for answer in answers[:3]] == ["7", "2", None]
    assert answers[4].headers["cf-mitigated"] == "challenge"
    assert "Just a moment..." in answers[4].text
    assert answers[5].headers["Location"] == "https://elsewhere.example/"
    assert b"\x00" in answers[6].content
    assert "s-post-summary" in answers[7].text
    assert len(site.requests("page=1")) == 8
    assert site.served() == ["/questions?tab=newest&page=1"]


def test_a_challenge_may_come_with_200(client, site):
    site.fault("challenge", status=200)
    answer = client.get(f"{site.url}/questions")
    assert answer.status_code == 200
    assert "cf-mitigated" not in answer.headers
    assert "Just a moment..." in answer.text
    assert site.served() == []


def test_faults_of_the_api(client, api):
    for kind, options in {
        "500": {},
        "502html": {},
        "503": {"retry_after": 1},
        "html": {},
        "malformed": {},
        "wrong_types": {},
        "error400": {"error_id": 503},
        "timeout": {"seconds": 0.1},
    }.items():
        api.fault(kind, **options)
    api.fault("wrong_types", items="none")
    answers = [client.get(f"{api.url}/questions", params=CREATION) for _ in range(10)]
    assert [answer.status_code for answer in answers] == [500, 502, 503, 200, 200, 200, 400, 200, 200, 200]
    assert all("html" in answer.headers["Content-Type"] for answer in answers[:4])
    with pytest.raises(ValueError, match="Expecting value"):
        answers[4].json()
    assert isinstance(answers[5].json()["items"], dict)
    assert answers[6].json()["error_name"] == "temporarily_unavailable"
    assert len(answers[7].json()["items"]) == 100
    assert answers[7].elapsed.total_seconds() >= 0.1
    assert answers[8].json()["items"] == "none"
    assert (api.calls, api.quota_used) == (10, 6)
    assert answers[9].json()["quota_remaining"] == 294


@pytest.mark.parametrize(("kind", "message"), [("drop", "disconnected"), ("truncated", "incomplete|without sending")])
@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_connections_break(client, site, kind, message, encoding):
    site.fault(kind)
    with pytest.raises(httpx.RemoteProtocolError, match=message):
        client.get(f"{site.url}/questions", headers={"Accept-Encoding": encoding})
    assert client.get(f"{site.url}/questions").status_code == 200
    assert [entry.status for entry in site.requests()] == [0 if kind == "drop" else 200, 200]
    assert len(site.served()) == 1


def test_slow_replies_and_latency(client, site):
    site.fault("slow", seconds=5)
    with pytest.raises(httpx.ReadTimeout):
        client.get(f"{site.url}/robots.txt", timeout=0.1)
    site.latency = 0.1
    assert client.get(f"{site.url}/robots.txt").elapsed.total_seconds() >= 0.1


def test_faults_choose_their_paths_and_may_last_for_ever(client, site):
    site.fault("500", path=r"page=2\b", times=None)
    site.fault("404", path="robots", times=2)
    robots = [client.get(f"{site.url}/robots.txt").status_code for _ in range(3)]
    assert robots == [404, 404, 200]
    assert [client.get(f"{site.url}/questions?page={page}").status_code for page in (1, 2, 2, 2, 20)] == [
        200,
        500,
        500,
        500,
        200,
    ]
    with pytest.raises(KeyError):
        site.fault("locusts")
    with pytest.raises(TypeError):
        site.fault("500", seconds=3)


def test_random_faults_repeat_with_their_seed(client):
    runs = []
    for _ in range(2):
        with StandInSite(QUESTIONS) as site:
            site.random_faults(rate=0.3, kinds=["500", "429"], seed=4, path="robots")
            runs.append([client.get(f"{site.url}/robots.txt").status_code for _ in range(100)])
            assert all(client.get(f"{site.url}/questions/1").status_code == 404 for _ in range(20))
    assert runs[0] == runs[1]
    assert 15 < runs[0].count(500) + runs[0].count(429) < 45


def test_the_log_holds_every_request_of_every_thread(site):
    def fetch():
        with httpx.Client(headers={"User-Agent": "one of four"}) as own:
            for _ in range(25):
                own.get(f"{site.url}/robots.txt")

    threads = [Thread(target=fetch) for _ in range(4)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    entries = site.requests("^/robots.txt$")
    assert len(entries) == 100
    for moment, method, path, agent, status in entries:
        assert started <= moment <= time.monotonic()
        assert (method, path, agent, status) == ("GET", "/robots.txt", "one of four", 200)


def test_a_stopped_server_answers_nobody(client):
    with StandInSite(QUESTIONS) as site:
        url = f"{site.url}/robots.txt"
        assert client.get(url).status_code == 200
    with pytest.raises(httpx.TransportError):
        client.get(url)


def test_all_can_be_started_by_hand():
    command = [sys.executable, Path(__file__).parent / "standin", "--questions", "60", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        addresses = [process.stdout.readline().split()[1] for _ in range(3)]
        answers = [httpx.get(address).text for address in addresses]
        process.terminate()
    assert "s-post-summary" in answers[0]
    assert len(json.loads(answers[1])["items"]) == 30
    assert answers[2].count("library-title") == 10
