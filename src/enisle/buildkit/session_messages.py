"""Messages to the services a client offers in its session (facts: moby/buildkit's session/*, fsutil's types)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from enisle.buildkit.protobuf import Message, data, data_map, number, one, text, texts


class PacketKind(IntEnum):
    """Kinds of packets of a transfer of files."""

    STAT = 0
    REQUEST = 1
    DATA = 2
    FINISHED = 3
    ERROR = 4


@dataclass(kw_only=True)
class Stat(Message):
    """One file. ``mode``: Go's fs.FileMode. ``modified``: nanoseconds. ``link``: where a link leads, hard or not."""

    path: str = text(1)
    mode: int = number(2)
    uid: int = number(3)
    gid: int = number(4)
    size: int = number(5)
    modified: int = number(6)
    link: str = text(7)
    major: int = number(8)
    minor: int = number(9)
    xattrs: dict[str, bytes] = data_map(10)


@dataclass(kw_only=True)
class Packet(Message):
    """Part of a transfer. ``id`` counts the files told of, from 0."""

    kind: int = number(1)
    stat: Stat | None = one(2, Stat)
    id: int = number(3)
    data: bytes = data(4)


@dataclass(kw_only=True)
class Bytes(Message):
    """A piece of a stream: BytesMessage."""

    data: bytes = data(1)


@dataclass(kw_only=True)
class SecretRequest(Message):
    """GetSecretRequest."""

    id: str = text(1)


@dataclass(kw_only=True)
class SecretResponse(Message):
    """GetSecretResponse."""

    data: bytes = data(1)


@dataclass(kw_only=True)
class AgentRequest(Message):
    """CheckAgentRequest."""

    id: str = text(1)


@dataclass(kw_only=True)
class CredentialsRequest(Message):
    """Whose: a registry's host."""

    host: str = text(1)


@dataclass(kw_only=True)
class CredentialsResponse(Message):
    """``username`` "": the secret is a token."""

    username: str = text(1)
    secret: str = text(2)


@dataclass(kw_only=True)
class TokenRequest(Message):
    """FetchTokenRequest."""

    client: str = text(1)
    host: str = text(2)
    realm: str = text(3)
    service: str = text(4)
    scopes: list[str] = texts(5)


@dataclass(kw_only=True)
class TokenResponse(Message):
    """FetchTokenResponse."""

    token: str = text(1)


@dataclass(kw_only=True)
class Empty(Message):
    """A message without fields that matter."""
