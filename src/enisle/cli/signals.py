"""Signals as numbers on a descriptor, so that a poll loop can treat them like any other input."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from types import FrameType
from typing import Any

FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
"""What ``--sig-proxy`` passes on to the workload."""


class Signals:
    """Catches the given signals while the block lasts; ``take`` gives those that came."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = numbers
        self._before: dict[int, Any] = {}
        self._reader, self._writer = -1, -1
        self._wakeup_before = -1

    def __enter__(self) -> Signals:
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._numbers:
            self._before[number] = signal.signal(number, _nothing)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._reader)
        os.close(self._writer)

    def fileno(self) -> int:
        """The descriptor that is readable when signals have come."""
        return self._reader

    def take(self) -> list[int]:
        """The signals that have come since the last call, in order."""
        try:
            return list(os.read(self._reader, 512))
        except BlockingIOError:
            return []


def _nothing(number: int, frame: FrameType | None) -> None:
    """The wakeup descriptor has the number; Python only needs some handler, or the default action would be taken."""
