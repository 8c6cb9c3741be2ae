"""The service against bad input, over real HTTP: it refuses in words, lives on, and touches nothing that is not its own."""

import asyncio
import ipaddress
import json
import socket
import threading
import time
import urllib.parse
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import NamedTuple

import httpx
import pytest
from hostile import CANARY, TOKEN, Attack, as_json, attacks, form, part
from service import guard, uploads
from service.problems import Problem
from service.settings import Settings
from service_process import Api, api
from starlette.requests import Request

pytestmark = pytest.mark.long

MB = 1 << 20
CLIENTS = 4
PROMPT = 2.5  # seconds to an answer of /healthz while others attack, on a machine that does other things too


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """A connection that is kept, and made anew where the server has closed it, or waits for more."""

    def __init__(self, port: int):
        self.port, self.connection, self.buffer = port, None, b""

    def ask(self, request: bytes, timeout: float = 30) -> Reply | None:
        """None where the server closed the connection without an answer, or gave none within `timeout` seconds."""
        if self.connection is None:
            self.connection, self.buffer = socket.create_connection(("127.0.0.1", self.port), timeout), b""
        self.connection.settimeout(timeout)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # it may have answered before it read everything
                self.connection.sendall(request)
            reply = self._read(request.startswith(b"HEAD "))
        except (ConnectionResetError, BrokenPipeError, EOFError, TimeoutError):
            reply = None
        if reply is None or reply.headers.get("connection") == "close" or self.buffer:
            self.close()
        return reply

    def close(self) -> None:
        if self.connection:
            self.connection.close()
        self.connection = None

    def _read(self, is_head: bool) -> Reply:
        while b"\r\n\r\n" not in self.buffer:
            self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = 0 if is_head else int(headers.get("content-length", 0))
        while len(self.buffer) < length:
            self._more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Reply(int(first.split()[1]), headers, body)

    def _more(self) -> None:
        if not (data := self.connection.recv(65536)):
            raise EOFError
        self.buffer += data


class Watch:
    """Asks for /healthz all the time: the longest wait, in seconds. And how much more memory was used at once, in bytes."""

    def __init__(self, running: Api):
        self.running, self.longest = running, 0.0
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self):
        self.before = self.running.memory(anew=True)
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._end.set()
        self._thread.join()

    @property
    def growth(self) -> int:
        return self.running.memory() - self.before

    def _run(self) -> None:
        with httpx.Client(base_url=self.running.url, timeout=60) as client:
            while not self._end.wait(0.05):
                started = time.monotonic()
                assert client.get("/healthz").text == "ok"
                self.longest = max(self.longest, time.monotonic() - started)


@pytest.fixture(scope="module")
def running(demo_run, tmp_path_factory):
    home = tmp_path_factory.mktemp("hostile")
    (home / "canary.txt").write_text(CANARY)
    (home / "canary.csv").write_text(f"title\n{CANARY}\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:  # what a URL of this machine would lead to
        port = listener.getsockname()[1]
        with api(demo_run.root / "tagger", home, token=TOKEN, max_upload="300000",
                 url_hosts=json.dumps(["localhost", "127.0.0.1", "files.example"])) as process:
            process.listener = listener
            process.listener_port = port
            yield process


def fault(attack: Attack, reply: Reply | None) -> str:
    """What is wrong with an answer, "" for nothing."""
    if reply is None:
        return "" if attack.by_server else "no answer"
    if reply.status not in attack.statuses:
        return f"{reply.status}, not one of {attack.statuses}: {reply.body[:200]}"
    if attack.by_server and reply.body == b"Invalid HTTP request received.":
        return ""
    if CANARY.encode() in reply.body or b"root:" in reply.body:
        return "shows what it must not"
    if attack.by_server and "x-content-type-options" not in reply.headers and reply.status in (400, 403, 404, 426):
        return "" if reply.headers.get("content-type",
                                       "").startswith("text/plain") or not reply.body else "is not uvicorn's own"
    if reply.headers.get("x-content-type-options") != "nosniff":
        return f"no nosniff: {reply.headers}"
    kind = reply.headers["content-type"]
    if reply.status >= 400 and not attack.request.startswith(b"HEAD "):
        document = json.loads(reply.body) if kind == "application/problem+json" else {}
        if document.get("status") != reply.status or not document["detail"] or len(reply.body) > 20_000:
            return f"no short problem: {kind} {reply.body[:200]}"
    elif kind not in ("application/json", "text/plain; charset=utf-8", "application/problem+json", "text/html; charset=utf-8"):
        return f"odd type: {kind}"
    return ""


def files_of(running: Api) -> set[str]:
    return {str(path.relative_to(running.home)) for path in running.home.rglob("*")
            if path.name != "api.log" and not path.is_relative_to(running.data)}


def test_ten_thousand_hostile_requests(running):
    everything = attacks()
    assert len(everything) >= 10_000
    assert len({attack.request for attack in everything}) >= 8_000
    for attack in everything:
        attack.request = attack.request.replace(b"{port}", b"%06d" % running.listener_port)  # as long: a body has its length
    before = files_of(running)
    Client(running.port).ask(as_json("/v1/tags",
                                     json.dumps({"texts": ["robots " * 500] * 64}).encode()))  # its buffers are there
    faults, accepted, statuses = [], set(), Counter()

    def send(own: list[Attack]) -> None:
        client = Client(running.port)
        for attack in own:
            reply = client.ask(attack.request, 0.3 if attack.by_server else 20)
            statuses[attack.family, reply and reply.status] += 1
            if wrong := fault(attack, reply):
                faults.append(f"{attack.family}: {attack.request[:300]!r}: {wrong}")
            if reply and reply.status == 202:
                accepted.add(json.loads(reply.body)["id"])
        client.close()

    started = time.monotonic()
    with Watch(running) as watch, ThreadPoolExecutor(CLIENTS) as pool:
        list(pool.map(send, [everything[number::CLIENTS] for number in range(CLIENTS)]))
    print(f"{len(everything):,} in {time.monotonic() - started:.0f} s; "
          f"healthz {watch.longest:.2f} s; +{watch.growth / MB:.0f} MB")
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults[:30])
    assert running.process.is_running()
    assert "Traceback" not in running.log.read_text(errors="replace")
    assert watch.longest < PROMPT
    assert watch.growth < 300 * MB
    assert accepted
    assert {path.name for path in (running.data / "jobs").iterdir()} == accepted  # nothing is left of what was refused
    for path in (running.data / "jobs").rglob("*"):
        assert path.is_dir() or path.name.startswith("input."), path
        assert path.is_dir() or CANARY not in path.read_text(errors="replace"), path
    assert files_of(running) == before
    running.listener.settimeout(0.01)
    with pytest.raises(TimeoutError):
        running.listener.accept()
    listed = httpx.get(f"{running.url}/v1/jobs").json()["jobs"]
    assert {job["id"] for job in listed} <= accepted
    assert httpx.post(f"{running.url}/v1/tags", json={"text": "Who built the first robot?"}).status_code == 200


