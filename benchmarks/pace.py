"""How many rounds a measure takes: as many as asked for, but no more than its share of time allows."""

from __future__ import annotations

import time
from collections.abc import Iterator

SHARE_S = 20.0
"""After so many seconds a measure of one engine begins no further round: all of them together end in 20 minutes."""


def paced(count: int, *, share_s: float = SHARE_S) -> Iterator[int]:
    """0, 1, … up to ``count`` rounds; at least one."""
    begun = time.monotonic()
    for number in range(count):
        if number and time.monotonic() - begun > share_s:
            return
        yield number
