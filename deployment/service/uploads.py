"""Files that come in: streamed to disk, capped, and, by URL, only from hosts that are allowed and in no private network."""

import asyncio
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
PORTS = {"http": 80, "https": 443}
URL = r"^https?://[A-Za-z0-9._-]+(:[0-9]{1,5})?/[^\s\\]*$"
MAX_REDIRECTS = 3
TIMEOUT = 30  # seconds without a byte
NAT64 = ipaddress.ip_network("64:ff9b::/96")


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
            address = await asyncio.to_thread(public_address, parts.hostname, parts.port or PORTS[parts.scheme])
            # Connect to the very address that was checked, whatever the name's server says the next time.
            host = f"[{address}]" if ":" in address else address
            try:
                request = client.build_request(
                    "GET", parts._replace(netloc=host + (f":{parts.port}" if parts.port else "")).geturl(),
                    headers={"Host": parts.netloc}, extensions={"sni_hostname": parts.hostname})
                reply = await client.send(request, stream=True)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise Problem(422, f"{url[:300]}: cannot be fetched: {error}") from None
            try:
                if reply.has_redirect_location:
                    url = _joined(url, reply.headers["location"])
                    continue
                if reply.status_code != 200:
                    raise Problem(422, f"{url[:300]}: its server answers {reply.status_code}")
                return await save(reply.aiter_raw(), target, settings.max_upload)
            except httpx.HTTPError as error:
                raise Problem(422, f"{url[:300]}: broke off: {error}") from None
            finally:
                await reply.aclose()
    raise Problem(422, f"{url[:300]}: more than {MAX_REDIRECTS} redirects")


def _joined(url: str, location: str) -> str:
    try:
        return urljoin(url, location)
    except ValueError as error:
        raise Problem(422, f"{url[:300]}: leads to {location[:300]!r}, which is no URL: {error}") from None


def check(url: str, hosts: list[str]):
    """The parts of a URL that may be fetched."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise Problem(422, f"{url[:300]!r}: no URL: {error}") from None
    if parts.scheme not in PORTS or not parts.hostname or "@" in parts.netloc:
        raise Problem(422, "the URL must be http://host/… or https://host/…, without a user's name")
    if parts.hostname.lower() not in {host.lower() for host in hosts}:
        allowed = ", ".join(hosts) or "none; this service takes uploads only"
        raise Problem(403, f"files may not be fetched from {parts.hostname[:100]!r}; allowed hosts: {allowed}")
    try:
        parts.port  # noqa: B018 - it is looked at when it is asked for
    except ValueError as error:
        raise Problem(422, f"{url[:300]!r}: no URL: {error}") from None
    return parts


def public_address(host: str, port: int) -> str:
    """An address of the host, all of which must be public: a name may not lead into this network."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:  # UnicodeError: a label of more than 63 characters
        raise Problem(422, f"{host}: cannot be found: {error}") from None
    if not all(is_public(ipaddress.ip_address(text.split("%")[0])) for text in found):
        raise Problem(403, f"{host} is not a public address")
    return sorted(found, key=len)[0]


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Also of an IPv4 address that an IPv6 one stands for: mapped, 6to4, or by NAT64."""
    if address.version == 6:
        inner = address.ipv4_mapped or address.sixtofour
        if address in NAT64:
            inner = ipaddress.IPv4Address(address.packed[-4:])
        if inner:
            return is_public(inner)
    return address.is_global and not address.is_multicast
