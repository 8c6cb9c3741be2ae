"""List a Stack Exchange site's newest questions with a headless Chromium: their addresses, for question_details.py.

    python scraper/question_urls.py --site scifi --pages 20

The addresses go into the item store, as questions still to fetch, and into a CSV file that stackapi/fetch_questions.py
takes too. A run may be killed at any moment and goes on where it was. The API gives the questions themselves, a hundred
a call: prefer it, see scraper/README.md.
"""

import csv
import os
from pathlib import Path
from typing import Annotated

import typer

from tagwright.browser import Page
from tagwright.collecting import Backoff, Database, Delay, Workers, collect
from tagwright.crawler import Crawler, Result
from tagwright.errors import TagwrightError, run
from tagwright.pages import read_listing
from tagwright.stackexchange import question_id, split_site
from tagwright.store import ItemStore, Work
from tagwright.task import ROOT

READY = ".s-post-summary, .question-summary"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    site: Annotated[str, typer.Option(help="The site: scifi, superuser, es.stackoverflow, or its address.")],
    pages: Annotated[int, typer.Option(min=1, help="How many pages of its list of newest questions.")] = 20,
    workers: Workers = 2,
    delay: Delay = 1.0,
    backoff: Backoff = 30,
    again: Annotated[bool, typer.Option("--again", help="List pages anew that were listed before.")] = False,
    out: Annotated[Path, typer.Option(help="Where the addresses are written, too.")] = ROOT / "data" / "question_urls.csv",
    db: Database = None,
) -> None:
    """List the newest questions of a site."""
    name, base = split_site(site)
    store = ItemStore(db)
    if again:
        store.forget(name, "listing")
    store.retry_failed(name, "listing")
    store.add(Work(name, "listing", str(page), page, {"url": f"{base}/questions?tab=newest&page={page}"})
              for page in range(1, pages + 1))

    def read(page: Page, work: Work) -> Result:
        listing = read_listing(page.html, page.url)
        if not listing.has_next:
            store.end(name, "listing", work.position)  # pages that the site does not have
        # Newest first: the greatest id has the lowest position.
        return Result(found=[Work(name, "question", id, -int(id), {"url": url})
                             for url in listing.urls if (id := question_id(url))])

    crawler = Crawler(store, name, base, "listing", read, READY, workers, delay, backoff)
    collect(crawler, lambda: _write(store, name, crawler, out))


def _write(store: ItemStore, site: str, crawler: Crawler, out: Path) -> str:
    """Write all addresses that are known of the site; returns the line that says so."""
    urls = [work.payload["url"] for work, _ in store.work(site, "question")]
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["url"])
            writer.writerows([url] for url in urls)
        os.replace(partial, out)
    except OSError as error:
        raise TagwrightError(f"{out}: cannot be written: {error.strerror}") from None
    hint = "" if crawler.done else " No page was left to list: --again lists them anew, a larger --pages goes further back."
    return (f"{site}: {crawler.done} pages listed, {crawler.failed} given up; {len(urls):,} questions known, in {store.name} "
            f"and {out}.{hint}")


if __name__ == "__main__":
    run(app)
