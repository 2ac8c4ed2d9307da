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
_SECOND = 10**9
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


def format_duration(nanoseconds: int) -> str:
    """As Go prints it: ``1m30s``, ``1.5s``, ``300ms``."""
    if nanoseconds < _SECOND:
        unit = next((name for name in ("ms", "µs") if nanoseconds >= _UNITS[name]), "ns")
        return f"{_decimal(nanoseconds, _UNITS[unit])}{unit}" if nanoseconds else "0s"
    minutes, rest = divmod(nanoseconds, 60 * _SECOND)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}h" if hours else ""
    text += f"{minutes}m" if hours or minutes else ""
    return f"{text}{_decimal(rest, _SECOND)}s"


def _decimal(value: int, unit: int) -> str:
    return f"{(Decimal(value) / unit).normalize():f}"
