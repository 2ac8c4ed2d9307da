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
    warnings = []
    for name, soft, hard in limits:
        number = NUMBERS[name]
        try:
            resource.setrlimit(number, (soft, hard))
        except (ValueError, OSError):
            highest = resource.getrlimit(number)[1]
            clamped = _lower(hard, highest)
            resource.setrlimit(number, (_lower(soft, clamped), clamped))
            warnings.append(
                f"ulimit {name.lower()} is {_shown(clamped)}, not {_shown(hard)}: "
                "Enisle runs without CAP_SYS_RESOURCE and cannot raise it"
            )
    return warnings


def _lower(left: int, right: int) -> int:
    if left == resource.RLIM_INFINITY:
        return right
    return left if right == resource.RLIM_INFINITY else min(left, right)


def _shown(value: int) -> str:
    return "unlimited" if value == resource.RLIM_INFINITY else str(value)
