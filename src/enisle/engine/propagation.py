"""Which propagation a bind may have: it can only pass on what the mount its source lies on passes on itself.

The rules and words are dockerd's; the kernel would silently give a private mount instead (mount_namespaces(7)).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from enisle.errors import Invalid

_SHARED = frozenset({"shared", "rshared"})
_SLAVE = frozenset({"slave", "rslave"})


def check(source: str, propagation: str) -> None:
    """Invalid when the source cannot propagate so."""
    if propagation not in _SHARED and propagation not in _SLAVE:
        return
    lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    place, tags = mount_of(os.path.realpath(source), lines)
    if propagation in _SHARED and "shared" not in tags:
        raise Invalid(f"path {source} is mounted on {place} but it is not a shared mount")
    if propagation in _SLAVE and not tags & {"shared", "master"}:
        raise Invalid(f"path {source} is mounted on {place} but it is not a shared or slave mount")


def mount_of(path: str, lines: Iterable[str]) -> tuple[str, set[str]]:
    """Where the mount that a path lies on is mounted, and its tags (shared, master), from mountinfo's lines
    (proc_pid_mountinfo(5)). Pure."""
    found, tags = "/", set[str]()
    for line in lines:
        words = line.split(" ")
        place = _unescaped(words[4])
        below = path == place or path.startswith(place.rstrip("/") + "/")
        if below and len(place) >= len(found):  # of mounts at one place the last one is on top
            optional = words[6 : words.index("-", 6)]
            found, tags = place, {tag.partition(":")[0] for tag in optional}
    return found, tags


def _unescaped(text: str) -> str:
    for octal, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(octal, char)
    return text
