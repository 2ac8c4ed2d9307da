"""Files from HTTP servers, for ADD and for remote contexts."""

from __future__ import annotations

import asyncio
import email.utils
import ipaddress
import posixpath
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path as FilePath
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urljoin, urlsplit

from enisle.errors import Denied, Exhausted, Invalid, Unavailable

if TYPE_CHECKING:
    import aiohttp

LIMIT_BYTES = 8 << 30
_REDIRECTS = 10
_CONNECT_TIMEOUT_S = 30.0
_IDLE_TIMEOUT_S = 120.0
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Downloaded:
    """``name``: the last part of the URL's path, "" if it has none. ``mtime_ns``: Last-Modified, 0 if unknown."""

    path: FilePath
    name: str
    size: int
    mtime_ns: int
    content_type: str


def is_url(text: str) -> bool:
    """Whether a source is to be downloaded."""
    return text.startswith(("http://", "https://"))


async def download(url: str, path: FilePath, *, allow_local: bool, limit_bytes: int = LIMIT_BYTES) -> Downloaded:
    """Fetch into a new file. Without ``allow_local`` this host's own and link-local addresses are refused, redirects
    included: a Dockerfile is not to reach what only the host can (cloud metadata, services on loopback).

    Invalid, Denied or Unavailable with the URL in the message.
    """
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=_IDLE_TIMEOUT_S)
    connector = aiohttp.TCPConnector(resolver=None if allow_local else _outside_only())
    shown = url.partition("?")[0]
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            for _ in range(_REDIRECTS):
                if not allow_local:
                    _check_host(url)
                async with session.get(url, allow_redirects=False) as response:
                    if response.status in (301, 302, 303, 307, 308) and "Location" in response.headers:
                        url = urljoin(url, response.headers["Location"])
                        if not is_url(url):
                            raise Invalid(f"{shown} leads to {url[:200]}, which is not fetched")
                        continue
                    if response.status != 200:
                        raise Invalid(f"{shown}: failed to GET with status {response.status} {response.reason}")
                    return await _saved(response, shown, path, limit_bytes)
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        raise Unavailable(f"{shown} cannot be fetched: {error or type(error).__name__}") from error
    raise Invalid(f"{shown}: more than {_REDIRECTS} redirects")


async def _saved(response: aiohttp.ClientResponse, shown: str, path: FilePath, limit_bytes: int) -> Downloaded:
    size = 0
    with path.open("xb") as file:
        async for piece in response.content.iter_chunked(_CHUNK):
            size += len(piece)
            if size > limit_bytes:
                raise Invalid(f"{shown}: larger than the limit of {limit_bytes} bytes")
            try:
                await asyncio.to_thread(file.write, piece)
            except OSError as error:
                raise Exhausted(f"{shown} cannot be stored: {error.strerror}") from error
    modified = response.headers.get("Last-Modified", "")
    parsed = email.utils.parsedate_to_datetime(modified) if modified else None
    return Downloaded(
        path=path,
        name=file_name(shown),
        size=size,
        mtime_ns=int(parsed.timestamp()) * 1_000_000_000 if parsed else 0,
        content_type=response.content_type,
    )


async def read(path: FilePath) -> AsyncIterator[bytes]:
    """The pieces of a file."""
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, _CHUNK):
            yield piece


def file_name(url: str) -> str:
    """The last part of a URL's path; "" when it ends in a slash or has none."""
    name = unquote(posixpath.basename(urlsplit(url).path))
    return "" if name in (".", "..") or "/" in name or "\0" in name else name


async def check_outside(host: str) -> None:
    """Denied for a host whose name or address means this host itself, or one of its own links."""
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Unavailable(f"{host} cannot be found: {error.strerror}") from error
    for *_, place in found:
        _check_address(ipaddress.ip_address(str(place[0]).partition("%")[0]), host)


def _check_host(url: str) -> None:
    host = urlsplit(url).hostname or ""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return  # a name, or one of the old spellings of numbers: the resolver checks what it means
    _check_address(address, host)


def _check_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address, host: str) -> None:
    inner = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    for one in (address, inner):
        if one is not None and (one.is_loopback or one.is_link_local or one.is_unspecified or one.is_multicast):
            raise Denied(
                f"{host} is an address of this host alone, which a Dockerfile may not fetch from.",
                remedy="Build with --network host if that is wanted.",
            )


def _outside_only() -> Any:
    from aiohttp.abc import AbstractResolver, ResolveResult
    from aiohttp.resolver import ThreadedResolver

    class OutsideOnly(AbstractResolver):
        """The system's resolver, without answers that point at this host."""

        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            found = await ThreadedResolver().resolve(host, port, family)
            for one in found:
                _check_address(ipaddress.ip_address(one["host"].partition("%")[0]), host)
            return found

        async def close(self) -> None:
            """Nothing is held."""

    return OutsideOnly()
