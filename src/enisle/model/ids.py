"""Identifiers and names, and the rules they obey."""

from __future__ import annotations

import re
import secrets
from typing import NewType

from enisle.errors import Invalid

InstanceId = NewType("InstanceId", str)  # 64 lower-case hex digits
ExecId = NewType("ExecId", str)
NetworkId = NewType("NetworkId", str)
EndpointId = NewType("EndpointId", str)
Digest = NewType("Digest", str)  # "sha256:" + 64 hex digits
ImageId = NewType("ImageId", str)  # the digest of an image's config

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_HEX_PREFIX = re.compile(r"[0-9a-f]{1,64}")


def new_id() -> str:
    """A random 64-digit hexadecimal id that does not look like a number when cut to 12 digits."""
    while True:
        value = secrets.token_hex(32)
        if not value[:12].isdigit():
            return value


def check_name(name: str, what: str = "container") -> str:
    """The name, if it is one. Raises Invalid in Docker's wording."""
    if not NAME.fullmatch(name) or len(name) > 255:
        raise Invalid(f"Invalid {what} name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
    return name


def check_volume_name(name: str) -> str:
    """The name, if it is one. Raises Invalid in the words of Docker's local driver."""
    if len(name) == 1:
        raise Invalid(f"create {name}: volume name is too short, names should be at least two alphanumeric characters")
    if not NAME.fullmatch(name):
        raise Invalid(
            f'create {name}: "{name}" includes invalid characters for a local volume name, only '
            '"[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path'
        )
    if len(name) > 255:
        raise Invalid(f"create {name[:40]}…: the volume's name is longer than 255 characters")
    return name


def check_network_name(name: str) -> str:
    """The name, if it is one: networks may be called almost anything, "my network" too. Raises Invalid."""
    if not name.strip() or not name.isprintable() or "/" in name or len(name) > 255:
        raise Invalid(f"invalid network name ({name[:100]!r}): printable characters are allowed, but no slash")
    return name


def digest(text: str) -> Digest:
    """The text as a digest. Raises Invalid unless it is one, so that it is safe as a part of a path."""
    if not _DIGEST.fullmatch(text):
        raise Invalid(f"invalid digest {text[:100]!r}: expected sha256: and 64 hexadecimal digits")
    return Digest(text)


def is_digest(text: str) -> bool:
    """Whether the text is a well-formed digest."""
    return _DIGEST.fullmatch(text) is not None


def is_id_prefix(text: str) -> bool:
    """Whether the text could be the beginning of an id."""
    return _HEX_PREFIX.fullmatch(text) is not None


_ADJECTIVES = (
    "amber bold breezy bright brisk calm candid clear cosy crisp eager early faithful fresh gentle gilded "
    "glad green hardy hidden honest humble jolly keen kind late lively lone lucid mellow merry mighty "
    "misty modest noble northern open patient placid polished proud quick quiet remote rocky sandy serene "
    "sheltered silent silver snug southern stark steady still stormy sturdy sunny swift tidal tranquil "
    "verdant vivid warm wild windy wise "
).split()
_ISLANDS = (
    "achill alderney andros anglesey aran arran azores barra bering bornholm brava caldey canna capri "
    "chios coll corfu crete delos eigg elba erraid faroe fogo fuerte gigha gotland hiiumaa hoy ibiza iona "
    "islay ithaca jersey jura juist kos lipari lofoten lundy madeira malta mull naxos oland orkney patmos "
    "pico rhodes rugen runde samos sark scilly shetland skye staffa sylt tenby texel thasos tiree tresco "
    "uist ulva unst vis wight yell zante "
).split()


def new_name() -> str:
    """A name for an instance whose user gave none, such as ``calm_skye``; the caller checks that it is free."""
    return f"{secrets.choice(_ADJECTIVES)}_{secrets.choice(_ISLANDS)}"
