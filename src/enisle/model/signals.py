"""Signal names as users write them."""

from __future__ import annotations

import re
import signal

from enisle.errors import Invalid
from enisle.model.numbers import decimal

_REALTIME = re.compile(r"RTM(IN|AX)(?:([+-])(\d{1,2}))?")
_HIGHEST = 64


def signal_number(text: str) -> int:
    """ "KILL", "sigterm", "9", "SIGRTMIN+3" as a number. Invalid in Docker's wording."""
    name = text.strip().upper()
    if name.isdecimal():
        if 0 < (number := decimal(name) or 0) <= _HIGHEST:
            return number
        raise Invalid(f"Invalid signal: {text[:40]}")
    name = name.removeprefix("SIG")
    realtime = _REALTIME.fullmatch(name)
    if realtime:
        # The C library keeps 32 and 33 for itself: SIGRTMIN is 34 for everybody who uses one (signal(7)).
        number = 34 if realtime[1] == "IN" else _HIGHEST
        number += int(f"{realtime[2]}{realtime[3]}") if realtime[2] else 0
        if 34 <= number <= _HIGHEST:
            return number
    member = signal.Signals.__members__.get("SIG" + name)
    if member is None:
        raise Invalid(f"Invalid signal: {text[:40]}")
    return int(member)
