"""What both stand-ins share: a server on a thread of its own, a log of what was asked of it, and faults on demand."""

import gzip
import inspect
import random
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qsl, urlsplit

HTML = "text/html; charset=utf-8"
COMPRESSED = ("text/", "application/json", "application/javascript")


@dataclass(frozen=True)
class Reply:
    """What goes back to the client, `delay` seconds later; `cut`: half of it, and then the connection closes.

    `told`, if any, is called just before a reply that will arrive whole: from then on the client knows what it says.
    """

    body: bytes
    status: int = 200
    type: str = HTML
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    cut: bool = False
    told: Callable[[], None] | None = None


class Entry(NamedTuple):
    """One request as it arrived; `status` is 0 where the connection was dropped."""

    time: float  # of time.monotonic()
    method: str
    path: str
    user_agent: str
    status: int


# A fault is given a way to make the proper reply, and returns what is sent in its place; None drops the connection.
Make = Callable[[], Reply]
Fault = Callable[..., Reply | None]


def notice(status: int, text: str, **headers: str) -> Reply:
    """A bare page, as proxies and error handlers write them."""
    page = f"<!DOCTYPE html>\n<html><head><title>{text}</title></head>\n<body><h1>{text}</h1></body></html>\n"
    return Reply(page.encode(), status, headers=headers)


def _unavailable(make: Make, retry_after: float | None = None) -> Reply:
    wait = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return notice(503, "Down for maintenance", **wait)


def slow(make: Make, seconds: float = 1.0) -> Reply:
    return replace(make(), delay=seconds)


COMMON_FAULTS: dict[str, Fault] = {
    "429": lambda make, retry_after=1: notice(429, "Too many requests", **{"Retry-After": str(retry_after)}),
    "500": lambda make: notice(500, "Internal server error"),
    "503": _unavailable,
    "slow": slow,
    "truncated": lambda make: replace(make(), cut=True),
    "drop": lambda make: None,
}


@dataclass
class _Planned:
    fault: Fault
    options: dict
    path: re.Pattern
    left: float


@dataclass(eq=False, repr=False)
class StandIn:
    """A server for as long as the `with` lasts. `latency` seconds are added to every reply; it may be changed at any time."""

    faults = COMMON_FAULTS

    _: KW_ONLY
    port: int = 0
    latency: float = 0.0

    def __post_init__(self):
        self.log: list[Entry] = []
        self._whole: list[str] = []
        self._planned: list[_Planned] = []
        self._random: tuple[float, list[Fault], re.Pattern, random.Random] | None = None
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def answer(self, path: str, params: dict[str, str]) -> Reply:
        """The proper reply to a GET of `path` with the query's `params`."""
        raise NotImplementedError

    def __enter__(self):
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.standin = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fault(self, kind: str, path: str = "", times: int | None = 1, **options) -> None:
        """Spoil the next `times` requests (None: all) whose path and query `path`, a regex, is found in."""
        fault = self.faults[kind]
        inspect.signature(fault).bind(None, **options)  # a wrong option fails in the test, not on the server's thread
        with self._lock:
            self._planned.append(_Planned(fault, options, re.compile(path), float("inf") if times is None else times))

    def random_faults(self, rate: float, kinds: Sequence[str], seed: int = 1, path: str = "") -> None:
        """Spoil that share of the requests, each with one of `kinds`. A rate of 0 ends it."""
        with self._lock:
            self._random = rate, [self.faults[kind] for kind in kinds], re.compile(path), random.Random(seed)

    def requests(self, pattern: str = "") -> list[Entry]:
        """The log's entries whose path and query the regex is found in."""
        with self._lock:
            return [entry for entry in self.log if re.search(pattern, entry.path)]

    def served(self, pattern: str = "") -> list[str]:
        """Such paths again, only those answered by 200 and in full (after a delay, maybe)."""
        with self._lock:
            return [path for path in self._whole if re.search(pattern, path)]

    def serve(self, path: str, user_agent: str) -> Reply | None:
        """The reply to send, faults included, once it has been logged and its delay is over."""
        arrived = time.monotonic()
        fault, options = self._next_fault(path)

        def make() -> Reply:
            parts = urlsplit(path)
            return self.answer(parts.path, dict(parse_qsl(parts.query)))

        reply = fault(make, **options) if fault else make()
        with self._lock:
            self.log.append(Entry(arrived, "GET", path, user_agent, reply.status if reply else 0))
            if reply and reply.status == 200 and (fault is None or fault is slow):
                self._whole.append(path)
        self._closing.wait(self.latency + (reply.delay if reply else 0.0))
        if reply and reply.told and not reply.cut:
            reply.told()
        return reply

    def _next_fault(self, path: str) -> tuple[Fault | None, dict]:
        with self._lock:
            for planned in self._planned:
                if planned.left > 0 and planned.path.search(path):
                    planned.left -= 1
                    return planned.fault, planned.options
            if self._random:
                rate, faults, pattern, rng = self._random
                if pattern.search(path) and rng.random() < rate:
                    return rng.choice(faults), {}
        return None, {}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms for the acknowledgement of its head

    def do_GET(self):
        reply = self.server.standin.serve(self.path, self.headers.get("User-Agent", ""))
        if reply is None:
            self.close_connection = True
            return
        body, headers = reply.body, {"Content-Type": reply.type, **reply.headers}
        if "gzip" in self.headers.get("Accept-Encoding", "") and reply.type.startswith(COMPRESSED):
            body, headers["Content-Encoding"] = gzip.compress(body, 1, mtime=0), "gzip"
        self.send_response(reply.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if reply.cut else body)
        self.close_connection = self.close_connection or reply.cut

    def log_message(self, *args):
        """The log is kept by the stand-in; nothing goes to the test's output."""


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def __init__(self, *args):
        super().__init__(*args)
        self._open: set[socket.socket] = set()

    def get_request(self):
        connection, address = super().get_request()
        self._open.add(connection)
        return connection, address

    def close_request(self, request):
        self._open.discard(request)
        super().close_request(request)

    def server_close(self):
        """Ends kept connections too: a server that is down answers nobody."""
        super().server_close()
        for connection in list(self._open):
            with suppress(OSError):  # its own thread may have been quicker
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exception(), ConnectionError):  # a client that gave up is no error of ours
            super().handle_error(request, client_address)
