"""What the browser collectors' scripts share: the options that they all have, and how a run of theirs ends."""

from collections.abc import Callable
from typing import Annotated

import typer

from tagwright.crawler import Crawler
from tagwright.errors import Paused

Workers = Annotated[int, typer.Option(min=1, max=16, help="Browsers at once; they share the delay.")]
Delay = Annotated[float, typer.Option(min=0, help="Seconds between two pages of the site.")]
Backoff = Annotated[float, typer.Option(min=0, help="Seconds to wait after a refusal; doubled with each one.")]
RetryFailed = Annotated[bool, typer.Option("--retry-failed", help="Try again what was given up.")]
Database = Annotated[str | None, typer.Option(help="SQLite file, or mysql+pymysql://user:password@host/database.",
                                              show_default="$TAGWRIGHT_DB or data/collected/items.sqlite")]


def collect(crawler: Crawler, summary: Callable[[], str], limit: int | None = None) -> None:
    """Run a crawl, of at most `limit` pages, and print what is saved; Paused, which Ctrl-C becomes too, says it as well."""
    try:
        crawler.run(limit)
    except Paused as ending:
        raise Paused(f"{ending}. {summary()}", ending.code) from None
    except KeyboardInterrupt:
        raise Paused(f"stopped. {summary()} Run the same command again to go on.", 130) from None
    print(summary())
