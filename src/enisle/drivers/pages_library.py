"""Compiling the launcher's one piece of C (launcher/pages.c), which makes keepers smaller."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
from pathlib import Path

import enisle

SOURCE = Path(enisle.__file__ or "").parent / "launcher" / "pages.c"
_OPTIONS = ("-shared", "-fPIC", "-O2", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror")

log = logging.getLogger(__name__)


def ensure(directory: Path) -> Path | None:
    """The library in that directory, which must be root's; compiled if it is not there. Takes 0.1 s then.

    None, and a line in the log, without a compiler: all works, with keepers that take a fifth more memory.
    """
    library = directory / f"pages-{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"
    if library.exists():
        return library
    partial = library.with_suffix(f".{os.getpid()}")
    try:
        done = subprocess.run(
            [shutil.which("cc") or "gcc", *_OPTIONS, "-o", str(partial), str(SOURCE)],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if done.returncode == 0:
            os.rename(partial, library)
            return library
        reason = done.stderr.strip()
    except (OSError, subprocess.TimeoutExpired) as error:
        reason = str(error)
    partial.unlink(missing_ok=True)
    log.warning("instances take more memory than they need: %s cannot be compiled: %s", SOURCE.name, reason)
    return None
