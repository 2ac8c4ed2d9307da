"""Values as the program in C reads them (program/packet.c)."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable

from enisle.launcher.container.failure import ChildFailure


def number(*values: int) -> bytes:
    """Unsigned, of 32 bits each."""
    return struct.pack(f"={len(values)}I", *values)


def text(value: str | bytes) -> bytes:
    """With its length before it and a NUL behind. ChildFailure when it holds one, which C would take for its end."""
    data = os.fsencode(value)
    if b"\0" in data:
        raise ChildFailure(f"{os.fsdecode(data)!r} holds a NUL")
    return struct.pack("=I", len(data)) + data + b"\0"


def texts(values: Iterable[str | bytes]) -> bytes:
    """As many, each as of ``text``."""
    packed = [text(value) for value in values]
    return struct.pack("=I", len(packed)) + b"".join(packed)
