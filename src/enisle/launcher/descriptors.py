"""Which descriptors a forked process keeps."""

from __future__ import annotations

import os
from collections.abc import Iterable

from enisle.linux.syscalls import close_range


def keep_only(kept: Iterable[int], *, first: int = 3) -> None:
    """Close every descriptor from ``first`` on but those; nothing is leaked into what we become."""
    for fd in sorted(set(kept)):
        if fd < first:
            continue
        if fd > first:
            close_range(first, fd - 1)
        first = fd + 1
    close_range(first)


def place(sources: list[int]) -> None:
    """Make each descriptor of the list the one whose number is its index; all of them must lie above that range."""
    for target, fd in enumerate(sources):
        os.dup2(fd, target, inheritable=True)
