"""enisled is killed while instances run: nothing of theirs may be lost."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest

from tests.daemon import Daemon

COUNTING = "n=0; while [ $n -lt {count} ]; do n=$((n+1)); echo line $n; sleep 0.01; done; exit {code}"


def pid_of(daemon: Daemon, name: str) -> int:
    return int(daemon.docker("inspect", "-f", "{{.State.Pid}}", name).stdout)


def wait_for(daemon: Daemon, name: str, state: str, *, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    seen = ""
    while time.monotonic() < deadline:
        seen = daemon.docker("inspect", "-f", "{{.State.Status}}", name).stdout.strip()
        if seen == state:
            return
        time.sleep(0.05)
    raise AssertionError(f"{name} is {seen}, not {state}\n{daemon.log[-3000:]}")


@pytest.mark.parametrize("wall", [[], ["--runtime", "vm"]], ids=["container", "vm"])
def test_killed_daemon_loses_nothing(own_daemon: Daemon, wall: list[str]) -> None:
    daemon = own_daemon
    docker = daemon.docker
    docker("run", "-d", "--name", "stays", *wall, "-p", "127.0.0.1::9000", "busybox", "sleep", "1000", timeout_s=120)
    script = COUNTING.format(count=400, code=7)
    docker("run", "-d", "--name", "ends", *wall, "busybox", "sh", "-c", script, timeout_s=120)
    pid, port = pid_of(daemon, "stays"), docker("port", "stays").stdout
    daemon.kill()
    keeper_done = daemon.data_root / "instances"
    deadline = time.monotonic() + 90
    while not list(keeper_done.glob("*/exit.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    daemon.start()
    assert pid_of(daemon, "stays") == pid
    assert docker("port", "stays").stdout == port
    wait_for(daemon, "ends", "exited")
    assert docker("inspect", "-f", "{{.State.ExitCode}}", "ends").stdout == "7\n"
    assert docker("logs", "ends").stdout.splitlines() == [f"line {n}" for n in range(1, 401)]
    assert docker("exec", "stays", "echo", "alive").stdout == "alive\n"
    docker("stop", "-t", "1", "stays", timeout_s=60)
    assert docker("inspect", "-f", "{{.State.Status}}", "stays").stdout == "exited\n"


def test_attached_client_does_not_notice(own_daemon: Daemon) -> None:
    daemon = own_daemon
    daemon.docker("run", "-d", "--name", "host", "busybox", "sleep", "1000")
    script = "read a; echo one $a; read b; echo two $b"
    client = subprocess.Popen(
        ["docker", "exec", "-i", "host", "sh", "-c", script],
        env={**os.environ, "DOCKER_HOST": f"unix://{daemon.socket}"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.write("first\n")
    client.stdin.flush()
    assert client.stdout.readline() == "one first\n"
    daemon.kill()
    client.stdin.write("second\n")
    client.stdin.flush()
    assert client.stdout.readline() == "two second\n"
    client.stdin.close()
    client.stdout.close()
    client.wait(30)
    daemon.start()


def test_sigterm_leaves_workloads_running(own_daemon: Daemon) -> None:
    daemon = own_daemon
    daemon.docker("run", "-d", "--name", "stays", "busybox", "sleep", "1000")
    pid = pid_of(daemon, "stays")
    begun = time.monotonic()
    assert daemon.stop() == 0
    assert time.monotonic() - begun < 10
    os.kill(pid, 0)
    daemon.start()
    assert pid_of(daemon, "stays") == pid


def test_restart_policy_is_applied_after_a_crash(own_daemon: Daemon) -> None:
    daemon = own_daemon
    daemon.docker("run", "-d", "--restart", "always", "--name", "again", "busybox", "sleep", "1000")
    pid = pid_of(daemon, "again")
    daemon.kill()
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while not list((daemon.data_root / "instances").glob("*/exit.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    daemon.start()
    wait_for(daemon, "again", "running")
    assert pid_of(daemon, "again") != pid


def test_killed_at_random_points_of_many_lifecycles(own_daemon: Daemon) -> None:
    """Whatever was answered before the kill is true after the restart; what was not is whole or not there."""
    daemon = own_daemon
    environment = {**os.environ, "DOCKER_HOST": f"unix://{daemon.socket}"}
    for round_number in range(4):
        script = (
            f"for n in 1 2 3 4 5 6 7 8 9 10 11 12; do docker run -d --name r{round_number}-$1-$n busybox sh -c 'exit 3'"
            " >/dev/null 2>&1 && echo made $n; docker rm -f r%d-$1-$((n-1)) >/dev/null 2>&1; done" % round_number
        )
        workers = [
            subprocess.Popen(
                ["sh", "-c", script, "sh", str(worker)], env=environment, stdout=subprocess.PIPE, text=True
            )
            for worker in range(3)
        ]
        time.sleep(0.25 + 0.3 * round_number)
        daemon.kill()
        for worker in workers:
            worker.communicate(timeout=60)
        daemon.start()
        for name in daemon.docker("ps", "-a", "--format", "{{.Names}}").stdout.split():
            wait_for_rest(daemon, name)
    names = daemon.docker("ps", "-aq").stdout.split()
    if names:
        daemon.docker("rm", "-f", *names, timeout_s=120)
    assert [path.name for path in (daemon.data_root / "instances").iterdir()] == []


def wait_for_rest(daemon: Daemon, name: str) -> None:
    """Every instance ends up created (never started) or exited with its own code."""
    deadline = time.monotonic() + 30
    shown = ""
    while time.monotonic() < deadline:
        shown = daemon.docker("inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name).stdout.strip()
        if shown in ("created 0", "exited 3"):
            return
        time.sleep(0.05)
    raise AssertionError(f"{name}: {shown}\n{daemon.log[-3000:]}")
