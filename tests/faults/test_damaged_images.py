"""Blobs and layers are damaged on the disk (F15): told by name, mended by a pull, never in the way of anything else."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.daemon import Daemon
from tests.faults.lives import archive
from tests.faults.registry import running_registry


@pytest.fixture(scope="module")
def image(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image of two layers that came from a registry."""
    with running_registry(tmp_path_factory.mktemp("registry")) as registry:
        name = f"{registry}/damaged:1"
        api = docker.APIClient(base_url=f"unix://{daemon.socket}", version="1.47", timeout=60)
        context = archive({"Dockerfile": b"FROM busybox\nCOPY weight /weight\n", "weight": os.urandom(1 << 20)})
        list(api.build(fileobj=io.BytesIO(context), custom_context=True, tag=name, decode=True))
        assert not [line for line in api.push(name, stream=True, decode=True) if "error" in line]
        api.remove_image(name)
        api.prune_builds()
        daemon.docker("pull", "-q", name)
        yield name
        api.remove_image(name, force=True)
        api.close()


def blob_of(daemon: Daemon, image: str, kind: str) -> Path:
    shown = json.loads(daemon.docker("inspect", image).stdout)[0]
    manifest = shown["RepoDigests"][0].partition("@sha256:")[2]
    blobs = daemon.data_root / "images/blobs/sha256"
    layers = json.loads((blobs / manifest).read_bytes())["layers"]
    names = {"config": shown["Id"], "manifest": f"sha256:{manifest}", "layer": layers[-1]["digest"]}
    return blobs / names[kind].partition(":")[2]


def spoil(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.chmod(0o600)
    path.write_bytes(data)


def is_sound(path: Path) -> bool:
    return path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() == path.name


@pytest.mark.parametrize("kind", ["config", "manifest", "layer"])
@pytest.mark.parametrize("loss", ["spoilt", "gone"])
def test_a_damaged_blob(daemon: Daemon, image: str, kind: str, loss: str) -> None:
    path = blob_of(daemon, image, kind)
    others = {one: one.stat().st_ino for one in path.parent.iterdir() if one != path}
    if loss == "spoilt":
        spoil(path)
    else:
        path.unlink()
    daemon.stop()
    daemon.start()
    assert image in daemon.docker("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    saved = daemon.docker("save", "-o", str(daemon.root / "saved.tar"), image, check=False)
    assert saved.returncode == 1
    assert path.name in saved.stderr
    if kind == "config":
        for command in (["run", "--rm", image, "true"], ["inspect", image]):
            done = daemon.docker(*command, check=False)
            assert path.name in done.stderr
            assert done.returncode in (1, 125)
    assert daemon.docker("run", "--rm", "busybox", "echo", "others work").stdout == "others work\n"
    daemon.docker("system", "df")
    daemon.docker("pull", "-q", image)
    assert is_sound(path)
    assert all(one.stat().st_ino == inode for one, inode in others.items()), "what was sound was fetched again"
    assert daemon.docker("run", "--rm", image, "ls", "/weight").stdout == "/weight\n"


def test_a_layer_without_its_files(daemon: Daemon, image: str) -> None:
    for layer in (daemon.data_root / "images/layers").iterdir():
        if (layer / "weight").exists():
            shutil.rmtree(layer)
    done = daemon.docker("run", "--rm", image, "true", check=False)
    assert done.returncode in (125, 127)
    assert "no such file or directory" in done.stderr
    daemon.docker("pull", "-q", image)
    assert daemon.docker("run", "--rm", image, "ls", "/weight").stdout == "/weight\n"


def test_a_damaged_image_can_be_removed(daemon: Daemon, image: str) -> None:
    path = blob_of(daemon, image, "config")
    spoil(path)
    daemon.stop()
    daemon.start()
    daemon.docker("rmi", "-f", image)
    daemon.docker("image", "prune", "-f")
    assert not path.exists()
    daemon.docker("pull", "-q", image)
    assert daemon.docker("run", "--rm", image, "ls", "/weight").stdout == "/weight\n"
