"""Readers of a bookshop's pages: on real saved pages, on the stand-in's, and on a small page for each variant and trap."""

import os
import random
from contextlib import suppress
from html import unescape
from pathlib import Path

import pytest
from standin import StandInShop, make_books

from tagwright.book_pages import read_book, read_category
from tagwright.bookshop import book_id, category_place, category_url, split_shop
from tagwright.errors import TagwrightError
from tagwright.markup import ChallengePage, PageError, RemovedPage, UnreadablePage
from tagwright.task import ROOT

PAGES = Path(os.environ.get("TAGWRIGHT_SHARED_DATA", ROOT.parent / "shared" / "data")) / "pages" / "smashwords"
real = pytest.mark.skipif(not PAGES.is_dir(), reason=f"no saved pages at {PAGES}")
URL = "https://www.smashwords.com/books/view/77"
LIST = "https://www.smashwords.com/books/category/1235/newest/0/any/any"


def saved(name: str) -> str:
    return (PAGES / f"{name}.html").read_text(encoding="utf8")


# --- real pages: what is expected was read off their HTML by eye


@real
def test_a_real_book_is_read_in_every_field():
    book = read_book(saved("book_2013"), "https://www.smashwords.com/books/view/120327")
    assert (book.site, book.id, book.url) == ("smashwords.com", "120327", "https://www.smashwords.com/books/view/120327")
    assert (book.title, book.author) == ("Fernweh - mit dem Motorrad um die Welt", "Patrick Schweizer")
    assert book.tags == ["Nonfiction » Travel » Trip Journals", "Nonfiction » Travel » Road travel"]
    assert book.created == 1325808000  # 2012-01-06
    assert book.body.startswith("Sibirien, Karakorum, Wladiwostok, Atacama Wüste")
    assert book.body.endswith("machen die Reise zu einem unvergesslichen Erlebnis.")  # the whole, not what is shown at first
    assert "More" not in book.body
    assert "<br><br>Nehmen Sie Platz" in book.body


@real
def test_a_real_category_is_read_in_order():
    url = "https://www.smashwords.com/books/category/1/newest/0/anyPrice/any"
    listing = read_category(saved("category_2013"), url, 1)
    ids = [book_id(book) for book in listing.urls]
    assert ids[:3] == ["389592", "389591", "389589"]  # the third is one of the second's author, shown with it
    assert (len(ids), len(set(ids))) == (22, 22)
    assert not {"52", "305", "145431"} & set(ids)  # the shop's own guides, which every page names
    assert (listing.next, listing.category) == (f"{url}/20", "")


@real
def test_a_real_page_read_as_another_kind_or_cut_off_is_refused():
    with pytest.raises(UnreadablePage, match="no title|no number"):
        read_book(saved("category_2013"), LIST)
    with pytest.raises(RemovedPage, match="no category 1235: its address leads to"):
        read_category(saved("book_2013"), URL, 1235)
    whole = saved("book_2013")
    with pytest.raises(UnreadablePage, match="truncated"):
        read_book(whole[:whole.index("<h1>")], URL)


# --- the stand-in's pages


@pytest.fixture(scope="module")
def shop():
    with StandInShop(make_books()) as shop:
        yield shop


def test_the_stand_ins_books_are_read_in_every_field(shop):
    for book in shop.books:
        item = read_book(shop.answer(f"/books/view/{book.id}", {}).body.decode(), f"{shop.url}/books/view/{book.id}")
        assert (item.id, item.title, item.author, item.created) == (str(book.id), book.title, book.author, book.published)
        assert item.tags == book.genres
        assert unescape(item.body) == unescape(book.blurb)


def test_the_stand_ins_categories_are_read_page_by_page(shop):
    url, pages = category_url(shop.url, 1000), []
    while url:
        page = read_category(shop.answer(url.removeprefix(shop.url), {}).body.decode(), url, 1000)
        url = page.next
        pages.append(page)
    assert [book_id(found) for page in pages for found in page.urls] == [str(book.id) for book in shop.in_category(1000)]
    assert len(pages) == 4
    historical = category_url(shop.url, 1002)
    page = read_category(shop.answer(historical.removeprefix(shop.url), {}).body.decode(), historical, 1002)
    assert page.category == "Fiction » Romance » Historical"
    empty = category_url(shop.url, 1008)
    page = read_category(shop.answer(empty.removeprefix(shop.url), {}).body.decode(), empty, 1008)
    assert ([book_id(found) for found in page.urls], page.category, page.next) == ([str(shop.books[0].id)], "", None)


