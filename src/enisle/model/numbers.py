"""Numbers in text that strangers wrote."""

from __future__ import annotations

_MAX_DIGITS = 19  # of 64 bits


def decimal(text: str) -> int | None:
    """A whole number of ASCII digits that fits 64 bits; None for anything else.

    ``int`` alone takes the digits of every script, and ``str.isdigit`` others besides; of more than 4300 digits it
    raises.
    """
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS else None
