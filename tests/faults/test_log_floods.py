"""An instance that prints without end (F20): bounded memory, bounded logs, and nobody else waits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.counts import count, timeout_s
from tests.daemon import Daemon
from tests.faults.test_parts_die import keeper_of
from tests.faults.test_resource_use import rss_kb

_RSS_LIMIT_KB = 64 << 10
_WALLS = pytest.mark.parametrize("wall", [[], ["--runtime", "vm"]], ids=["container", "vm"])


def peak_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def log_bytes(daemon: Daemon, name: str) -> list[int]:
    path = Path(daemon.docker("inspect", "-f", "{{.LogPath}}", name).stdout.strip())
    return [one.stat().st_size for one in path.parent.glob(f"{path.name}*")]


@_WALLS
@pytest.mark.timeout(timeout_s(240, 900))
def test_lines_without_end(daemon: Daemon, wall: list[str]) -> None:
    name = f"flood{len(wall)}"
    options = ("--log-opt", "max-size=1m", "--log-opt", "max-file=3")
    daemon.docker("run", "-d", "--name", name, *wall, *options, "busybox", "yes", "a" * 200, timeout_s=120)
    keeper = keeper_of(daemon, name)
    assert daemon.process is not None
    before = rss_kb(daemon.process.pid)
    deadline = time.monotonic() + count(3, 60)
    while time.monotonic() < deadline:
        assert daemon.docker("exec", name, "echo", "here", timeout_s=60).stdout == "here\n"
        assert len(daemon.docker("logs", "--tail", "5", name).stdout.splitlines()) == 5
    assert peak_kb(keeper) < _RSS_LIMIT_KB
    assert rss_kb(daemon.process.pid) < before + _RSS_LIMIT_KB
    sizes = log_bytes(daemon, name)
    assert len(sizes) <= 3
    assert all(size <= (1 << 20) + (64 << 10) for size in sizes)
    daemon.docker("rm", "-f", name)


@_WALLS
@pytest.mark.timeout(timeout_s(240, 900))
def test_a_line_without_end(daemon: Daemon, wall: list[str]) -> None:
    name = f"line{len(wall)}"
    megabytes = count(50, 1024)
    script = f"head -c {megabytes << 20} /dev/zero | tr '\\0' x; exit 3"
    daemon.docker("run", "-d", "--name", name, *wall, "busybox", "sh", "-c", f"sleep 1; {script}", timeout_s=120)
    keeper, peak = keeper_of(daemon, name), 0
    while daemon.docker("inspect", "-f", "{{.State.Running}}", name).stdout == "true\n":
        try:
            peak = max(peak, peak_kb(keeper))
        except FileNotFoundError:
            break
    assert daemon.docker("wait", name, timeout_s=600).stdout == "3\n"
    assert 0 < peak < _RSS_LIMIT_KB
    daemon.docker("rm", name)


def test_a_reader_that_stops_reading_holds_up_nobody(daemon: Daemon) -> None:
    """``docker logs -f`` that is stopped: the container goes on, and enisled does not collect what it prints."""
    script = "n=0; while [ $n -lt 400000 ]; do n=$((n+1)); echo line $n of many; done; exit 5"
    daemon.docker("run", "-d", "--name", "talks", "busybox", "sh", "-c", script)
    environment = {**os.environ, "DOCKER_HOST": f"unix://{daemon.engine_socket}"}
    reader = subprocess.Popen(["docker", "logs", "-f", "talks"], env=environment, stdout=subprocess.PIPE)
    try:
        reader.send_signal(signal.SIGSTOP)
        assert daemon.docker("wait", "talks", timeout_s=100).stdout == "5\n"
        assert daemon.process is not None
        assert rss_kb(daemon.process.pid) < 300 << 10
        reader.send_signal(signal.SIGCONT)
        output, _ = reader.communicate(timeout=60)
    finally:
        reader.kill()
    lines = output.decode().splitlines()
    assert lines[-1] == "line 400000 of many"
    state = json.loads(daemon.docker("inspect", "-f", "{{json .State}}", "talks").stdout)
    assert state["ExitCode"] == 5
    daemon.docker("rm", "talks")
