"""Fetch questions, with bodies and tags, through the Stack Exchange API 2.3, a hundred a call.

    python stackapi/fetch_questions.py --site scifi --max 30000
    python stackapi/fetch_questions.py --urls data/question_urls.csv

The newest questions of a site are read page by page. No page beyond the 25th is given without a key, so after 25 pages a
new window begins, which ends at the oldest second seen: 30,000 questions are 301 calls. Every page is one transaction in
the item store, so a run may be killed at any moment and goes on where it was. A free key from stackapps.com in
STACK_API_KEY raises the quota from 300 calls a day to 10,000.
"""

import contextlib
import csv
import hashlib
import html
import json
import math
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import httpx
import tenacity
import typer
from tqdm import tqdm

from tagwright import __version__
from tagwright.errors import Paused, TagwrightError, run
from tagwright.stackexchange import host_of, question_id, question_url, site_of, split_site, split_url
from tagwright.store import Item, ItemStore, Rejected, Work

API = "https://api.stackexchange.com/2.3"
PAGE_SIZE, PAGES = 100, 25  # the most questions a page, and pages a window, that the API gives without a key
DELAY = 1 / 25  # seconds between calls; more than 30 calls a second are punished
ATTEMPTS = 6  # at one call, with waits of 1, 2, 4, 8 and 16 seconds and some jitter between them
MAX_WAIT = 300  # seconds; asked to wait longer, the run ends and says when to go on
MAX_BYTES = 64_000_000  # of one answer, unpacked
MAX_BODY = 1_000_000  # characters of one question; the sites themselves allow 30,000
THROTTLED, PASSING = 502, (500, 503)  # error ids: throttle_violation; internal_error and temporarily_unavailable


class Fault(Exception):
    """A call that may go better the next time."""


