"""Waiting until a client has read the head of an answer."""

from __future__ import annotations

import asyncio
import fcntl
import os
import termios
from contextlib import suppress

_SPINS = 20  # turns of the event loop, some hundredths of a millisecond each
_LIMIT_MS = 50


async def wait_head_read(fd: int) -> None:
    """Return when the peer of a unix socket has read all that was sent to it, at the latest after ``_LIMIT_MS``.

    docker-py reads the head of a hijacked answer through a buffer and the stream past it: what came along with the head
    is lost to it. dockerd takes milliseconds to its first byte of output, we may not. When it raises, ``fd`` is closed.
    """
    try:
        for attempt in range(_SPINS + _LIMIT_MS):
            if not _unread(fd):
                return
            await asyncio.sleep(0 if attempt < _SPINS else 0.001)
    except BaseException:
        os.close(fd)
        raise


def _unread(fd: int) -> bool:
    """Whether the peer has not read everything (SIOCOUTQ is TIOCOUTQ); False where that cannot be told."""
    with suppress(OSError):
        return fcntl.ioctl(fd, termios.TIOCOUTQ, b"\0" * 4) != b"\0" * 4
    return False