def many(count: int, pattern: str) -> bytes:
    return ",".join(pattern % number for number in range(count)).encode()


@pytest.mark.parametrize(("body", "status"), [
    (b"{" + many(600_000, '"k%d":1') + b"}", 422), (b'{"text":{' + many(600_000, '"k%d":1') + b"}}", 422),
    (b'{"texts":[{' + many(600_000, '"k%d":""') + b"}]}", 422), (b'{"texts":[' + b"{}," * 2_500_000 + b"{}]}", 422),
    (b'{"text":[' + b"[]," * 2_500_000 + b"[]]}", 422), (b'{"texts":[' + b"1e9," * 1_900_000 + b"1]}", 422),
    (b'{"' + b"k" * 7_900_000 + b'":1}', 422), (b"[" * 7_900_000, 400), (b"9" * 7_900_000, 400), (b'"\\u0000' * 1_000_000, 422),
    (b"\xff" * 7_900_000, 400), (b" " * 9_000_000, 413),
],
                         ids=["keys", "keys of a text", "keys of texts", "objects", "lists", "numbers", "one key", "depth",
                              "digits", "escapes", "bytes", "size"])
def test_a_body_of_eight_megabytes_is_refused_soon_and_costs_little(running, body, status):
    with Watch(running) as watch:
        reply = Client(running.port).ask(as_json("/v1/tags", body), 60)
    print(f"healthz {watch.longest:.2f} s; +{watch.growth / MB:.0f} MB")
    assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
    assert len(reply.body) < 20_000
    assert watch.longest < PROMPT * 2
    assert watch.growth < 300 * MB


def test_marks_that_stack_without_end_take_no_time(running):
    """NFC sorts them, in a time that grows with the square of their number."""
    body = json.dumps({"texts": ["a" + "\u0301\u0316" * 9_000] * 100}, ensure_ascii=False).encode()
    started = time.monotonic()
    assert Client(running.port).ask(as_json("/v1/tags", body), 60).status == 200
    assert time.monotonic() - started < 15


def test_an_upload_without_an_end_is_cut_off(running):
    head = form("/v1/jobs/tag", [part("file", b"", "a.csv")], end=b"", **{"Content-Length": str(10**12)})
    reply = Client(running.port).ask(head)
    assert reply.status == 413
    with socket.create_connection(("127.0.0.1", running.port), 30) as sender:  # and one that does not say how much it sends
        head = form("/v1/jobs/tag", [], end=b"", **{"Transfer-Encoding": "chunked"}).replace(b"Content-Length: 0\r\n", b"")
        first = b"--XX\r\n" + part("file", b"", "a.csv")
        sender.sendall(head + b"%x\r\n%s\r\n" % (len(first), first))
        chunk = b"%x\r\n%s\r\n" % (MB, b"x" * MB)
        before = files_of(running)
        with Watch(running) as watch, suppress(OSError):  # closed, in one way or another
            for _ in range(300):
                sender.sendall(chunk)
            pytest.fail("300 MB were taken")
    assert watch.growth < 100 * MB
    assert files_of(running) == before


