"""docker compose, v1 and v2, as Debian has them: whole projects up, used, scaled and down again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.daemon import Daemon, run

PLUGIN = "/usr/libexec/docker/cli-plugins/docker-compose"
FOUND = os.environ.get("ENISLE_TEST_COMPOSE") or f"{shutil.which('docker-compose') or ''}:{PLUGIN}"
CLIENTS = [path for path in FOUND.split(":") if path and Path(path).exists()]
assert CLIENTS, "no docker compose was found: source scripts/compose-clients, or run ./run-tests"

STACK = """
services:
  db:
    image: busybox
    command: sh -c 'echo kept > /data/state; mkdir /www; echo hello > /www/index.html; exec httpd -f -p 8000 -h /www'
    stop_signal: SIGKILL
    volumes: ["data:/data"]
    healthcheck: {test: wget -qO- http://localhost:8000/, interval: 200ms, timeout: 5s, retries: 100}
    networks: {back: {aliases: [database]}}
  web:
    image: busybox
    command: sh -c 'wget -qO- http://database:8000/ && cat /data/state && exec sleep 1000'
    stop_signal: SIGKILL
    depends_on: {db: {condition: service_healthy}}
    volumes: ["data:/data:ro"]
    environment: [WHO=the web]
    networks: [back, front]
    ports: ["127.0.0.1::8000"]
  proxy:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    networks: [front]
    links: ["web:linked"]
  debugger:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    profiles: [debug]
    networks: [front]
networks: {back: {internal: true}, front: {}}
volumes: {data: {labels: {kind: test}}}
"""

BOTH_WALLS = """
x-server: &server
  image: busybox
  command: sh -c 'mkdir /www; hostname > /www/index.html; exec httpd -f -p 8000 -h /www'
  stop_signal: SIGKILL
  healthcheck: {test: wget -qO- http://localhost:8000/, interval: 300ms, timeout: 20s, retries: 100}
services:
  box: {<<: *server, hostname: i-am-box}
  machine: {<<: *server, hostname: i-am-machine, runtime: vm}
  after:
    image: busybox
    command: sleep 1000
    stop_signal: SIGKILL
    depends_on: {box: {condition: service_healthy}, machine: {condition: service_healthy}}
"""


@dataclass
class Project:
    """A compose file in a directory of its own, whose name is the project's."""

    client: str
    daemon: Daemon
    directory: Path

    def __call__(self, *args: str, check: bool = True, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "DOCKER_HOST": f"unix://{self.daemon.socket}",
            "DOCKER_CONFIG": str(self.daemon.root / "docker"),
        }
        return run(self.client, *args, cwd=self.directory, env=environment, timeout_s=timeout_s, check=check)

    def inside(self, service: str, *command: str) -> str:
        """The output of a command in the first instance of a service."""
        return self("exec", "-T", service, *command).stdout

    def resolves(self, service: str, name: str) -> bool:
        done = self("exec", "-T", service, "nslookup", name, check=False)
        assert done.returncode == 0 or "NXDOMAIN" in done.stdout + done.stderr, done
        return done.returncode == 0

    def ids(self, service: str) -> list[str]:
        return self("ps", "-q", service).stdout.split()

    def names(self) -> set[str]:
        """The services that run."""
        label = f"label=com.docker.compose.project={self.directory.name}"
        template = '{{.Label "com.docker.compose.service"}}'
        return set(self.daemon.docker("ps", "--filter", label, "--format", template).stdout.split())

    def left(self) -> list[str]:
        """What of the project is still there."""
        label = f"label=com.docker.compose.project={self.directory.name}"
        lists = (("ps", "-aq"), ("network", "ls", "-q"), ("volume", "ls", "-q"))
        return [line for args in lists for line in self.daemon.docker(*args, "--filter", label).stdout.split()]


@pytest.fixture(params=CLIENTS, ids=lambda path: "v2" if "cli-plugins" in path else "v1")
def project(daemon: Daemon, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Project]:
    directory = tmp_path / f"stack{os.urandom(3).hex()}"
    directory.mkdir()
    made = Project(request.param, daemon, directory)
    yield made
    made("--profile", "debug", "down", "-v", "--remove-orphans", "-t", "0", check=False)


def write(project: Project, text: str) -> None:
    (project.directory / "docker-compose.yml").write_text(text)


def test_a_stack_comes_up_in_order_and_goes_without_a_trace(project: Project) -> None:
    write(project, STACK)
    project("up", "-d")
    assert "hello" in project("logs", "--no-color", "web").stdout  # it asked once, so the database was up before
    assert project.inside("web", "sh", "-c", "cat /data/state; echo $WHO").splitlines() == ["kept", "the web"]
    assert project("port", "web", "8000").stdout.startswith("127.0.0.1:")
    volume = json.loads(project.daemon.docker("volume", "inspect", f"{project.directory.name}_data").stdout)[0]
    assert volume["Labels"]["kind"] == "test"
    project("restart", "-t", "0", "web")
    project("stop", "-t", "0")
    project("start")
    assert project.inside("web", "cat", "/data/state") == "kept\n"
    assert project("run", "--rm", "-T", "proxy", "echo", "once").stdout == "once\n"
    project("down", "-v", "-t", "0")
    assert project.left() == []


def test_scale_up_and_down(project: Project) -> None:
    write(project, STACK)
    project("up", "-d", "--scale", "web=3")
    assert len(project.ids("web")) == 3
    found = project.inside("proxy", "nslookup", "web")
    assert found.count("Address:") - 1 == 3, found  # the first is the nameserver's
    project("up", "-d", "--scale", "web=1")
    assert len(project.ids("web")) == 1


def test_names_reach_as_far_as_networks(project: Project) -> None:
    write(project, STACK)
    project("up", "-d")
    assert [project.resolves("web", name) for name in ("db", "database", "proxy")] == [True, True, True]
    assert [project.resolves("proxy", name) for name in ("web", "linked", "db")] == [True, True, False]
    assert [project.resolves("db", name) for name in ("web", "proxy", "linked")] == [True, False, False]


def test_profiles(project: Project) -> None:
    write(project, STACK)
    project("up", "-d")
    assert project.names() == {"db", "web", "proxy"}
    project("--profile", "debug", "up", "-d", "debugger")
    assert project.names() == {"db", "web", "proxy", "debugger"}


def test_a_change_makes_only_that_service_anew(project: Project) -> None:
    write(project, STACK)
    project("up", "-d")
    before = {service: project.ids(service) for service in ("db", "web", "proxy")}
    write(project, STACK.replace("WHO=the web", "WHO=another"))
    project("up", "-d", "-t", "0")
    assert project.inside("web", "sh", "-c", "echo $WHO") == "another\n"
    assert project.ids("db") == before["db"]
    assert project.ids("web") != before["web"]


def test_a_vm_and_a_container_find_each_other(project: Project) -> None:
    write(project, BOTH_WALLS)
    project("up", "-d", timeout_s=240)
    assert project.inside("box", "wget", "-qO-", "http://machine:8000/") == "i-am-machine\n"
    assert project.inside("machine", "wget", "-qO-", "http://box:8000/") == "i-am-box\n"
    assert project.inside("machine", "uname", "-v") != project.inside("box", "uname", "-v"), "one kernel for both"
    project("down", "-v", "-t", "0")
    assert project.left() == []
