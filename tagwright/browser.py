"""One headless Chromium that is kept for a whole run: started when first needed, and again after it has died.

It loads no images, fonts, style sheets or media, runs no scripts, and never outlives the process that started it. What a page
says is not read here, and how often a host may be asked is not decided here.
"""

import ctypes
import json
import os
import shutil
import signal
import sys
from typing import NamedTuple

import psutil
import urllib3
from selenium import webdriver
from selenium.common.exceptions import (
    InvalidSessionIdException,
    NoSuchWindowException,
    TimeoutException,
    WebDriverException,
)
from selenium.webdriver.support.ui import WebDriverWait

from tagwright import __version__
from tagwright.errors import TagwrightError

USER_AGENT = f"Mozilla/5.0 (compatible; tagwright/{__version__}; +https://github.com/tagwright/tagwright)"
# The headless shell is the same engine without a window's parts: half the time a page, and half the start.
BINARIES = ("chromium-headless-shell", "chrome-headless-shell", "chromium", "google-chrome", "chrome")
BLOCKED = [f"*.{ending}{query}" for query in ("", "?*") for ending in (
    "js", "css", "woff", "woff2", "ttf", "otf", "png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "mp4", "webm")]
DEAD = ("disconnected", "not reachable", "crashed", "no such session", "closed", "unable to send message")
LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
PR_SET_PDEATHSIG = 1


class PageFault(Exception):
    """A page that could not be had this time; its text says why."""


class Page(NamedTuple):
    """A loaded page: where the browser ended after redirects, the HTTP status, the headers (names in lower case)."""

    url: str
    status: int
    headers: dict[str, str]
    html: str


class Browser:
    """A browser for one thread. Use as a context manager."""

    def __init__(self, timeout: float = 30):
        self.timeout = timeout  # seconds for one page
        self.driver: webdriver.Chrome | None = None
        self.closed = False

    def __enter__(self):
        return self

    def __exit__(self, *_):
        driver, self.driver = self.driver, None
        if driver is not None:
            driver.quit()

    def close(self) -> None:
        """Kill the browser, for good; another thread's call of `get` then raises PageFault."""
        self.closed = True
        self._kill()

    def start(self) -> None:
        """Start the browser where it is not running. Raises TagwrightError where there is none."""
        if not self.closed:
            self.driver = self.driver or self._start()
        if self.closed:  # meanwhile, by another thread
            self._kill()

    def get(self, url: str, ready: str) -> Page:
        """Load a page until an element that the CSS selector `ready` names is there, or all of the page is.

        Raises PageFault where there is no whole answer in time or the browser dies, which is then started anew for the
        next page; TagwrightError where there is no browser.
        """
        self.start()
        driver, log = self.driver, []
        if driver is None:  # another thread has closed us
            raise PageFault("the browser was closed")
        try:
            frame = driver.current_window_handle
            driver.get(url)
            waiting = WebDriverWait(driver, self.timeout, poll_frequency=0.05)
            address, html = waiting.until(lambda driver: _arrived(driver, ready, log, frame))
            status, headers = _response(log, frame)
        except TimeoutException:
            raise PageFault(f"not loaded within {self.timeout:g} s") from None
        except (InvalidSessionIdException, NoSuchWindowException, urllib3.exceptions.HTTPError, ConnectionError) as error:
            self._kill()
            raise PageFault(f"the browser died ({type(error).__name__})") from None
        except WebDriverException as error:
            reason = (error.msg or type(error).__name__).splitlines()[0]
            if any(sign in reason for sign in DEAD):
                self._kill()
                raise PageFault(f"the browser died ({reason})") from None
            raise PageFault(reason.removeprefix("unknown error: ")) from None
        return Page(address, status, headers, html)

    def _kill(self) -> None:
        driver, self.driver = self.driver, None
        if driver is None:
            return
        try:
            process = psutil.Process(driver.service.process.pid)
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        for member in family:
            try:
                member.kill()
            except psutil.NoSuchProcess:
                continue
        driver.service.process.wait(5)

    def _start(self) -> webdriver.Chrome:
        options = webdriver.ChromeOptions()
        options.binary_location = next(filter(None, map(shutil.which, BINARIES)), "")
        options.page_load_strategy = "eager"  # the text is there before the last script and picture are
        options.set_capability("goog:loggingPrefs", {"performance": "ALL"})  # the only way to a page's status and headers
        arguments = ["--headless=new", "--disable-background-networking", "--disable-extensions", "--disable-gpu",
                     "--mute-audio", "--blink-settings=imagesEnabled=false", "--disable-remote-fonts",
                     f"--user-agent={USER_AGENT}",
                     "--remote-debugging-pipe"]  # a pipe, not a port: Chromium ends when its driver does
        if sys.platform == "linux" and os.geteuid() == 0:
            arguments.append("--no-sandbox")  # Chromium's sandbox refuses to run as root
        for argument in arguments:
            options.add_argument(argument)
        apart = {"start_new_session": True}  # Ctrl-C in the terminal is for us to handle
        service = webdriver.ChromeService(shutil.which("chromedriver"), popen_kw=apart | {"preexec_fn": _die_with_parent})
        try:
            driver = webdriver.Chrome(options=options, service=service)
        except (WebDriverException, urllib3.exceptions.HTTPError) as error:
            reason = (getattr(error, "msg", None) or type(error).__name__).splitlines()[0]
            raise TagwrightError("Chromium cannot be started; on Debian: apt-get install chromium-headless-shell "
                                 f"chromium-driver ({reason})") from None
        driver.set_page_load_timeout(self.timeout)
        driver.execute_cdp_cmd("Network.enable", {})
        driver.execute_cdp_cmd("Network.setBlockedURLs", {"urls": BLOCKED})
        # Scripts would draw formulas and colour code into the bodies, which are wanted as received.
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
        return driver


def _arrived(driver: webdriver.Chrome, ready: str, log: list[dict], frame: str) -> list[str] | None:
    """The address and HTML of the page, None while it is not there yet; adds what the browser has logged since to `log`.
    Raises PageFault where the page is cut off, which leaves it loading for ever."""
    log += (json.loads(entry["message"])["message"] for entry in driver.get_log("performance"))
    pages = {event["requestId"] for event in _events(log, "Network.requestWillBeSent")
             if event.get("type") == "Document" and event.get("frameId") == frame}  # and not those of frames inside it
    for event in _events(log, "Network.loadingFailed"):
        if event["requestId"] in pages:
            raise PageFault(event["errorText"])
    return driver.execute_script(
        "return document.readyState === 'complete' || document.readyState !== 'loading' && document.querySelector(arguments[0])"
        " ? [location.href, document.documentElement.outerHTML] : null", ready)


def _events(log: list[dict], method: str) -> list[dict]:
    return [event["params"] for event in log if event["method"] == method]


def _response(log: list[dict], frame: str) -> tuple[int, dict[str, str]]:
    """Status and headers of the last document that the main frame loaded."""
    response = next((event["response"] for event in reversed(_events(log, "Network.responseReceived"))
                     if event["type"] == "Document" and event.get("frameId") == frame), None)
    if response is None:
        raise PageFault("no answer to be seen")
    return response["status"], {name.lower(): value for name, value in response["headers"].items()}


def _die_with_parent() -> None:
    """Between fork and exec of the driver: it shall not outlive us even where we are killed (Linux)."""
    if LIBC:
        LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
