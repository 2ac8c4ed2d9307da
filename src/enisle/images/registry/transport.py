"""HTTP to one registry: retries, redirects, authentication. What comes out is an answer, or an error of ours."""

from __future__ import annotations

import asyncio
import email.utils
import errno
import functools
import os
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from enisle.contracts import RegistryAuth
from enisle.errors import Denied, Invalid, Unavailable
from enisle.images.registry.auth import Authenticator
from enisle.images.registry.challenge import parse_challenges
from enisle.images.registry.endpoints import (
    RegistrySettings,
    check_address,
    check_redirect,
    is_loopback,
    may_be_insecure,
    same_origin,
)

TRIES = 5
_REDIRECTS = 5
_RETRY_AFTER_LIMIT_S = 60.0
_STALL_S = 30.0
_CONNECT_S = 10.0
_PASSING = frozenset({408, 429, 500, 502, 503, 504})
_NETWORK_ERRORS = (aiohttp.ClientError, TimeoutError, ConnectionError, OSError)

BodyFactory = Callable[[], Any]


class _GuardedResolver(AbstractResolver):
    """Names of foreign hosts must not lead to this machine or to link-local addresses either."""

    def __init__(self, registry_host: str) -> None:
        self._registry_host = registry_host
        self._inner = aiohttp.ThreadedResolver()

    async def resolve(self, host: str, port: int = 0, family: Any = 0) -> list[ResolveResult]:
        try:
            found = await self._inner.resolve(host, port, family)
        except UnicodeError as error:  # a label of more than 63 characters
            raise OSError(errno.ENOENT, f"no such host: {host[:100]}") from error
        if host != self._registry_host:
            for result in found:
                check_address(result["host"], self._registry_host)
        return found

    async def close(self) -> None:
        await self._inner.close()


@functools.cache
def _authenticating() -> ssl.SSLContext:
    """By the host's authorities. Those of one's own often lack the key usage that Python 3.13 asks for and Docker does
    not (X509_V_FLAG_X509_STRICT)."""
    context = ssl.create_default_context()
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


