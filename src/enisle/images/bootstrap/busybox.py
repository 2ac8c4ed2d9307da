"""Making a busybox image from Debian's package busybox-static."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from pathlib import Path

from enisle.archive.copy import format_time
from enisle.archive.entry import Entry, FileKind
from enisle.archive.writer import TarWriter
from enisle.contracts import Progress
from enisle.errors import NotSupported, Unavailable
from enisle.images.bootstrap.built import ENVIRONMENT, Built, proxies
from enisle.images.bootstrap.recipes import PATH
from enisle.model.image import ImageConfig

_PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\n"
    "daemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "nobody:x:65534:65534:nobody:/home:/bin/false\n"
)
_GROUP = "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n"
_DIRECTORIES = {"bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "proc": 0o755, "root": 0o700, "sbin": 0o755}
_MORE_DIRECTORIES = {"sys": 0o755, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "var": 0o755}


async def busybox(work: Path, progress: Progress) -> Built:
    progress({"status": "Making busybox from the package busybox-static", "id": "busybox"})
    program = await _static_busybox(work)
    applets = (await _run(str(program), "--list-full")).split()
    data = program.read_bytes()
    mtime_ns = int(program.stat().st_mtime) * 1_000_000_000
    archive = busybox_tar(data, applets, mtime_ns)

    async def stream() -> AsyncIterator[bytes]:
        yield archive

    return Built(
        stream=stream(),
        config=ImageConfig(env=(PATH,), command=("sh",)),
        created_by="busybox-static",
        created=format_time(mtime_ns),
    )


async def _static_busybox(work: Path) -> Path:
    """The program of the installed package, or else of one downloaded for this."""
    installed = Path("/usr/share/doc/busybox-static/copyright").exists()
    for path in (Path("/bin/busybox"), Path("/usr/bin/busybox")):
        if installed and path.is_file():
            return path
    await _run("apt-get", "download", "busybox-static", cwd=work)
    packages = list(work.glob("busybox-static_*.deb"))
    if not packages:
        raise Unavailable("the package busybox-static could not be downloaded.", remedy="Run apt-get update.")
    await _run("dpkg-deb", "--extract", str(packages[0]), str(work / "package"))
    for name in ("bin/busybox", "usr/bin/busybox"):
        if (work / "package" / name).is_file():
            return work / "package" / name
    raise Unavailable("the package busybox-static holds no busybox.")


async def _run(*arguments: str, cwd: Path = Path("/")) -> str:
    try:
        process = await asyncio.create_subprocess_exec(
            *arguments, stdin=DEVNULL, stdout=PIPE, stderr=PIPE, cwd=cwd, env=ENVIRONMENT | proxies()
        )
    except FileNotFoundError as error:
        raise NotSupported(f"{arguments[0]} is missing.", remedy="Images are made from packages on Debian.") from error
    output, errors = await process.communicate()
    if process.returncode != 0:
        raise Unavailable(f"{arguments[0]} failed: {errors.decode(errors='replace').strip()[-300:]}")
    return output.decode()


def busybox_tar(program: bytes, applets: list[str], mtime_ns: int) -> bytes:
    """The root: one program under all its names, and the few files that programs look for."""
    pieces: list[bytes] = []
    writer = TarWriter(_List(pieces))
    for name, mode in sorted((_DIRECTORIES | _MORE_DIRECTORIES).items()):
        writer.add(Entry(name=name.encode(), kind=FileKind.DIRECTORY, mode=mode, mtime_ns=mtime_ns))
    writer.add(Entry(name=b"bin/busybox", mode=0o755, size=len(program), mtime_ns=mtime_ns), [program])
    for applet in sorted({_place(name) for name in applets} - {"bin/busybox"}):
        link = Entry(
            name=applet.encode(), kind=FileKind.HARD_LINK, target=b"bin/busybox", mode=0o755, mtime_ns=mtime_ns
        )
        writer.add(link)
    for name, text in (("etc/passwd", _PASSWD), ("etc/group", _GROUP)):
        writer.add(Entry(name=name.encode(), size=len(text), mtime_ns=mtime_ns), [text.encode()])
    writer.close()
    return b"".join(pieces)


def _place(applet: str) -> str:
    """Where an applet goes: those without one of the four usual directories into bin."""
    above, _, name = applet.strip("/").rpartition("/")
    return f"{above if above in ('bin', 'sbin', 'usr/bin', 'usr/sbin') else 'bin'}/{name}"


class _List:
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def write(self, data: bytes | memoryview, /) -> None:
        self._pieces.append(bytes(data))
