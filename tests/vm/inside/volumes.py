"""Volumes on what the guest's kernel has and a host may lack: project quotas of ext4 and xfs, NFS.

Run by test_volumes.py inside a VM; nothing else collects it.
"""

from __future__ import annotations

import asyncio
import os
import stat
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from enisle.drivers.volumes.keeper import KeptVolumes
from enisle.engine.events import Events
from enisle.engine.volume_copies import VolumeCopies
from enisle.engine.volumes import Volumes
from enisle.errors import Conflict, EnisleError, Exhausted, NotSupported
from enisle.linux.quotas import limit
from enisle.model.volume import Backing
from enisle.state.memory import MemoryStore

MIB = 1 << 20
SYSTEMS = {
    "ext4": (64, ("mkfs.ext4", "-q", "-O", "quota,project", "-E", "quotatype=prjquota"), "prjquota"),
    "xfs": (320, ("mkfs.xfs", "-q"), "pquota"),
}
"""MiB, how it is made, how it is mounted."""


def run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(words)}: {done.stdout}{done.stderr}"


@pytest.fixture(params=SYSTEMS)
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A file system with project quotas."""
    size, make, option = SYSTEMS[request.param]
    image, place = tmp_path / "image", tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(size * MIB)
    run(*make, str(image))
    place.mkdir()
    if not os.path.exists("/dev/loop-control"):
        os.mknod("/dev/loop-control", 0o600 | stat.S_IFCHR, os.makedev(10, 237))  # whoever opens it gets the module
    run("mount", "-t", request.param, "-o", f"loop,{option}", str(image), str(place))
    yield place
    run("umount", str(place))


@dataclass
class Kept:
    volumes: Volumes
    copies: VolumeCopies

    async def use(self, name: str) -> Path:
        """The directory that an instance would mount."""
        return Path(await self.volumes.storage.take(await self.volumes.get(name), "test"))

    async def let_go(self, name: str) -> None:
        await self.volumes.storage.let_go("test", [name])


RUN_ROOT = Path(tempfile.mkdtemp())
"""Of one volume keeper for all tests: it outlives what it is connected to."""


@pytest.fixture
async def files() -> AsyncIterator[KeptVolumes]:
    opened = KeptVolumes(RUN_ROOT)
    await opened.open(())
    yield opened
    await opened.close(quit=False)


@pytest.fixture
async def kept(disk: Path, files: KeptVolumes) -> Kept:
    volumes = Volumes(disk / "volumes", MemoryStore(), Events(), files)
    await volumes.open()
    return Kept(volumes, VolumeCopies(volumes))


def fill(place: Path) -> int:
    """Write until nothing more goes in, as a container's root may (without SYS_RESOURCE); MiB that went in."""
    script = f"dd if=/dev/zero of={place}/big bs=1M count=100 2>&1"
    words = ["setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource", "sh", "-c", script]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "Disk quota exceeded" in done.stdout or "No space left" in done.stdout, done.stdout + done.stderr
    size = (place / "big").stat().st_size
    (place / "big").unlink()
    return size // MIB


async def test_limits(kept: Kept) -> None:
    for name, size in (("one", "8m"), ("two", "5m")):
        await kept.volumes.create(name, options={"size": size})
    one, two = await kept.use("one"), await kept.use("two")
    assert (await kept.volumes.get("one")).backing is Backing.PROJECT
    (one / "file").write_bytes(os.urandom(MIB))
    assert fill(one) in (6, 7)
    assert fill(two) in (4, 5)
    facts = os.statvfs(one)
    assert facts.f_blocks * facts.f_frsize == 8 * MIB
    await kept.copies.resize("one", "12m")
    assert fill(one) in (10, 11)
    with pytest.raises(Conflict, match=r"resize one: its content does not fit into 512k: .* in use"):
        await kept.copies.resize("one", "512k")
    await kept.copies.resize("one", "4m")
    assert fill(one) in (2, 3)


