"""Claim pages from the item store, load them in browsers, read them, store what they gave: politely, and with several
workers.

Polite means: robots.txt is obeyed, a host is asked once in `delay` seconds by all workers together, a refusal (429, 403,
503, a challenge page) makes everybody wait, longer each time, and the third in a row ends the run. Which pages there
are and how they are read is the caller's business.
"""

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import closing
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx
from protego import Protego
from tqdm import tqdm

from tagwright import __version__
from tagwright.browser import Browser, Page, PageFault
from tagwright.errors import Paused, TagwrightError
from tagwright.markup import ChallengePage, PageError, RemovedPage
from tagwright.store import DAY, Item, ItemStore, Work

ROBOT = "tagwright"
REFUSALS = {403, 429, 503}
GONE = {404, 410}
MAX_REFUSALS = 3  # in a row, then the run ends
MAX_FAULTS = 8  # in a row, of whatever kind, then the site is given up for now
MAX_WAIT = 300  # seconds; told to wait longer, the run ends
MAX_ROBOTS = 500_000  # bytes, as RFC 9309 allows


class Result(NamedTuple):
    """What a page gave: items, and more work. `reason` notes anything special, as where it had moved to."""

    items: list[Item] = []
    found: list[Work] = []
    reason: str = ""


class Refused(Exception):
    """The host wants us to stop; `seconds` where it says for how long."""

    def __init__(self, text: str, seconds: int | None = None):
        super().__init__(text)
        self.seconds = seconds


