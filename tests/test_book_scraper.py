"""The bookshop's collectors against the stand-in shop, in real headless Chromium: every book once, whatever happens."""

import csv
import json
import signal
import time
from html import unescape

import pytest
from scripts import assert_no_browser_is_left, chromium_processes, run, run_with_kills, start, stored
from standin import Book, StandInShop, make_books
from test_cli import run as tagwright

from scraper.book_details import READY, read
from tagwright.bookshop import split_shop
from tagwright.crawler import Crawler
from tagwright.store import ItemStore, Work

URLS, DETAILS = "scraper/book_urls.py", "scraper/book_details.py"
BOOKS = make_books(60)
FEW = BOOKS[:8]


@pytest.fixture
def shop():
    with StandInShop(BOOKS) as shop:
        yield shop


def list_books(url: str, shop: StandInShop, books: list[Book]) -> str:
    """Put books into a store as book_urls.py does; returns the shop's name."""
    name, base = split_shop(shop.url)
    ItemStore(url).add(Work(name, "book", str(book.id), -book.id, {"url": f"{base}/books/view/{book.id}", "category": ""})
                       for book in books)
    return name


def assert_whole(items: dict, books: list[Book]) -> None:
    """The stored items are the books: their own texts and genres, nothing of a review or another book."""
    assert set(items) == {str(book.id) for book in books}
    for book in books:
        item = items[str(book.id)]
        assert (item.title, item.author, item.tags, item.created) == (book.title, book.author, book.genres, book.published)
        assert unescape(item.body) == unescape(book.blurb)


def test_a_shop_is_listed_and_its_books_are_fetched_whatever_it_answers(shop, tmp_path):
    """By the commands a user types: each page of each category and each book is read once, through every fault."""
    db = tmp_path / "items.sqlite"
    options = ("--site", shop.url, "--delay", 0, "--backoff", 0.1, "--db", db)
    shop.fault("503", path="/category/1003/", retry_after=1)
    shop.fault("429", path=f"/view/{BOOKS[3].id}$", retry_after=1)
    shop.fault("slow", path=f"/view/{BOOKS[4].id}$", seconds=1)
    shop.fault("truncated", path=f"/view/{BOOKS[5].id}$")
    gone, adult = BOOKS[10], BOOKS[20]
    shop.gone.add(gone.id)
    shop.adult.add(adult.id)

    first = run(URLS, *options, "--categories", "1000-1012", "--max-pages", 3)
    assert first.returncode == 0, first.stderr
    assert "3 pages listed and 0 given up in this run, 12 left" in first.stdout  # two of them led to a second page each
    listed = run(URLS, *options, "--categories", "1000-1012")
    assert listed.returncode == 0, listed.stderr
    assert "4 given up in this run, 0 left; 60 books known" in listed.stdout  # 1009 to 1012 are no categories
    pages = shop.served("/category/")
    assert len(pages) == len(set(pages)) == 4 + 2 + 1 + 1 + 1 + 3 + 1 + 2 + 1  # by category, in pages of ten books
    assert "--again lists" in run(URLS, *options, "--categories", "1000-1012").stdout

    fetched = run(DETAILS, *options)
    assert fetched.returncode == 0, fetched.stderr
    assert "58 books fetched and 2 given up in this run; 58 in " in fetched.stdout
    name = split_shop(shop.url)[0]
    assert_whole(stored(db, name), [book for book in BOOKS if book not in (gone, adult)])
    visits = shop.served("/view/")
    assert len(visits) == len(set(visits)) == 59
    reasons = {reason for _, kind, reason, _ in ItemStore(db).summary()["failures"] if kind == "book"}
    assert reasons == {"HTTP 404: no such page (any more)", "Adult content"}
    assert not shop.requests("/view/52$|/cart/")
    works = {work.key: work.payload["category"] for work, _ in ItemStore(db).work(name, "book")}
    assert set(works.values()) <= {"Fiction » Romance", "Fiction » Science fiction", "Nonfiction » Travel", "",
                                   "Fiction » Children’s books", "Nonfiction » Cooking, Food & Wine",
                                   "Fiction » Romance » Historical"}


