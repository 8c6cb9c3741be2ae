"""The browser collectors against the stand-in site, in real headless Chromium: what they read, their manners, their faults."""

import csv
import signal
import time
from html import unescape

import psutil
import pytest
from scripts import assert_no_browser_is_left, chromium_processes, run, run_with_kills, start, stored
from standin import StandInSite, make_questions

from scraper.question_details import READY, read
from tagwright.browser import Browser
from tagwright.crawler import Crawler
from tagwright.errors import Paused
from tagwright.stackexchange import split_site
from tagwright.store import ItemStore, Work

URLS, DETAILS = "scraper/question_urls.py", "scraper/question_details.py"
QUESTIONS = make_questions(520)
FEW = QUESTIONS[:12]


@pytest.fixture
def site():
    with StandInSite(QUESTIONS, markup="mixed") as site:
        yield site


@pytest.fixture
def sqlite(tmp_path) -> ItemStore:
    return ItemStore(tmp_path / "items.sqlite")


def list_questions(store: ItemStore, site: StandInSite, questions=FEW) -> str:
    """Put questions into the store as question_urls.py does; returns the site's name."""
    name, base = split_site(site.url)
    store.add(Work(name, "question", str(question.id), number, {"url": f"{base}/questions/{question.id}"})
              for number, question in enumerate(questions))
    return name


def crawler(store: ItemStore, site: StandInSite, **options) -> Crawler:
    name, base = split_site(site.url)
    return Crawler(store, name, base, "question", read, READY, **{"delay": 0, "backoff": 0.1} | options)


def failures(store: ItemStore) -> dict[str, int]:
    return {reason: count for _, _, reason, count in store.summary()["failures"]}


def assert_whole(items: dict, questions) -> None:
    """The stored items are the questions: their own text and tags, nothing of an answer or a notice."""
    assert set(items) == {str(question.id) for question in questions}
    for question in questions:
        item = items[str(question.id)]
        assert (item.title, item.tags, item.score, item.created) == (
            question.title, question.tags, question.score, question.created)
        assert unescape(item.body).split() == unescape(question.body).split()  # a browser writes entities its own way


# --- what is read ---


def test_a_site_is_listed_and_its_questions_are_fetched(site, tmp_path):
    """From the list of newest questions to the store, in both markups, by the commands a user types."""
    db, out = tmp_path / "items.sqlite", tmp_path / "urls.csv"
    options = ("--site", site.url, "--delay", 0, "--db", db)
    listed = run(URLS, *options, "--pages", 11, "--out", out)
    assert listed.returncode == 0, listed.stderr
    assert "11 pages listed, 0 given up; 520 questions known" in listed.stdout
    with out.open() as file:
        urls = [row["url"] for row in csv.DictReader(file)]
    assert len(set(urls)) == 520
    fetched = run(DETAILS, *options, "--pages", 40, "--workers", 2)
    assert fetched.returncode == 0, fetched.stderr
    assert "40 questions fetched and 0 given up in this run; 40 in " in fetched.stdout
    assert "480 left" in fetched.stdout
    newest = sorted(QUESTIONS, key=lambda question: question.id)[-40:]
    assert any(question.closed for question in newest)
    assert_whole(stored(db, split_site(site.url)[0]), newest)
    assert "No page was left to list" in run(URLS, *options, "--pages", 11, "--out", out).stdout


def test_the_end_of_a_list_is_seen(site, tmp_path):
    listed = run(URLS, "--site", site.url, "--delay", 0, "--workers", 1, "--db", tmp_path / "a.sqlite",
                 "--out", tmp_path / "urls.csv")
    assert "11 pages listed" in listed.stdout
    assert len(site.requests("/questions[?]")) == 11  # of the 20 that are the default


def test_no_images_fonts_styles_or_scripts_are_loaded_and_one_browser_serves_all_pages(site, sqlite, monkeypatch):
    starts = []
    begin = Browser._start
    monkeypatch.setattr(Browser, "_start", lambda self: starts.append(1) or begin(self))
    list_questions(sqlite, site)
    crawler(sqlite, site).run()
    assert sqlite.count(split_site(site.url)[0]) == len(FEW)
    assert len(starts) == 1
    assert not site.requests("/static/")


def test_removed_and_migrated_questions(site, sqlite):
    with StandInSite(FEW, markup="today") as other:
        moved, gone = QUESTIONS[0], QUESTIONS[1]
        site.migrated[moved.id] = f"{other.url}/questions/{moved.id}"
        site.removed.add(gone.id)
        name = list_questions(sqlite, site)
        crawler(sqlite, site).run()
        assert set(stored(sqlite.name, name)) == {str(question.id) for question in FEW[2:]}
        elsewhere = stored(sqlite.name, split_site(other.url)[0])
        assert [item.title for item in elsewhere.values()] == [moved.title]
    assert list(failures(sqlite).values()) == [1]
    assert "HTTP 404" in next(iter(failures(sqlite)))
    assert len(site.requests(f"/questions/{gone.id}")) == 1  # not asked for again


