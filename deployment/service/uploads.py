"""Files that come in: streamed to disk, capped, and, by URL, only from hosts that are allowed and in no private network."""

import ipaddress
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urljoin, urlsplit

import httpx

from service.problems import Problem
from service.settings import Settings

FORMS = (".csv", ".tsv", ".jsonl", ".parquet", ".txt")
MAX_REDIRECTS = 3
TIMEOUT = 30  # seconds without a byte


def form_of(name: str) -> str:
    """The ending that says how the file is to be read; nothing else of a name that a user chose is used."""
    ending = Path(name.replace("\\", "/")).suffix.lower()
    if ending not in FORMS:
        raise Problem(422, f"the file's ending must be one of {', '.join(FORMS)}")
    return ending


async def save(chunks: AsyncIterator[bytes], target: Path, cap: int) -> int:
    """Write what comes, whole or not at all; returns its bytes. Raises Problem: 413 above `cap` bytes, 422 for none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, size = target.with_name(f".{target.name}.partial"), 0
    try:
        with partial.open("wb") as file:
            async for chunk in chunks:
                if (size := size + len(chunk)) > cap:
                    raise Problem(413, f"the file has more than {cap:,} bytes")
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        if not size:
            raise Problem(422, "the file is empty")
        os.replace(partial, target)
    finally:
        partial.unlink(missing_ok=True)
    return size


async def fetch(url: str, target: Path, settings: Settings) -> int:
    """Save what a URL of the allow-list holds. Each redirect is checked as the URL itself is."""
    async with httpx.AsyncClient(timeout=TIMEOUT, trust_env=False) as client:
        for _ in range(MAX_REDIRECTS + 1):
            parts = check(url, settings.url_hosts)
            address = public_address(parts.hostname, parts.port or (443 if parts.scheme == "https" else 80))
            # Connect to the very address that was checked, whatever the name's server says the next time.
            host = f"[{address}]" if ":" in address else address
            request = client.build_request(
                "GET", parts._replace(netloc=host + (f":{parts.port}" if parts.port else "")).geturl(),
                headers={"Host": parts.netloc}, extensions={"sni_hostname": parts.hostname})
            try:
                reply = await client.send(request, stream=True)
            except httpx.HTTPError as error:
                raise Problem(422, f"{url[:300]}: cannot be fetched: {error}") from None
            try:
                if reply.is_redirect:
                    url = urljoin(url, reply.headers["location"])
                    continue
                if reply.status_code != 200:
                    raise Problem(422, f"{url[:300]}: its server answers {reply.status_code}")
                return await save(reply.aiter_raw(), target, settings.max_upload)
            except httpx.HTTPError as error:
                raise Problem(422, f"{url[:300]}: broke off: {error}") from None
            finally:
                await reply.aclose()
    raise Problem(422, f"{url[:300]}: more than {MAX_REDIRECTS} redirects")


def check(url: str, hosts: list[str]):
    """The parts of a URL that may be fetched."""
    try:
        parts = urlsplit(url)
        port = parts.port  # noqa: F841 - raises ValueError where it is no number
    except ValueError as error:
        raise Problem(422, f"{url[:300]!r}: no URL: {error}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise Problem(422, "the URL must be http://host/… or https://host/…, without a user's name")
    if parts.hostname.lower() not in {host.lower() for host in hosts}:
        allowed = ", ".join(hosts) or "none; this service takes uploads only"
        raise Problem(403, f"files may not be fetched from {parts.hostname[:100]!r}; allowed hosts: {allowed}")
    return parts


def public_address(host: str, port: int) -> str:
    """An address of the host, all of which must be public: a name may not lead into this network."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except OSError as error:
        raise Problem(422, f"{host}: cannot be found: {error}") from None
    for text in found:
        address = ipaddress.ip_address(text.split("%")[0])
        if not is_public(getattr(address, "ipv4_mapped", None) or address):
            raise Problem(403, f"{host} is not a public address")
    return sorted(found, key=len)[0]


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return address.is_global and not address.is_multicast
