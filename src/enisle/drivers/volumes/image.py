"""The disk of a volume with a size limit, where the file system has no project quotas: a sparse file with an ext4."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from enisle.errors import Exhausted, Internal, Invalid, NotSupported

MINIMUM_BYTES = 8 << 20
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
# No share for root alone; tables are zeroed when used, so that the file stays small.
_MKFS = ["mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard", "--"]


def make(path: Path, size_bytes: int) -> None:
    """Make it at a path where nothing is. Exhausted when the disk is full; NotSupported without mkfs.ext4."""
    if size_bytes < MINIMUM_BYTES:
        raise Invalid(f"a size limit of {size_bytes} bytes is too small: it is {MINIMUM_BYTES >> 20}m at least")
    try:
        with open(path, "xb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.truncate(size_bytes)
        done = subprocess.run([*_MKFS, str(path)], env=_ENVIRONMENT, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NotSupported(
            "A size limit needs mkfs.ext4 or a file system with project quotas.",
            remedy="Install the package e2fsprogs.",
        ) from error
    except OSError as error:
        kind = Exhausted if error.errno in (28, 122) else Internal  # ENOSPC, EDQUOT
        raise kind(f"the disk of the volume cannot be made: {error.strerror}") from error
    if done.returncode != 0:
        raise Internal(f"mkfs.ext4 failed: {done.stderr.strip()[:300]}")
