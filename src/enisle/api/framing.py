"""Docker's multiplexed stream: each piece of output behind an 8-byte header (stream, three zeros, length)."""

from __future__ import annotations

import struct

STDOUT = 1
STDERR = 2
_HEADER = struct.Struct(">BxxxI")


def frame(stream: int, data: bytes) -> bytes:
    """One piece of output of that stream."""
    return _HEADER.pack(stream, len(data)) + data