async def test_content_obeys_the_limit_and_keeps_it(kept: Kept) -> None:
    await kept.volumes.create("full", options={"size": "8m"})
    (await kept.use("full") / "file").write_bytes(os.urandom(6 * MIB))
    await kept.let_go("full")
    await kept.copies.snapshot("full", "first")
    await kept.copies.clone("full", "same")
    with pytest.raises(Exhausted):
        await kept.copies.clone("full", "small", size="3m")
    async with kept.copies.export("full") as tar:
        data = b"".join([piece async for piece in tar])

    async def pieces() -> AsyncIterator[bytes]:
        yield data

    with pytest.raises(Exhausted):
        await kept.copies.import_tar("imported", pieces(), size="3m")
    assert sorted(volume.name for volume in kept.volumes.all()) == ["full", "same"]
    (await kept.use("full") / "file").unlink()
    await kept.let_go("full")
    await kept.copies.restore("full", "first")
    for name in ("full", "same"):
        place = await kept.use(name)
        assert (place / "file").stat().st_size == 6 * MIB
        assert fill(place) in (1, 2)
        await kept.let_go(name)
        await kept.volumes.remove(name)
    assert not list(kept.volumes.storage.root.iterdir())


async def test_a_project_is_given_back_and_none_is_taken_twice(kept: Kept, disk: Path) -> None:
    names = [f"v{number}" for number in range(4)]
    for _round in range(2):
        await asyncio.gather(*(kept.volumes.create(name, options={"size": "1m"}) for name in names))
        assert len({project(disk / "volumes" / name / "_data") for name in names}) == len(names)
        for name in names:
            await kept.volumes.remove(name)


def project(place: Path) -> str:
    return subprocess.run(["lsattr", "-pd", str(place)], capture_output=True, text=True, check=True).stdout.split()[0]


async def test_quotas_that_are_not_on(tmp_path: Path, files: KeptVolumes) -> None:
    assert not await files.has_quotas(tmp_path)
    with pytest.raises(NotSupported, match="mount it with prjquota"):
        await files.limit(str(tmp_path), MIB)
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError):
        limit(fd, MIB)
    os.close(fd)


# --- NFS ---


def tell(path: str, words: str) -> None:
    with open(path, "w") as file:
        file.write(words + "\n")


@pytest.fixture
def nfs_server(tmp_path: Path) -> Iterator[Path]:
    """The kernel's own server on the loopback, told of one export as its rpc.mountd would: /."""
    exported = tmp_path / "exported"
    exported.mkdir()
    run("mount", "-t", "tmpfs", "exported", str(exported))
    run("mount", "-t", "nfsd", "nfsd", "/proc/fs/nfsd")
    forever = 0x7FFFFFF0
    tell("/proc/net/rpc/auth.unix.ip/channel", f"nfsd 127.0.0.1 {forever} here")
    tell("/proc/net/rpc/nfsd.export/channel", f"here {exported} {forever} 9266 65534 65534 0")
    tell("/proc/net/rpc/nfsd.fh/channel", rf"here 1 \x00000000 {forever} {exported}")
    tell("/proc/fs/nfsd/versions", "-2 -3 +4")  # the older ones ask for a portmapper
    recovery = tmp_path / "recovery"
    recovery.mkdir()
    tell("/proc/fs/nfsd/nfsv4recoverydir", str(recovery))
    tell("/proc/fs/nfsd/threads", "2")
    tell("/proc/fs/nfsd/v4_end_grace", "Y")
    yield exported
    tell("/proc/fs/nfsd/threads", "0")


async def test_nfs(nfs_server: Path, tmp_path: Path, files: KeptVolumes) -> None:
    volumes = Volumes(tmp_path / "volumes", MemoryStore(), Events(), files)
    await volumes.open()
    (nfs_server / "file").write_text("of the server\n")
    options = {"type": "nfs", "device": ":/", "o": "addr=localhost,vers=4.2,rw,soft,timeo=50"}
    await volumes.create("far", options=options)
    await volumes.create("nowhere", options={**options, "o": "addr=nowhere.invalid,vers=4.2"})
    place = Path(await volumes.storage.take(await volumes.get("far"), "test"))
    assert (place / "file").read_text() == "of the server\n"
    (place / "new").write_text("of the client\n")
    assert (nfs_server / "new").read_text() == "of the client\n"
    await volumes.storage.let_go("test", ["far"])
    with pytest.raises(EnisleError, match=r"nowhere\.invalid"):
        await volumes.storage.take(await volumes.get("nowhere"), "test")
