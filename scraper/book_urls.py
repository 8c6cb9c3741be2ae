"""List the books in a bookshop's categories with a headless Chromium: their addresses, for book_details.py.

    python scraper/book_urls.py --categories 1000-2000 --max-pages 3000

Every category's newest books are listed, the first page of each category before any second one, so that a run that is ended
early has seen something of all. The addresses go into the item store, as books still to fetch, with the path of the category
that they were first found in. A run may be killed at any moment and goes on where it was.
"""

import re
from typing import Annotated

import typer

from tagwright.book_pages import read_category
from tagwright.bookshop import SMASHWORDS, book_id, category_place, category_url, split_shop
from tagwright.browser import Page
from tagwright.collecting import Backoff, Database, Delay, RetryFailed, Workers, collect
from tagwright.crawler import Crawler, Result
from tagwright.errors import TagwrightError, run
from tagwright.store import ItemStore, Work

READY = ".library-book, .pagination"
MAX_CATEGORY = 999_999_999

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    categories: Annotated[str, typer.Option(help="Numbers of categories: 1000-2000, or one: 1235.")] = "1000-2000",
    site: Annotated[str, typer.Option(help="The shop's address.")] = SMASHWORDS,
    max_pages: Annotated[int | None, typer.Option(min=1, help="At most so many pages of lists in this run; the same command "
                                                              "goes on from there.", show_default="all")] = None,
    workers: Workers = 2,
    delay: Delay = 1.0,
    backoff: Backoff = 30,
    again: Annotated[bool, typer.Option("--again", help="List pages anew that were listed before.")] = False,
    retry_failed: RetryFailed = False,
    db: Database = None,
) -> None:
    """List the books in some categories of a shop."""
    name, base = split_shop(site)
    numbers = _numbers(categories)
    store = ItemStore(db)
    if again:
        store.forget(name, "listing")
    if retry_failed:
        store.retry_failed(name, "listing")
    store.add(_page(name, number, 0, category_url(base, number)) for number in numbers)
    crawler = Crawler(store, name, base, "listing", read, READY, workers, delay, backoff)
    collect(crawler, lambda: _saved(store, name, crawler), max_pages)


def read(page: Page, work: Work) -> Result:
    """The books of a page of a category, and its next page."""
    listing = read_category(page.html, page.url, work.payload["category"])
    # The newest book, which has the greatest number, has the lowest position.
    found = [Work(work.site, "book", id, -int(id), {"url": url, "category": listing.category})
             for url in listing.urls if (id := book_id(url))]
    if listing.next and (place := category_place(listing.next)):
        found.append(_page(work.site, place.category, place.offset, listing.next))
    return Result(found=found)


def _page(site: str, category: int, offset: int, url: str) -> Work:
    position = offset * (MAX_CATEGORY + 1) + category
    return Work(site, "listing", f"{category}/{offset}", position, {"url": url, "category": category})


def _numbers(given: str) -> range:
    match = re.fullmatch(r"([1-9]\d{0,8})(?:-([1-9]\d{0,8}))?", given)
    numbers = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
    if not 0 < len(numbers) <= 100_000:
        raise TagwrightError(f"--categories {given}: not a number, or a range (1000-2000) of at most 100,000")
    return numbers


def _saved(store: ItemStore, site: str, crawler: Crawler) -> str:
    known, left = sum(store.count_work(site, "book").values()), store.count_work(site, "listing").get("todo", 0)
    hint = "" if crawler.done or crawler.failed or left else " --again lists the pages anew."
    return (f"{site}: {crawler.done:,} pages listed and {crawler.failed:,} given up in this run, {left:,} left; {known:,} "
            f"books known, in {store.name}.{hint}")


if __name__ == "__main__":
    run(app)
