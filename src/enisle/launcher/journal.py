"""The log of an instance in the host's journal, by its native protocol (systemd.journal-fields(7), and
https://systemd.io/JOURNAL_NATIVE_PROTOCOL/): one datagram an entry. The fields are those that Docker's driver sends.

A journal that takes nothing holds up the workload for WAIT_S once, then loses lines; one that is gone loses lines.
"""

from __future__ import annotations

import socket
import struct
import time
from collections import deque

from enisle.launcher.log import Log, timestamp
from enisle.wire.plans import LogPlan

WAIT_S = 2
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
        # Not poll(2), which calls a socket without a peer writable whatever the journal's queue is like.
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", WAIT_S, 0))
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._stalled = False

    def _emit(self, stream: int, data: bytes) -> None:
        stamp = field("SYSLOG_TIMESTAMP", timestamp(time.time_ns()).encode())
        head = self._fields + field("PRIORITY", _PRIORITIES[stream]) + stamp
        *lines, part = data.split(b"\n")
        for line in lines:
            self._take(head + field("MESSAGE", line))
        if part:
            self._take(head + field("CONTAINER_PARTIAL_MESSAGE", b"true") + field("MESSAGE", part))

    def _take(self, entry: bytes) -> None:
        if not self._plan.buffer_bytes:
            if not self._send(entry, wait=not self._stalled):
                self.error = "lines of the log are lost: the journal takes none"
            return
        self._flush(wait=False)
        if not self._waiting and self._send(entry, wait=False):
            return
        if self._waiting_bytes + len(entry) > self._plan.buffer_bytes:
            self.error = "lines of the log are lost: the journal takes them too slowly"
            return
        self._waiting.append(entry)
        self._waiting_bytes += len(entry)

    def _flush(self, *, wait: bool) -> None:
        while self._waiting and self._send(self._waiting[0], wait=wait):
            self._waiting_bytes -= len(self._waiting.popleft())

    def _send(self, entry: bytes, *, wait: bool) -> bool:
        """Whether it is done with: sent, or lost because there is no journal. Otherwise the journal has no room."""
        try:
            self._socket.sendto(entry, 0 if wait else socket.MSG_DONTWAIT, self._plan.path)
        except BlockingIOError:
            self._stalled = True
            return False
        except OSError as error:
            self.error = f"lines of the log are lost: the journal: {error.strerror}"
            return True
        self._stalled = False
        return True

    def _close(self) -> None:
        if self._socket.fileno() >= 0:
            self._flush(wait=True)
            self._socket.close()


def field(name: str, value: bytes) -> bytes:
    """One field of an entry; a value of several lines is preceded by its length."""
    if b"\n" in value:
        return name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n"
    return name.encode() + b"=" + value + b"\n"
