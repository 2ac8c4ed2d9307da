"""The data root is full, of bytes or of inodes (F8): it is said, and what looks or frees still works."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, dispose, image_archive, new_daemon, run
from tests.faults.registry import running_registry

_FILL = {
    "bytes": "dd if=/dev/zero of=/fill bs=64k",
    "inodes": "mkdir /fill; n=0; while touch /fill/$n; do n=$((n+1)); done",
}
_MKFS = {"bytes": (), "inodes": ("-N", "4096")}


@pytest.fixture(params=["bytes", "inodes"])
def full(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Daemon, str]]:
    """A daemon whose data root is a small file system, and what it can run out of."""
    kind = str(request.param)
    disk = tmp_path / "disk"
    with disk.open("wb") as file:
        file.truncate(160 << 20)
    run("mkfs.ext4", "-q", *_MKFS[kind], str(disk))
    made = new_daemon(prefix="s")
    made.data_root.mkdir(mode=0o700)
    run("mount", "-o", "loop", str(disk), str(made.data_root))
    try:
        made.start()
        made.docker("load", "-q", "-i", str(image_archive("busybox")))
        yield made, kind
    finally:
        made.remove_everything()
        run("umount", str(made.data_root))
        left = made.census()
        if made.relay is not None:
            made.relay.close()
        subprocess.run(["rm", "-rf", str(made.root)], check=True)
        assert not left


def refused(daemon: Daemon, *command: str, **options: object) -> None:
    """It fails, and says why."""
    done = daemon.docker(*command, check=False, timeout_s=120, **options)
    assert done.returncode != 0, command
    assert "no space left on device" in (done.stdout + done.stderr).lower(), (command, done.stderr)


def test_a_full_data_root(full: tuple[Daemon, str], tmp_path: Path) -> None:
    daemon, kind = full
    docker = daemon.docker
    heavy = tmp_path / "heavy"
    heavy.write_bytes(os.urandom(40 << 20))
    docker("run", "-d", "--name", "runs", "--restart", "unless-stopped", "busybox", "sleep", "100000")
    docker("run", "--name", "first", "busybox", "sh", "-c", _FILL[kind], check=False, timeout_s=120)
    filler = docker("exec", "runs", "sh", "-c", _FILL[kind], check=False, timeout_s=120)
    assert "No space left on device" in filler.stderr

    refused(daemon, "load", "-i", str(image_archive("debian:12")))
    refused(daemon, "commit", "first", "more")
    if kind == "bytes":
        refused(daemon, "cp", str(heavy), "runs:/heavy")
        refused(daemon, "import", str(image_archive("debian:12")), "more")
    pulled = pull_from_elsewhere(daemon, tmp_path)
    assert "no space left on device" in pulled.lower()

    assert sorted(docker("ps", "-a", "--format", "{{.Names}}").stdout.split()) == ["first", "runs"]
    assert docker("exec", "runs", "echo", "alive").stdout == "alive\n"
    docker("logs", "first")
    docker("system", "df")
    docker("stop", "-t", "0", "runs")
    daemon.stop()
    daemon.start()
    docker("start", "runs", check=False)  # may need an inode
    assert docker("images", "-q").stdout.count("\n") == 1

    docker("rm", "-f", "first", "runs", timeout_s=120)
    docker("system", "prune", "-f", "--volumes")
    for place in ("instances", "images/staging"):
        assert not list((daemon.data_root / place).iterdir()), place
    assert docker("run", "--rm", "busybox", "echo", "works").stdout == "works\n"
    docker("run", "--name", "again", "busybox", "sh", "-c", "echo made > /file")
    docker("commit", "again", "made")
    assert docker("run", "--rm", "made", "cat", "/file").stdout == "made\n"


def pull_from_elsewhere(full: Daemon, directory: Path) -> str:
    """What a pull of an image that another engine has pushed says."""
    other = new_daemon(prefix="e")
    try:
        with running_registry(directory) as registry:
            other.start()
            other.docker("load", "-q", "-i", str(image_archive("debian:12")), timeout_s=200)
            other.docker("tag", "debian:12", f"{registry}/debian:12")
            other.docker("push", "-q", f"{registry}/debian:12", timeout_s=200)
            done = full.docker("pull", "-q", f"{registry}/debian:12", check=False, timeout_s=200)
            assert done.returncode != 0
            return done.stderr
    finally:
        dispose(other)
