"""Assembling what a VM boots: kernel and initramfs, under one directory, made once and used by all.

``python -m enisle.guest.build --output DIR`` does it by hand. The directory then holds ``<release>-<digest>/`` with
``vmlinux`` and ``initramfs``, and ``current``, a link to the one in use.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from enisle.errors import EnisleError, NotSupported
from enisle.guest import agent_build, kernel, modules, modules_disk
from enisle.guest.cpio import CpioWriter

FORMAT = 2
"""Raised when the initramfs is laid out anew; together with the agent's sources it decides what is still current."""

_CURRENT = "current"
_DIGITS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Guest:
    """What a VM boots. ``version`` changes whenever kernel, agent or layout do.

    ``modules`` is a disk with all of the kernel's; the file is missing if the tools to make it were.
    """

    kernel: Path
    initramfs: Path
    modules: Path
    version: str


def current(directory: Path) -> Guest | None:
    """The guest that is ready under that directory, if it fits this version of Enisle."""
    try:
        version = os.readlink(directory / _CURRENT)
    except OSError:
        return None
    if not version.endswith(_suffix()):
        return None
    guest = _guest(directory, version)
    return guest if guest.kernel.is_file() and guest.initramfs.is_file() else None


def ensure(directory: Path, *, refresh: bool = False) -> Guest:
    """The guest, made if it is missing (or anew, with the newest kernel, on ``refresh``). Blocks for seconds then.

    Safe against others doing the same at the same time, and against being killed. Raises Unavailable or NotSupported.
    """
    ready = None if refresh else current(directory)
    if ready is not None:
        return ready
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(directory):
        ready = None if refresh else current(directory)
        return ready if ready is not None else _make(directory, refresh=refresh)


def initramfs(source: kernel.Kernel, agent: bytes) -> bytes:
    """The archive a guest starts from: the agent as /init, modules in /m and their order in /modules.

    It is not compressed: an emulated CPU takes longer to unpack it than the host does to copy it.
    """
    order = modules.load_list(source.needs(), source.builtin)
    target = io.BytesIO()
    archive = CpioWriter(target)
    archive.add_directory("dev")
    archive.add_character_device("dev/console", 5, 1)
    archive.add_directory("m")
    archive.add_file("init", agent, mode=0o755)
    archive.add_file("modules", "".join(f"{name} {module}.ko\n" for name, module in order).encode())
    for module in dict.fromkeys(module for _, module in order):
        archive.add_file(f"m/{module}.ko", source.modules[module])
    archive.close()
    return target.getvalue()


def _make(directory: Path, *, refresh: bool) -> Guest:
    _remove_debris(directory)
    made = Path(tempfile.mkdtemp(prefix="new-", dir=directory))
    source, image = _source(directory, made, refresh=refresh)
    version = f"{source.release}-{_suffix()}"
    _write(made / "vmlinux", source.image)
    _write(made / "initramfs", image)
    kernel.save(source, made / "modules")
    os.chmod(made, 0o755)
    final = directory / version
    if final.exists():  # made by an enisled that was killed before it set the link, or refreshed to the same kernel
        os.rename(final, directory / f"old-{os.getpid()}")
    os.rename(made, final)
    link = directory / f"new-link-{os.getpid()}"
    os.symlink(version, link)
    os.rename(link, directory / _CURRENT)
    _remove_debris(directory)
    _remove_former(directory, version)
    return _guest(directory, version)


def _source(directory: Path, made: Path, *, refresh: bool) -> tuple[kernel.Kernel, bytes]:
    """A kernel, and the initramfs made of it: of the guest before this one if it will do, else out of its package.

    So a new version of Enisle needs no network for its guests. The disk of modules is written into ``made``.
    """
    disk = made / modules_disk.NAME
    agent = agent_build.agent(made)
    known = None if refresh else kernel.load(directory / _CURRENT)
    if known is not None:
        try:
            image = initramfs(known, agent)
            os.link(directory / _CURRENT / modules_disk.NAME, disk)
            return known, image
        except (NotSupported, FileNotFoundError):
            pass  # a module is wanted that was not kept
    with tempfile.TemporaryDirectory(prefix="package-", dir=directory) as place:
        package = kernel.fetch(Path(place))
        source = kernel.unpack(package)
        modules_disk.make(kernel.all_modules(package, source.release), source.release, disk)
    image = initramfs(source, agent)
    source.modules = {name: source.modules[name] for name in modules.needed(source.needs(), source.builtin)}
    return source, image


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as target:
        target.write(content)
        target.flush()
        os.fsync(target.fileno())
        os.fchmod(target.fileno(), 0o444)


def _guest(directory: Path, version: str) -> Guest:
    place = directory / version
    return Guest(
        kernel=place / "vmlinux",
        initramfs=place / "initramfs",
        modules=place / modules_disk.NAME,
        version=version,
    )


def _suffix() -> str:
    return hashlib.sha256(f"{FORMAT} {agent_build.sources_digest()}".encode()).hexdigest()[:_DIGITS]


def _remove_debris(directory: Path) -> None:
    """What builds that were killed have left; the caller holds the lock."""
    for path in [each for pattern in ("new-link-*", "old-*", "package-*", "new-*") for each in directory.glob(pattern)]:
        if path.is_symlink() or path.is_file():
            path.unlink(missing_ok=True)
        else:
            shutil.rmtree(path, ignore_errors=True)


def _remove_former(directory: Path, version: str) -> None:
    """Guests of earlier versions: what still runs from them holds descriptors, not names."""
    for path in directory.glob("*/vmlinux"):
        if path.parent.name not in (version, _CURRENT):
            shutil.rmtree(path.parent, ignore_errors=True)


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    with open(directory / ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m enisle.guest.build", description=ensure.__doc__)
    parser.add_argument("--output", type=Path, required=True, help="the directory, usually <data root>/guest")
    parser.add_argument("--refresh", action="store_true", help="make it anew with the newest kernel")
    options = parser.parse_args()
    try:
        guest = ensure(options.output, refresh=options.refresh)
    except EnisleError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    sys.stdout.write(f"{guest.version}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
