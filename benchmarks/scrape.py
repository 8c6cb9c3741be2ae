"""Pages a second over the same 100 question pages of the stand-in site: `question_details.py`, and the usual scraper,
which starts a browser for each page and writes its whole CSV file anew for each row.

    PYTHONPATH=.:tests python benchmarks/scrape.py

Writes `results/scrape.json`. Both run in this process, the starts of their browsers counted in; neither waits between
pages, since the site is our own.
"""

import argparse
import csv
import json
import shutil
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from selenium import webdriver
from selenium.webdriver.common.by import By
from standin import StandInSite, make_questions
from tqdm import tqdm

from benchmarks.report import write_results
from scraper import question_details
from tagwright.crawler import Crawler
from tagwright.stackexchange import split_site
from tagwright.store import ItemStore, Work


def naive(urls: list[str], file: Path) -> dict[str, list[str]]:
    """A browser for each page, all of its resources loaded, all rows written again after each; no pauses. Returns title and
    tags by address."""
    rows = []
    for url in tqdm(urls, desc="a browser per page", unit=" pages", disable=None):
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium")
        for argument in ("--headless=new", "--no-sandbox"):
            options.add_argument(argument)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
        driver.get(url)
        title = driver.find_element(By.CSS_SELECTOR, "#question-header h1").text
        body = driver.find_element(By.CSS_SELECTOR, "#question .js-post-body").text
        tags = [link.text for link in driver.find_elements(By.CSS_SELECTOR, "#question .post-tag")]
        driver.quit()
        rows.append([title, url, body, tags])
        with file.open("w", newline="") as stream:
            csv.writer(stream).writerows([["title", "url", "description", "tags"], *rows])
    return {url: [title, *tags] for title, url, _, tags in rows}


def ours(store: ItemStore, base: str, workers: int) -> None:
    name, _ = split_site(base)
    Crawler(store, name, base, "question", question_details.read, question_details.READY, workers, delay=0).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pages", type=int, default=100)
    pages = parser.parse_args().pages
    questions = [question for question in make_questions(2 * pages) if not question.closed][:pages]
    results = {"pages": pages}
    with tempfile.TemporaryDirectory() as folder, StandInSite(questions, markup="today") as site:
        urls = [f"{site.url}/questions/{question.id}/{question.slug}" for question in questions]
        started = time.perf_counter()
        read = naive(urls, Path(folder) / "rows.csv")
        results["a browser per page"] = {"seconds": time.perf_counter() - started, "requests": len(site.log)}
        for workers in (1, 2):
            db, before = Path(folder) / f"{workers}.sqlite", len(site.log)
            store, name = ItemStore(db), split_site(site.url)[0]
            store.add(Work(name, "question", str(question.id), number, {"url": url})
                      for number, (question, url) in enumerate(zip(questions, urls, strict=True)))
            started = time.perf_counter()
            ours(store, site.url, workers)
            results[f"question_details.py, {workers} worker{'s' * (workers > 1)}"] = {
                "seconds": time.perf_counter() - started, "requests": len(site.log) - before}
            stored = {item.id: [item.title, *item.tags] for item in store.items(name)}
            if stored != {str(question.id): read[url] for question, url in zip(questions, urls, strict=True)}:
                raise SystemExit("the two scrapers did not read the same titles and tags")
    slow = results["a browser per page"]["seconds"]
    table = Table(title=f"{pages} question pages", title_justify="left")
    for column in ("scraper", "seconds", "pages a second", "requests", "times as fast"):
        table.add_column(column, justify="left" if column == "scraper" else "right")
    for name, row in results.items():
        if name != "pages":
            row |= {"pages_a_second": pages / row["seconds"], "times_as_fast": slow / row["seconds"]}
            table.add_row(name, f"{row['seconds']:.1f}", f"{row['pages_a_second']:.2f}", f"{row['requests']:,}",
                          f"{row['times_as_fast']:.1f}")
    Console().print(table)
    write_results("scrape", json.loads(json.dumps(results), parse_float=lambda text: round(float(text), 2)))


if __name__ == "__main__":
    main()
