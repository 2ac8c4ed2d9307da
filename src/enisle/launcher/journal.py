"""The log of an instance in the host's journal, by its native protocol (systemd.journal-fields(7), and
https://systemd.io/JOURNAL_NATIVE_PROTOCOL/): one datagram an entry. The fields are those that Docker's driver sends.

A journal that takes nothing holds up the workload for WAIT_S once, then loses lines; one that is gone loses lines.
"""

from __future__ import annotations

import select
import socket
import struct
from collections import deque

from enisle.launcher.log import Log
from enisle.wire.plans import LogPlan

WAIT_S = 2.0
_PRIORITIES = {1: b"6", 2: b"3"}  # informational, error: what Docker gives stdout and stderr


class JournalLog(Log):
    """``plan.path`` is the journal's socket, ``plan.extra`` the fields of every entry.

    ``plan.buffer_bytes`` not 0: entries that the journal does not take at once wait, up to so many bytes; what comes
    beyond that is lost.
    """

    def __init__(self, plan: LogPlan) -> None:
        super().__init__(plan)
        self._fields = b"".join(field(name, plan.extra[name].encode()) for name in sorted(plan.extra))
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._stalled = False

    def _emit(self, stream: int, data: bytes) -> None:
        head = self._fields + field("PRIORITY", _PRIORITIES[stream])
        *lines, part = data.split(b"\n")
        for line in lines:
            self._take(head + field("MESSAGE", line))
        if part:
            self._take(head + field("CONTAINER_PARTIAL_MESSAGE", b"true") + field("MESSAGE", part))

    def _take(self, entry: bytes) -> None:
        if not self._plan.buffer_bytes:
            self._send(entry, wait_s=0.0 if self._stalled else WAIT_S)
            return
        self._flush(wait_s=0.0)
        if not self._waiting and self._send(entry, wait_s=0.0, keep=True):
            return
        if self._waiting_bytes + len(entry) > self._plan.buffer_bytes:
            self.error = "lines of the log are lost: the journal takes them too slowly"
            return
        self._waiting.append(entry)
        self._waiting_bytes += len(entry)

    def _flush(self, *, wait_s: float) -> None:
        while self._waiting and self._send(self._waiting[0], wait_s=wait_s, keep=True):
            self._waiting_bytes -= len(self._waiting.popleft())

    def _send(self, entry: bytes, *, wait_s: float, keep: bool = False) -> bool:
        """Whether it is done with: sent, or lost for good. ``keep``: what the journal has no room for is not lost."""
        for last in (wait_s <= 0, True):
            try:
                self._socket.sendto(entry, self._plan.path)
                self._stalled = False
                return True
            except BlockingIOError:
                if not last:
                    select.select([], [self._socket], [], wait_s)
            except OSError as error:
                self.error = f"lines of the log are lost: the journal: {error.strerror}"
                return True
        self._stalled = True
        if not keep:
            self.error = "lines of the log are lost: the journal takes none"
        return not keep

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            self._flush(wait_s=WAIT_S)
            self._socket.close()


def field(name: str, value: bytes) -> bytes:
    """One field of an entry; a value of several lines is preceded by its length."""
    if b"\n" in value:
        return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"
