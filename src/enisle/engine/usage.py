"""How much disk a directory tree takes."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

_BLOCK = 512


async def tree_bytes(root: Path) -> int:
    """Bytes on disk of all files below ``root``, hard links once; what vanishes meanwhile counts nothing."""
    return await asyncio.get_running_loop().run_in_executor(None, measure, root)


def measure(root: Path) -> int:
    """As ``tree_bytes``, blocking."""
    total = 0
    seen: set[tuple[int, int]] = set()
    pending = [os.fspath(root)]
    while pending:
        try:
            entries = list(os.scandir(pending.pop()))
        except OSError:
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
            total += facts.st_blocks * _BLOCK
    return total
