"""Versions of Docker's API, and the headers that tell them."""

from __future__ import annotations

from typing import Any

from enisle.errors import Invalid

MINIMUM = (1, 24)
MAXIMUM = (1, 47)
DEFAULT = MAXIMUM  # of requests without a version


def text(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def checked_version(given: str) -> tuple[int, int]:
    """The version in a path. Raises Invalid in dockerd's words when we do not speak it."""
    major, _, minor = given.partition(".")
    if not (major.isdecimal() and (minor or "0").isdecimal() and len(given) < 12):
        raise Invalid(f"invalid API version: {given[:40]}")
    version = (int(major), int(minor or 0))
    if version < MINIMUM:
        raise Invalid(
            f"client version {given} is too old. Minimum supported API version is {text(MINIMUM)}, "
            "please upgrade your client to a newer version"
        )
    if version > MAXIMUM:
        raise Invalid(f"client version {given} is too new. Maximum supported API version is {text(MAXIMUM)}")
    return version


def common_headers(facts: dict[str, Any]) -> dict[str, str]:
    """What every answer carries. ``facts`` as of engine.system.version."""
    return {
        "Api-Version": text(MAXIMUM),
        "Docker-Experimental": "true",  # the docker client offers --squash only then
        "Ostype": facts.get("os") or "linux",
        "Server": f"Enisle/{facts.get('version') or '0'} ({facts.get('os') or 'linux'})",
    }