class Api:
    """The API behind one address. Several processes with the same store share its pace: its 30 calls a second, and every
    `backoff` it asks for."""

    def __init__(self, store: ItemStore, url: str = API, key: str | None = None, transport: httpx.BaseTransport | None = None,
                 timeout: float = 30, sleep: Callable[[float], None] = time.sleep):
        self.store, self.url, self.key, self.sleep = store, url.rstrip("/"), key, sleep
        scheme, address, path = split_url(self.url)
        self.host = address.rpartition("@")[2]  # without a password
        if scheme not in ("http", "https") or not self.host:
            raise TagwrightError("STACK_API_URL: not a web address such as " + API)
        self.name = f"{scheme}://{self.host}{path}"
        self.calls = 0
        self.answered = False
        self.quota: int | None = None  # calls left today, as last heard
        self.started = time.time()
        headers = {"User-Agent": f"tagwright/{__version__}", "Accept": "application/json"}
        try:
            self.http = httpx.Client(headers=headers, timeout=timeout, transport=transport, follow_redirects=True)
        except (ImportError, ValueError) as error:  # of a proxy in the environment
            raise TagwrightError(f"{self.name} cannot be reached: {error}") from None

    def get(self, path: str, **params) -> dict:
        """One answer of the API: an object whose `items` is a list and whose `has_more` is true or false.

        Raises Paused where the quota is used up or a long wait is asked for; TagwrightError where the API refuses the
        call, by its error's name, or cannot be had in ATTEMPTS tries.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Fault), stop=tenacity.stop_after_attempt(ATTEMPTS), reraise=True,
            wait=tenacity.wait_exponential_jitter(initial=1, max=60), sleep=self.sleep)
        try:
            return retrying(self._call, path, params)
        except Fault as fault:
            raise TagwrightError(f"{self.name}{path}: {fault}, {ATTEMPTS} times in a row; what was fetched is saved: "
                                 "run the same command again later to go on") from None

    def _call(self, path: str, params: dict) -> dict:
        if self.quota == 0:
            raise _out_of_quota(self.started + 24 * 3600, "at the latest")
        if (held := self.store.held(self.host)) > MAX_WAIT:
            raise _asked_to_wait(held)
        self.sleep(self.store.turn(self.host, DELAY))
        self.calls += 1
        try:
            status, headers, content = self._request(path, params)
        except httpx.ConnectError as error:
            if not self.answered:  # not a hiccup
                raise TagwrightError(f"{self.name} cannot be reached ({error}); "
                                     "`make demo` without SOURCE runs on the embedded sample") from None
            raise Fault(f"no connection ({error})") from None
        except httpx.TimeoutException:
            raise Fault("no answer in time") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            raise Fault(f"a broken answer ({error or type(error).__name__})") from None
        except (httpx.InvalidURL, httpx.TooManyRedirects) as error:
            raise TagwrightError(f"{self.name}: {error}") from None
        self.answered = True
        return self._checked(status, headers, content)

    def _request(self, path: str, params: dict) -> tuple[int, httpx.Headers, bytes]:
        query = {**params, "filter": "withbody"} | ({"key": self.key} if self.key else {})
        content = bytearray()
        with self.http.stream("GET", self.url + path, params=query) as response:
            for chunk in response.iter_bytes():  # unpacked: a small answer must not become a huge one
                content += chunk
                if len(content) > MAX_BYTES:
                    raise Fault(f"an answer of more than {MAX_BYTES:,} bytes")
        return response.status_code, response.headers, bytes(content)

    def _checked(self, status: int, headers: httpx.Headers, content: bytes) -> dict:
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if not isinstance(answer, dict):
            self._obey(headers.get("retry-after"))
            raise Fault(f"HTTP {status}, and no JSON object" if status != 200 else "an answer that is no JSON object")
        if _is_count(answer.get("quota_remaining")):
            self.quota = answer["quota_remaining"]
        self._obey(answer.get("backoff"))
        if "error_id" in answer:
            self._refuse(answer)
        if not isinstance(answer.get("items"), list) or not isinstance(answer.get("has_more"), bool):
            raise Fault(f"an answer without items and has_more (HTTP {status})")
        return answer

    def _obey(self, seconds) -> None:
        """Hold everybody's calls back as long as the API asks."""
        seconds = int(seconds) if isinstance(seconds, str) and seconds.isdecimal() else seconds
        if _is_count(seconds):
            self.store.hold(self.host, seconds)

    def _refuse(self, answer: dict) -> None:
        error, name, message = (answer.get(f"error_{part}") for part in ("id", "name", "message"))
        if error in PASSING:
            raise Fault(f"{name} ({message})")
        if error != THROTTLED:
            raise TagwrightError(f"the API refused the call: {name} (error {error}): {message}")
        seconds = re.search(r"(\d{1,6}) seconds", str(message))
        wait = int(seconds[1]) if seconds else 60
        if wait > MAX_WAIT:
            raise _out_of_quota(time.time() + wait, "")
        self.store.hold(self.host, wait)
        raise Fault(f"{name} ({message})")


def fetch_site(api: Api, site: str, base: str, limit: int) -> None:
    """Store the newest `limit` questions of a site, and go on with what an earlier run left. Raises as Api.get does."""
    plan(api.store, site, limit)
    with (tqdm(desc=site, unit=" questions", total=limit, initial=min(api.store.count(site), limit), disable=None) as bar,
          contextlib.closing(api.store.claims(site, "api")) as queue):
        for works in queue:
            work = works[0]
            answer = api.get("/questions", site=site, sort="creation", order="desc", pagesize=PAGE_SIZE,
                             page=work.payload["page"], todate=work.payload["todate"])
            items, rejected = read_items(answer["items"], site, base)
            following = []
            if not answer["has_more"]:
                api.store.end(site, "api", work.position)  # planned pages that the site does not have
            elif work.payload["page"] == PAGES:
                following = next_window(work, answer["items"], limit)
            api.store.finish(works, items, rejected, following or [], source="api")
            bar.update(len(items))
            if following is None:
                raise TagwrightError(f"{site}: {PAGES * PAGE_SIZE:,} questions or more in one second: no way past them")


