"""Another OCI runtime behind --runtime: what tests/api/test_both_walls.py does not ask of every wall."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.places import Place
from tests.api.walls import Wall, wait_until
from tests.daemon import Daemon, dispose, image_archive, new_daemon

NAME = "debian-runc"
CONFIG = """
default_runtime = "runc"
[runtimes.runc]
path = "/usr/sbin/runc"
[runtimes.gone]
path = "/no/runtime"
"""


@pytest.fixture
def foreign(daemon: Daemon) -> Iterator[Wall]:
    made = Wall(daemon, "runtime")
    yield made
    made.clean()


@pytest.fixture(scope="module")
def renamed() -> Iterator[Daemon]:
    """An enisled whose default runtime is another one, called runc; and one that is not there."""
    config = (
        'default_runtime = "runc"\n[runtimes.runc]\npath = "/usr/sbin/runc"\n[runtimes.gone]\npath = "/no/runtime"\n'
    )
    made = new_daemon(prefix="g", extra_config=config)
    made.start()
    made.docker("load", "-q", "-i", str(image_archive("busybox")))
    yield made
    dispose(made)


def made_by_runc(daemon: Daemon, name: str) -> bool:
    """Whether runc has a record of it."""
    return any(daemon.run_root.glob(f"instances/*/oci/state/{identity(daemon, name)}/state.json"))


def identity(daemon: Daemon, name: str) -> str:
    return daemon.docker("inspect", "-f", "{{.Id}}", name).stdout.strip()


def test_runtimes_are_listed(daemon: Daemon, renamed: Daemon) -> None:
    info = json.loads(daemon.docker("info", "--format", "{{json .}}").stdout)
    assert info["Runtimes"][NAME] == {"path": "/usr/sbin/runc"}
    assert {"enisle", "runc", "vm"} < set(info["Runtimes"]) and info["DefaultRuntime"] == "runc"
    assert renamed.docker("info", "--format", "{{.DefaultRuntime}}").stdout == "runc\n"
    lines = renamed.enisle("doctor", "--json", check=False).stdout
    assert "/no/runtime is no program that can be run" in lines


def test_a_runtime_that_is_not_set(daemon: Daemon) -> None:
    done = daemon.docker("run", "--rm", "--runtime", "crun", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "unknown or invalid runtime name: crun" in done.stderr


def test_a_runtime_that_is_not_there(renamed: Daemon) -> None:
    done = renamed.docker("run", "--rm", "--runtime", "gone", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "runtime gone: /no/runtime is no program that can be run" in done.stderr


def test_the_name_runc_is_ours_unless_it_is_set(daemon: Daemon, renamed: Daemon, place: Place) -> None:
    ours = place.start("ours", "--runtime", "runc")
    assert not made_by_runc(daemon, ours)
    for name, flags, theirs in (("one", (), True), ("two", ("--runtime", "enisle"), False)):
        renamed.docker("run", "-d", "--name", name, *flags, "busybox", "sleep", "1000")
        assert made_by_runc(renamed, name) is theirs
        shown = renamed.docker("inspect", "-f", "{{.HostConfig.Runtime}}", name).stdout
        assert shown == ("runc\n" if theirs else "enisle\n")
        renamed.docker("rm", "-f", name)


def test_it_lives_through_a_restart_of_enisled(own_daemon: Daemon) -> None:
    docker = own_daemon.docker
    docker("run", "-d", "--runtime", NAME, "--name", "on", "busybox", "sh", "-c", "while sleep 0.1; do echo tick; done")
    pid = docker("inspect", "-f", "{{.State.Pid}}", "on").stdout
    own_daemon.kill()
    own_daemon.start()
    assert docker("inspect", "-f", "{{.State.Pid}}", "on").stdout == pid
    assert docker("exec", "on", "echo", "still").stdout == "still\n"
    docker("stop", "-t", "0", "on")
    assert docker("inspect", "-f", "{{.State.ExitCode}}", "on").stdout == "137\n"
    docker("start", "on")
    assert docker("exec", "on", "echo", "again").stdout == "again\n"


def test_a_keeper_that_is_killed_takes_it_along(own_daemon: Daemon) -> None:
    docker = own_daemon.docker
    docker("run", "-d", "--runtime", NAME, "--name", "lost", "busybox", "sleep", "1000")
    pid = int(docker("inspect", "-f", "{{.State.Pid}}", "lost").stdout)
    stat = Path(f"/proc/{pid}/stat").read_text()
    os.kill(int(stat.rpartition(")")[2].split()[1]), signal.SIGKILL)  # its parent is its keeper
    wait_until(lambda: docker("inspect", "-f", "{{.State.Status}}", "lost").stdout == "exited\n")
    wait_until(lambda: not Path(f"/proc/{pid}").exists())
    docker("start", "lost")
    assert docker("exec", "lost", "echo", "back").stdout == "back\n"


def test_limits_are_the_cgroups_and_can_change(foreign: Wall) -> None:
    name = foreign.start("limits", "-m", "64m", "--pids-limit", "50", "--cpu-shares", "512")
    read = (
        "exec",
        name,
        "sh",
        "-c",
        "cat /sys/fs/cgroup/memory/memory.limit_in_bytes || cat /sys/fs/cgroup/memory.max",
    )
    assert foreign.daemon.docker(*read, check=False).stdout.split() == [str(64 << 20)]
    foreign.daemon.docker("update", "-m", "96m", "--memory-swap", "192m", name)
    assert foreign.daemon.docker(*read, check=False).stdout.split() == [str(96 << 20)]
    figures = foreign.daemon.docker("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", name).stdout
    assert "96MiB" in figures and figures.split()[-1] == "1"


def test_a_pause_stops_everything(foreign: Wall) -> None:
    name = foreign.start("paused", command=("sh", "-c", "while sleep 0.05; do echo tick; done"))
    foreign.daemon.docker("pause", name)
    assert foreign.inspect(name, "{{.State.Status}}") == "paused"
    before = foreign.daemon.docker("logs", name).stdout
    time.sleep(0.3)
    assert foreign.daemon.docker("logs", name).stdout == before
    foreign.daemon.docker("unpause", name)
    wait_until(lambda: len(foreign.daemon.docker("logs", name).stdout) > len(before))


def test_the_filter_and_capabilities_hold(foreign: Wall) -> None:
    script = "grep -E '^(Cap(Prm|Bnd)|Seccomp|NoNewPrivs):' /proc/self/status; unshare -m true || echo refused"
    out = foreign.run("--rm", "--cap-drop", "ALL", "--security-opt", "no-new-privileges", "busybox", "sh", "-c", script)
    words = out.stdout.split()
    assert words[words.index("CapBnd:") + 1] == "0" * 16
    assert words[words.index("Seccomp:") + 1] == "2" and words[words.index("NoNewPrivs:") + 1] == "1"
    assert words[-1] == "refused"
    free = foreign.run("--rm", "--privileged", "busybox", "sh", "-c", script).stdout.split()
    assert free[free.index("Seccomp:") + 1] == "0" and "refused" not in free


def test_namespaces_are_shared_as_asked(foreign: Wall) -> None:
    first = foreign.start("first", "--hostname", "one")
    joined = ("--pid", f"container:{first}", "--network", f"container:{first}", "--ipc", f"container:{first}")
    foreign.daemon.docker("rm", "-f", first)
    first = foreign.start("shareable", "--ipc", "shareable")
    joined = ("--pid", f"container:{first}", "--network", f"container:{first}", "--ipc", f"container:{first}")
    out = foreign.run(
        "--rm", *joined, "busybox", "sh", "-c", "ps | grep -c 'sleep 1000'; ls /proc/1/ns >/dev/null; echo x"
    )
    assert out.stdout.split()[0] >= "1"
    host = foreign.run("--rm", "--pid", "host", "busybox", "sh", "-c", "(sleep 0.1 &) ; ps | wc -l")
    assert int(host.stdout) > 5


def test_binds_and_volumes(foreign: Wall, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_text("host\n")
    script = "cat /b/sub/file; touch /b/x || echo ro; touch /v/made; ls /etc/hosts; mount | grep -c ' /t '"
    out = foreign.run(
        *("--rm", "-v", f"{tmp_path}:/b:ro", "-v", "runtime-volume:/v", "--tmpfs", "/t:size=1m", "busybox"),
        *("sh", "-c", script),
    )
    assert out.stdout.split() == ["host", "ro", "/etc/hosts", "1"]
    assert foreign.run("--rm", "-v", "runtime-volume:/etc/group.d", "busybox", "ls", "/etc/group.d").stdout == "made\n"
    foreign.daemon.docker("volume", "rm", "runtime-volume")


def test_what_it_cannot_do_is_refused(daemon: Daemon) -> None:
    done = daemon.enisle("run", "--rm", "--runtime", NAME, "--userns", "private", "busybox", "true", check=False)
    assert done.returncode == 125 and "user namespaces cannot be had with the runtime" in done.stderr


def test_many_processes_come_and_go(foreign: Wall) -> None:
    name = foreign.start("busy")
    codes = [
        subprocess.Popen(
            ["docker", "exec", name, "sh", "-c", f"exit {number}"],
            env={**os.environ, "DOCKER_HOST": f"unix://{foreign.daemon.socket}"},
        )
        for number in range(8)
    ]
    assert [process.wait(60) for process in codes] == list(range(8))
    keeper = Path(f"/proc/{foreign.inspect(name, '{{.State.Pid}}')}/stat").read_text().rpartition(")")[2].split()[1]
    children = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
    assert len(children) == 1, "only the container's first process is left of the keeper's children"
