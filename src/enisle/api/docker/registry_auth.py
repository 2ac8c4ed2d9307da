"""Credentials that clients send along: X-Registry-Auth, base64 (URL alphabet) of a JSON object."""

from __future__ import annotations

import base64
import binascii

from enisle.api.decode import decode
from enisle.api.docker.request_types import AuthBody
from enisle.contracts import RegistryAuth
from enisle.errors import EnisleError


def from_header(header: str) -> RegistryAuth | None:
    """The credentials; None when there are none, or none that can be understood (dockerd goes on without)."""
    if not header:
        return None
    try:
        data = base64.urlsafe_b64decode(header.replace("+", "-").replace("/", "_") + "=" * (-len(header) % 4))
        auth = from_body(decode(data, AuthBody))
    except (binascii.Error, ValueError, EnisleError):
        return None
    return auth if auth.username or auth.identity_token or auth.registry_token else None


def from_body(body: AuthBody) -> RegistryAuth:
    """``auth`` ("user:password" in base64) stands in for the two, as in config.json."""
    username, password = body.username, body.password
    if body.auth and not username:
        try:
            username, _, password = base64.b64decode(body.auth).decode().partition(":")
        except (binascii.Error, ValueError):
            username = password = ""
    return RegistryAuth(
        username=username,
        password=password,
        identity_token=body.identitytoken,
        registry_token=body.registrytoken,
        server=body.serveraddress,
    )
