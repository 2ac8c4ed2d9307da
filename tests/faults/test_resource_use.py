"""Many clients that take much and give little back: the engine's memory and descriptors stay where they were."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.api.contract.http1 import Reader, answer_length
from tests.daemon import Daemon

_RSS_LIMIT_KB = 300 << 10
_SPARE_DESCRIPTORS = 5
_ATTACHES = 500
_EXECS = 100
_PRINTED_BYTES = 10 << 20
_SETTLE_S = 20.0


def processes(daemon: Daemon) -> dict[int, str]:
    """enisled and what it has started on this host."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(daemon.root) in line:
                found[int(entry.name)] = line
    return found


def rss_kb(pid: int) -> int:
    """0 for one that has ended: the trial of KVM runs for a while after a start."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS")), 0)
    return 0


def descriptors(pid: int) -> int:
    with suppress(OSError):
        return len(os.listdir(f"/proc/{pid}/fd"))
    return 0


def settles(condition: Callable[[], bool]) -> bool:
    """Whether it comes true: what is closed is noticed a moment later."""
    deadline = time.monotonic() + _SETTLE_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def request(method: str, path: str, body: object = None) -> bytes:
    data = json.dumps(body).encode() if body is not None else b""
    return (
        f"{method} /v1.47{path} HTTP/1.1\r\nHost: docker\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n\r\n"
    ).encode() + data


def connected(daemon: Daemon) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(60)
    sock.connect(str(daemon.engine_socket))
    return sock


def ask(daemon: Daemon, method: str, path: str, body: object = None) -> dict[str, object]:
    """The JSON that a request is answered with."""
    found: list[bytes] = []
    reader = Reader(
        lambda answer: answer_length(answer, method), lambda answer: found.append(bytes(answer.body or b""))
    )
    with connected(daemon) as sock:
        sock.sendall(request(method, path, body))
        while not found:
            reader.feed(sock.recv(65536))
    return json.loads(found[0] or b"{}")


def printed_by_exec(daemon: Daemon, instance: str) -> int:
    """How many bytes come through one exec that prints much."""
    body = {"Cmd": ["head", "-c", str(_PRINTED_BYTES), "/dev/zero"], "AttachStdout": True, "Tty": True}
    exec_id = ask(daemon, "POST", f"/containers/{instance}/exec", body)["Id"]
    count = 0
    with connected(daemon) as sock:
        sock.sendall(request("POST", f"/exec/{exec_id}/start", {"Detach": False, "Tty": True}))
        while data := sock.recv(1 << 18):
            count += len(data)
    return count


@pytest.mark.timeout(600)
def test_attaches_that_do_nothing_and_execs_that_print_much(own_daemon: Daemon) -> None:
    instance = own_daemon.docker("run", "-d", "--net", "none", "busybox", "sleep", "1000").stdout.strip()
    printed_by_exec(own_daemon, instance)
    pids = processes(own_daemon)
    base = {pid: descriptors(pid) for pid in pids}

    held = [connected(own_daemon) for _ in range(_ATTACHES)]
    for number, sock in enumerate(held):
        whole = request("POST", f"/containers/{instance}/attach?stream=1&stdout=1&stdin=1")
        sock.sendall(whole if number % 5 else whole[: number % len(whole)])
    assert own_daemon.docker("exec", instance, "echo", "still here").stdout == "still here\n"
    assert all(rss_kb(pid) < _RSS_LIMIT_KB for pid in pids)
    for sock in held:
        sock.close()
    assert settles(lambda: all(descriptors(pid) <= base[pid] + _SPARE_DESCRIPTORS for pid in pids)), base

    slow = connected(own_daemon)
    command = {"Cmd": ["head", "-c", "100000000", "/dev/zero"], "AttachStdout": True}
    exec_id = ask(own_daemon, "POST", f"/containers/{instance}/exec", command)["Id"]
    slow.sendall(request("POST", f"/exec/{exec_id}/start", {}))
    with ThreadPoolExecutor(8) as pool:
        counts = list(pool.map(lambda _: printed_by_exec(own_daemon, instance), range(_EXECS)))
    assert all(count > _PRINTED_BYTES for count in counts)
    assert all(rss_kb(pid) < _RSS_LIMIT_KB for pid in pids)
    slow.close()
    assert settles(lambda: all(descriptors(pid) <= base[pid] + _SPARE_DESCRIPTORS for pid in pids)), base
    own_daemon.docker("rm", "-f", instance)


def test_nothing_listens_on_the_network(daemon: Daemon) -> None:
    """The API is on a unix socket only: neither the host's addresses nor a container's gateway lead to it."""
    assert daemon.process is not None
    sockets = {os.readlink(entry) for entry in Path(f"/proc/{daemon.process.pid}/fd").iterdir() if entry.is_symlink()}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and not fields[1].endswith(":0035"):  # LISTEN; names are answered on the bridges
                assert f"socket:[{fields[9]}]" not in sockets, line
    script = (
        "g=$(ip route | awk '/default/ {print $3}'); [ -n \"$g\" ] || echo no gateway; "
        "for p in 2375 2376 80 443; do nc -z -w 1 $g $p && echo open $p; done; true"
    )
    assert daemon.docker("run", "--rm", "busybox", "sh", "-c", script).stdout == ""
