"""Compiling the guest agent: by the package's build where there is a compiler, else when it is first needed."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

from enisle.errors import NotSupported, Unavailable

SOURCES = Path(__file__).parent / "agent"
PREBUILT = "agent.bin"  # beside the sources, if the package was built with a compiler
PREBUILT_STAMP = "agent.stamp"  # holds stamp()
_FLAGS = (
    "-static -Os -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -fno-asynchronous-unwind-tables "
    "-ffunction-sections -Wl,--gc-sections -s"
).split()


@cache
def sources_digest() -> str:
    """A digest of the agent's sources: what a built agent is known by."""
    digest = hashlib.sha256()
    for path in sorted([*SOURCES.glob("*.c"), *SOURCES.glob("*.h")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def stamp() -> str:
    """What a prebuilt agent was made from, and for."""
    return f"{sources_digest()} {os.uname().machine}"


def agent(scratch: Path) -> bytes:
    """The agent's program: the one built with the package if it fits the sources, else compiled now, in ``scratch``.

    The compiler does not end with us, so what it writes is the caller's to sweep: a killed caller's remains.
    """
    try:
        if (SOURCES / PREBUILT_STAMP).read_text() == stamp():
            return (SOURCES / PREBUILT).read_bytes()
    except FileNotFoundError:
        pass
    target = scratch / "agent"
    compile_agent(target)
    program = target.read_bytes()
    target.unlink()
    return program


def compile_agent(target: Path) -> None:
    """Compile the agent. musl makes it an eighth of the size that glibc does; either works."""
    sources = sorted(os.fspath(path) for path in SOURCES.glob("*.c"))
    for compiler, extra in _compilers():
        command = [compiler, *_FLAGS, *extra, "-o", os.fspath(target), *sources]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return
        reason = done.stderr.strip()
    else:
        if not shutil.which("cc") and not shutil.which("musl-gcc"):
            raise NotSupported(
                "The guest agent cannot be built: there is no C compiler.",
                remedy="Install the package musl-tools, or gcc and libc6-dev.",
            )
        raise Unavailable(f"The guest agent cannot be built: {reason.splitlines()[-1] if reason else 'cc failed'}")


def _compilers() -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    if shutil.which("musl-gcc"):
        multiarch = Path("/usr/include") / f"{os.uname().machine}-linux-gnu"
        kernel_headers = ["-idirafter", "/usr/include", "-idirafter", os.fspath(multiarch)]
        found.append(("musl-gcc", kernel_headers))
    if shutil.which("cc"):
        found.append(("cc", []))
    return found
