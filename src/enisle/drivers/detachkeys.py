"""Detach keys: Docker's notation (``ctrl-p,ctrl-q``) as the bytes a terminal sends."""

from __future__ import annotations

from enisle.errors import Invalid

_CONTROL = {f"ctrl-{chr(letter)}": letter - ord("a") + 1 for letter in range(ord("a"), ord("z") + 1)} | {
    "ctrl-@": 0,
    "ctrl-[": 27,
    "ctrl-\\": 28,
    "ctrl-]": 29,
    "ctrl-^": 30,
    "ctrl-_": 31,
    "DEL": 127,
}


def raw_detach_keys(text: str) -> str:
    """The bytes, as latin-1 text; "" stays "" (the default). What is in control characters already stays as it is."""
    if not text or all(ord(character) < 32 for character in text):
        return text
    keys = []
    for part in text.split(","):
        code = _CONTROL.get(part, _CONTROL.get(part.lower(), ord(part) if len(part) == 1 else 256))
        if code > 127:
            raise Invalid(f"invalid detach keys ({text}) provided")
        keys.append(chr(code))
    return "".join(keys)
