"""The guest's kernel: the distribution's cloud kernel, taken out of its package without installing it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from enisle.errors import NotSupported, Unavailable
from enisle.guest import decompress, modules, modules_disk

_META_PACKAGES = {"amd64": "linux-image-cloud-amd64"}
_KERNEL = re.compile(r"(?:^|/)boot/vmlinuz-([^/]+)$")
_IMAGE_PACKAGE = re.compile(r"^\s*Depends: (linux-image-\S+)", re.MULTILINE)
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}


@dataclass(slots=True, kw_only=True)
class Kernel:
    """``release`` as uname says it; ``image`` an ELF kernel; module images by name; what is built in."""

    release: str = ""
    image: bytes = b""
    modules: dict[str, bytes] = field(default_factory=dict)
    builtin: frozenset[str] = frozenset()

    def needs(self) -> dict[str, list[str]]:
        """What each module needs."""
        return {name: modules.dependencies(image) for name, image in self.modules.items()}


def save(kernel: Kernel, directory: Path) -> None:
    """Keep the modules, so that another initramfs can be made without the package."""
    directory.mkdir()
    for name, image in kernel.modules.items():
        (directory / f"{name}.ko").write_bytes(image)
    (directory / "release").write_text(kernel.release)
    (directory / "builtin").write_text("".join(f"{name}\n" for name in sorted(kernel.builtin)))


def load(guest: Path) -> Kernel | None:
    """The kernel of a guest made earlier, with the modules it kept; None when it is not whole."""
    directory = guest / "modules"
    try:
        return Kernel(
            release=(directory / "release").read_text(),
            image=(guest / "vmlinux").read_bytes(),
            modules={path.stem: path.read_bytes() for path in directory.glob("*.ko")},
            builtin=frozenset((directory / "builtin").read_text().split()),
        )
    except OSError:
        return None


def fetch(directory: Path) -> Path:
    """Download the kernel's package into a directory; its file. Unavailable when apt cannot."""
    architecture = _run(["dpkg", "--print-architecture"]).strip()
    meta = _META_PACKAGES.get(architecture)
    if meta is None:
        raise NotSupported(f"There is no guest kernel for {architecture} yet.")
    package = _image_package(meta)
    if package is None:
        _run(["apt-get", "update", "-q"])
        package = _image_package(meta)
    if package is None:
        raise Unavailable(
            f"apt knows no package {meta}, which the guest's kernel comes from.",
            remedy="Have Debian's main repository in /etc/apt/sources.list.d.",
        )
    download = ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package]
    try:
        _run(download, cwd=directory)
    except Unavailable:  # the lists name a version that the repository has replaced since
        _run(["apt-get", "update", "-q"])
        _run(download, cwd=directory)
    return next(directory.glob("*.deb"))


def _image_package(meta: str) -> str | None:
    try:
        found = _IMAGE_PACKAGE.search(_run(["apt-cache", "depends", meta]))
    except Unavailable:
        return None
    return found[1] if found else None


def unpack(package: Path) -> Kernel:
    """The kernel and the modules that guests may need, out of a package."""
    kernel = Kernel()
    files: dict[str, bytes] = {}
    with _members(package) as members:
        for member, content in members:
            if (found := _KERNEL.search(member)) is not None:
                kernel.release = found[1]
                kernel.image = decompress.vmlinux(content.read())
            elif member.endswith("/modules.builtin"):
                kernel.builtin = modules.builtin_names(content.read().decode())
            elif _may_be_needed(member):
                files[modules.name_of(member)] = content.read()
    if not kernel.image:
        raise NotSupported(f"The package {package.name} holds no kernel.")
    kernel.modules = {name: decompress.module(data) for name, data in files.items()}
    return kernel


def all_modules(package: Path, release: str) -> Iterator[tuple[str, bytes]]:
    """Every module of a package and the lists that belong to them, by their paths below /lib/modules/RELEASE."""
    with _members(package) as members:
        for member, content in members:
            if path := modules_disk.relative_path(member, release):
                data = content.read()
                yield path, decompress.module(data) if path.endswith(".ko") else data


def _may_be_needed(member: str) -> bool:
    """Whether a file is a module of the few corners of the tree that ours and what they need lie in."""
    corners = ("/drivers/virtio/", "/drivers/block/virtio", "/drivers/char/virtio", "/drivers/net/", "/net/core/")
    systems = ("/fs/erofs/", "/fs/overlayfs/", "/fs/fuse/", "/lib/", "/crypto/", "/fs/netfs/")
    return bool(modules.name_of(member)) and any(corner in member for corner in corners + systems)


@contextmanager
def _members(package: Path) -> Iterator[Iterator[tuple[str, IO[bytes]]]]:
    """(name, content) of the regular files of a package, read as they come."""
    command = ["dpkg-deb", "--fsys-tarfile", os.fspath(package)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=_ENVIRONMENT) as process:
        assert process.stdout is not None
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            yield (
                (member.name, cast("IO[bytes]", archive.extractfile(member))) for member in archive if member.isreg()
            )
        shutil.copyfileobj(process.stdout, open(os.devnull, "wb"))  # noqa: SIM115


def _run(command: list[str], *, cwd: Path | None = None) -> str:
    try:
        done = subprocess.run(command, env=_ENVIRONMENT, cwd=cwd, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise NotSupported(
            f"The guest's kernel needs the program {command[0]}.", remedy="Install the packages apt and dpkg."
        ) from error
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip().splitlines()
        raise Unavailable(f"{' '.join(command[:3])}: {reason[-1] if reason else 'failed'}")
    return done.stdout