def plan(store: ItemStore, site: str, limit: int) -> None:
    """Add the pages that `limit` questions need to the newest window known, or to a first one that ends now."""
    known = store.work(site, "api")
    if not known:
        store.add(window(site, 0, {"todate": int(time.time()), "before": 0, "overlap": 0}, limit))
        return
    last, state = known[-1]
    if state == "void":  # the site has no more
        return
    if state == "done" and last.payload["page"] == PAGES and limit > last.payload["before"] + in_window(last.payload):
        store.forget(site, "api", last.key)  # fetched once more, it tells where the next window begins
    store.add(window(site, last.position // PAGES, last.payload, limit))


def window(site: str, number: int, payload: dict, limit: int) -> list[Work]:
    """The pages of a window: `todate` is the second it ends with, `before` how many questions the earlier ones gave,
    `overlap` how many of those, of the second `todate`, it gives again."""
    missing = limit - payload["before"]
    pages = min(PAGES, math.ceil((missing + payload["overlap"]) / PAGE_SIZE)) if missing > 0 else 0
    shared = {name: payload[name] for name in ("todate", "before", "overlap")}
    # The same key whoever plans it: of two collectors that begin at once, the second finds the first one's plan.
    return [Work(site, "api", f"{number}/{page:02}", number * PAGES + page - 1, shared | {"page": page})
            for page in range(1, pages + 1)]


def in_window(payload: dict) -> int:
    """How many new questions all pages of a window give."""
    return PAGES * PAGE_SIZE - payload["overlap"]


def next_window(work: Work, items: list, limit: int) -> list[Work] | None:
    """The window that ends with the oldest second of `items`, those of a window's last page; None if that is no other."""
    times = [item["creation_date"] for item in items if isinstance(item, dict) and _is_count(item.get("creation_date"))]
    oldest = min(times, default=work.payload["todate"])
    if oldest >= work.payload["todate"]:
        return None
    following = {"todate": oldest, "before": work.payload["before"] + in_window(work.payload), "overlap": times.count(oldest)}
    return window(work.site, work.position // PAGES + 1, following, limit)


def fetch_ids(api: Api, site: str, base: str) -> None:
    """Store the questions whose ids are waiting in the store; those that the API does not give are marked as failed."""
    waiting = api.store.count_work(site, "question").get("todo", 0)
    with (tqdm(desc=site, unit=" questions", total=waiting, disable=None) as bar,
          contextlib.closing(api.store.claims(site, "question", PAGE_SIZE)) as queue):
        for works in queue:
            answer = api.get("/questions/" + ";".join(work.key for work in works), site=site, pagesize=PAGE_SIZE)
            items, rejected = read_items(answer["items"], site, base)
            given = {item.id for item in items} | {entry.key for entry in rejected}
            if found := [work for work in works if work.key in given]:
                api.store.finish(found, items, rejected, source="api")
            for work in works:
                if work.key not in given:
                    api.store.fail(work, "not given by the API: deleted, or no question", final=True)
            bar.update(len(works))


def read_items(objects: list, site: str, base: str) -> tuple[list[Item], list[Rejected]]:
    """The API's question objects as items, and those that are none with the reason."""
    items, rejected = [], []
    for number, value in enumerate(objects):
        try:
            items.append(read_item(value, site, base))
        except ValueError as error:
            raw = json.dumps(value, ensure_ascii=False)
            key = str(value.get("question_id")) if isinstance(value, dict) else ""
            digest = hashlib.sha256(raw.encode(errors="replace")).hexdigest()[:16]
            rejected.append(Rejected(key if key.isdecimal() and len(key) < 20 else f"{number} {digest}", str(error), raw))
    return items, rejected


def read_item(value, site: str, base: str) -> Item:
    """One question object as an item; raises ValueError with the field at fault."""
    if not isinstance(value, dict):
        raise ValueError(f"not an object but {type(value).__name__}")
    wanted = {"question_id": int, "title": str, "body": str, "tags": list, "score": int, "creation_date": int}
    for name, kind in wanted.items():
        if name not in value:
            raise ValueError(f"{name}: missing")
        if not isinstance(value[name], kind) or isinstance(value[name], bool):
            raise ValueError(f"{name}: {type(value[name]).__name__}, not {kind.__name__}")
    if value["question_id"] <= 0:
        raise ValueError("question_id: not positive")
    if len(value["body"]) > MAX_BODY:
        raise ValueError(f"body: more than {MAX_BODY:,} characters")
    id = str(value["question_id"])
    return Item(site, id, question_url(base, id), html.unescape(value["title"]), value["body"], value["tags"], value["score"],
                value["creation_date"], "api")


def read_urls(file: Path) -> dict[str, list[Work]]:
    """The questions of a CSV file by site: from its `url` column, or its first one where it has no header.

    Raises TagwrightError, with the line, for an address that is no question's.
    """
    works: dict[str, list[Work]] = {}
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.reader(stream)
            column = 0
            for cells in reader:
                if reader.line_num == 1 and "url" in cells:
                    column = cells.index("url")
                    continue
                if not any(cells):
                    continue
                url = cells[column] if column < len(cells) else ""
                host, id = split_url(url)[1], question_id(url)
                if not host or not id:
                    raise TagwrightError(f"{file}: line {reader.line_num}: not a question's address: {url[:100]!r}")
                site = site_of(host)
                works.setdefault(site, []).append(Work(site, "question", id, reader.line_num, {"url": url}))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TagwrightError(f"{file}: cannot be read: {error}") from None
    if not works:
        raise TagwrightError(f"{file}: no addresses in it")
    return works


def _is_count(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _clock(moment: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(moment))


def _out_of_quota(moment: float, bound: str) -> Paused:
    hint = "" if os.environ.get("STACK_API_KEY") else "; a free key from stackapps.com in STACK_API_KEY gives 10,000 a day"
    return Paused(f"today's quota of API calls is used up; run the same command again from {_clock(moment)} {bound}{hint}")


def _asked_to_wait(seconds: float) -> Paused:
    return Paused(f"the API asks to wait; run the same command again from {_clock(time.time() + seconds)}")


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    site: Annotated[str | None, typer.Option(help="The site: scifi, superuser, es.stackoverflow, or its address.")] = None,
    limit: Annotated[int, typer.Option("--max", min=1, help="How many of its newest questions.")] = 30_000,
    urls: Annotated[Path | None, typer.Option(help="Instead of a site: a CSV file of question addresses.")] = None,
    db: Annotated[str | None, typer.Option(help="SQLite file, or mysql+pymysql://user:password@host/database.",
                                           show_default="$TAGWRIGHT_DB or data/collected/items.sqlite")] = None,
    again: Annotated[bool, typer.Option("--again", help="Fetch the site anew, from now back.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Ask again for what the API did not give.")] = False,
) -> None:
    """Fetch a site's newest questions, or those at given addresses, through the API, into the item store."""
    if bool(site) == bool(urls):
        raise TagwrightError("give either --site or --urls")
    store = ItemStore(db)
    api = Api(store, os.environ.get("STACK_API_URL", API), os.environ.get("STACK_API_KEY"))
    works = read_urls(urls) if urls else {split_site(site)[0]: []}
    before = {name: store.count(name) for name in works}
    try:
        for name, addresses in works.items():
            if urls:
                store.add(addresses)
                if retry_failed:
                    store.retry_failed(name, "question")
                fetch_ids(api, name, f"https://{host_of(name)}")
            else:
                if again:
                    store.forget(name, "api")
                fetch_site(api, name, f"https://{host_of(name)}", limit)
    except TagwrightError as error:
        raise TagwrightError(f"{error}. {_saved(store, before, api)}") from None
    except Paused as ending:
        raise Paused(f"{ending}. {_saved(store, before, api)}", ending.code) from None
    except KeyboardInterrupt:
        raise Paused(f"stopped. {_saved(store, before, api)} Run the same command again to go on.", code=130) from None
    print(_saved(store, before, api))
    if not api.calls:
        print("Nothing was left to fetch: --again fetches a site anew, a larger --max goes further back.")


def _saved(store: ItemStore, before: dict[str, int], api: Api) -> str:
    now = {name: store.count(name) for name in before}
    kept = ", ".join(f"{name}: {count:,} questions ({count - before[name]:,} new)" for name, count in now.items())
    quota = f", {api.quota:,} left today" if api.quota is not None else ""
    failed = sum(store.count_work(name, "question").get("failed", 0) for name in before)
    missing = f"; {failed:,} addresses without an answer, see tagwright collected" if failed else ""
    return f"In {store.name}: {kept}; {api.calls:,} calls{quota}{missing}."


if __name__ == "__main__":
    run(app)
