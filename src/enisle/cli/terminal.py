"""The user's terminal: raw mode, its size, and the keys that detach from a workload."""

from __future__ import annotations

import os
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager

from enisle.cli.flags import UsageError

DEFAULT_DETACH_KEYS = "ctrl-p,ctrl-q"


@contextmanager
def raw_mode(descriptor: int) -> Iterator[None]:
    """Every key goes to the workload as it is, until the block is left."""
    before = termios.tcgetattr(descriptor)
    # Not TCSAFLUSH, which would throw away what was typed ahead.
    tty.setraw(descriptor, termios.TCSADRAIN)
    try:
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def size() -> tuple[int, int] | None:
    """Rows and columns of the terminal we write to (or read from); None without one."""
    for descriptor in (1, 0, 2):
        try:
            found = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if found.lines and found.columns:
            return found.lines, found.columns
    return None


def parse_keys(text: str) -> bytes:
    """``ctrl-p,ctrl-q`` or ``a,ctrl-@`` as the bytes a terminal sends. Raises UsageError."""
    found = bytearray()
    for key in text.split(","):
        name = key.strip()
        if len(name) == 1:
            found += name.encode()
        elif name.lower().startswith("ctrl-") and len(name) == 6 and "@" <= name[5].upper() <= "_":
            found.append(ord(name[5].upper()) - 0x40)
        else:
            raise UsageError(f"invalid detach keys ({text}): unknown key '{key}'")
    return bytes(found)


class DetachKeys:
    """Looks for a sequence of keys in what is typed; holds back what may be its beginning."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the whole sequence has been typed."""
        if not self._sequence:
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self._sequence[self._matched]:
                self._matched += 1
                if self._matched == len(self._sequence):
                    self._matched = 0
                    return bytes(out), True
                continue
            out += self._sequence[: self._matched]
            self._matched = 0
            if byte == self._sequence[0]:
                self._matched = 1
            else:
                out.append(byte)
        return bytes(out), False