class Crawler:
    """One run over the work of one site and kind.

    `read(page, work)` gives a Result or raises PageError; `ready` is the CSS selector of what makes a page complete.
    """

    def __init__(self, store: ItemStore, site: str, base: str, kind: str, read: Callable[[Page, Work], Result], ready: str,
                 workers: int = 1, delay: float = 1.0, backoff: float = 30, timeout: float = 30):
        self.store, self.site, self.base, self.kind, self.read, self.ready = store, site, base, kind, read, ready
        self.workers, self.delay, self.backoff, self.timeout = workers, delay, backoff, timeout
        self.host = urlsplit(base).netloc
        self.robots = Protego.parse("")
        self.stop = threading.Event()
        self.lock = threading.Lock()  # guards what follows
        self.browsers: list[Browser] = []
        self.left = math.inf
        self.done = self.failed = self.refusals = self.faults = 0
        self.refused_at = -math.inf  # of time.monotonic()
        if not (math.isfinite(delay) and math.isfinite(backoff)):
            raise TagwrightError("--delay and --backoff are numbers of seconds")

    def run(self, limit: int | None = None) -> None:
        """Work until nothing, or `limit` pages, are left; `done` and `failed` count what came of it.

        Raises Paused where the host wants us to stop, TagwrightError as the store and the browser do, KeyboardInterrupt
        within a few seconds of Ctrl-C.
        """
        self._obey_robots()
        states = self.store.count_work(self.site, self.kind)
        waiting = states.get("todo", 0) + states.get("taken", 0)
        self.left = math.inf if limit is None else limit
        with (tqdm(desc=self.site, unit=" pages", total=min(waiting, self.left), disable=None) as self.bar,
              ThreadPoolExecutor(self.workers) as pool):
            futures = [pool.submit(self._work) for _ in range(self.workers)]
            try:
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:  # also after Ctrl-C
                self.stop.set()
                for browser in self.browsers:
                    browser.close()
        for future in futures:
            future.result()

    def _work(self) -> None:
        browser = Browser(self.timeout)
        with self.lock:
            self.browsers.append(browser)
        with browser, closing(self.store.claims(self.site, self.kind, stop=self.stop)) as queue:
            for (work,) in queue:
                with self.lock:
                    if self.left <= 0:
                        return
                    self.left -= 1
                if not self._visit(browser, work):  # it is to be visited again
                    with self.lock:
                        self.left += 1

    def _visit(self, browser: Browser, work: Work) -> bool:
        """Load, read and store one page; False where it is given back to be tried again."""
        url = work.payload["url"]
        if not self.robots.can_fetch(url, ROBOT):
            return self._failed(work, "robots.txt does not allow it", final=True)
        browser.start()  # before the turn, which would be over by the time it runs
        if not self._wait_for_turn():
            self.store.release([work])
            return False
        begun = time.monotonic()
        try:
            page = browser.get(url, self.ready)
            self._check(page)
            result = self.read(page, work)
        except (Refused, ChallengePage) as refusal:
            self._back_off(str(refusal), getattr(refusal, "seconds", None), begun)
            self.store.release([work])
            return False
        except RemovedPage as removed:
            return self._failed(work, str(removed), final=True)
        except (PageFault, PageError) as fault:
            if self.stop.is_set():  # the browser was killed under our feet
                self.store.release([work])
                return False
            return self._failed(work, str(fault), final=False)
        self.store.finish([work], result.items, found=result.found, reason=result.reason)
        with self.lock:
            self.done, self.refusals, self.faults = self.done + 1, 0, 0
            self.bar.update()
        return True

    def _check(self, page: Page) -> None:
        if page.status in REFUSALS or page.headers.get("cf-mitigated") == "challenge":
            seconds = page.headers.get("retry-after", "")
            raise Refused(f"HTTP {page.status}", min(int(seconds[:9]), DAY) if seconds.isdecimal() else None)
        if page.status in GONE:
            raise RemovedPage(f"HTTP {page.status}: no such page (any more)")
        if page.status >= 400:
            raise PageFault(f"HTTP {page.status}")

    def _wait_for_turn(self) -> bool:
        while not self.stop.is_set():
            if (held := self.store.held(self.host)) > MAX_WAIT:
                raise Paused(f"{self.host} asked to be left alone; run the same command again from {_clock(held)}")
            if not self.stop.wait(self.store.turn(self.host, self.delay)) and not self.store.held(self.host):
                return True  # else the host has refused another worker meanwhile: wait with it
        return False

    def _back_off(self, reason: str, seconds: float | None, begun: float) -> None:
        with self.lock:
            if begun < self.refused_at:  # asked before the last refusal was known: the same one
                return
            self.refused_at = time.monotonic()
            self.refusals += 1
            refusals = self.refusals
        seconds = min(DAY, seconds if seconds is not None else self.backoff * 2 ** (refusals - 1))
        self.store.hold(self.host, seconds)
        if refusals >= MAX_REFUSALS or seconds > MAX_WAIT:
            raise Paused(f"{self.host} refuses ({reason}, {refusals} times in a row); run the same command again from "
                         f"{_clock(seconds)}, with a longer --delay")
        self.bar.write(f"{self.host}: {reason}; waiting {seconds:g} s")

    def _failed(self, work: Work, reason: str, final: bool) -> bool:
        given_up = self.store.fail(work, reason, final)
        with self.lock:
            self.faults = 0 if final else self.faults + 1
            self.failed += given_up
            self.bar.update(given_up)
            if self.faults >= MAX_FAULTS:
                raise Paused(f"{self.host}: nothing but faults, the last one: {reason}; run the same command again later")
        return given_up

    def _obey_robots(self) -> None:
        """Read robots.txt, as RFC 9309 has it: where there is none, all is allowed; where it cannot be had, nothing is."""
        url = f"{self.base}/robots.txt"
        try:
            with httpx.stream("GET", url, headers={"User-Agent": f"{ROBOT}/{__version__}"}, follow_redirects=True,
                              timeout=self.timeout) as answer:
                content = bytearray()
                for chunk in answer.iter_bytes():
                    content += chunk
                    if len(content) > MAX_ROBOTS:
                        break
        except (httpx.HTTPError, httpx.InvalidURL, ImportError, ValueError) as error:  # the last two are of a wrong proxy
            raise TagwrightError(f"{self.base} cannot be reached ({str(error) or type(error).__name__})") from None
        if answer.status_code in REFUSALS - {403} or answer.status_code >= 500:
            raise Paused(f"{url}: HTTP {answer.status_code}; without it nothing may be fetched: run the same command later")
        if answer.status_code == 200:
            self.robots = Protego.parse(content[:MAX_ROBOTS].decode("utf8", errors="replace"))
            self.delay = max(self.delay, self.robots.crawl_delay(ROBOT) or 0)


def _clock(seconds: float) -> str:
    """The time so many seconds from now."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(time.time() + seconds))
