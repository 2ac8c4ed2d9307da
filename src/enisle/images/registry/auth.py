"""Proving to a registry who we are: Basic, or a Bearer token from its token service, kept until it expires."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
from yarl import URL

from enisle.contracts import RegistryAuth
from enisle.errors import Denied, EnisleError, Unauthenticated, Unavailable
from enisle.formats.json_document import parse_object
from enisle.images.registry.challenge import Challenge
from enisle.images.registry.endpoints import check_redirect, realm_gets_credentials

_TOKEN_LIMIT_BYTES = 1 << 20
_DEFAULT_LIFETIME_S = 60.0
_MARGIN_S = 5.0


class Authenticator:
    """Authorization headers for one registry and one user."""

    def __init__(self, session: aiohttp.ClientSession, registry: URL, auth: RegistryAuth | None) -> None:
        self._session = session
        self._registry = registry
        self._auth = auth
        self._tokens: dict[tuple[str, ...], tuple[str, float]] = {}  # scopes -> token, when it expires (monotonic)
        self._basic = False
        self._lock = asyncio.Lock()

    def header(self, scopes: Sequence[str]) -> str:
        """The Authorization header to begin with; "" before the registry has asked for any."""
        if self._auth and self._auth.registry_token:
            return f"Bearer {self._auth.registry_token}"
        if self._basic:
            return self._basic_header()
        token, expires = self._tokens.get(tuple(sorted(scopes)), ("", 0.0))
        return f"Bearer {token}" if expires > time.monotonic() else ""

    async def answer(self, challenges: Sequence[Challenge], scopes: Sequence[str], refused: str) -> str:
        """The header that answers a 401; ``refused`` is the one it was given for. Unauthenticated if there is none."""
        async with self._lock:
            current = self.header(scopes)
            if current and current != refused:  # somebody else was asked at the same time
                return current
            for challenge in challenges:
                if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                    return await self._fetch_token(challenge, scopes)
                if challenge.scheme == "basic" and self._has_password() and not self._basic:
                    self._basic = True
                    return self._basic_header()
        raise Unauthenticated(f"registry {self._registry.authority}: unauthorized: authentication required")

    def _has_password(self) -> bool:
        return bool(self._auth and self._auth.username)

    def _basic_header(self) -> str:
        assert self._auth is not None
        pair = f"{self._auth.username}:{self._auth.password}".encode()
        return "Basic " + base64.b64encode(pair).decode()

    async def _fetch_token(self, challenge: Challenge, scopes: Sequence[str]) -> str:
        try:
            realm = URL(challenge.parameters["realm"])
            check_redirect(self._registry, realm)
        except (ValueError, EnisleError) as error:
            raise Denied(f"registry {self._registry.host}: its token service cannot be used: {error}") from error
        wanted = tuple(sorted(scopes)) or tuple(challenge.parameters.get("scope", "").split())
        document = await self._ask(realm, challenge.parameters.get("service", ""), wanted)
        token = document.get("token") or document.get("access_token")
        if not isinstance(token, str) or not token or "\n" in token or "\r" in token:
            raise Unavailable(f"token service {realm.host}: it sent no token")
        lifetime = document.get("expires_in")
        seconds = float(lifetime) if isinstance(lifetime, (int, float)) and lifetime > 0 else _DEFAULT_LIFETIME_S
        expires = time.monotonic() + max(seconds - _MARGIN_S, seconds / 2)
        self._tokens[tuple(sorted(scopes))] = (token, expires)
        return f"Bearer {token}"

    async def _ask(self, realm: URL, service: str, scopes: Sequence[str]) -> dict[str, Any]:
        try:
            async with self._token_request(realm, service, scopes) as response:
                body = await response.content.read(_TOKEN_LIMIT_BYTES)
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unavailable(f"token service {realm.host}: {error or type(error).__name__}") from error
        if status in (401, 403):
            raise Unauthenticated(f"token service {realm.host}: unauthorized: incorrect username or password")
        if status != 200:
            raise Unavailable(f"token service {realm.host}: it answered with status {status}")
        return parse_object(body, f"answer of token service {realm.host}")

    def _token_request(
        self, realm: URL, service: str, scopes: Sequence[str]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        """With the credentials, if the token service may have them; else as nobody."""
        trusted = realm_gets_credentials(self._registry, realm)
        if self._auth and self._auth.identity_token and trusted:
            form = {
                "grant_type": "refresh_token",
                "service": service,
                "client_id": "enisle",
                "scope": " ".join(scopes),
                "refresh_token": self._auth.identity_token,
            }
            return self._session.post(realm, data=form, allow_redirects=False)
        query = [("service", service)] if service else []
        query += [("scope", scope) for scope in scopes]
        headers = {"Authorization": self._basic_header()} if self._has_password() and trusted else {}
        return self._session.get(realm.update_query(query), headers=headers, allow_redirects=False)