# --- manners ---


@pytest.mark.parametrize(("fault", "options"), [
    ("429", {"retry_after": 1}), ("503", {"retry_after": 1}), ("503", {}), ("500", {}), ("truncated", {}), ("drop", {}),
    ("garbage", {}), ("challenge", {}), ("challenge", {"status": 200}), ("404", {}),
])
def test_one_fault_costs_no_question(site, sqlite, fault, options):
    name = list_questions(sqlite, site, FEW[:3])
    site.fault(fault, path=f"/questions/{FEW[1].id}/", times=1, **options)
    crawler(sqlite, site).run()
    if fault == "404":
        assert sqlite.count_work(name, "question") == {"done": 2, "failed": 1}
    else:
        assert_whole(stored(sqlite.name, name), FEW[:3])
    if "retry_after" in options:
        times = [entry.time for entry in site.requests("/questions/")]
        assert max(later - earlier for earlier, later in zip(times, times[1:], strict=False)) >= 1


def test_a_page_that_never_comes_is_given_up_after_three_tries(site, sqlite):
    name = list_questions(sqlite, site, FEW[:3])
    site.fault("slow", path=f"/questions/{FEW[0].id}/", times=None, seconds=20)
    site.fault("truncated", path=f"/questions/{FEW[1].id}/", times=None)
    crawler(sqlite, site, timeout=2).run()
    assert set(stored(sqlite.name, name)) == {str(FEW[2].id)}
    assert len(site.requests(f"/questions/{FEW[1].id}/")) == 3
    assert any("not loaded within 2 s" in reason for reason in failures(sqlite))
    assert sqlite.retry_failed(name, "question") == 2


@pytest.mark.parametrize("fault", ["challenge", "429", "503"])
def test_a_site_that_refuses_is_left_alone(site, tmp_path, fault):
    """Three refusals in a row end the run, each later than the one before."""
    db = tmp_path / "items.sqlite"
    name = list_questions(ItemStore(db), site)
    site.fault(fault, path="/questions/", times=None, **({} if fault == "challenge" else {"retry_after": None}))
    result = run(DETAILS, "--site", site.url, "--delay", 0.5, "--backoff", 0.5, "--workers", 2, "--db", db)
    assert result.returncode == 3, result.stderr
    assert "refuses (" in result.stderr
    assert "run the same command again from 20" in result.stderr
    assert "12 left" in result.stderr
    assert len(site.requests("/questions/")) <= 4  # the third one, and one that another worker had begun
    assert ItemStore(db).count_work(name, "question") == {"todo": 12}


def test_a_refusal_makes_the_other_worker_wait_too(site, sqlite):
    """Its turn may have come before the refusal did: it takes another one."""
    list_questions(sqlite, site)
    site.fault("429", path="/questions/", times=1, retry_after=3)
    site.latency = 0.2
    crawler(sqlite, site, workers=2, delay=1).run(4)
    refused = next(entry.time for entry in site.log if entry.status == 429)
    later = [entry.time - refused for entry in site.requests(r"/questions/\d+$") if entry.time > refused + 0.3]
    assert later
    assert min(later) > 2.5


def test_a_long_retry_after_ends_the_run_at_once(site, sqlite):
    name = list_questions(sqlite, site)
    site.fault("429", path="/questions/", times=None, retry_after=4000)
    with pytest.raises(Paused, match="refuses"):
        crawler(sqlite, site).run()
    assert len(site.requests("/questions/")) == 1
    with pytest.raises(Paused, match="asked to be left alone"):
        crawler(sqlite, site).run()
    assert len(site.requests("/questions/")) == 1
    assert sqlite.count_work(name, "question") == {"todo": 12}


def test_a_broken_site_is_given_up_for_now(site, sqlite):
    list_questions(sqlite, site)
    site.fault("500", path="/questions/", times=None)
    with pytest.raises(Paused, match="nothing but faults, the last one: HTTP 500"):
        crawler(sqlite, site).run()
    assert len(site.requests("/questions/")) <= 9


def test_the_delay_holds_for_all_workers_together(site, sqlite):
    list_questions(sqlite, site)
    crawler(sqlite, site, workers=2, delay=0.3).run(6)
    times = [entry.time for entry in site.requests(r"/questions/\d+$")]
    assert len(times) == 6
    # Between the turn and the request lies the browser's own time, which varies: on a busy machine one can come late, and
    # then close to the next.
    assert sorted(later - earlier for earlier, later in zip(times, times[1:], strict=False))[1] > 0.15
    assert times[-1] - times[0] > 1.3


