"""Flags of docker run that concern the container wall: each seen from inside."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon

CASES: list[tuple[list[str], str, list[str]]] = [
    (["--init"], "tr '\\0' ' ' < /proc/1/cmdline; echo; cat /proc/1/comm", ["init ", "init"]),
    (["--device", "/dev/fuse"], "ls -l /dev/fuse | cut -c1", ["c"]),
    (["--sysctl", "net.ipv4.ip_forward=0"], "cat /proc/sys/net/ipv4/ip_forward", ["0"]),
    (["--cap-drop", "ALL", "--cap-add", "NET_RAW"], "grep CapEff /proc/self/status", ["CapEff:\t0000000000002000"]),
    (["--security-opt", "no-new-privileges"], "grep NoNewPrivs /proc/self/status", ["NoNewPrivs:\t1"]),
    ([], "grep Seccomp: /proc/self/status", ["Seccomp:\t2"]),
    (["--security-opt", "seccomp=unconfined"], "grep Seccomp: /proc/self/status", ["Seccomp:\t0"]),
    (["--shm-size", "1m"], "df /dev/shm | tail -1 | tr -s ' ' | cut -d' ' -f2", ["1024"]),
    (["--ulimit", "nofile=100:200"], "ulimit -Sn; ulimit -Hn", ["100", "200"]),
    (
        ["--tmpfs", "/t:size=1m,mode=700"],
        "ls -ld /t | cut -c1-10; df /t | tail -1 | cut -c1-5",
        ["drwx------", "tmpfs"],
    ),
    (["--mount", "type=tmpfs,target=/m,tmpfs-size=1048576"], "df /m | tail -1 | tr -s ' ' | cut -d' ' -f2", ["1024"]),
    (["--cpuset-cpus", "0"], "nproc", ["1"]),
    (["--uts", "host"], "hostname", [os.uname().nodename]),
    (["--network", "none"], "ls /sys/class/net", ["lo"]),
    (["--group-add", "777"], "id -G", ["0 777"]),
]


@pytest.mark.parametrize(("flags", "script", "seen"), CASES, ids=lambda value: " ".join(value)[:40] or "default")
def test_flag(daemon: Daemon, flags: list[str], script: str, seen: list[str]) -> None:
    done = daemon.docker("run", "--rm", *flags, "busybox", "sh", "-c", script)
    assert done.stdout.splitlines() == seen, done.stderr


def test_seccomp_profile_of_the_users_own(daemon: Daemon, tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}
    profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
    flags = ["--security-opt", f"seccomp={profile}"]
    done = daemon.docker("run", "--rm", *flags, "busybox", "mkdir", "/x", check=False)
    assert (done.returncode, "Operation not permitted" in done.stderr) == (1, True)


@pytest.fixture
def neighbour(daemon: Daemon) -> Iterator[str]:
    name = f"neighbour-{os.urandom(2).hex()}"
    daemon.docker("run", "-d", "--name", name, "--ipc", "shareable", "--hostname", "next", "busybox", "sleep", "777")
    yield name
    daemon.docker("rm", "-f", name)


def test_joined_namespaces(daemon: Daemon, neighbour: str) -> None:
    address = daemon.docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", neighbour).stdout.strip()
    seen = daemon.docker("run", "--rm", "--network", f"container:{neighbour}", "busybox", "ip", "-o", "-4", "addr")
    assert address in seen.stdout
    assert "sleep 777" in daemon.docker("run", "--rm", "--pid", f"container:{neighbour}", "busybox", "ps").stdout
    daemon.docker("exec", neighbour, "touch", "/dev/shm/mark")
    shared = daemon.docker("run", "--rm", "--ipc", f"container:{neighbour}", "busybox", "ls", "/dev/shm")
    assert shared.stdout == "mark\n"


def test_ipc_is_joined_only_where_it_is_offered(daemon: Daemon) -> None:
    name = f"private-{os.urandom(2).hex()}"
    daemon.docker("run", "-d", "--name", name, "busybox", "sleep", "777")
    done = daemon.docker("run", "--rm", "--ipc", f"container:{name}", "busybox", "true", check=False)
    daemon.docker("rm", "-f", name)
    assert done.returncode == 125
    assert "non-shareable IPC (hint: use IpcMode:shareable for the donor container)" in done.stderr


@pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
def test_a_virtual_machine_shares_no_namespace(daemon: Daemon, kind: str) -> None:
    name = f"machine-{os.urandom(2).hex()}"
    daemon.docker("create", "--runtime", "vm", "--name", name, "busybox", "true")
    done = daemon.docker("run", "--rm", f"--{kind}", f"container:{name}", "busybox", "true", check=False)
    daemon.docker("rm", name)
    assert done.returncode == 125
    assert f"{name} is a virtual machine, which shares none" in done.stderr


@pytest.mark.parametrize("kind", ["network", "pid", "ipc"])
def test_joining_nobody_is_no_missing_image(daemon: Daemon, kind: str) -> None:
    done = daemon.docker("run", "--rm", f"--{kind}", "container:nobody-here", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "No such container: nobody-here" in done.stderr
    assert "Unable to find image" not in done.stderr


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--memory", "1m"], "Minimum memory limit allowed is 6MB"),
        (["--stop-signal", "FOO"], "Invalid signal: FOO"),
        (["--runtime", "nope"], "unknown or invalid runtime name: nope"),
        (["--log-driver", "nope"], "logger: no log driver named 'nope' is registered"),
        (["--network", "nope"], "network nope not found"),
        (["--device", "/dev/nope"], "/dev/nope"),
        (["-v", "/a:/b:wrong"], "invalid"),
        (["--cpus", "1000"], "CPUs"),
        (["--storage-opt", "size=1g"], "cannot be had for a container"),
        (["--storage-opt", "colour=red"], "Unknown option colour"),
        (["--user", "nosuch"], "daemon: unable to find user nosuch: no matching entries in passwd file"),
        (["--group-add", "nosuch"], "daemon: Unable to find group nosuch: no matching entries in group file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_values_are_refused(daemon: Daemon, flags: list[str], message: str) -> None:
    done = daemon.docker("run", "--rm", *flags, "busybox", "true", check=False)
    assert done.returncode in (125, 127), "the client makes 127 of whatever speaks of a missing file"
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_log_rotation(daemon: Daemon) -> None:
    name = f"rotated-{os.urandom(2).hex()}"
    options = ["--log-opt", "max-size=4k", "--log-opt", "max-file=2"]
    daemon.docker("run", "--name", name, *options, "busybox", "seq", "2000")
    path = Path(daemon.docker("inspect", "-f", "{{.LogPath}}", name).stdout.strip())
    files = sorted(path.parent.glob(f"{path.name}*"))
    assert len(files) == 2
    assert max(file.stat().st_size for file in files) <= 4096 + 200
    assert daemon.docker("logs", "--tail", "1", name).stdout == "2000\n"
    daemon.docker("rm", name)