def test_killed_at_random_moments_the_crawl_ends_as_if_undisturbed(shop, tmp_path):
    before, db = chromium_processes(), tmp_path / "items.sqlite"
    options = ("--site", shop.url, "--delay", 0.02, "--workers", 2, "--db", db)

    def pages() -> int:  # not robots.txt, after which the browser has still to start
        return len(shop.requests("/books/"))

    assert run_with_kills(2, 0.3, 3, pages, URLS, *options, "--categories", "1000-1008") == 2
    name = split_shop(shop.url)[0]
    assert ItemStore(db).count_work(name, "book") == {"todo": 60}
    assert run_with_kills(3, 0.5, 4, pages, DETAILS, *options) == 3
    assert_whole(stored(db, name), BOOKS)
    assert ItemStore(db).count_work(name, "book") == {"done": 60}
    assert_no_browser_is_left(before)


def test_two_crawls_that_overlap_are_joined_and_exported(shop, tmp_path):
    """By the commands a user types: fiction in one store, the rest and some of that again in another, and then a table."""
    counts = []
    for file, categories in [("a.sqlite", "1000"), ("b.sqlite", "1004-1007")]:
        options = ("--site", shop.url, "--delay", 0, "--db", tmp_path / file)
        for script in (URLS, DETAILS):
            result = run(script, *options, *(("--categories", categories) if script == URLS else ()))
            assert result.returncode == 0, result.stderr
        counts.append(len(stored(tmp_path / file, split_shop(shop.url)[0])))
    assert sum(counts) > 60
    name, both = split_shop(shop.url)[0], tmp_path / "both.sqlite"
    merged = tagwright("merge", tmp_path / "a.sqlite", tmp_path / "b.sqlite", "--to", both)
    assert merged.returncode == 0, merged.stderr
    assert_whole(stored(both, name), BOOKS)
    assert ItemStore(both).count_work(name, "book") == {"done": 60}
    exported = tagwright("export", name, "--db", both, "--out", tmp_path / "books.csv")
    assert "60 rows" in exported.stdout
    with (tmp_path / "books.csv").open(newline="", encoding="utf8") as file:
        rows = {row["title"]: json.loads(row["genres"]) for row in csv.DictReader(file)}
    assert rows == {book.title: book.genres for book in BOOKS}


def test_ctrl_c_ends_it_and_says_what_is_saved(shop, tmp_path):
    before, db = chromium_processes(), tmp_path / "items.sqlite"
    name = list_books(db, shop, BOOKS)
    process = start(DETAILS, "--site", shop.url, "--delay", 0.1, "--db", db)
    while len(shop.requests("/view/")) < 5:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=5)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    states = ItemStore(db).count_work(name, "book")
    assert states["done"] == len(stored(db, name)) > 0
    assert f"{states['todo']} left" in err
    assert_no_browser_is_left(before)


def test_a_book_that_names_no_genre_has_the_category_that_it_was_found_in(tmp_path):
    plain = Book(5, "Plain", "Ann", "A blurb.", [], FEW[0].published)
    with StandInShop([plain]) as shop:
        store = ItemStore(tmp_path / "items.sqlite")
        name, base = split_shop(shop.url)
        store.add([Work(name, "book", "5", 0, {"url": f"{base}/books/view/5", "category": "Fiction » Romance"})])
        Crawler(store, name, base, "book", read, READY, delay=0).run()
        assert [item.tags for item in store.items(name)] == [["Fiction » Romance"]]


def test_wrong_requests_are_one_line(shop, tmp_path):
    for options, message in [(("--categories", "x"), "--categories x: not a number, or a range"),
                             (("--categories", "9-1"), "--categories 9-1: not a number"),
                             (("--categories", "1-999999999"), "at most 100,000"), (("--site", "ftp://x"), "--site ftp://x")]:
        result = run(URLS, *options, "--db", tmp_path / "a.sqlite")
        assert result.returncode == 2
        assert result.stderr.startswith("error: ")
        assert message in result.stderr
    assert "run scraper/book_urls.py first" in run(DETAILS, "--site", shop.url, "--db", tmp_path / "a.sqlite").stdout
