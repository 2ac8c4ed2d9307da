"""Compiling the launcher's pieces of C: pages.c makes keepers smaller, container/program starts and execs quicker."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import enisle

_LAUNCHER = Path(enisle.__file__ or "").parent / "launcher"
_OPTIONS = ("-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", "-Werror")
_STATIC = ("-static", "-Os", "-s")
_COMPILING_S = 300  # it takes less than a second, but a minute in a VM without KVM

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Native:
    """Where the compiled pieces are; None: all works without."""

    pages: Path | None = None
    enter: Path | None = None

    def words(self) -> list[str]:
        """As the launcher takes them."""
        return [str(each) if each is not None else "" for each in (self.pages, self.enter)]


def ensure(directory: Path) -> Native:
    """The pieces in that directory, which must be root's; compiled where they are not there. Takes 0.2 s then.

    A line in the log for each that cannot be compiled, above all without a compiler.
    """
    headers = Path("/usr/include") / f"{os.uname().machine}-linux-gnu"
    musl = ("musl-gcc", "-idirafter", "/usr/include", "-idirafter", str(headers))  # starts in half the time
    usual = ("cc", "gcc")  # the first is an alternative of the system's, which may lead nowhere
    shared = [(compiler, "-shared", "-fPIC", "-O2") for compiler in usual]
    static = [(*musl, *_STATIC), *((compiler, *_STATIC) for compiler in usual)]
    return Native(
        pages=_ensure(directory, [_LAUNCHER / "pages.c"], "pages-{}.so", shared),
        enter=_ensure(directory, sorted((_LAUNCHER / "container/program").glob("*.[ch]")), "enter-{}", static),
    )


def _ensure(directory: Path, sources: Sequence[Path], name: str, ways: Sequence[Sequence[str]]) -> Path | None:
    """``name``: with a place for a digest of the sources. ``ways``: compilers with options of their own, best first."""
    digest = hashlib.sha256(b"\0".join(source.read_bytes() for source in sources))
    made = directory / name.format(digest.hexdigest()[:16])
    if made.exists():
        return made
    # As one unit, in a third of the time.
    unit = "".join(f'#include "{source}"\n' for source in sources if source.suffix == ".c")
    partial = made.with_name(f"{made.name}.{os.getpid()}")
    reason = "there is no C compiler"
    for compiler, *options in ways:
        program = shutil.which(compiler)
        if program is None:
            continue
        command = [program, *options, *_OPTIONS, "-o", str(partial), "-x", "c", "-"]
        try:
            done = subprocess.run(
                command, input=unit, capture_output=True, text=True, check=False, timeout=_COMPILING_S
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
            continue
        if done.returncode == 0:
            os.rename(partial, made)
            return made
        reason = done.stderr.strip()
    partial.unlink(missing_ok=True)
    what = made.name.partition("-")[0]
    log.warning("containers take more memory or time than they need: %s cannot be compiled: %s", what, reason)
    return None
