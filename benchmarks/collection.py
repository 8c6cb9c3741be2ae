"""Measure the collectors against the stand-in site and API, and render the README's table of the three ways.

    make bench-collect

30,000 questions through the API: calls and seconds, over as many days of quota as they need. Each collector killed by
SIGKILL at 25 random moments, on SQLite and on MariaDB: is what is stored in the end equal to what an undisturbed run
stores? Writes `results/collection.json`; the README's table also takes `scrape.json` and `import_dump.json`.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

from databases import MariaDb
from rich.console import Console
from rich.table import Table
from scripts import run, run_with_kills, stored
from standin import StandInApi, StandInSite, make_questions

from benchmarks.import_dump import write_posts
from benchmarks.report import results_file, update_readme, write_results
from tagwright.stackexchange import split_site
from tagwright.store import ItemStore, Work

QUESTIONS = 30_000
PER_LISTING = 50  # questions on a page of a site's list
DELAY = 1.0  # seconds, the browser collectors' default
FETCH, IMPORT, DETAILS = "stackapi/fetch_questions.py", "stackapi/import_dump.py", "scraper/question_details.py"


def fetch_all(folder: Path) -> dict:
    """30,000 questions without a key, and a new day's quota whenever the collector says that it is used up."""
    days = seconds = 0
    with StandInApi(make_questions(QUESTIONS + 2_000), backoff_every=100) as api:
        while True:
            days += 1
            started = time.perf_counter()
            result = run(FETCH, "--site", "scifi", "--max", QUESTIONS, "--db", folder / "api.sqlite", STACK_API_URL=api.url)
            seconds += time.perf_counter() - started
            if result.returncode != 3:
                break
            api.reset_quota()
        if result.returncode or api.violations:
            raise SystemExit(f"{result.stderr}{api.violations}")
        return {"questions": len(stored(folder / "api.sqlite", "scifi")), "calls": api.calls, "days": days,
                "seconds": round(seconds, 1)}


def kill_api(url: str, folder: Path, kills: int) -> dict:
    arguments = ("--site", "scifi", "--max", 7_000, "--db")
    with StandInApi(make_questions(7_500), latency=0.15) as api:
        run(FETCH, *arguments, folder / "whole.sqlite", STACK_API_URL=api.url)
        undisturbed = api.calls
        killed = run_with_kills(kills, 0.6, 1, lambda: api.calls, FETCH, *arguments, url, STACK_API_URL=api.url)
        extra = api.calls - 2 * undisturbed
    equal = stored(url, "scifi") == stored(folder / "whole.sqlite", "scifi")
    return {"killed": killed, "equal": equal, "calls": undisturbed, "calls_more": extra}


def kill_import(url: str, folder: Path, kills: int) -> dict:
    file = folder / "Posts.xml"
    write_posts(file, 300)
    run(IMPORT, file, "--site", "scifi", "--db", folder / "dump.sqlite")
    store = ItemStore(url)
    killed = run_with_kills(kills, 0.5, 2, lambda: store.count("scifi"), IMPORT, file, "--site", "scifi", "--db", url)
    return {"killed": killed, "equal": stored(url, "scifi") == stored(folder / "dump.sqlite", "scifi"), "megabytes": 300}


def kill_browser(url: str, folder: Path, kills: int) -> dict:
    questions = make_questions(300)
    with StandInSite(questions, markup="mixed") as site:
        name, base = split_site(site.url)
        for database in (folder / "pages.sqlite", url):
            ItemStore(database).add(Work(name, "question", str(question.id), number, {"url": f"{base}/questions/{question.id}"})
                                    for number, question in enumerate(questions))
        arguments = ("--site", site.url, "--delay", 0.05, "--workers", 2, "--db")
        run(DETAILS, *arguments, folder / "pages.sqlite")
        undisturbed = len(site.requests(r"/questions/\d+$"))
        killed = run_with_kills(kills, 0.6, 3, lambda: len(site.requests("/questions/")), DETAILS, *arguments, url)
        extra = len(site.requests(r"/questions/\d+$")) - 2 * undisturbed
        equal = stored(url, name) == stored(folder / "pages.sqlite", name)
    return {"killed": killed, "equal": equal, "pages": undisturbed, "pages_more": extra}


def kill_all(kills: int) -> dict[str, dict]:
    results = {}
    with MariaDb() as server:
        for database in ("SQLite", "MariaDB"):
            for name, kill in [("API", kill_api), ("dump", kill_import), ("browser", kill_browser)]:
                with tempfile.TemporaryDirectory() as folder:
                    url = server.new_database() if database == "MariaDB" else f"{folder}/items.sqlite"
                    results[f"{name}, {database}"] = kill(url, Path(folder), kills)
                    print(f"{name}, {database}: {results[f'{name}, {database}']}", flush=True)
    return results


def render() -> str:
    """The README's table, in Markdown."""
    collection, dump, scrape = (json.loads(results_file(name).read_text(encoding="utf8"))
                                for name in ("collection", "import_dump", "scrape"))
    api, kills, imported = collection["api"], collection["kills"].values(), dump["imports"]["Posts.xml"]
    days = f"{api['days']} day{'s' * (api['days'] > 1)}"
    pages = QUESTIONS + QUESTIONS // PER_LISTING
    rate = imported["posts_a_second"]
    one, two = (scrape[f"question_details.py, {workers}"]["times_as_fast"] for workers in ("1 worker", "2 workers"))
    same = "the same as an undisturbed run" if all(row["equal"] for row in kills) else "NOT the same as an undisturbed run"
    return "\n".join([
        f"| {QUESTIONS:,} questions by | requests to the site | time | what it may miss |",
        "|---|---|---|---|",
        f"| [data dump](stackapi) | 1 download | seconds, at {rate:,} posts a second | what is newer than the dump |",
        f"| [API](stackapi) | {api['calls']} | minutes; {days} of quota without a key, 1 day with a free one "
        "| deleted questions |",
        f"| [browser](scraper) | {pages:,} | {pages * DELAY / 3600:.1f} hours, at the polite {DELAY:g} s a page "
        "| deleted questions, and what tomorrow's pages call otherwise |",
        "",
        f"Measured against a stand-in site and API: {api['questions']:,} questions in {api['calls']} calls; a dump of "
        f"{imported['bytes'] / 1e9:.0f} GB and {dump['posts']:,} posts at {rate:,} posts a second, with at most "
        f"{imported['peak_mb']} MB of memory; {scrape['pages']} question pages {one:.0f} times as fast with one browser, "
        f"and {two:.0f} times with two, as a scraper that starts one for each page. Killed at "
        f"{min(row['killed'] for row in kills)} random moments, each of the three went on and in the end had stored "
        f"{same}, on SQLite and on MariaDB ({collection['machine']}).",
    ])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    kills = parser.parse_args().kills
    with tempfile.TemporaryDirectory() as folder:
        results = {"api": fetch_all(Path(folder))}
    print(f"API: {results['api']}", flush=True)
    results["kills"] = kill_all(kills)
    write_results("collection", results)
    update_readme("collection", render())
    table = Table(title=f"Killed at {kills} random moments, and run again each time", title_justify="left")
    for column in ("collector, database", "killed", "the same in the end", "requests", "requests more"):
        table.add_column(column)
    for name, row in results["kills"].items():
        table.add_row(name, str(row["killed"]), "yes" if row["equal"] else "NO", str(row.get("calls", row.get("pages", ""))),
                      str(row.get("calls_more", row.get("pages_more", ""))))
    Console().print(table)


if __name__ == "__main__":
    main()
