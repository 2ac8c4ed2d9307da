"""The number fields of tar headers: octal text, or base 256 where octal is too short (GNU tar manual, "Extensions")."""

from __future__ import annotations

import functools

from enisle.archive.entry import ArchiveError

_REMEMBERED = 1024  # the fields of one header are mostly those of the last: owner, mode, time


@functools.lru_cache(_REMEMBERED)
def parse_number(field: bytes) -> int:
    """The value of a header field. Raises ArchiveError for anything but octal digits or base 256."""
    lead = field[0]
    if lead & 0x80:
        value = int.from_bytes(field, "big")
        if lead & 0x40:  # two's complement over all bits but the marker's
            return value - (1 << (8 * len(field)))
        return value & ~(0x80 << (8 * (len(field) - 1)))
    text = field.partition(b"\0")[0].strip(b" ")
    if not text:
        return 0
    if text.strip(b"01234567"):
        raise ArchiveError(f"a header field is no octal number: {text[:24]!r}")
    return int(text, 8)


def format_number(value: int, width: int) -> bytes:
    """A field of ``width`` bytes: octal and NUL if it fits, else base 256."""
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    if value < 0:
        return (value + (1 << (8 * width))).to_bytes(width, "big")
    return (value | (0x80 << (8 * (width - 1)))).to_bytes(width, "big")


def parse_decimal(text: bytes, what: str) -> int:
    """A non-negative decimal of at most 20 digits, as pax records have them."""
    if not text.isdigit() or len(text) > 20:
        raise ArchiveError(f"{what} is no decimal number: {text[:24]!r}")
    return int(text)


@functools.lru_cache(_REMEMBERED)
def parse_time_ns(text: bytes) -> int:
    """A pax time: seconds with an optional fraction, possibly negative."""
    sign = -1 if text.startswith(b"-") else 1
    whole, _, fraction = text.lstrip(b"+-").partition(b".")
    if not whole.isdigit() or len(whole) > 15 or (fraction and not fraction.isdigit()):
        raise ArchiveError(f"a pax time is malformed: {text[:32]!r}")
    return sign * (int(whole) * 1_000_000_000 + int(fraction[:9].ljust(9, b"0")))
