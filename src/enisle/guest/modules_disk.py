"""A read-only disk with every module of the guest's kernel, for VMs that may load modules."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from pathlib import Path

from enisle.errors import Internal

NAME = "modules.erofs"
_INDEXES = ("modules.order", "modules.builtin", "modules.builtin.modinfo")
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}


def relative_path(member: str, release: str) -> str:
    """Where a file of a kernel package lies on the disk; "" for one that does not belong there."""
    _, found, path = member.partition(f"lib/modules/{release}/")
    if not found or ".." in path.split("/"):
        return ""
    for ending in (".xz", ".zst", ".gz"):
        path = path.removesuffix(ending)
    return path if path.endswith(".ko") or path in _INDEXES else ""


def make(files: Iterable[tuple[str, bytes]], release: str, target: Path) -> bool:
    """Write the disk from (path below /lib/modules/RELEASE, content); False without depmod or mkfs.erofs.

    Raises Internal when one of them fails.
    """
    tools = [shutil.which(name, path=_ENVIRONMENT["PATH"]) for name in ("depmod", "mkfs.erofs")]
    if None in tools:
        return False
    with tempfile.TemporaryDirectory(prefix="new-", dir=target.parent) as place:
        top = Path(place) / "lib/modules" / release
        for path, content in files:
            file = top / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        _run([str(tools[0]), "-b", place, release])
        _run([str(tools[1]), "--quiet", "-zlz4", "-T0", "--all-root", os.fspath(target), os.fspath(top)])
    target.chmod(0o444)
    return True


def _run(command: list[str]) -> None:
    done = subprocess.run(command, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise Internal(
            f"{command[0]} failed for the guest kernel's modules: {lines[-1] if lines else 'no reason given'}"
        )