# --- variants and traps


def book(content: str, head: str = ""):
    return read_book(f"<html><head>{head}</head><body>{content}</body></html>", URL)


BY = '<p>By <a href="/profile/view/ann">Ann</a></p>'
CATEGORY = '<a href="/books/category/3">Fiction</a>'


@pytest.mark.parametrize(("content", "author"), [
    ('<h1>T</h1><p>By <a href="/profile/view/ann">Ann</a> and <a href="/profile/view/bo">Bo</a></p>'
     '<p>Published by <a href="/profile/view/press">Press</a></p>', "Ann, Bo"),
    ('<nav><a href="/profile/view/me">Me</a></nav><h1>T</h1><span itemprop="author">Ann</span>', "Ann"),
    ('<a href="/profile/view/me">Me</a><h1>T</h1>' + BY, "Ann"),
    ('<h1>T</h1><meta itemprop="author" content="Ann"><p>x</p>', "Ann"),
    ('<h1>T</h1><div itemprop="description">d</div>', None),
])
def test_authors(content, author):
    assert book(content).author == author


@pytest.mark.parametrize(("content", "head", "title"), [
    ('<h1>The Shop</h1><h1 itemprop="name">The Book</h1>' + BY, "", "The Book"),
    ("<h1> The\n Book </h1>" + BY, "", "The Book"),
    ('<h2>x</h2><span itemprop="author">Ann</span>', '<meta property="og:title" content="The &amp; Book">', "The & Book"),
])
def test_titles(content, head, title):
    assert book(content, head).title == title


@pytest.mark.parametrize(("content", "head", "blurb"), [
    ('<div itemprop="description">Short <a href="#longDescription">More</a></div><div id="longDescription">Short &amp; <b>more'
     " of it</b><script>x()</script></div>", "", "Short &amp; <b>more of it</b>"),
    ('<div itemprop="description">One <a href="#all">More</a></div>', "", "One"),
    ("", '<meta name="Description" content="1 &lt; 2 &amp;c.">', "1 &lt; 2 &amp;c."),
    ("", "", ""),
])
def test_blurbs(content, head, blurb):
    assert book("<h1>T</h1>" + BY + content, head).body == blurb


@pytest.mark.parametrize(("content", "genres"), [
    (f'<div itemprop="category">{CATEGORY} &raquo; <a href="/books/category/5">Romance</a></div>', ["Fiction » Romance"]),
    (f'<div class="category">{CATEGORY}</div><div class="category">{CATEGORY} › <a href="/books/category/9">Sea</a></div>',
     ["Fiction", "Fiction » Sea"]),
    (f'<p class="genres">{CATEGORY} &gt; <a href="/books/category/5">Romance</a><br>{CATEGORY} &gt; '
     '<a href="/books/category/9">Sea</a></p>', ["Fiction » Romance", "Fiction » Sea"]),
    (f'<ol class="breadcrumb"><li>{CATEGORY}</li> <li><a href="/books/category/5">Romance</a></li></ol>',
     ["Fiction » Romance"]),
    ('<span itemprop="genre">Fiction / Romance</span>', ["Fiction » Romance"]),
    ('<meta itemprop="genre" content="Poetry">', ["Poetry"]),
    (f"<aside>{CATEGORY}</aside>", []),
    ('<p class="category">What you may find here</p>', []),
])
def test_genres(content, genres):
    assert book("<h1>T</h1>" + BY + content).tags == genres


