"""A Debian image from packages, and that its making leaves nothing mounted; removal stays on its own mount."""

from __future__ import annotations

import asyncio
import stat
import sys
from pathlib import Path

import pytest

from enisle.images.store import LocalImageStore

_REMOVE = """
import errno, os, sys
from enisle.archive.beneath import remove
from enisle.linux.mounts import mount
top = sys.argv[1]
os.makedirs(top + "/tree/a/mounted")
mount("tmpfs", top + "/tree/a/mounted", "tmpfs", 0)
open(top + "/tree/a/mounted/precious", "w").close()
fd = os.open(top, os.O_RDONLY)
try:
    remove(fd, b"tree")
except OSError as error:
    assert error.errno == errno.EXDEV, error
assert os.listdir(top + "/tree/a/mounted") == ["precious"]
print("kept")
"""


def mounts_below(path: Path) -> list[str]:
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(path) in line]


async def test_removal_does_not_enter_mounts(tmp_path: Path) -> None:
    source = str(Path(sys.modules[LocalImageStore.__module__].__file__ or "").parents[2])
    program = f"import sys; sys.path.insert(0, {source!r})\n{_REMOVE}"
    process = await asyncio.create_subprocess_exec(
        "unshare", "--mount", sys.executable, "-c", program, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    output, _ = await process.communicate()
    assert output == b"kept\n"


@pytest.mark.timeout(600)
async def test_debian(tmp_path: Path) -> None:
    store = await LocalImageStore.open(tmp_path / "images")
    try:
        image = await store.bootstrap("debian:12", progress=lambda _: None)
        (layer,) = await store.layers(image.id)
        assert 'VERSION_ID="12"' in (layer / "etc/os-release").read_text()
        assert (layer / "usr/bin/apt-get").exists()
        assert (layer / "bin").is_symlink()
        assert stat.S_IMODE((layer / "usr/bin/passwd").stat().st_mode) == 0o4755
        for gone in ("etc/hostname", "etc/resolv.conf", "etc/dpkg/dpkg.cfg.d/99mmdebstrap", "var/log/dpkg.log"):
            assert not (layer / gone).exists(), gone
        assert list((layer / "var/lib/apt/lists").glob("*_*")) == []
        assert image.config.command == ("bash",)
        assert image.size_bytes < 200 << 20
        assert mounts_below(tmp_path) == []
    finally:
        await store.close()


async def test_a_cancelled_bootstrap_leaves_nothing(tmp_path: Path) -> None:
    store = await LocalImageStore.open(tmp_path / "images")
    begun = asyncio.Event()
    try:
        making = asyncio.create_task(store.bootstrap("debian:12", progress=lambda m: begun.set() if m else None))
        await begun.wait()
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert mounts_below(tmp_path) == []
        assert list((tmp_path / "images/staging").iterdir()) == []
        assert list((tmp_path / "images/ingest").iterdir()) == []
    finally:
        await store.close()
