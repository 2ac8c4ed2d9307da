"""An image as one read-only EROFS file, for VMs: built once per image, beside the layers it is made of."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import uuid
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Iterable, Sequence
from pathlib import Path

from enisle.contracts import Progress
from enisle.errors import Internal, NotSupported
from enisle.images.flights import Flights
from enisle.images.layers import remove_tree
from enisle.linux.disk_usage import allocated_bytes
from enisle.linux.mounts import mount, set_tree_propagation
from enisle.linux.namespaces import FLAGS, unshare
from enisle.linux.syscalls import PR_SET_PDEATHSIG, prctl

_NAME_DIGITS = 64
_PACKAGES = str(Path(__file__).parents[2])
_PROGRAM = "import sys; sys.path.insert(0, {path!r}); from enisle.images.disk import build; build(*sys.argv[1:])"
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_PRIVATE = 1, 2, 4, 1 << 18


class DiskStore:
    """EROFS files by image id."""

    def __init__(self, root: Path) -> None:
        self._root = root / "disks"
        self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._flights: Flights[Path] = Flights()

    def path(self, image: str) -> Path:
        """Where an image's disk is, or would be."""
        return self._root / f"{image.partition(':')[2][:_NAME_DIGITS]}.erofs"

    async def get(self, image: str, layers: Sequence[Path], progress: Progress = lambda _: None) -> Path:
        """The disk of an image, built on first use. ``layers``: unpacked, topmost first.

        NotSupported when mkfs.erofs is missing. A build that is broken off leaves nothing that is used.
        """
        path = self.path(image)
        if path.exists():
            return path
        return await self._flights.join(image, lambda _: self._build(image, layers), progress)

    async def _build(self, image: str, layers: Sequence[Path]) -> Path:
        tool = shutil.which("mkfs.erofs")
        if tool is None:
            raise NotSupported("mkfs.erofs is missing, so images have no disks for VMs.", remedy="Install erofs-utils.")
        path = self.path(image)
        scratch = path.with_suffix(".new")
        await asyncio.to_thread(remove_tree, scratch)
        scratch.mkdir(mode=0o700)
        program = _PROGRAM.format(path=_PACKAGES)
        identity = str(uuid.uuid5(uuid.NAMESPACE_OID, image))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", program, str(scratch), tool, identity, *map(str, layers)),
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            cwd="/",
        )
        try:
            output, _ = await process.communicate()
            if process.returncode != 0:
                said = output.decode(errors="replace").strip()[-500:]
                raise Internal(f"image {image[:19]}: its disk could not be made: {said or process.returncode}")
            (scratch / "disk").rename(path)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
            await asyncio.to_thread(remove_tree, scratch)
        return path

    def disk_bytes(self, image: str) -> int:
        """What an image's disk takes on ours; 0 without one."""
        return allocated_bytes(self.path(image))

    def delete(self, image: str) -> None:
        """Remove an image's disk, if it has one. VMs that use it keep it until they end."""
        self.path(image).unlink(missing_ok=True)

    def sweep(self, images: Iterable[str]) -> None:
        """Remove all disks but those of these images, and unfinished ones."""
        kept = {self.path(image) for image in images}
        for path in self._root.iterdir():
            if path in kept:
                continue
            if path.is_dir():
                remove_tree(path)
            else:
                path.unlink()


def build(scratch: str, tool: str, identity: str, *layers: str) -> None:
    """The program of the builder: mounts the layers where nobody else sees it, and becomes mkfs.erofs.

    The mount is gone with the process. A plain bottom directory makes overlayfs apply the marks of a single layer too.
    """
    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    unshare(FLAGS["mnt"])
    set_tree_propagation("/", _MS_PRIVATE)
    empty, root = os.path.join(scratch, "empty"), os.path.join(scratch, "root")
    os.mkdir(empty, 0o755)
    os.mkdir(root)
    output = os.path.join(scratch, "disk")
    parent = os.path.dirname(layers[0]) if layers else scratch
    os.chdir(parent)  # short names: all of them have to fit into a page
    names = [*(os.path.basename(layer) for layer in layers), os.path.relpath(empty, parent)]
    if layers:
        mount("overlay", root, "overlay", _MS_RDONLY | _MS_NOSUID | _MS_NODEV, "lowerdir=" + ":".join(names))
    # Extended inodes, because compact ones have no modification time.
    os.execv(tool, [tool, "-U", identity, "-E", "force-inode-extended", "--quiet", output, root])
