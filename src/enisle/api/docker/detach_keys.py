"""Detach keys as Docker clients name them ("ctrl-p,ctrl-q") -> the bytes that a terminal sends."""

from __future__ import annotations

from enisle.errors import Invalid

_SPECIAL = {"@": 0, "[": 27, "\\": 28, "]": 29, "^": 30, "_": 31}


def raw_keys(text: str) -> str:
    """Each byte as one character (latin-1); "" stays "" and means the default. Raises Invalid."""
    return "".join(chr(_key(key, text)) for key in text.split(",")) if text else ""


def _key(key: str, text: str) -> int:
    if len(key) == 1 and ord(key) < 128:
        return ord(key)
    letter = key.removeprefix("ctrl-").lower()
    if key.startswith("ctrl-") and len(letter) == 1:
        if "a" <= letter <= "z":
            return ord(letter) - 96
        if letter in _SPECIAL:
            return _SPECIAL[letter]
    raise Invalid(f"Invalid detach keys ({text[:60]}) provided")
