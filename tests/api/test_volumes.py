"""Volumes and mounts through the real docker client, for instances behind either wall."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, run

WALLS = {"container": [], "vm": ["--runtime", "vm"]}


class Bench:
    """docker against one wall, and names that are removed at the end."""

    def __init__(self, daemon: Daemon, kind: str) -> None:
        self.daemon = daemon
        self.kind = kind
        self.docker = daemon.docker
        self.volumes: list[str] = []
        self.instances: list[str] = []

    def name(self) -> str:
        """A volume's name; it goes at the end."""
        name = f"v{os.urandom(4).hex()}"
        self.volumes.append(name)
        return name

    def volume(self, *options: str) -> str:
        name = self.name()
        self.docker("volume", "create", *options, name)
        return name

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.docker("run", "--rm", *WALLS[self.kind], *args, check=check, timeout_s=120)

    def shell(self, volume: str, script: str, *, check: bool = True) -> str:
        """What a script prints that has the volume at /v."""
        done = self.run("-v", f"{volume}:/v", "busybox", "sh", "-c", script, check=check)
        return done.stdout + ("" if check else done.stderr)

    def start(self, *args: str) -> str:
        name = f"i{os.urandom(4).hex()}"
        self.instances.append(name)
        self.docker("run", "-d", "--name", name, *WALLS[self.kind], *args, "busybox", "sleep", "1000", timeout_s=120)
        return name

    def create(self, *args: str) -> str:
        name = f"i{os.urandom(4).hex()}"
        self.instances.append(name)
        self.docker("create", "--name", name, *WALLS[self.kind], *args, timeout_s=120)
        return name

    def inspect(self, volume: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.docker("volume", "inspect", volume).stdout)[0]
        return found

    def clean(self) -> None:
        if self.instances:
            self.docker("rm", "-f", "-v", *self.instances, check=False, timeout_s=120)
        if self.volumes:
            self.docker("volume", "rm", "-f", *self.volumes, check=False)


@pytest.fixture(params=list(WALLS))
def wall(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Each wall in turn."""
    bench = Bench(daemon, request.param)
    yield bench
    bench.clean()


@pytest.fixture
def bench(daemon: Daemon) -> Iterator[Bench]:
    """Where the wall makes no difference: containers."""
    made = Bench(daemon, "container")
    yield made
    made.clean()


# --- mounts ---


def test_image_of_several_layers_is_mounted_whole(wall: Bench, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN mkdir /new && echo first > /new/file && rm /bin/vi\nRUN echo second > /two\n"
    )
    image = f"layers{os.urandom(3).hex()}"
    wall.docker("build", "-q", "-t", image, str(tmp_path), timeout_s=120)
    try:
        script = "cat /img/new/file /img/two; ls /img/bin/vi 2>/dev/null || echo removed; touch /img/x || echo refused"
        mount = f"type=image,source={image},target=/img"
        done = wall.run("--mount", mount, "busybox", "sh", "-c", script)
        assert done.stdout.splitlines() == ["first", "second", "removed", "refused"]
        user = wall.create("--mount", mount, "busybox", "true")
        assert "is using its referenced image" in wall.docker("rmi", image, check=False).stderr
        wall.docker("rm", user)
    finally:
        wall.docker("rmi", "-f", image, check=False)


def test_subpath_cannot_leave_its_volume(wall: Bench) -> None:
    volume = wall.volume()
    wall.shell(volume, "mkdir -p /v/sub/deep /v/etc; echo own > /v/etc/passwd; echo in > /v/sub/deep/file")
    wall.shell(
        volume, "ln -s /etc /v/absolute; ln -s ../../../../../../../etc /v/sub/climbing; ln -s /proc/1/root /v/magic"
    )

    def read(subpath: str, path: str) -> subprocess.CompletedProcess[str]:
        mount = f"type=volume,source={volume},target=/s,volume-subpath={subpath}"
        return wall.run("--mount", mount, "busybox", "cat", f"/s/{path}", check=False)

    assert read("sub/deep", "file").stdout == "in\n"
    assert read("absolute", "passwd").stdout == "own\n"
    assert read("sub/climbing", "passwd").stdout == "own\n"
    assert "no such file or directory" in read("magic", "etc/passwd").stderr
    assert "no such file or directory" in read("missing", "x").stderr
    assert "subpath must be a relative path" in read("../x", "x").stderr


def test_propagation_needs_a_source_that_propagates(wall: Bench, tmp_path: Path) -> None:
    mount = f"type=bind,source={tmp_path},target=/b,bind-propagation=rshared"
    done = wall.run("--mount", mount, "busybox", "true", check=False)
    assert "but it is not a shared mount" in done.stderr


def test_volume_update_is_for_swarms(bench: Bench) -> None:
    done = run("curl", "-sS", "--unix-socket", str(bench.daemon.socket), "-X", "PUT", "-w", "%{http_code}",
               "http://d/v1.47/volumes/x?version=1")  # fmt: skip
    assert done.stdout.endswith("503") and "only valid for cluster volumes" in done.stdout