@pytest.mark.parametrize(("content", "created"), [
    ('<meta itemprop="datePublished" content="2012-01-06">', 1325808000), ("<p>Published: Jan. 06, 2012</p>", 1325808000),
    ("<p>Published: September 6, 2012</p>", 1346889600), ("<p>Published: Feb. 31, 2012</p>", None), ("", None),
    ('<time itemprop="datePublished" datetime="2012-01-06T10:00">then</time>', 1325808000),
    ('<meta itemprop="datePublished" content="1813-01-28">', None),
])
def test_days_of_publication(content, created):
    assert book("<h1>T</h1>" + BY + content).created == created


@pytest.mark.parametrize(("page", "kind", "said"), [
    ("<h1>Wait</h1><p>This book contains adult content.</p>", RemovedPage, "adult content"),
    ("<h1>Sorry</h1><p>This title is no longer available.</p>", RemovedPage, "no longer available"),
    ("<h1>Page not found</h1>", RemovedPage, "Page not found"),
    ("<title>Just a moment...</title><p>x</p>", ChallengePage, "asks for a human"),
    ("<nav>Adult Content: off</nav><h1>Hello</h1>", UnreadablePage, "no author or description"),
    (f"{BY}<div id='longDescription'>d</div>", UnreadablePage, "no title"),
    ("", UnreadablePage, "no title"),
])
def test_pages_without_a_book(page, kind, said):
    with pytest.raises(PageError, match=said) as error:
        book(page, '<meta name="description" content="The shop of shops">')
    assert type(error.value) is kind


@pytest.mark.parametrize(("page", "kind", "said"), [
    ("<h1>Just a moment...</h1>", ChallengePage, "asks for a human"), ("<h1>Page not found</h1>", RemovedPage, "not found"),
    ("<h1>Something</h1>", UnreadablePage, "no book in the list"),
])
def test_pages_without_a_list(page, kind, said):
    with pytest.raises(PageError, match=said) as error:
        read_category(page, LIST, 1235)
    assert type(error.value) is kind


def test_the_next_page_is_the_nearest_of_the_same_category_and_site():
    links = "".join(f'<a href="{link}">x</a>' for link in [
        f"{LIST}/60", f"{LIST}/20", f"{LIST}/40", LIST.replace("1235", "9") + "/30",
        LIST.replace("www.smashwords.com", "elsewhere.example") + "/25"])
    page = f'<div class="library-book"><a href="/books/view/1">One</a></div>{links}'
    assert read_category(page, f"{LIST}/20", 1235).next == f"{LIST}/40"
    assert read_category(page, f"{LIST}/60", 1235).next is None
    assert read_category(f"<p>No books.</p>{links}", f"{LIST}/20", 1235).next is None  # else it might go on for ever
    assert read_category(f'<a href="{LIST.replace("newest", "bestsellers")}">Best</a>', LIST, 1235).urls == []
    unmarked = f'<a href="/books/view/2">Two</a><form><a href="/books/view/52">Help</a></form>{links}'
    assert read_category(unmarked, LIST, 1235).urls == ["https://www.smashwords.com/books/view/2"]


@real
@pytest.mark.parametrize("name", ["book_2013", "category_2013"])
def test_damaged_pages_are_read_or_refused_and_nothing_else(name):
    whole, chance = saved(name), random.Random(3)
    for _ in range(40):
        start, length = chance.randrange(len(whole)), chance.choice([1, 50, 5000, len(whole)])
        page = whole[:start] + chance.choice(["", "<", "<div>", "\x00"]) + whole[start + length:]
        for read in (lambda page: read_book(page, URL), lambda page: read_category(page, LIST, 1235)):
            with suppress(PageError):
                read(page)


def test_addresses():
    assert split_shop("http://127.0.0.1:8000/books") == ("127.0.0.1:8000", "http://127.0.0.1:8000")
    assert split_shop("www.smashwords.com") == split_shop("https://www.smashwords.com/") == (
        "smashwords.com", "https://www.smashwords.com")
    assert category_place(f"{LIST}/40") == (1235, "/newest/0/any/any", 40)
    assert category_place("https://x.example/books/category/7") == (7, "", 0)
    assert category_place("https://x.example/books/view/7") is None
    assert book_id("https://x.example/books/view/0") is None
    for wrong in ("ftp://x.example", "", "a b", "http://["):
        with pytest.raises(TagwrightError, match="--site"):
            split_shop(wrong)
