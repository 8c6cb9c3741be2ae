"""A stand-in for a bookshop as smashwords.com is one: categories page by page, and books, in the layout of the 2020s.

What surrounds a book (a help link in every page's form, other books, reviews with authors and texts of their own) is there to
catch a reader that looks too widely.
"""

import re
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime

from .books import CATEGORIES, WITHOUT_BOOKS, Book, path
from .questions import escape
from .server import COMMON_FAULTS, Reply, StandIn

ROBOTS = "User-agent: *\nDisallow: /cart/\n"
BOOK = re.compile(r"/books/view/(\d+)")
CATEGORY = re.compile(r"/books/category/(\d+)/newest/0/any/any(?:/(\d+))?")
ADULT = "This book contains adult content. Switch the filter off, if you are at least 18, to see it."
REVIEW = "A review, and much longer than any blurb. " * 20


@dataclass(eq=False, repr=False)
class StandInShop(StandIn):
    """Serves `books`, a category's newest first. `gone` holds ids that answer 404, `adult` those that are shown to nobody who
    has not said their age; both may change at any time, and both stay in the lists."""

    faults = COMMON_FAULTS | {"404": lambda make: _missing()}

    books: Sequence[Book]
    _: KW_ONLY
    page_size: int = 10
    robots: str = ROBOTS
    gone: set[int] = field(default_factory=set)
    adult: set[int] = field(default_factory=set)

    def __post_init__(self):
        super().__post_init__()
        self._by_id = {book.id: book for book in self.books}

    def answer(self, path: str, params: dict[str, str]) -> Reply:
        if path == "/robots.txt":
            return Reply(self.robots.encode(), type="text/plain; charset=utf-8")
        if (match := CATEGORY.fullmatch(path)) and int(match[1]) in CATEGORIES:
            return self._category(int(match[1]), int(match[2] or 0))
        if (match := BOOK.fullmatch(path)) and int(match[1]) in self._by_id and int(match[1]) not in self.gone:
            return self._book(self._by_id[int(match[1])])
        return _missing()

    def in_category(self, number: int) -> list[Book]:
        """The books of a category and of those within it, newest first."""
        inside = {leaf for leaf in CATEGORIES if number in dict(path(leaf))}
        return [book for book in reversed(self.books) if inside & set(book.categories)]

    def _category(self, number: int, offset: int) -> Reply:
        books = [] if number in WITHOUT_BOOKS else self.in_category(number)
        address = f"/books/category/{number}/newest/0/any/any"
        others = [further for further in range(0, len(books), self.page_size) if further != offset]
        links = [f'<a class="page-link" href="{address}{f"/{other}" if other else ""}">…</a>' for other in others]
        entries = "".join(map(_entry, books[offset:offset + self.page_size])) or "<p>Nothing here yet, but come back.</p>"
        content = f"""{_crumbs(number)}<div class="btn-group"><a href="{address.replace("newest", "bestsellers")}">Best</a>
<a href="{address.replace("any/any", "free/any")}">Free</a></div><div id="pageContent">{entries}</div>
<div class="featured">Everybody reads <a href="/books/view/{self.books[0].id}">this one</a>.</div>
<ul class="pagination">{"".join(f'<li class="page-item">{link}</li>' for link in links)}</ul>"""
        return Reply(_frame(f"{CATEGORIES[number][1]} ebooks", content).encode())

    def _book(self, book: Book) -> Reply:
        if book.id in self.adult:
            return Reply(_frame("Adult content", f"<h1>One moment</h1><p>{ADULT}</p>").encode())
        others = [other for other in self.books if other is not book][:6]
        genres = "".join(f'<div class="category" itemprop="category">{_chain(number)}</div>' for number in book.categories)
        day = datetime.fromtimestamp(book.published, UTC).strftime("%b. %d, %Y")
        content = f"""<article itemscope itemtype="https://schema.org/Book"><h1 itemprop="name">{escape(book.title)}</h1>
<p>By <a itemprop="author" href="/profile/view/{book.profile}"><span>{escape(book.author)}</span></a></p>
<div itemprop="description">{book.blurb[:30].partition("<")[0]} <a href="#longDescription">More</a></div>
<div id="longDescription" class="card" style="display:none">{book.blurb}</div>{genres}
<div>Published by <a itemprop="publisher" href="/profile/view/press">A Press</a></div><div>Published: {day}</div></article>
<h2>Also by this author</h2><div>{"".join(f'<a href="/books/view/{other.id}"></a>' for other in others)}</div>
<section><div itemprop="review" itemscope itemtype="https://schema.org/Review"><h1>Five stars</h1>
<a itemprop="author" href="/profile/view/critic">A Critic</a><div itemprop="description">{REVIEW}</div></div></section>"""
        return Reply(_frame(f"Stand-in Books – {escape(book.title)} – a book by {escape(book.author)}", content).encode())


def _missing() -> Reply:
    return Reply(_frame("Page not found", "<h1>Page not found</h1>").encode(), 404)


def _links(category: int) -> list[str]:
    return [f'<a href="/books/category/{number}">{escape(name)}</a>' for number, name in path(category)]


def _chain(category: int) -> str:
    return "&nbsp;&raquo;&nbsp;".join(_links(category))


def _crumbs(category: int) -> str:
    items = "".join(f'<li class="breadcrumb-item">{link}</li>\n' for link in _links(category))
    return f'<nav aria-label="breadcrumb"><ol class="breadcrumb">{items}</ol></nav>'


def _entry(book: Book) -> str:
    return f"""<div class="library-book row p-2"><a href="/books/view/{book.id}"><img src="/static/cover.gif" alt=""></a>
<a class="library-title" href="/books/view/{book.id}">{escape(book.title)}</a>
<div class="subnote">by <a href="/profile/view/{book.profile}">{escape(book.author)}</a> Price: $2.99 USD.</div></div>"""


def _frame(title: str, content: str) -> str:
    tree = "".join(f"<li>{_links(number)[-1]}</li>" for number in CATEGORIES)
    return f"""<!DOCTYPE html>
<html lang="en"><head><title>{title}</title><meta name="Description" content="Books by independent authors"></head><body>
<nav><a href="/profile/view/you">You</a> Adult Content: <i>off</i></nav>
<form class="commentLink">First see <a href="/books/view/52">the style guide</a>.</form><aside><ul>{tree}</ul></aside>
<div id="contentArea">{content}</div><footer><a href="/about">About</a></footer></body></html>
"""
