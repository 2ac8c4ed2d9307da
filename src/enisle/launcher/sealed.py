"""Programs in memory that nobody can write, whoever finds them as /proc/PID/exe of what runs them (CVE-2019-5736)."""

from __future__ import annotations

import fcntl
import os

SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_ABOVE_STDIO = 16  # and above whatever else a child finds at a certain number


def sealed_copy(path: str, name: str) -> int:
    """A descriptor of a copy of that file, close-on-exec; ``name`` is what /proc calls it. OSError."""
    copy = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(path, "rb", buffering=0) as source:
            while os.sendfile(copy, source.fileno(), None, 1 << 24):
                pass
        fcntl.fcntl(copy, fcntl.F_ADD_SEALS, SEALS)
        return fcntl.fcntl(copy, fcntl.F_DUPFD_CLOEXEC, _ABOVE_STDIO)
    finally:
        os.close(copy)
