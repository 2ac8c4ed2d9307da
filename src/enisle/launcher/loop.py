"""The keeper's event loop: one thread, one epoll, timers, and children by pidfd."""

from __future__ import annotations

import heapq
import itertools
import os
import select
import sys
import time
from collections.abc import Callable

_READ = select.EPOLLIN
_WRITE = select.EPOLLOUT
_FAULT = select.EPOLLERR | select.EPOLLHUP


def report_exception() -> None:
    """Write the exception at hand to stderr (the launcher's log). The interpreter's own way needs no module."""
    sys.__excepthook__(*sys.exc_info())


class Timer:
    """A callback to come; ``cancel`` forgets it."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Idempotent; also after it ran."""
        self.callback = None


class EpollLoop:
    """Implements ``launcher.wall.Loop``. A callback that raises is reported on stderr and harms nobody else."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._writers: dict[int, Callable[[], None]] = {}
        self._hangups: dict[int, Callable[[], None]] = {}
        self._registered: dict[int, int] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._running = True

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever ``fd`` can be read or its other end is gone."""
        self._readers[fd] = callback
        self._register(fd)

    def remove_reader(self, fd: int) -> None:
        """Idempotent; before the descriptor is closed."""
        if self._readers.pop(fd, None):
            self._register(fd)

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back whenever ``fd`` can be written or its other end is gone."""
        self._writers[fd] = callback
        self._register(fd)

    def remove_writer(self, fd: int) -> None:
        """Idempotent; before the descriptor is closed."""
        if self._writers.pop(fd, None):
            self._register(fd)

    def add_hangup(self, fd: int, callback: Callable[[], None]) -> None:
        """Call back once the other end of ``fd`` is gone in both directions, read or not."""
        self._hangups[fd] = callback
        self._register(fd)

    def remove(self, fd: int) -> None:
        """Forget all that concerns ``fd``. Idempotent; before the descriptor is closed."""
        for table in (self._readers, self._writers, self._hangups):
            table.pop(fd, None)
        self._register(fd)

    def _register(self, fd: int) -> None:
        mask = (_READ if fd in self._readers else 0) | (_WRITE if fd in self._writers else 0)
        wanted = bool(mask) or fd in self._hangups
        known = self._registered.get(fd)
        if not wanted:
            if known is not None:
                del self._registered[fd]
                self._epoll.unregister(fd)
        elif known is None:
            self._epoll.register(fd, mask)
            self._registered[fd] = mask
        elif known != mask:
            self._epoll.modify(fd, mask)
            self._registered[fd] = mask

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call back once, after that time."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), timer))
        return timer

    def watch_pid(self, pid: int, callback: Callable[[int], None]) -> None:
        """Call back with the wait status once that child of ours has ended; it is reaped then."""
        self.watch_pidfd(pid, os.pidfd_open(pid), callback)

    def watch_pidfd(self, pid: int, pidfd: int, callback: Callable[[int], None]) -> None:
        """As ``watch_pid`` with a pidfd at hand, which becomes the loop's."""

        def ended() -> None:
            reaped, status = os.waitpid(pid, os.WNOHANG)
            if reaped:
                self.remove(pidfd)
                os.close(pidfd)
                callback(status)

        self.add_reader(pidfd, ended)

    def run(self) -> None:
        """Serve until ``stop``."""
        while self._running:
            self.run_once()

    def run_once(self) -> None:
        """Wait for something to happen and handle it."""
        for fd, events in self._poll():
            if events & (_READ | _FAULT):
                self._call(self._readers.get(fd))
            if events & (_WRITE | _FAULT):
                self._call(self._writers.get(fd))
            if events & _FAULT:
                self._call(self._hangups.get(fd))
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            timer = heapq.heappop(self._timers)[2]
            self._call(timer.callback)

    def stop(self) -> None:
        """End ``run`` after the events at hand."""
        self._running = False

    def _poll(self) -> list[tuple[int, int]]:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        timeout = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1
        return self._epoll.poll(timeout)

    def _call(self, callback: Callable[[], None] | None) -> None:
        if callback is None:
            return
        try:
            callback()
        except Exception:
            report_exception()


def complain(text: str) -> None:
    """Into the launcher's log, which is a keeper's stderr."""
    sys.stderr.write(f"keeper {os.getpid()}: {text}\n")
    sys.stderr.flush()