def test_robots_txt_is_obeyed(sqlite):
    robots = "User-agent: *\nDisallow: /questions/*/\nCrawl-delay: 0.4\nUser-agent: tagwright\n" \
             f"Disallow: /questions/{FEW[0].id}\nCrawl-delay: 0.4\n"
    with StandInSite(QUESTIONS, robots=robots) as site:
        name = list_questions(sqlite, site, FEW[:4])
        crawler(sqlite, site).run()
        assert set(stored(sqlite.name, name)) == {str(question.id) for question in FEW[1:4]}
        assert failures(sqlite) == {"robots.txt does not allow it": 1}
        assert not site.requests(f"/questions/{FEW[0].id}")
        times = [entry.time for entry in site.requests(r"/questions/\d+$")]
        assert times[-1] - times[0] > 0.6
        assert "tagwright" in site.requests("/robots")[0].user_agent


@pytest.mark.parametrize(("fault", "allowed"), [("404", True), ("503", False), ("500", False), ("429", False)])
def test_a_robots_txt_that_cannot_be_had(site, sqlite, fault, allowed):
    list_questions(sqlite, site, FEW[:1])
    site.fault(fault, path="/robots.txt", times=1)
    if allowed:
        crawler(sqlite, site).run()
    else:
        with pytest.raises(Paused, match="without it nothing may be fetched"):
            crawler(sqlite, site).run()
    assert bool(site.requests("/questions/")) == allowed


def test_a_site_that_is_not_there(tmp_path):
    result = run(URLS, "--site", "http://127.0.0.1:9", "--db", tmp_path / "a.sqlite", "--out", tmp_path / "urls.csv")
    assert result.returncode == 2
    assert result.stderr.startswith("error: http://127.0.0.1:9 cannot be reached")
    assert result.stderr.count("\n") == 1


def test_without_a_list_it_says_what_to_run_first(site, tmp_path):
    result = run(DETAILS, "--site", site.url, "--db", tmp_path / "a.sqlite")
    assert "run scraper/question_urls.py first" in result.stdout


# --- interruptions ---


def test_a_browser_that_dies_is_started_anew(site, sqlite):
    name = list_questions(sqlite, site)
    victim = crawler(sqlite, site)
    deaths = iter(["driver", "chromium"])

    def read_and_kill(page, work):
        if work.key in (str(FEW[3].id), str(FEW[6].id)):
            driver = psutil.Process(victim.browsers[0].driver.service.process.pid)
            (driver if next(deaths, "") == "driver" else driver.children()[0]).kill()
        return read(page, work)

    victim.read = read_and_kill
    victim.run()
    assert next(deaths, None) is None
    assert_whole(stored(sqlite.name, name), FEW)


def test_killed_at_random_moments_it_ends_as_if_undisturbed(database_url, site):
    before = chromium_processes()
    name = list_questions(ItemStore(database_url), site, QUESTIONS[:30])
    arguments = ("--site", site.url, "--delay", 0.02, "--workers", 2, "--db", database_url)
    killed = run_with_kills(3, 0.5, 5, lambda: len(site.requests("/questions/")), DETAILS, *arguments)
    assert killed == 3
    assert_whole(stored(database_url, name), QUESTIONS[:30])
    assert ItemStore(database_url).count_work(name, "question") == {"done": 30}
    assert_no_browser_is_left(before)  # not even by SIGKILL


def test_two_runs_share_the_work(site, tmp_path):
    db = tmp_path / "items.sqlite"
    name = list_questions(ItemStore(db), site, QUESTIONS[:24])
    both = [start(DETAILS, "--site", site.url, "--delay", 0, "--db", db) for _ in range(2)]
    for process in both:
        _, err = process.communicate(timeout=60)
        assert process.returncode == 0, err
    assert len(site.requests(r"/questions/\d+$")) == 24
    assert_whole(stored(db, name), QUESTIONS[:24])


def test_ctrl_c_ends_it_within_five_seconds_and_says_what_is_saved(site, tmp_path):
    before, db = chromium_processes(), tmp_path / "items.sqlite"
    name = list_questions(ItemStore(db), site, QUESTIONS)
    process = start(DETAILS, "--site", site.url, "--delay", 0.05, "--workers", 2, "--db", db)
    while len(site.requests("/questions/")) < 10:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=5)
    assert process.returncode == 130, err
    assert "stopped. " in err
    assert "Traceback" not in err
    states = ItemStore(db).count_work(name, "question")
    assert f"{len(stored(db, name))} in " in err
    assert states.get("taken", 0) == 0
    assert states["done"] == len(stored(db, name)) > 0
    assert_no_browser_is_left(before)
