"""Times as Docker's API writes and reads them: RFC 3339, seconds with a fraction, durations, and words for people."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime

from enisle.errors import Invalid

ZERO = "0001-01-01T00:00:00Z"
SECOND_NS = 1_000_000_000
_SECONDS = re.compile(r"(-?[0-9]{1,12})(?:\.([0-9]{0,9})[0-9]*)?")
_DURATION = re.compile(r"[-+]?(?:[0-9]{1,15}(?:\.[0-9]{0,15})?(?:ns|us|µs|ms|s|m|h)){1,8}")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]*)?)(ns|us|µs|ms|s|m|h)")
_UNIT_NS = {
    "ns": 1,
    "us": 1000,
    "µs": 1000,
    "ms": 1_000_000,
    "s": SECOND_NS,
    "m": 60 * SECOND_NS,
    "h": 3600 * SECOND_NS,
}
_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2}(?::\d{2})?)(?:\.(\d{1,9}))?)?([Zz]|[+-]\d{2}:\d{2})?", re.ASCII
)


def rfc3339(time_ns: int) -> str:
    """UTC with nanoseconds, as Go's RFC3339Nano (no trailing zeros); 0 is Go's zero time."""
    if not time_ns:
        return ZERO
    seconds, nanoseconds = divmod(time_ns, SECOND_NS)
    fraction = f".{nanoseconds:09d}".rstrip("0").rstrip(".")
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + fraction + "Z"


def rfc3339_fixed(time_ns: int) -> str:
    """UTC with all nine digits, as ``docker logs -t`` has it."""
    seconds, nanoseconds = divmod(time_ns, SECOND_NS)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(seconds))}.{nanoseconds:09d}Z"


def parse_time(text: str, *, now_ns: int | None = None) -> int:
    """A point in time, ns since the epoch: seconds ("1700000000.5"), RFC 3339 (UTC where it names no zone), or a Go
    duration before ``now_ns`` ("10m"). "" is 0. Raises Invalid."""
    if not text:
        return 0
    if match := _SECONDS.fullmatch(text):
        fraction = int((match[2] or "").ljust(9, "0") or 0)
        return int(match[1]) * SECOND_NS + (-fraction if text.startswith("-") else fraction)
    if _DURATION.fullmatch(text):
        return (time.time_ns() if now_ns is None else now_ns) - _duration_ns(text)
    if match := _RFC3339.fullmatch(text):
        return _from_match(match, text)
    raise Invalid(f'failed to parse value as time or duration: "{text[:60]}"')


def _duration_ns(text: str) -> int:
    total = sum(round(float(number) * _UNIT_NS[unit]) for number, unit in _DURATION_PART.findall(text))
    return -total if text.startswith("-") else total


def _from_match(match: re.Match[str], text: str) -> int:
    zone = (match[4] or "Z").upper()
    clock = match[2] or "00:00:00"
    try:
        moment = datetime.fromisoformat(f"{match[1]}T{clock}{'+00:00' if zone == 'Z' else zone}")
    except ValueError:
        raise Invalid(f'failed to parse value as time or duration: "{text[:60]}"') from None
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    whole = moment - epoch
    return (whole.days * 86400 + whole.seconds) * SECOND_NS + int((match[3] or "").ljust(9, "0") or 0)


def to_seconds(text: str) -> int:
    """An RFC 3339 text in whole seconds since the epoch; 0 when it is none."""
    match = _RFC3339.fullmatch(text)
    try:
        return _from_match(match, text) // SECOND_NS if match else 0
    except Invalid:
        return 0


def human_duration(seconds: float) -> str:
    """As Docker's units.HumanDuration: "5 seconds", "About a minute", "2 hours", "3 weeks"."""
    whole = int(seconds)
    minutes, hours = whole // 60, int(whole / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole == 1:
        return "1 second"
    if whole < 60:
        return f"{whole} seconds"
    if minutes == 1:
        return "About a minute"
    if minutes < 60:
        return f"{minutes} minutes"
    if hours == 1:
        return "About an hour"
    if hours < 48:
        return f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{whole // 3600 // 24 // 365} years"
