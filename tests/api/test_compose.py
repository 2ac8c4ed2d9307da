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

from tests.api.walls import wait_until
from tests.daemon import Daemon, run

PLUGIN = "/usr/libexec/docker/cli-plugins/docker-compose"
FOUND = os.environ.get("ENISLE_TEST_COMPOSE") or f"{shutil.which('docker-compose') or ''}:{PLUGIN}"
CLIENTS = [path for path in FOUND.split(":") if path and Path(path).exists()]
assert CLIENTS, "no docker compose was found: source scripts/docker-plugins, or run ./run-tests"

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

BUILDS = """
services:
  app:
    build: {context: app, target: serving, args: {WHAT: tested}}
    ports: ["127.0.0.1::8000"]
    stop_signal: SIGKILL
    restart: unless-stopped
    healthcheck: {test: wget -qO- http://localhost:8000/, interval: 200ms, timeout: 10s, retries: 100}
  machine:
    build: {context: app}
    runtime: vm
    command: sleep 1000
    stop_signal: SIGKILL
    depends_on: {app: {condition: service_healthy}}
"""

WATCHED = """
x-watched: &watched
  image: watched
  build: {context: ., dockerfile_inline: "FROM busybox"}
  command: sleep 1000
  stop_signal: SIGKILL
  develop: {watch: [{action: sync, path: ./src, target: /w}]}
services:
  box:
    <<: *watched
    ports: ["127.0.0.1::8000"]
    healthcheck: {test: "true", interval: 200ms, timeout: 10s, retries: 100}
  machine: {<<: *watched, runtime: vm, depends_on: {box: {condition: service_healthy, restart: true}}}
"""

DOCKERFILE = """
FROM busybox AS base
ARG WHAT=default
RUN mkdir /www && echo "built $WHAT" > /www/index.html
FROM base AS serving
CMD ["httpd", "-f", "-p", "8000", "-h", "/www"]
FROM base
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

    def reads(self, service: str, paths: str) -> str | None:
        """What the files hold; None when there is not each of them."""
        done = self("exec", "-T", service, "sh", "-c", f"cat {paths}", check=False)
        return None if done.returncode else done.stdout

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

    def states(self, service: str) -> list[str]:
        """The states of a service's instances, those that ended too."""
        labels = (self.directory.name, service)
        filters = [
            word
            for kind, value in zip(("project", "service"), labels, strict=True)
            for word in ("--filter", f"label=com.docker.compose.{kind}={value}")
        ]
        return self.daemon.docker("ps", "-a", *filters, "--format", "{{.State}}").stdout.split()

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


def test_services_are_built(project: Project) -> None:
    write(project, BUILDS)
    (project.directory / "app").mkdir()
    (project.directory / "app" / "Dockerfile").write_text(DOCKERFILE)
    project("build")
    project("up", "-d", timeout_s=200)
    assert project.inside("machine", "wget", "-qO-", "http://app:8000/") == "built tested\n"
    assert project.inside("machine", "cat", "/www/index.html") == "built default\n"
    before = project.ids("app")
    (project.directory / "app" / "Dockerfile").write_text(DOCKERFILE.replace("built", "built again"))
    project("up", "-d", "--build", "app")
    assert project.ids("app") != before
    assert project.inside("app", "cat", "/www/index.html") == "built again tested\n"
    project("down", "-v", "-t", "0", "--rmi", "local")
    assert project.daemon.docker("images", "-q", f"{project.directory.name}*").stdout == ""


def test_what_one_does_with_what_runs(project: Project) -> None:
    write(project, STACK)
    project("up", "-d", "proxy")
    assert "sleep 1000" in project("top", "proxy").stdout
    assert "busybox" in project("images").stdout
    project("pause", "proxy")
    assert project.states("proxy") == ["paused"]
    project("unpause", "proxy")
    assert project.states("proxy") == ["running"]
    assert (
        project("run", "--rm", "-T", "-e", "WHO=me", "--name", "once", "proxy", "sh", "-c", "echo $WHO").stdout
        == "me\n"
    )
    project("kill", "proxy")
    assert project.states("proxy") == ["exited"]
    project("up", "-d", "proxy")
    project("rm", "-fsv", "proxy")
    assert project.states("proxy") == []


def test_v2_copies_and_waits(project: Project) -> None:
    """What v1 cannot do."""
    if "cli-plugins" not in project.client:
        return
    ends = "  ends: {image: busybox, command: sh -c 'exit 4', networks: [front], depends_on: [proxy]}"
    write(project, STACK.replace("\nnetworks: {", f"\n{ends}\nnetworks: {{", 1).replace('links: ["web:linked"]', ""))
    project("up", "-d", "ends")
    (project.directory / "note").write_text("copied")
    project("cp", "note", "proxy:/tmp/note")
    project("cp", "proxy:/tmp/note", "back")
    assert (project.directory / "back").read_text() == "copied"
    assert project("up", "--exit-code-from", "ends", "ends", check=False).returncode == 4
    (listed,) = json.loads(project("ls", "-a", "--format", "json", "--filter", f"name={project.directory.name}").stdout)
    assert listed["Name"] == project.directory.name


def test_v2_watches_and_restarts_what_depends(project: Project) -> None:
    """Files are kept in step behind both walls, removed ones too; who depends on what is restarted is restarted."""
    if "cli-plugins" not in project.client:
        return
    write(project, WATCHED)
    sources = project.directory / "src"
    (sources / "deep").mkdir(parents=True)
    project.daemon.docker("tag", "busybox", "watched")
    project("up", "-d", "--wait", "--no-build")
    environment = {**os.environ, "DOCKER_HOST": f"unix://{project.daemon.socket}"}
    command = [project.client, "watch", "--no-up"]
    with subprocess.Popen(
        command, cwd=project.directory, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as watching:
        try:
            assert watching.stdout is not None
            while "Watch enabled" not in watching.stdout.readline():
                assert watching.poll() is None
            (sources / "a").write_text("changed")
            (sources / "deep" / "n").write_text("new")
            for service in ("box", "machine"):
                wait_until(lambda of=service: project.reads(of, "/w/a /w/deep/n") == "changednew")  # type: ignore[misc]
            (sources / "a").unlink()
            for service in ("box", "machine"):
                wait_until(lambda of=service: project.reads(of, "/w/a") is None)  # type: ignore[misc]
        finally:
            watching.terminate()
    began = [project.daemon.docker("inspect", "-f", "{{.State.StartedAt}}", *project.ids("machine")).stdout]
    project("restart", "-t", "0", "box")
    began.append(project.daemon.docker("inspect", "-f", "{{.State.StartedAt}}", *project.ids("machine")).stdout)
    assert began[0] != began[1]
    assert project("port", "box", "8000").stdout.startswith("127.0.0.1:")
    assert "box" in project("stats", "--no-stream", "--format", "json").stdout
    project("down", "--rmi", "all", "-v", "-t", "0")
    assert project.left() == [] and not project.daemon.docker("images", "-q", "watched").stdout