class Transport:
    """Requests to one registry on behalf of one user. A context manager; it closes when the last block is left."""

    def __init__(
        self, host: str, settings: RegistrySettings, auth: RegistryAuth | None = None, *, backoff_s: float = 0.5
    ) -> None:
        self.host = host
        self._settings = settings
        self._auth = auth
        self._backoff_s = backoff_s
        try:
            self.base = URL(f"https://{host}")
        except ValueError as error:  # a port or address that cannot be
            raise Invalid(f'invalid registry host "{host[:100]}"') from error
        self._session: aiohttp.ClientSession
        self._authenticator: Authenticator
        self._tls: ssl.SSLContext | bool = True
        self._users = 0
        self._reached = False  # a registry that was there is waited for; one that never was is told at once

    async def __aenter__(self) -> Transport:
        self._users += 1
        if self._users == 1:
            try:
                await self._open()
            except BaseException:
                self._users -= 1
                raise
        return self

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=_authenticating(), resolver=_GuardedResolver(self.base.host or ""), limit=8, ttl_dns_cache=60
            ),
            timeout=aiohttp.ClientTimeout(total=None, connect=_CONNECT_S, sock_read=_STALL_S),
            auto_decompress=False,
            headers={"User-Agent": "enisle", "Accept-Encoding": "identity"},
            cookie_jar=aiohttp.DummyCookieJar(),
            requote_redirect_url=False,
        )
        try:
            if may_be_insecure(self.host, self._settings):
                await self._choose_scheme()
        except BaseException:
            await self._session.close()
            raise
        self._authenticator = Authenticator(self._session, self.base, self._auth)

    async def __aexit__(self, *_: object) -> None:
        self._users -= 1
        if self._users == 0:
            await self._session.close()

    async def _choose_scheme(self) -> None:
        """For hosts that need not prove who they are: TLS with any certificate if they speak it, else plain HTTP."""
        anything = ssl.create_default_context()
        anything.check_hostname = False
        anything.verify_mode = ssl.CERT_NONE
        self._tls = anything
        try:
            async with self._session.get(self.base / "v2/", ssl=self._tls, allow_redirects=False):
                return
        except aiohttp.ClientConnectorError as error:
            if not isinstance(error, aiohttp.ClientSSLError):
                return  # not there at all: the first real request will say so
        except (aiohttp.ClientError, OSError, TimeoutError):
            pass  # it does not understand the handshake
        self.base = URL(f"http://{self.host}")

    @asynccontextmanager
    async def request(
        self,
        method: str,
        url: URL,
        *,
        scopes: Sequence[str] = (),
        headers: Mapping[str, str] | None = None,
        body: BodyFactory | None = None,
        tries: int = TRIES,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer, whatever its status (but 401 answered and passing failures tried again). ``body`` makes a new
        body for each try. Unavailable when there is none."""
        response = await self._persist(method, url, scopes, dict(headers or {}), body, tries)
        try:
            yield response
        finally:
            response.release()

    async def _persist(
        self,
        method: str,
        url: URL,
        scopes: Sequence[str],
        headers: dict[str, str],
        body: BodyFactory | None,
        tries: int,
    ) -> aiohttp.ClientResponse:
        for attempt in range(1, tries + 1):
            try:
                response = await self._authorised(method, url, scopes, headers, body)
            except _NETWORK_ERRORS as error:
                absent = isinstance(error, aiohttp.ClientConnectorError) and not self._reached
                if attempt == tries or absent or isinstance(error, aiohttp.ClientConnectorCertificateError):
                    raise Unavailable(f'{method.title()} "{url}": {_reason(error)}') from error
                await self.pause(attempt)
                continue
            self._reached = True
            if response.status not in _PASSING or attempt == tries:
                return response
            waiting = retry_after_s(response.headers.get("Retry-After", ""))
            response.release()
            await self.pause(attempt, waiting)
        raise AssertionError("the last try returns or raises")

    async def pause(self, attempt: int, at_least_s: float = 0.0) -> None:
        """Wait before another try; longer each time, and not in step with others."""
        backoff = min(self._backoff_s * 2 ** (attempt - 1), 15.0)
        await asyncio.sleep(max(at_least_s, backoff * random.uniform(0.75, 1.25)))

    async def _authorised(
        self, method: str, url: URL, scopes: Sequence[str], headers: dict[str, str], body: BodyFactory | None
    ) -> aiohttp.ClientResponse:
        header = self._authenticator.header(scopes)
        for _ in range(2):
            response = await self._follow(method, url, headers, header, body)
            if response.status != 401 or not same_origin(response.url, self.base):
                return response
            challenges = [
                challenge
                for line in response.headers.getall("WWW-Authenticate", [])
                for challenge in parse_challenges(line)
            ]
            response.release()
            header = await self._authenticator.answer(challenges, scopes, header)
        return await self._follow(method, url, headers, header, body)

    async def _follow(
        self, method: str, url: URL, headers: dict[str, str], authorization: str, body: BodyFactory | None
    ) -> aiohttp.ClientResponse:
        """Send; follow redirects of GET and HEAD. Authorization never goes to any but the registry itself."""
        for _ in range(_REDIRECTS + 1):
            own = same_origin(url, self.base)
            sent = dict(headers)
            if authorization and own:
                sent["Authorization"] = authorization
            if not own:
                check_redirect(self.base, url)
            response = await self._session.request(
                method,
                url,
                headers=sent,
                data=body() if body else None,
                allow_redirects=False,
                ssl=self._tls if own or (url.host and is_loopback(url.host)) else True,
            )
            if method not in ("GET", "HEAD") or response.status not in (301, 302, 303, 307, 308):
                return response
            location = response.headers.get("Location", "")
            response.release()
            url = self.resolve(location, url)
        raise Denied(f"registry {self.host}: more than {_REDIRECTS} redirects")

    def resolve(self, location: str, url: URL) -> URL:
        """The URL that a Location header means. Denied for one that must not be followed."""
        try:
            target = url.join(URL(location, encoded=True))
        except ValueError as error:
            raise Denied(f"registry {self.host}: sends us to {location[:200]!r}, which is no address") from error
        check_redirect(url, target)
        return target


def retry_after_s(header: str) -> float:
    """Seconds a Retry-After header asks for (a number or a date), at most a minute; 0 for none."""
    header = header.strip()
    if header.isascii() and header.isdigit():
        return min(float(header[:9]), _RETRY_AFTER_LIMIT_S)
    try:
        moment = email.utils.parsedate_to_datetime(header).timestamp()
    except (ValueError, TypeError):
        return 0.0
    return min(max(0.0, moment - time.time()), _RETRY_AFTER_LIMIT_S)


def _reason(error: BaseException) -> str:
    """Why a registry could not be asked, in dockerd's words where it has some."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return f"dial tcp: lookup {error.host}: no such host"
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"tls: failed to verify certificate: {error.certificate_error}"
    if isinstance(error, aiohttp.ClientConnectorError) and error.os_error.errno:
        return f"dial tcp {error.host}:{error.port}: connect: {os.strerror(error.os_error.errno).lower()}"
    return str(error) or type(error).__name__