def test_slow_clients_keep_nobody_waiting(running):
    """300 connections that send a byte a second: a third in their heads, a third in a body of JSON, a third in a file."""
    starts = [b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ",
              as_json("/v1/tags", b'{"text": "', **{"Content-Length": "1000000"}),
              form("/v1/jobs/tag", [part("file", b"title\n", "a.csv")], end=b"", **{"Content-Length": "200000"})]
    connections = []
    try:
        for number in range(300):
            connections.append(socket.create_connection(("127.0.0.1", running.port), 10))
            connections[-1].sendall(starts[number % 3])
        with httpx.Client(base_url=running.url, timeout=30) as client, Watch(running) as watch:
            for _ in range(4):
                [connection.sendall(b"x") for connection in connections]
                started = time.monotonic()
                assert client.post("/v1/tags", json={"text": "robots"}).status_code == 200
                assert client.post("/v1/jobs/tag", files={"file": ("a.csv", "title\nrobots\n")}).status_code == 202
                assert client.get("/v1/jobs").status_code == 200
                assert time.monotonic() - started < PROMPT
                time.sleep(1)
        assert watch.longest < PROMPT
        assert watch.growth < 100 * MB
    finally:
        [connection.close() for connection in connections]


# --- what needs a network of its own, or another client's address ------------------------------------------------


class Redirects(BaseHTTPRequestHandler):
    """Redirects to what the path names, percent-encoded."""

    asked: list[str] = []

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(302)
        if target := urllib.parse.unquote(self.path[1:].removesuffix("a.csv")):
            self.send_header("Location", target)
        self.end_headers()

    def log_message(self, *_):
        pass


@pytest.fixture
def allowed(monkeypatch):
    """`files.example` is a server here that passes for a public one; `inner.example`, allowed too, has a private address."""
    server = HTTPServer(("127.0.0.1", 0), Redirects)
    threading.Thread(target=server.serve_forever).start()
    places = {"files.example": "127.0.0.1", "inner.example": "10.0.0.1"}
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *_, **__: [
        (socket.AF_INET, socket.SOCK_STREAM, 6, "", (places.get(host, host), port))])
    monkeypatch.setattr(uploads, "is_public", lambda address: str(address) == "127.0.0.1")
    yield f"http://files.example:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(("target", "status"), [
    ("http://127.0.0.1/", 403), ("http://[::1]/", 403), ("http://169.254.169.254/", 403), ("//localhost/", 403),
    ("file:///etc/passwd", 422),
    ("http://inner.example/", 403), ("http://user@files.example/", 422), ("http://[", 422),
    ("http://files.example:99999/", 422),
    ("gopher://files.example/", 422), ("a\x00b", 422), ("", 422), ("/again/", 422), ("http://2130706433/", 403)])
def test_each_step_of_a_redirect_is_checked(allowed, tmp_path, target, status):
    settings = Settings(url_hosts=["files.example", "inner.example"])
    url = allowed + urllib.parse.quote(target, safe="") + "a.csv"
    with pytest.raises(Problem) as refused:
        asyncio.run(uploads.fetch(url, tmp_path / "a.csv", settings))
    assert refused.value.status == status, refused.value
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("address",
                         ["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:a00:1::1", "::ffff:10.0.0.1", "::1",
                                     "fe80::1", "fd00::1", "ff02::1", "100.64.0.1", "0.0.0.0", "224.0.0.1", "169.254.169.254"])
def test_an_address_that_stands_for_a_private_one_is_private(address):
    assert not uploads.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "2606:4700::1111", "64:ff9b::101:101", "2002:101:101::1"])
def test_a_public_address_is_public(address):
    assert uploads.is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["evil.example", "[::1", "[", "a b", "\xff", "evil_x.example", "", "127.0.0.1.evil.example",
                                  "evil.example#@127.0.0.1"])
def test_a_name_that_leads_here_is_not_this_machine(host):
    """A page of another site, whose name was made to lead to 127.0.0.1, is not let in for that, where no token is set."""
    scope = {"type": "http", "method": "POST", "path": "/", "scheme": "http", "client": ("127.0.0.1", 1), "query_string": b"",
             "server": ("127.0.0.1", 8000), "headers": [(b"host", host.encode("latin-1"))],
             "app": SimpleNamespace(state=SimpleNamespace(settings=Settings(token=None)))}
    with pytest.raises(Problem, match="only this machine"):
        asyncio.run(guard.privileged(Request(scope), None))
    scope["headers"] = [(b"host", b"localhost:8000")]
    asyncio.run(guard.privileged(Request(scope), None))
