"""Resource limits (setrlimit(2)) by name."""

from __future__ import annotations

import resource
from collections.abc import Iterable
from typing import Any

_NAMES = "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME".split()
NUMBERS = {name: number for number, name in enumerate(_NAMES)}
"""The kernel's numbers (asm-generic/resource.h); the same on every architecture Enisle knows."""


def set_limits(limits: Iterable[list[Any]]) -> list[str]:
    """Set (name, soft, hard), -1 for infinity. Without CAP_SYS_RESOURCE a hard limit cannot rise: it is clamped.

    Returns a warning for each that was. KeyError for an unknown name.
    """
    warnings: list[str] = []
    for name, soft, hard in limits:
        number = NUMBERS[name]
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, OSError):
            resource.setrlimit(number, _clamped(name, soft, hard, warnings))
    return warnings


def settable(limits: Iterable[list[Any]]) -> tuple[list[list[Any]], list[str]]:
    """The same limits as far as a process without CAP_SYS_RESOURCE can set them, and a warning for each clamped."""
    warnings: list[str] = []
    found = []
    for name, soft, hard in limits:
        highest = resource.getrlimit(NUMBERS[name])[1]
        fits = _lower(hard, highest) == hard
        found.append([name, *((soft, hard) if fits else _clamped(name, soft, hard, warnings))])
    return found, warnings


def clamped(name: str, to: int, hard: int) -> str:
    """The warning for a limit that is lower than it was to be."""
    return (
        f"ulimit {name.lower()} is {_shown(to)}, not {_shown(hard)}: "
        "Enisle runs without CAP_SYS_RESOURCE and cannot raise it"
    )


def _clamped(name: str, soft: int, hard: int, warnings: list[str]) -> tuple[int, int]:
    highest = _lower(hard, resource.getrlimit(NUMBERS[name])[1])
    warnings.append(clamped(name, highest, hard))
    return _lower(soft, highest), highest


def _lower(left: int, right: int) -> int:
    if left == resource.RLIM_INFINITY:
        return right
    return left if right == resource.RLIM_INFINITY else min(left, right)


def _shown(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)
