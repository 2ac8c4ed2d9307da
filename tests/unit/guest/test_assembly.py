"""Kernel, modules and initramfs, from made-up parts."""

import gzip
import lzma
import struct
from pathlib import Path

import pytest

from enisle.errors import NotSupported
from enisle.guest import build, decompress, modules, modules_disk
from enisle.guest.kernel import Kernel, load, save

MARK = b"~Module signature appended~\n"


def module(*needs: str) -> bytes:
    return b"\x7fELF...\0license=GPL\0depends=" + ",".join(needs).encode() + b"\0name=x\0"


def kernel() -> Kernel:
    images = {
        "virtio": module(),
        "virtio_ring": module(),
        "virtio_pci": module("virtio", "virtio-ring"),
        "virtio_console": module("virtio"),
        "virtio_blk": module("virtio"),
        "erofs": module("libcrc32c"),
        "libcrc32c": module(),
        "overlay": module(),
        "virtio_net": module("net_failover", "virtio"),
        "net_failover": module("failover"),
        "failover": module(),
        "virtiofs": module("fuse"),
        "virtio_balloon": module("virtio"),
        "unneeded": module(),
    }
    return Kernel(release="6.1.0-test", image=b"\x7fELF", modules=images, builtin=frozenset({"fuse"}))


def members(archive: bytes) -> dict[str, bytes]:
    """A newc archive taken apart, by the format's description rather than by our writer."""
    found: dict[str, bytes] = {}
    at = 0
    while True:
        fields = [int(archive[at + 6 + 8 * n : at + 14 + 8 * n], 16) for n in range(13)]
        assert archive[at : at + 6] == b"070701"
        name = archive[at + 110 : at + 110 + fields[11] - 1].decode()
        start = (at + 110 + fields[11] + 3) & ~3
        if name == "TRAILER!!!":
            return found
        found[name] = archive[start : start + fields[6]]
        at = (start + fields[6] + 3) & ~3


def test_load_order_puts_what_is_needed_first_and_leaves_out_what_is_built_in() -> None:
    needs = kernel().needs()
    assert modules.load_order(["virtio_net"], needs, frozenset()) == [
        "failover",
        "net_failover",
        "virtio",
        "virtio_net",
    ]
    assert modules.load_order(["virtiofs"], needs, frozenset({"fuse"})) == ["virtiofs"]


def test_a_module_that_is_nowhere_is_named() -> None:
    with pytest.raises(NotSupported, match="fuse"):
        modules.load_order(["virtiofs"], kernel().needs(), frozenset())


def test_modules_that_need_each_other_do_not_loop() -> None:
    assert set(modules.load_order(["a"], {"a": ["b"], "b": ["a"]}, frozenset())) == {"a", "b"}


def test_initramfs_holds_agent_modules_and_their_order() -> None:
    found = members(build.initramfs(kernel(), b"agent!"))
    assert found["init"] == b"agent!"
    lines = found["modules"].decode().splitlines()
    assert lines.index("base virtio.ko") < lines.index("base virtio_pci.ko")
    assert "net virtio_net.ko" in lines
    assert "net virtio.ko" not in lines
    assert "m/unneeded.ko" not in found
    assert found["m/erofs.ko"] == kernel().modules["erofs"]


def test_a_guest_can_be_made_again_from_what_was_kept(tmp_path: Path) -> None:
    whole = kernel()
    (tmp_path / "vmlinux").write_bytes(whole.image)
    save(whole, tmp_path / "modules")
    assert load(tmp_path) == whole
    (tmp_path / "modules" / "release").unlink()
    assert load(tmp_path) is None


@pytest.mark.parametrize("compress", [lambda data: data, gzip.compress, lzma.compress])
def test_modules_lose_their_compression_and_signature(compress) -> None:  # type: ignore[no-untyped-def]
    plain = module("a")
    signature = b"S" * 300
    signed = plain + signature + struct.pack(">8xI", len(signature)) + MARK
    assert decompress.module(compress(signed)) == plain
    assert decompress.module(compress(plain)) == plain


def bzimage(payload: bytes) -> bytes:
    head = bytearray(0x260 + 512)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", head, 0x248, 0, len(payload))
    return bytes(head[:1024]) + payload


def lz4_legacy(data: bytes) -> bytes:
    """One block of literals only: token 0xF0, lengths of 255 and a rest, the bytes; then the size, as kernels have."""
    rest = len(data) - 15
    block = b"\xf0" + b"\xff" * (rest // 255) + bytes([rest % 255]) + data
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(block)) + block + struct.pack("<I", len(data))


@pytest.mark.parametrize("compress", [gzip.compress, lzma.compress, lz4_legacy])
def test_the_kernel_is_taken_out_of_its_image(compress) -> None:  # type: ignore[no-untyped-def]
    elf = b"\x7fELF" + bytes(range(256)) * 8
    assert decompress.vmlinux(bzimage(compress(elf))) == elf


def test_what_is_no_kernel_is_refused() -> None:
    with pytest.raises(NotSupported, match="bzImage"):
        decompress.vmlinux(b"MZ" * 600)
    with pytest.raises(NotSupported, match="compressed"):
        decompress.vmlinux(bzimage(b"????????"))
    with pytest.raises(NotSupported, match="damaged"):
        decompress.vmlinux(bzimage(b"\x02\x21\x4c\x18" + struct.pack("<I", 9) + b"\xff" * 40))


def test_where_the_files_of_a_kernel_package_go_on_the_disk() -> None:
    def place(member: str) -> str:
        return modules_disk.relative_path(member, "6.1-x")

    assert place("./lib/modules/6.1-x/kernel/fs/xfs/xfs.ko.xz") == "kernel/fs/xfs/xfs.ko"
    assert place("./usr/lib/modules/6.1-x/modules.order") == "modules.order"
    for other in ("./boot/vmlinuz-6.1-x", "./lib/modules/6.1-y/kernel/a.ko", "./lib/modules/6.1-x/../../a.ko"):
        assert place(other) == ""


def test_a_link_to_a_guest_of_another_version_is_not_current(tmp_path: Path) -> None:
    (tmp_path / "6.1-0000000000000000").mkdir()
    for name in ("vmlinux", "initramfs"):
        (tmp_path / "6.1-0000000000000000" / name).touch()
    (tmp_path / "current").symlink_to("6.1-0000000000000000")
    assert build.current(tmp_path) is None
    assert build.current(tmp_path / "nowhere") is None
