"""How much of the disk a directory tree takes: what du(1) says of it."""

from __future__ import annotations

import os
from pathlib import Path

_BLOCK = 512  # stat(2)'s st_blocks, whatever the file system's own blocks are


def allocated_bytes(root: Path) -> int:
    """Bytes on the disk of a file, or of a directory and all below it; hard links once, 0 for what is not there."""
    try:
        facts = os.lstat(root)
    except OSError:
        return 0
    total = facts.st_blocks
    seen: set[tuple[int, int]] = set()
    pending = [os.fspath(root)]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:  # no directory, or gone meanwhile
            continue
        for entry in entries:
            try:
                facts = entry.stat(follow_symlinks=False)
            except OSError:
                continue
            if entry.is_dir(follow_symlinks=False):
                pending.append(entry.path)
            elif facts.st_nlink > 1:
                if (facts.st_dev, facts.st_ino) in seen:
                    continue
                seen.add((facts.st_dev, facts.st_ino))
            total += facts.st_blocks
    return total * _BLOCK
