"""What an engine needs runs out (F13): descriptors, addresses, processes. It says so, and goes on after it."""

from __future__ import annotations

import resource
import socket
import time
from pathlib import Path

import pytest

from tests.daemon import Daemon
from tests.faults.test_resource_use import connected, descriptors, request, settles


def test_descriptors(own_daemon: Daemon) -> None:
    own_daemon.docker("run", "-d", "--name", "runs", "busybox", "sleep", "1000")
    assert own_daemon.process is not None
    pid = own_daemon.process.pid
    before, limits = descriptors(pid), resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (128, limits[1]))
    held = [connected(own_daemon) for _ in range(300)]
    for sock in held[:50]:
        sock.sendall(request("GET", "/events"))  # which keeps them open
    assert settles(lambda: descriptors(pid) >= 127)
    used = cpu_ticks(pid)
    time.sleep(1)
    assert cpu_ticks(pid) - used < 50, "it spins for want of descriptors"
    for sock in held:
        sock.close()
    assert settles(lambda: descriptors(pid) <= before + 5)
    assert own_daemon.docker("run", "--rm", "busybox", "echo", "works").stdout == "works\n"

    # One by one: whatever call meets the limit fails with a reason, and leaves nothing.
    for limit in range(before + 2, before + 30, 2):
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limits[1]))
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(60)
            sock.connect(str(own_daemon.engine_socket))
            sock.sendall(request("POST", "/containers/create", {"Image": "busybox", "Cmd": ["true"]}))
            answer = sock.recv(65536)
        assert b"Traceback" not in answer
        own_daemon.docker("run", "--rm", "busybox", "true", check=False)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert own_daemon.docker("exec", "runs", "echo", "alive").stdout == "alive\n"
    assert own_daemon.docker("run", "--rm", "-p", "127.0.0.1::80", "busybox", "echo", "works").stdout == "works\n"
    names = own_daemon.docker("ps", "-a", "--format", "{{.Names}}").stdout.split()
    assert "runs" in names
    if len(names) > 1:  # created, or what --rm had no descriptor left to remove
        own_daemon.docker("rm", "-f", *(name for name in names if name != "runs"))
    assert "Traceback" not in own_daemon.log
    assert settles(lambda: descriptors(pid) <= before + 5)


def cpu_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_addresses(daemon: Daemon) -> None:
    daemon.docker("network", "create", "--subnet", "10.213.77.0/29", "narrow")  # six hosts, one of them the gateway
    names = [f"narrow{number}" for number in range(5)]
    try:
        for name in names:
            daemon.docker("run", "-d", "--name", name, "--network", "narrow", "busybox", "sleep", "1000")
        more = daemon.docker("run", "--name", "more", "--network", "narrow", "busybox", "true", check=False)
        assert more.returncode == 125
        assert "no available IPv4 addresses" in more.stderr
        daemon.docker("rm", "-f", names.pop())
        assert daemon.docker("start", "-a", "more").returncode == 0
    finally:
        daemon.docker("rm", "-f", "more", *names)
        daemon.docker("network", "rm", "narrow")


def test_processes(daemon: Daemon) -> None:
    """A container at its limit is told so on exec; the others do not notice."""
    daemon.docker("run", "-d", "--name", "crowd", "--pids-limit", "8", "busybox", "sleep", "1000")
    script = "n=0; while [ $n -lt 50 ]; do n=$((n+1)); sleep 1000 & done 2>/dev/null; wait"
    daemon.docker("exec", "-d", "crowd", "sh", "-c", script)
    assert settles(lambda: len(daemon.docker("top", "crowd").stdout.splitlines()) >= 8)
    begun = time.monotonic()
    done = daemon.docker("exec", "crowd", "sleep", "0", check=False)
    assert done.returncode != 0 or time.monotonic() - begun < 10
    assert "Traceback" not in done.stderr
    assert daemon.docker("run", "--rm", "busybox", "echo", "works").stdout == "works\n"
    daemon.docker("rm", "-f", "crowd")


@pytest.mark.parametrize("port", ["127.0.0.1:47113:80"])
def test_ports(daemon: Daemon, port: str) -> None:
    daemon.docker("run", "-d", "--name", "holds", "-p", port, "busybox", "sleep", "1000")
    more = daemon.docker("run", "--name", "wants", "-p", port, "busybox", "true", check=False)
    assert more.returncode == 125
    assert "port is already allocated" in more.stderr
    daemon.docker("rm", "-f", "holds")
    assert daemon.docker("start", "-a", "wants").returncode == 0
    daemon.docker("rm", "wants")
