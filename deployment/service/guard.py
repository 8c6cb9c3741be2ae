"""Who may do what, how often, and how much: tokens, limits, caps on bodies, and the headers of every answer."""

import asyncio
import ipaddress
import secrets
import time
from contextlib import suppress
from typing import Annotated
from urllib.parse import urlsplit

from fastapi import Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from h11 import LocalProtocolError
from limits import RateLimitItemPerHour, RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.problems import Problem, answer

MAX_JSON = 8_000_000  # bytes: 256 texts of 20,000 characters, escaped, are less in all but the oddest scripts
MAX_REQUEST = 100_000  # bytes of a body that is neither texts nor an upload
FORM_OVERHEAD = 1_000_000  # bytes of an upload that are not its file
DRAINED, DRAIN_SECONDS = 64_000_000, 10  # of a body too large that are read and dropped after the answer
HEADERS = [
    (b"content-security-policy", b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
                                 b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
                                 b"require-trusted-types-for 'script'; trusted-types 'none'"),
    (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
]
BEARER = HTTPBearer(auto_error=False, description="the service's token (TAGWRIGHT_TOKEN); where none is set, none is needed on "
                                                  "the machine itself, and nobody else may")


async def privileged(request: Request, given: Annotated[HTTPAuthorizationCredentials | None, Security(BEARER)]) -> None:
    """For training, activation and removal: the bearer of the token, or, where none is set, this machine itself."""
    _refuse_other_sites(request)
    token = request.app.state.settings.token
    if token is None:
        if not (_is_loopback(request.client.host if request.client else "") and _is_loopback(_named_host(request))):
            raise Problem(403, "only this machine itself may do this, as no token is set (TAGWRIGHT_TOKEN)")
        return
    if given is None or not secrets.compare_digest(given.credentials.encode(), token.get_secret_value().encode()):
        raise Problem(401, "this needs the header Authorization: Bearer <token>, with the token of this service")


def limited(kind: str):
    """A dependency that counts a client's requests; `kind` is "tags" or "jobs"."""

    async def check(request: Request) -> None:
        settings = request.app.state.settings
        limit = (RateLimitItemPerMinute(settings.requests_per_minute) if kind == "tags"
                 else RateLimitItemPerHour(settings.jobs_per_hour))
        client = request.client.host if request.client else ""
        limiter: MovingWindowRateLimiter = request.app.state.limiter
        if limit.amount and not limiter.hit(limit, kind, client):
            wait = max(1, round(limiter.get_window_stats(limit, kind, client).reset_time - time.time()))
            raise Problem(429, f"too many requests from {client}: {limit}; try again in {wait} s", retry_after=wait)

    return check


def limiter() -> MovingWindowRateLimiter:
    """Each API process counts for itself."""
    return MovingWindowRateLimiter(MemoryStorage())


def _refuse_other_sites(request: Request) -> None:
    """A page of another site that this user has open may not use the user's place on this machine."""
    origin = request.headers.get("origin")
    if origin and origin.partition("://")[2] != request.headers.get("host"):
        raise Problem(403, "a page of another site may not do this")


def _named_host(request: Request) -> str:
    """The host that the client asked for, "" for a header that names none. `request.url` has the server's own address then,
    which would let a name in that leads here by its DNS entry."""
    try:
        return urlsplit(f"//{request.headers.get('host', '')}").hostname or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


class Caps:
    """Refuses bodies that are too large while they arrive, and puts HEADERS on every answer."""

    def __init__(self, app: ASGIApp, max_upload: int):
        self.app, self.max_upload = app, max_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        headers = dict(scope["headers"])
        cap, seen, started = self.cap(scope["path"], headers.get(b"content-type", b"")), 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > cap:
                raise _TooLarge
            return message

        async def headed(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        declared = headers.get(b"content-length", b"0")
        try:
            if declared.isdigit() and int(declared) > cap:
                raise _TooLarge
            await self.app(scope, counted, headed)
        except LocalProtocolError:  # the body broke the protocol: uvicorn has answered for itself, and hangs up
            return
        except _TooLarge:
            if not started:
                reply = answer(413, f"the body has more than {cap:,} bytes", scope["path"], {"Connection": "close"})
                await headed({"type": "http.response.start", "status": 413, "headers": reply.raw_headers})
                await send({"type": "http.response.body", "body": reply.body, "more_body": True})
                with suppress(TimeoutError):
                    async with asyncio.timeout(DRAIN_SECONDS):
                        await drain(receive)
                await send({"type": "http.response.body", "body": b""})

    def cap(self, path: str, content_type: bytes) -> int:
        """The most bytes of a body."""
        if path == "/v1/tags":
            return MAX_JSON
        is_upload = path.startswith("/v1/jobs/") and content_type.lower().startswith(b"multipart/form-data")
        return self.max_upload + FORM_OVERHEAD if is_upload else MAX_REQUEST


async def drain(receive: Receive) -> None:
    """Read on and drop what comes: a connection closed under a client that still sends loses the answer."""
    seen = 0
    while seen < DRAINED:
        message = await receive()
        seen += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message.get("more_body"):
            return


class _TooLarge(Exception):
    pass
