"""A part of the engine, or of an instance, is killed or stopped: what is left goes on, and the truth is told."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.api.walls import WALLS
from tests.counts import count, timeout_s
from tests.daemon import Daemon, run
from tests.faults.test_daemon_dies import pid_of, wait_for

ROUNDS = 3  # of a restart policy, which waits longer each time


def keeper_of(daemon: Daemon, name: str) -> int:
    """The pid of an instance's keeper."""
    instance = daemon.docker("inspect", "-f", "{{.Id}}", name).stdout.strip()
    return int(json.loads((daemon.run_root / "instances" / instance[:16] / "keeper.json").read_text())["pid"])


def children_of(pid: int) -> list[tuple[int, str]]:
    """(pid, name) of a process's children."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, rest = path.read_text().split("(", 1)[1].rsplit(")", 1)
        except OSError:
            continue
        if int(rest.split()[1]) == pid:
            found.append((int(path.parent.name), name))
    return found


def until(condition: Callable[[], bool], *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)


@pytest.mark.timeout(timeout_s(400, 3000))
@pytest.mark.parametrize("wall", list(WALLS.values()), ids=list(WALLS))
def test_a_killed_keeper_ends_its_instance_alone(own_daemon: Daemon, wall: list[str]) -> None:
    """F3: nobody is left who owns its log and exit code; the restart policy brings it back, neighbours live on."""
    docker = own_daemon.docker
    docker("run", "-d", "--name", "neighbour", "busybox", "sleep", "1000")
    neighbour = pid_of(own_daemon, "neighbour")
    docker("run", "-d", "--name", "once", *wall, "busybox", "sleep", "1000", timeout_s=120)
    docker("run", "-d", "--name", "again", "--restart", "always", *wall, "busybox", "sleep", "1000", timeout_s=120)
    os.kill(keeper_of(own_daemon, "once"), signal.SIGKILL)
    wait_for(own_daemon, "once", "exited")
    state = json.loads(docker("inspect", "-f", "{{json .State}}", "once").stdout)
    assert state["ExitCode"] in (137, 255), state
    assert not state["Running"]
    for number in range(1, ROUNDS + 1):
        os.kill(keeper_of(own_daemon, "again"), signal.SIGKILL)
        wanted = f"{number} running"
        shown = ("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "again")
        until(lambda: docker(*shown).stdout.strip() == wanted, timeout_s=120)  # noqa: B023 - called in this round only
    assert docker("exec", "again", "echo", "alive", timeout_s=120).stdout == "alive\n"
    assert pid_of(own_daemon, "neighbour") == neighbour
    docker("start", "once", timeout_s=120)
    assert docker("inspect", "-f", "{{.State.Status}}", "once").stdout == "running\n"


@pytest.mark.timeout(timeout_s(400, 3000))
def test_a_killed_qemu_is_an_exit_that_the_restart_policy_sees(own_daemon: Daemon) -> None:
    """F22: told with its reason; tap, cgroup and disk lock are free for the next one at once."""
    docker = own_daemon.docker
    flags = ("--runtime", "vm", "--restart", "always", "-v", "data:/data")
    docker("run", "-d", "--name", "vm", *flags, "busybox", "sleep", "1000", timeout_s=120)
    for number in range(1, ROUNDS + 1):
        program = next(pid for pid, name in children_of(keeper_of(own_daemon, "vm")) if name.startswith("qemu"))
        os.kill(program, signal.SIGKILL)
        wanted = f"{number} running"
        shown = ("inspect", "-f", "{{.RestartCount}} {{.State.Status}}", "vm")
        until(lambda: docker(*shown).stdout.strip() == wanted, timeout_s=150)  # noqa: B023 - called in this round only
    assert docker("exec", "vm", "touch", "/data/alive", timeout_s=120).returncode == 0
    docker("update", "--restart", "no", "vm")
    program = next(pid for pid, name in children_of(keeper_of(own_daemon, "vm")) if name.startswith("qemu"))
    os.kill(program, signal.SIGKILL)
    wait_for(own_daemon, "vm", "exited")
    assert docker("inspect", "-f", "{{.State.ExitCode}}", "vm").stdout == "137\n"


@pytest.mark.timeout(timeout_s(400, 1200))
def test_many_a_killed_qemu_leaves_nothing(own_daemon: Daemon) -> None:
    """F22: told with its exit code; tap, cgroup and processes are gone, and the disk is there for the next start."""
    docker = own_daemon.docker
    docker(
        "run", "-d", "--name", "vm", "--runtime", "vm", "-v", "data:/data", "busybox", "sleep", "1000", timeout_s=120
    )
    for number in range(count(2, 50)):
        docker("exec", "vm", "sh", "-c", f"echo {number} >> /data/kept; echo {number} >> /kept; sync", timeout_s=60)
        program = next(pid for pid, name in children_of(keeper_of(own_daemon, "vm")) if name.startswith("qemu"))
        os.kill(program, signal.SIGKILL)
        wait_for(own_daemon, "vm", "exited")
        assert docker("inspect", "-f", "{{.State.ExitCode}}", "vm").stdout == "137\n"
        until(lambda: nothing_runs(own_daemon))
        docker("start", "vm", timeout_s=120)
    written = docker("exec", "vm", "cat", "/data/kept", "/kept", timeout_s=60).stdout.split()
    assert written == [str(number) for number in range(count(2, 50))] * 2


def nothing_runs(daemon: Daemon) -> bool:
    """No link, cgroup, process or socket of an instance is left."""
    taps = [line for line in run("ip", "-o", "link").stdout.splitlines() if daemon.name in line and "tun" in line]
    keepers = list((daemon.run_root / "instances").glob("*"))
    groups = list(Path("/sys/fs/cgroup").glob(f"*/{daemon.name}/*/"))
    return not taps and not keepers and not groups


def test_a_killed_launcher_is_replaced_and_nobody_notices(own_daemon: Daemon) -> None:
    docker = own_daemon.docker
    docker("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    pid = pid_of(own_daemon, "stays")
    for _ in range(ROUNDS):
        socket_path = str(own_daemon.run_root)
        launchers = [
            int(path.parent.name)
            for path in Path("/proc").glob("[0-9]*/cmdline")
            if _is_launcher(path, socket_path) and int(path.parent.name) != keeper_of(own_daemon, "stays")
        ]
        oldest = min(launchers)  # keepers are its forks and look like it
        os.kill(oldest, signal.SIGKILL)
        assert docker("run", "--rm", "busybox", "echo", "works").stdout == "works\n"
    assert pid_of(own_daemon, "stays") == pid
    assert docker("exec", "stays", "echo", "alive").stdout == "alive\n"


def _is_launcher(path: Path, run_root: str) -> bool:
    try:
        words = path.read_bytes().split(b"\0")
    except OSError:
        return False
    return run_root.encode() in words and any(word.endswith(b"launcher/main.py") for word in words)


@pytest.mark.timeout(300)
def test_a_stopped_daemon_stops_nobody(own_daemon: Daemon) -> None:
    """F5: SIGSTOP for some seconds, then on; then SIGTERM with many running: it ends in less than ten seconds."""
    docker = own_daemon.docker
    names = [f"many{number}" for number in range(count(20, 50))]
    for name in names:
        docker(
            "run", "-d", "--name", name, "busybox", "sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.1; done"
        )
    pids = [pid_of(own_daemon, name) for name in names]
    assert own_daemon.process is not None
    own_daemon.process.send_signal(signal.SIGSTOP)
    try:
        waiting = subprocess.Popen(["sleep", str(count(3, 60))])
        waiting.wait()
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
    finally:
        own_daemon.process.send_signal(signal.SIGCONT)
    lines = [int(line) for line in docker("logs", names[0]).stdout.split()]
    assert lines == list(range(1, len(lines) + 1))
    assert len(lines) > 10
    begun = time.monotonic()
    own_daemon.stop(timeout_s=60)
    assert time.monotonic() - begun < 30
    assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
    own_daemon.start()
    assert [pid_of(own_daemon, name) for name in names] == pids


def _lose_everything_but_the_disk(daemon: Daemon) -> None:
    """What a reboot of the host does: processes, links, rules and /run are gone, the data root stays."""
    daemon.kill()
    mine = [int(line.split()[0]) for line in daemon.census().get("processes", [])]
    ends = [os.pidfd_open(pid) for pid in mine if os.path.exists(f"/proc/{pid}")]
    for end in ends:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(end, signal.SIGKILL)
    for end in ends:
        assert select.select([end], [], [], 20)[0]
        os.close(end)
    for link in run("ip", "-o", "link", "show", "type", "bridge").stdout.splitlines():
        name = link.split(":")[1].strip()
        if daemon.name in name:
            run("ip", "link", "delete", name)
    for line in run("nft", "list", "tables").stdout.splitlines():
        if daemon.name in line:
            run("nft", "delete", *line.split())
    for path in daemon.run_root.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.timeout(timeout_s(400, 3000))
def test_the_host_is_restarted(own_daemon: Daemon) -> None:
    """F6: nothing is said to run that does not; restart policies are obeyed, ports and volumes are back."""
    docker = own_daemon.docker
    serve = ("sh", "-c", "echo $(date +%s) >> /data/lives; echo hi > /index.html; exec httpd -f -p 80 -h /")
    flags = ("-v", "lives:/data", "-p", "127.0.0.1::80")
    docker("run", "-d", "--name", "always", "--restart", "always", *flags, "busybox", *serve)
    docker("run", "-d", "--name", "stopped", "--restart", "unless-stopped", "busybox", "sleep", "1000")
    docker("run", "-d", "--name", "once", "busybox", "sleep", "1000")
    docker(
        "run", "-d", "--name", "vm", "--runtime", "vm", "--restart", "always", "busybox", "sleep", "1000", timeout_s=120
    )
    docker("stop", "-t", "0", "stopped")
    _lose_everything_but_the_disk(own_daemon)
    own_daemon.start()
    states = {name: docker("inspect", "-f", "{{.State.Status}}", name).stdout.strip() for name in ("stopped", "once")}
    assert states == {"stopped": "exited", "once": "exited"}
    wait_for(own_daemon, "always", "running")
    wait_for(own_daemon, "vm", "running", timeout_s=150)
    address = docker("port", "always").stdout.split("->")[1].strip()
    until(lambda: run("curl", "-s", f"http://{address}/index.html", check=False).stdout == "hi\n")
    assert docker("exec", "always", "cat", "/data/lives").stdout.count("\n") == 2
    assert docker("exec", "vm", "echo", "alive", timeout_s=120).stdout == "alive\n"
    assert docker("inspect", "-f", "{{.State.ExitCode}}", "once").stdout.strip() != "0"
