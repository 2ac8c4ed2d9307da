"""Making a Debian base image with mmdebstrap. Equal packages give an equal image."""

from __future__ import annotations

import asyncio
import shutil
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from enisle.archive.copy import format_time
from enisle.contracts import Progress
from enisle.errors import NotSupported, Unavailable
from enisle.images.bootstrap.built import ENVIRONMENT, Built, proxies
from enisle.images.bootstrap.recipes import PATH, Suite, read_sources, sources_for
from enisle.images.platforms import host_platform
from enisle.model.image import ImageConfig

_CHUNK = 1 << 18
# With mounts and processes of its own, which end with it, as it does with us: what it mounts must not outlive it.
_ALONE = ("setpriv", "--pdeathsig", "KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")

# Documentation in all languages is half of a minimal system; licences have to stay.
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*", "/usr/share/groff/*")
_KEPT = ("/usr/share/doc/*/copyright", "/usr/share/locale/locale.alias")

_CLEAN = (
    ': "${1:?}" && rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/var/cache/apt/archives/*.deb '
    '"$1"/var/cache/ldconfig/aux-cache "$1"/var/log/apt "$1"/var/log/dpkg.log "$1"/var/log/alternatives.log '
    '"$1"/var/log/bootstrap.log "$1"/etc/dpkg/dpkg.cfg.d/99mmdebstrap "$1"/etc/apt/apt.conf.d/99mmdebstrap '
    '"$1"/etc/hostname "$1"/etc/resolv.conf "$1"/etc/machine-id "$1"/run/* "$1"/tmp/*'
)
_SETTLE = (
    'printf "#!/bin/sh\\nexit 101\\n" > "$1"/usr/sbin/policy-rc.d && chmod 755 "$1"/usr/sbin/policy-rc.d && '
    'printf \'Apt::AutoRemove::SuggestsImportant "false";\\nAcquire::Languages "none";\\n\' '
    '> "$1"/etc/apt/apt.conf.d/90minimal'
)


@asynccontextmanager
async def debian(suite: Suite, work: Path, progress: Progress) -> AsyncIterator[Built]:
    tool = shutil.which("mmdebstrap")
    if tool is None:
        raise NotSupported("mmdebstrap is missing, so Debian images cannot be made.", remedy="Install mmdebstrap.")
    sources = "\n".join(sources_for(suite, read_sources())) + "\n"
    progress({"status": f"Making debian:{suite.version} from packages", "id": suite.codename})
    process = await asyncio.create_subprocess_exec(
        *_ALONE,
        *mmdebstrap_arguments(tool, suite),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        cwd="/",
        env=ENVIRONMENT | {"TMPDIR": str(work), "SOURCE_DATE_EPOCH": str(suite.epoch)} | proxies(),
        limit=1 << 20,
    )
    assert process.stdin is not None
    process.stdin.write(sources.encode())
    process.stdin.close()
    said: list[str] = []
    listening = asyncio.create_task(_listen(process, said, progress, suite.codename))
    try:
        yield Built(
            stream=_output(process, listening, said, suite),
            config=ImageConfig(env=(PATH,), command=("bash",)),
            created_by=f"mmdebstrap --variant=minbase {suite.codename}",
            created=format_time(suite.epoch * 1_000_000_000),
        )
    finally:
        if process.returncode is None:
            process.kill()  # all it started and mounted ends with it
            await process.wait()
        listening.cancel()


def mmdebstrap_arguments(tool: str, suite: Suite) -> list[str]:
    """The command that writes the tar of a minimal system to its output."""
    options = [f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT]
    options += [f"--dpkgopt=path-include={pattern}" for pattern in _KEPT]
    return [
        tool,
        "--mode=root",
        "--variant=minbase",
        "--format=tar",
        *options,
        "--dpkgopt=force-unsafe-io",
        '--aptopt=Acquire::Languages "none"',
        '--aptopt=Apt::Install-Recommends "false"',
        f"--customize-hook={_SETTLE}",
        f"--customize-hook={_CLEAN}",
        f"--architectures={_debian_architecture()}",
        suite.codename,
        "-",
        "-",
    ]


def _debian_architecture() -> str:
    architecture = host_platform().architecture
    return {"386": "i386", "ppc64le": "ppc64el", "arm": "armhf"}.get(architecture, architecture)


async def _listen(process: Process, said: list[str], progress: Progress, name: str) -> None:
    assert process.stderr is not None
    while line := await process.stderr.readline():
        text = line.decode(errors="replace").strip()
        if text.startswith(("E:", "W:", "I:")):
            said.append(text)
            del said[:-20]
        if text.startswith("I: ") and "-hook" not in text:
            progress({"status": text[3:].rstrip("."), "id": name})


async def _output(
    process: Process, listening: asyncio.Task[None], said: list[str], suite: Suite
) -> AsyncIterator[bytes]:
    assert process.stdout is not None
    while piece := await process.stdout.read(_CHUNK):
        yield piece
    await listening
    if await process.wait() != 0:
        reasons = [line for line in said if line.startswith("E:")] or said[-3:]
        raise Unavailable(
            f"debian:{suite.version} could not be made: {' '.join(reasons)[:500]}.",
            remedy="Check that the package sources in /etc/apt are in reach.",
        )
