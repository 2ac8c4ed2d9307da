"""Groups that other programs make beside ours: in hierarchies that we set nothing in (named ones, net_cls, a v2)."""

from __future__ import annotations

import os
from contextlib import suppress


def remove_strays(path: str) -> None:
    """Remove the group of that path wherever it is empty. A group that is not there, or in use, is passed over."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        lines = file.readlines()
    for line in lines:
        fields, _, tail = line.partition(" - ")
        if tail.startswith(("cgroup ", "cgroup2 ")):
            with suppress(OSError):
                os.rmdir(os.path.join(fields.split(" ")[4].replace("\\040", " "), path))
