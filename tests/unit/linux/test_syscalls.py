"""Thin bindings: what needs no root."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from enisle.linux import capabilities
from enisle.linux.inotify import IN_CREATE, Inotify
from enisle.linux.rlimits import NUMBERS
from enisle.linux.syscalls import RESOLVE_BENEATH, RESOLVE_IN_ROOT, RESOLVE_NO_SYMLINKS, openat2


def test_openat2_rules(tmp_path: Path) -> None:
    (tmp_path / "root/etc").mkdir(parents=True)
    (tmp_path / "root/etc/file").write_text("inside")
    (tmp_path / "root/link").symlink_to("/etc/file")
    (tmp_path / "file").write_text("outside")
    root = os.open(tmp_path / "root", os.O_PATH)
    try:
        fd = openat2(root, "link", os.O_RDONLY, resolve=RESOLVE_IN_ROOT)
        assert os.read(fd, 100) == b"inside"
        assert not os.get_inheritable(fd)
        os.close(fd)
        for path, resolve, number in (
            ("../file", RESOLVE_BENEATH, errno.EXDEV),
            ("link", RESOLVE_NO_SYMLINKS, errno.ELOOP),
            ("../../file", RESOLVE_IN_ROOT, errno.ENOENT),
        ):
            with pytest.raises(OSError) as failure:
                openat2(root, path, os.O_RDONLY, resolve=resolve)
            assert failure.value.errno == number
    finally:
        os.close(root)


def test_capability_masks() -> None:
    assert capabilities.mask(["CHOWN"]) == 1
    assert capabilities.mask(["SYS_ADMIN", "SYS_ADMIN"]) == 1 << 21
    with pytest.raises(KeyError):
        capabilities.mask(["NO_SUCH"])


def test_rlimit_numbers_are_the_kernels() -> None:
    lines = Path("/proc/self/limits").read_text()
    assert "Max open files" in lines
    assert (NUMBERS["CPU"], NUMBERS["NOFILE"], NUMBERS["RTTIME"]) == (0, 7, 15)


def test_inotify(tmp_path: Path) -> None:
    inotify = Inotify()
    watch = inotify.add(str(tmp_path), IN_CREATE)
    assert inotify.read() == []
    (tmp_path / "new").touch()
    assert [(change.watch, change.name) for change in inotify.read()] == [(watch, "new")]
    inotify.close()
    inotify.close()
