"""Fetch the books that book_urls.py listed, title, author, blurb and genres, with a headless Chromium.

    python scraper/book_details.py

Every page is one transaction in the item store, so a run may be killed at any moment and goes on where it was; two runs may
share the work. A book that is gone, for adults only, or without a title is given up, and its reason kept.
"""

from dataclasses import replace
from typing import Annotated

import typer

from tagwright.book_pages import read_book
from tagwright.bookshop import SMASHWORDS, split_shop
from tagwright.browser import Page
from tagwright.collecting import Backoff, Database, Delay, RetryFailed, Workers, collect
from tagwright.crawler import Crawler, Result
from tagwright.errors import run
from tagwright.store import ItemStore, Work

READY = "#longDescription, [itemprop=description], [itemprop=author]"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    site: Annotated[str, typer.Option(help="The shop's address.")] = SMASHWORDS,
    max_pages: Annotated[int | None, typer.Option(min=1, help="At most so many books in this run.",
                                                  show_default="all listed")] = None,
    workers: Workers = 2,
    delay: Delay = 1.0,
    backoff: Backoff = 30,
    retry_failed: RetryFailed = False,
    db: Database = None,
) -> None:
    """Fetch the listed books of a shop."""
    name, base = split_shop(site)
    store = ItemStore(db)
    if retry_failed:
        store.retry_failed(name, "book")
    crawler = Crawler(store, name, base, "book", read, READY, workers, delay, backoff)
    collect(crawler, lambda: _saved(store, name, crawler), max_pages)


def read(page: Page, work: Work) -> Result:
    """The book of a page; where it names no genre, with the category that the book was found in."""
    book = read_book(page.html, page.url)
    if not book.tags and work.payload["category"]:
        book = replace(book, tags=[work.payload["category"]])
    return Result([book], reason=f"moved to {book.url}" if book.id != work.key or book.site != work.site else "")


def _saved(store: ItemStore, site: str, crawler: Crawler) -> str:
    states = store.count_work(site, "book")
    if not states:
        return f"{site}: no book is listed in {store.name}; run scraper/book_urls.py first."
    return (f"{site}: {crawler.done:,} books fetched and {crawler.failed:,} given up in this run; {store.count(site):,} in "
            f"{store.name}, {states.get('todo', 0):,} left, {states.get('failed', 0):,} given up.")


if __name__ == "__main__":
    run(app)
