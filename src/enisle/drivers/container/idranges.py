"""Ranges of the host's user and group ids for containers with a user namespace of their own, one range each.

A claim is a link ``<data root>/idranges/<number>`` to the instance's id. It holds as long as the instance's directory
is there, so that nothing has to be released, and a claim survives whatever happens to enisled.
"""

from __future__ import annotations

import os
from pathlib import Path

from enisle.errors import Exhausted

SIZE = 65536
FIRST = 0x60000000  # the top of the range for containers (systemd's UIDS-GIDS); above it are the VMs' own identities
COUNT = 4096


class IdRanges:
    """``instances_root`` holds a directory per instance. Used by one enisled, from one thread."""

    def __init__(self, data_root: Path) -> None:
        self._directory = data_root / "idranges"
        self._instances_root = data_root / "instances"

    def claim(self, instance_id: str) -> int:
        """The first id of the instance's range: the one it has, or a free one. Exhausted when all are taken."""
        self._directory.mkdir(mode=0o700, exist_ok=True)
        start = int(instance_id[:8], 16)
        for step in range(COUNT):
            number = (start + step) % COUNT
            if self._take(self._directory / str(number), instance_id):
                return FIRST + number * SIZE
        raise Exhausted(
            f"All {COUNT} ranges of user ids are taken by containers with user namespaces of their own.",
            remedy="Remove containers that are not needed, or use --userns host.",
        )

    def _take(self, link: Path, instance_id: str) -> bool:
        try:
            os.symlink(instance_id, link)
            return True
        except FileExistsError:
            owner = os.readlink(link)
        if owner == instance_id:
            return True
        if (self._instances_root / owner).exists():
            return False
        fresh = link.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        os.symlink(instance_id, fresh)
        os.rename(fresh, link)
        return True
