"""Sizes, times and durations as people write and read them."""

from __future__ import annotations

import re
import time

_SIZE = re.compile(r"(-?\d+(?:\.\d+)?)\s*([kmgtp]?)(i?b)?", re.IGNORECASE)
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)")
_NANOSECONDS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}


def size(text: str) -> int:
    """Bytes from ``512m``, ``1.5g``, ``64KiB``, ``1024``; the units are powers of 1024. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"invalid size: '{text}'")
    number, unit = match[1], match[2].lower()
    return int(float(number) * 1024 ** "bkmgtp".index(unit or "b"))


def bytes_text(count: float, *, binary: bool = False) -> str:
    """``1.23MB`` (powers of 1000) or, binary, ``1.18MiB``; three or four digits as Docker shows them."""
    base, units = (
        (1024.0, ("B", "KiB", "MiB", "GiB", "TiB", "PiB"))
        if binary
        else (
            1000.0,
            ("B", "kB", "MB", "GB", "TB", "PB"),
        )
    )
    value = float(count)
    index = 0
    while value >= base and index < len(units) - 1:
        value /= base
        index += 1
    digits = f"{value:.4g}" if binary else f"{value:.3g}"
    if "e" in digits:
        digits = str(round(value))
    return digits + units[index]


def duration_ns(text: str) -> int:
    """Nanoseconds from Go's durations: ``1h30m``, ``250ms``, ``0``. Raises ValueError."""
    body = text[1:] if text[:1] in "+-" else text
    sign = -1 if text.startswith("-") else 1
    if body == "0":
        return 0
    position = total = 0
    while position < len(body):
        match = _DURATION_PART.match(body, position)
        if match is None:
            break
        total += int(float(match[1]) * _NANOSECONDS[match[2]])
        position = match.end()
    if not body or position < len(body):
        raise ValueError(f'time: invalid duration "{text}"')
    return sign * total


def span(seconds: float) -> str:
    """How long, roughly, in Docker's words: ``Less than a second``, ``5 minutes``, ``About an hour``, ``3 weeks``."""
    whole = int(seconds)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    minutes = whole // 60
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    days = hours // 24
    if days < 14:
        return f"{days} days"
    if days < 60:
        return f"{days // 7} weeks"
    if days < 730:
        return f"{days // 30} months"
    return f"{days // 365} years"


def ago(when: float, *, now: float | None = None) -> str:
    """``5 minutes ago``, from seconds since the epoch; "N/A" for 0 and before."""
    if when <= 0:
        return "N/A"
    return f"{span((time.time() if now is None else now) - when)} ago"


_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d)(?::(\d\d)(?::(\d\d)(\.\d+)?)?)?(Z|[+-]\d\d:?\d\d)?)?", re.IGNORECASE
)


def epoch(text: str) -> float:
    """Seconds since the epoch of an RFC 3339 time (local without a zone, as Docker has it). Raises ValueError."""
    match = _RFC3339.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a time: '{text}'")
    fields = [int(part or 0) for part in match.groups()[:6]]
    struct = (fields[0], fields[1], fields[2], fields[3], fields[4], fields[5], 0, 0, -1)
    zone = match[8]
    fraction = float(match[7] or 0)
    if zone is None:
        return time.mktime(struct) + fraction
    import calendar

    offset = 0
    if zone.upper() != "Z":
        offset = (int(zone[1:3]) * 60 + int(zone[-2:])) * (-60 if zone[0] == "-" else 60)
    return calendar.timegm(struct) - offset + fraction


def moment(text: str, *, now: float | None = None) -> str:
    """A --since or --until as the API wants it: seconds with a fraction, from a time, a number or ``10m`` (ago).

    Raises ValueError.
    """
    if not text:
        return ""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return text
    try:
        back = duration_ns(text)
    except ValueError:
        return f"{epoch(text):.9f}"
    return f"{(time.time() if now is None else now) - back / 1e9:.9f}"


def timestamp(nanoseconds: int) -> str:
    """Local time with its zone, as events show it: 2024-05-01T12:00:00.000000001+02:00."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    local = time.localtime(seconds)
    zone = time.strftime("%z", local)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', local)}.{rest:09d}{zone[:3]}:{zone[3:]}"
