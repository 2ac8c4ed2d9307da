"""enisled is killed in the middle of what changes volumes: the old content or the new is there, and nothing else."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from tests.daemon import Daemon


def _half_an_import(daemon: Daemon, target: str, archive: bytes) -> socket.socket:
    """Send the first half of an import; the server waits for the rest."""
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(str(daemon.socket))
    head = f"POST /enisle/v1/volumes/{target} HTTP/1.1\r\nHost: d\r\nContent-Length: {len(archive)}\r\n\r\n"
    client.sendall(head.encode() + archive[: len(archive) // 2])
    return client


def _parts(root: Path) -> list[Path]:
    """What is being made beside volumes."""
    return [*root.glob("*/.new-*"), *(path for path in root.iterdir() if path.name == "fresh")]


def _wait_for_part(root: Path) -> None:
    deadline = time.monotonic() + 20
    while not [path for part in _parts(root) for path in part.rglob("big*")]:
        assert time.monotonic() < deadline, "the import did not begin"
        time.sleep(0.01)


@pytest.mark.parametrize("target", ["old/import?replace=1", "fresh/import"])
def test_half_an_import_is_none(own_daemon: Daemon, tmp_path: Path, target: str) -> None:
    docker, archive = own_daemon.docker, tmp_path / "x.tar"
    script = "echo old > /v/file; dd if=/dev/urandom of=/v/big bs=1M count=8 2>/dev/null"
    docker("run", "--rm", "-v", "source:/v", "busybox", "sh", "-c", script)
    docker("run", "--rm", "-v", "old:/v", "busybox", "sh", "-c", "echo old > /v/file")
    own_daemon.enisle("volume", "export", "-o", str(archive), "source")
    root = own_daemon.data_root / "volumes"
    with _half_an_import(own_daemon, target, archive.read_bytes()):
        _wait_for_part(root)
        own_daemon.kill()
    own_daemon.start()
    assert docker("volume", "ls", "-q").stdout.split() == ["old", "source"]
    assert docker("run", "--rm", "-v", "old:/v", "busybox", "sh", "-c", "cat /v/*").stdout == "old\n"
    assert _parts(root) == []


def test_a_rename_cut_short_is_finished(own_daemon: Daemon) -> None:
    """Killed between the record and the directory: what a crash there leaves is made by hand."""
    docker = own_daemon.docker
    docker("run", "--rm", "-v", "before:/v", "busybox", "sh", "-c", "echo kept > /v/file")
    own_daemon.enisle("volume", "rename", "before", "after")
    own_daemon.kill()
    root = own_daemon.data_root / "volumes"
    assert os.listdir(root) == ["after"]
    own_daemon.start()
    assert docker("run", "--rm", "-v", "after:/v", "busybox", "cat", "/v/file").stdout == "kept\n"
