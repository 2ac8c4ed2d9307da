"""The docker client speaking older versions of the API, and what it says of what is not offered."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.daemon import Daemon, run

Docker = Callable[..., "subprocess.CompletedProcess[str]"]
NO_MANAGER = "This node is not a swarm manager."


def speaking(daemon: Daemon, version: str) -> Docker:
    def docker(*args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{daemon.socket}",
            "DOCKER_CONFIG": str(daemon.root / "docker"),
            "DOCKER_API_VERSION": version,
            "DOCKER_BUILDKIT": "0",
        }
        return run("docker", *args, env=environment, check=check)

    return docker


@pytest.mark.parametrize("version", ["1.24", "1.30", "1.41"])
def test_a_life_by_an_older_version(daemon: Daemon, tmp_path: Path, version: str) -> None:
    docker = speaking(daemon, version)
    name = f"old{version.replace('.', '')}"
    docker("network", "create", name)
    docker("volume", "create", name)
    docker("run", "-d", "--name", name, "-v", f"{name}:/data", "-p", "127.0.0.1::80", "busybox", "sleep", "1000")
    try:
        docker("network", "connect", "--alias", "known", name, name)
        assert docker("exec", name, "echo", "within").stdout == "within\n"
        assert docker("ps", "--format", "{{.Names}}", "--filter", f"name={name}").stdout == f"{name}\n"
        assert f'"{name}"' in docker("inspect", "-f", "{{json .Mounts}}", name).stdout
        aliases = docker("inspect", "-f", f"{{{{json .NetworkSettings.Networks.{name}.Aliases}}}}", name).stdout
        assert docker("inspect", "-f", "{{.Config.Hostname}}", name).stdout.strip() in aliases
        assert docker("port", name, "80").stdout.startswith("127.0.0.1:")
        docker("cp", f"{name}:/etc/passwd", str(tmp_path / "passwd"))
        (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo made > /made\n")
        image = docker("build", "-q", str(tmp_path)).stdout.strip()
        assert docker("run", "--rm", image, "cat", "/made").stdout == "made\n"
        docker("rmi", image)
        for words in (("stats", "--no-stream"), ("top",), ("logs",), ("pause",), ("unpause",), ("diff",)):
            docker(words[0], *words[1:], name)
    finally:
        docker("rm", "-fv", name)
        docker("network", "rm", name)
        docker("volume", "rm", name)


def test_a_dangling_image_is_listed_to_older_clients(own_daemon: Daemon, tmp_path: Path) -> None:
    for text in ("one", "two"):
        (tmp_path / "Dockerfile").write_text(f"FROM busybox\nLABEL text={text}\n")
        own_daemon.docker("build", "-q", "-t", "again", str(tmp_path))
    for version in ("1.42", "1.43"):
        listed = speaking(own_daemon, version)("images", "-f", "dangling=true", "--format", "{{.Repository}}").stdout
        assert listed == "<none>\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("node", "ls"), NO_MANAGER),
        (("service", "ls"), NO_MANAGER),
        (("stack", "ls"), NO_MANAGER),
        (("secret", "ls"), NO_MANAGER),
        (("config", "ls"), NO_MANAGER),
        (("swarm", "join-token", "worker"), NO_MANAGER),
        (("swarm", "leave"), "This node is not part of a swarm"),
        (("swarm", "init"), "Swarm is not offered"),
        (("plugin", "install", "x"), "plugins are not offered"),
        (("plugin", "inspect", "x"), 'plugin "x" not found'),
    ],
    ids=" ".join,
)
def test_swarm_and_plugins(daemon: Daemon, words: tuple[str, ...], said: str) -> None:
    done = daemon.docker(*words, check=False)
    assert done.returncode == 1
    assert said in done.stderr


def test_no_plugins_are_there(daemon: Daemon) -> None:
    assert daemon.docker("plugin", "ls", "-q").stdout == ""
