"""Durations as Go writes them (``1m30s``, ``1.5h``, ``300ms``)."""

from __future__ import annotations

import re
from decimal import Decimal

from enisle.errors import Invalid

_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_PART = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)


def parse_duration(text: str) -> int:
    """Nanoseconds. Raises Invalid in Go's wording."""
    sign = -1 if text.startswith("-") else 1
    body = text.lstrip("+-") if text[:1] in ("+", "-") else text
    if body == "0":
        return 0
    total = Decimal(0)
    position = 0
    while position < len(body):
        match = _PART.match(body, position)
        if match is None:
            break
        total += Decimal(match[1]) * _UNITS[match[2]]
        position = match.end()
    if not body or position != len(body):
        raise Invalid(f'time: invalid duration "{text[:80]}"')
    if total >= 1 << 63:
        raise Invalid(f'time: invalid duration "{text[:80]}"')
    return sign * int(total)
