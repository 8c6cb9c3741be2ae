"""Fetch the questions that question_urls.py listed, title, body and tags, with a headless Chromium.

    python scraper/question_details.py --site scifi

Every page is one transaction in the item store, so a run may be killed at any moment and goes on where it was; two runs
may share the work. The API gives a hundred questions a call: prefer it, see scraper/README.md.
"""

from typing import Annotated
from urllib.parse import urlsplit

import typer

from tagwright.browser import Page
from tagwright.collecting import Backoff, Database, Delay, RetryFailed, Workers, collect
from tagwright.crawler import Crawler, Result
from tagwright.errors import run
from tagwright.pages import read_question
from tagwright.stackexchange import split_site
from tagwright.store import ItemStore, Work

READY = "#answers, #answers-header, .answers-subheader"  # what follows the question: it is all there

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    site: Annotated[str, typer.Option(help="The site: scifi, superuser, es.stackoverflow, or its address.")],
    pages: Annotated[int | None, typer.Option(min=1, help="At most so many questions.", show_default="all listed")] = None,
    workers: Workers = 2,
    delay: Delay = 1.0,
    backoff: Backoff = 30,
    retry_failed: RetryFailed = False,
    db: Database = None,
) -> None:
    """Fetch the listed questions of a site."""
    name, base = split_site(site)
    store = ItemStore(db)
    if retry_failed:
        store.retry_failed(name, "question")
    crawler = Crawler(store, name, base, "question", read, READY, workers, delay, backoff)
    collect(crawler, lambda: _saved(store, name, crawler), pages)


def read(page: Page, work: Work) -> Result:
    """The question of a page. A migrated one is stored under the site where it now is."""
    item = read_question(page.html, page.url)
    moved = item.id != work.key or item.site != work.site
    return Result([item], reason=f"moved to {urlsplit(page.url)._replace(query='', fragment='').geturl()}" if moved else "")


def _saved(store: ItemStore, site: str, crawler: Crawler) -> str:
    states = store.count_work(site, "question")
    if not states:
        return f"{site}: no question is listed in {store.name}; run scraper/question_urls.py first."
    return (f"{site}: {crawler.done:,} questions fetched and {crawler.failed:,} given up in this run; {store.count(site):,} "
            f"in {store.name}, {states.get('todo', 0):,} left, {states.get('failed', 0):,} given up.")


if __name__ == "__main__":
    run(app)
