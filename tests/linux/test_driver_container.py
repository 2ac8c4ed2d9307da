"""The container driver on the real kernel: launcher, keepers, containers."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import struct
import tarfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from enisle.contracts import HostMount
from enisle.drivers.keeper import read_exit_file
from enisle.errors import EnisleError, NotFound, StartFailed, Unavailable
from enisle.model.process import ExecSpec
from enisle.model.resources import Device, Devices, Resources, Ulimit
from tests.linux.walls import Client, Walls, until, with_connections


@pytest.fixture
async def walls() -> AsyncIterator[Walls]:
    made = Walls()
    yield made
    await made.close()


# --- running and ending --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 42", 42), ("kill -9 $$", 137), ("kill -15 $$", 143)]
)
async def test_exit_codes(walls: Walls, script: str, code: int) -> None:
    # As pid 1 a shell ignores the signals it has no handler for: so the shell that dies is its child.
    report, _output = await walls.run("sh", "-c", f"sh -c '{script}'; exit $?")
    assert report.exit_code == code
    assert 0 < report.started_at <= report.finished_at <= time.time_ns()


async def test_output_of_both_streams_is_framed_and_logged(walls: Walls) -> None:
    client = Client(framed=True)
    launch = await walls.prepare("sh", "-c", "echo out; echo err >&2")
    running = await walls.start(with_connections(launch, client))
    client.handed_over()
    received = await client.read_all()
    assert (await running.wait()).exit_code == 0
    frames = {}
    while received:
        stream, length = struct.unpack(">BxxxI", received[:8])
        frames[stream] = frames.get(stream, b"") + received[8 : 8 + length]
        received = received[8 + length :]
    assert frames == {1: b"out\n", 2: b"err\n"}
    assert launch.log_path is not None
    lines = launch.log_path.read_text().splitlines()
    assert sorted(line.partition(',"time"')[0] for line in lines) == [
        '{"log":"err\\n","stream":"stderr"',
        '{"log":"out\\n","stream":"stdout"',
    ]
    client.close()


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        (("/bin/nope",), 127, "no such file or directory"),
        (("nope",), 127, "executable file not found"),
        (("/etc/notes",), 126, "permission denied"),
        (("/etc",), 126, "denied|is a directory"),
    ],
)
async def test_commands_that_cannot_be_run(walls: Walls, command: tuple[str, ...], code: int, message: str) -> None:
    client = Client()
    launch = await walls.prepare(*command, connections=(client.connection,))
    with pytest.raises(StartFailed, match=message) as caught:
        await walls.start(launch)
    assert caught.value.exit_code == code
    client.handed_over()
    assert await client.read_all() == b""
    client.close()
    assert await walls.settled() == {}


async def test_what_was_asked_for_is_what_is_seen_inside(walls: Walls) -> None:
    script = "hostname; id -u; id -G; pwd; echo $A; echo $HOME"
    _report, output = await walls.run(
        "sh", "-c", script, hostname="web", user="alice", group_add=("77",), working_dir="/var", env=("A=b c",)
    )
    lines = output.decode().splitlines()
    assert lines[:2] == ["web", "1000"]
    assert set(lines[2].split()) == {"1000", "50", "77"}
    assert lines[3:] == ["/var", "b c", "/home"]


async def test_stdin_to_its_end(walls: Walls) -> None:
    client = Client(stdin=True)
    launch = await walls.prepare("cat", open_stdin=True, stdin_once=True, attach_stdin=True)
    running = await walls.start(with_connections(launch, client))
    client.handed_over()
    data = os.urandom(1 << 20)

    async def write() -> None:
        await client.write(data)
        client.end_of_input()

    received, _none = await asyncio.gather(client.read_all(), write())
    assert received == data
    assert (await running.wait()).exit_code == 0
    client.close()


async def test_terminal_attach_resize_detach_and_attach_again(walls: Walls) -> None:
    client = Client(stdin=True)
    launch = await walls.prepare("sh", tty=True, open_stdin=True, attach_stdin=True)
    running = await walls.start(with_connections(launch, client))
    client.handed_over()
    await running.resize(33, 99)
    await client.write(b"tty; stty size\n")
    assert b"33 99" in await client.read_until(b"33 99")
    await client.write(b"\x10\x11")
    await client.read_all()
    client.close()
    again = Client(stdin=True)
    await running.attach(again.connection)
    again.handed_over()
    await again.write(b"echo a$((1+1))b; exit 3\n")
    assert b"a2b" in await again.read_all()
    assert (await running.wait()).exit_code == 3
    again.close()


async def test_signals(walls: Walls) -> None:
    client = Client()
    launch = await walls.prepare("sh", "-c", "trap 'echo got; exit 5' USR1; echo ready; while :; do sleep 0.05; done")
    running = await walls.start(with_connections(launch, client))
    client.handed_over()
    await client.read_until(b"ready")
    await running.signal(signal.SIGUSR1)
    await client.read_until(b"got")
    assert (await running.wait()).exit_code == 5
    with pytest.raises(EnisleError):
        await running.signal(signal.SIGUSR1)
    client.close()


async def test_pause_and_unpause(walls: Walls) -> None:
    client = Client()
    launch = await walls.prepare("sh", "-c", "while :; do echo x; sleep 0.01; done")
    running = await walls.start(with_connections(launch, client))
    client.handed_over()
    await client.read_until(b"x")
    await running.pause()
    assert (await running.status())["state"] == "paused"
    before = (await running.stats())["cpu_total_ns"]
    assert (await running.stats())["cpu_total_ns"] == before
    with pytest.raises(EnisleError, match="paused"):
        await running.exec("e", ExecSpec(command=("true",)), launch.instance, None)
    await running.unpause()
    await client.read_until(b"x")
    assert [name for name, _fields in walls.events][:2] == ["paused", "unpaused"]
    await running.pause()
    await running.signal(9)  # what is frozen dies when it thaws
    await running.unpause()
    assert (await asyncio.wait_for(running.wait(), 20)).exit_code == 137
    client.close()


async def test_stats_top_and_update(walls: Walls) -> None:
    launch = await walls.prepare("sleep", "1000", resources=Resources(memory_bytes=64 << 20, pids_limit=50))
    running = await walls.start(launch)
    stats = await running.stats()
    assert (stats["memory_limit_bytes"], stats["pids_limit"], stats["pids"]) == (64 << 20, 50, 1)
    titles, rows = await running.top("")
    assert titles == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert [row[-1] for row in rows] == ["sleep 1000"]
    assert rows[0][1] == str(running.pid)
    spec = replace(launch.instance.spec, resources=Resources(memory_bytes=96 << 20, pids_limit=60))
    await running.update(spec)
    stats = await running.stats()
    assert (stats["memory_limit_bytes"], stats["pids_limit"]) == (96 << 20, 60)


async def test_memory_runs_out(walls: Walls) -> None:
    # What lies in /dev/shm counts as the container's memory.
    command = ("dd", "if=/dev/zero", "of=/dev/shm/x", "bs=1M")
    report, _output = await walls.run(*command, resources=Resources(memory_bytes=16 << 20))
    assert report.oom_killed
    assert report.exit_code == 137
    assert any(name == "oom" for name, _fields in walls.events)


# --- exec ----------------------------------------------------------------------------------------------------------


async def test_exec(walls: Walls) -> None:
    launch = await walls.prepare("sleep", "1000", env=("A=1",), working_dir="/var", hostname="web")
    running = await walls.start(launch)
    code, output = await walls.execute(running, launch, "sh", "-c", "hostname; pwd; echo $A$B; exit 7", env=("B=2",))
    assert (code, output.decode().split()) == (7, ["web", "/var", "12"])
    code, output = await walls.execute(running, launch, "id", "-u", user="alice")
    assert (code, output) == (0, b"1000\n")
    code, output = await walls.execute(running, launch, "cat", "/proc/self/status", user="alice")
    fields = dict(line.split(":\t") for line in output.decode().splitlines() if ":\t" in line)
    assert (int(fields["CapEff"], 16), int(fields["CapInh"], 16), fields["Seccomp"].strip()) == (0, 0, "2")


@pytest.mark.parametrize(("command", "code"), [("nope", 127), ("/etc/notes", 126)])
async def test_exec_of_what_cannot_be_run(walls: Walls, command: str, code: int) -> None:
    launch = await walls.prepare("sleep", "1000")
    running = await walls.start(launch)
    client = Client()
    with pytest.raises(StartFailed) as caught:
        await running.exec("e1", ExecSpec(command=(command,)), launch.instance, client.connection)
    assert caught.value.exit_code == code
    client.handed_over()
    assert await client.read_all() == b""
    client.close()
    assert (await running.status())["state"] == "running"


async def test_detached_exec_and_its_signals(walls: Walls) -> None:
    launch = await walls.prepare("sleep", "1000")
    running = await walls.start(launch)
    pid = await running.exec("e1", ExecSpec(command=("sleep", "500")), launch.instance, None)
    assert Path(f"/proc/{pid}/comm").read_text().strip() in ("sleep", "busybox")
    await running.signal(9, "e1")
    assert await running.wait_exec("e1") == 137


async def test_many_execs_at_once(walls: Walls) -> None:
    launch = await walls.prepare("sleep", "1000")
    running = await walls.start(launch)
    results = await asyncio.gather(
        *(walls.execute(running, launch, "sh", "-c", f"echo {number}; exit {number}") for number in range(30))
    )
    assert results == [(number, f"{number}\n".encode()) for number in range(30)]


async def test_execs_end_with_the_instance(walls: Walls) -> None:
    launch = await walls.prepare("sleep", "1000")
    running = await walls.start(launch)
    await running.exec("e1", ExecSpec(command=("sleep", "500")), launch.instance, None)
    await running.signal(9)
    assert (await running.wait()).exit_code == 137
    assert await asyncio.wait_for(running.wait_exec("e1"), 20) == 137


# --- files ---------------------------------------------------------------------------------------------------------


def names_of(data: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getnames()


def archive_of(name: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


async def once(data: bytes) -> AsyncIterator[bytes]:
    yield data


@pytest.mark.parametrize("runs", [True, False])
async def test_files(walls: Walls, runs: bool) -> None:
    volume = walls.root / "volume"
    volume.mkdir()
    (volume / "inside").write_text("v")
    mounts = (HostMount(kind="volume", source=str(volume), target="/vol", options=("rw",)),)
    launch = await walls.prepare("sleep", "1000", mounts=mounts)
    running = await walls.start(launch) if runs else None
    async with walls.driver.files(launch, running) as files:
        status = await files.stat("/etc/passwd")
        assert (status["name"], status["linkTarget"]) == ("passwd", "")
        with pytest.raises(NotFound):
            await files.stat("/nope")
        with pytest.raises(NotFound):
            await files.get("/nope/x")
        data = b"".join([piece async for piece in await files.get("/etc")])
        assert {"etc", "etc/passwd"} <= {name.rstrip("/") for name in names_of(data)}
        put = archive_of("new", b"content" * 1000)
        await files.put("/tmp", once(put), no_overwrite_dir_non_dir=False, copy_uid_gid=False)
        data = b"".join([piece async for piece in await files.get("/tmp/new")])
        with tarfile.open(fileobj=io.BytesIO(data)) as archive:
            member = archive.extractfile("new")
            assert member is not None
            assert member.read() == b"content" * 1000
        data = b"".join([piece async for piece in await files.get("/vol/inside")])
        assert names_of(data) == ["inside"]
        assert ("/tmp/new", 1) in await files.changes()
        exported = names_of(b"".join([piece async for piece in await files.export()]))
        assert any(name.lstrip("./") == "tmp/new" for name in exported)
        layer = names_of(b"".join([piece async for piece in await files.layer()]))
        assert any(name.lstrip("./") == "tmp/new" for name in layer)
        assert not any(name.lstrip("./").startswith("vol/") for name in layer)
    if running is None:
        assert await walls.settled() == {}


async def test_a_start_waits_for_copies_of_the_stopped_instance(walls: Walls) -> None:
    launch = await walls.prepare("true")
    async with walls.driver.files(launch, None) as files:
        starting = asyncio.create_task(walls.start(launch))
        await files.put("/tmp", once(archive_of("a", b"1")), no_overwrite_dir_non_dir=False, copy_uid_gid=False)
        assert not starting.done()
    assert (await (await starting).wait()).exit_code == 0
    assert (launch.directory / "upper" / "tmp" / "a").read_bytes() == b"1"


# --- faults --------------------------------------------------------------------------------------------------------


async def test_reconnect_to_what_runs(walls: Walls) -> None:
    launch = await walls.prepare("sh", "-c", "echo one; while [ ! -e /tmp/go ]; do sleep 0.02; done; echo two; exit 9")
    running = await walls.start(launch)
    await running.exec("e1", ExecSpec(command=("sleep", "500")), launch.instance, None)
    running.abandon()
    walls.driver = walls.new_driver()
    again = await walls.driver.reconnect(launch.instance, walls.on_event)
    assert again is not None
    assert (again.pid, again.started_at) == (running.pid, running.started_at)
    assert (await again.status())["execs"][0]["running"]
    code, _output = await walls.execute(again, launch, "true")
    assert code == 0
    await walls.execute(again, launch, "touch", "/tmp/go")  # its exit code races with the end that it brings about
    assert (await again.wait()).exit_code == 9
    assert launch.log_path is not None
    assert [line[:11] for line in launch.log_path.read_text().splitlines()] == ['{"log":"one', '{"log":"two']


async def test_an_exit_while_nobody_is_connected_is_known(walls: Walls) -> None:
    launch = await walls.prepare("sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.02; done; exit 9")
    running = await walls.start(launch)
    await running.exec("e1", ExecSpec(command=("touch", "/tmp/go")), launch.instance, None)
    running.abandon()
    await until((launch.directory / "exit.json").exists)
    assert await walls.settled() == {}
    assert await walls.driver.reconnect(launch.instance, walls.on_event) is None
    report = read_exit_file(launch.directory / "exit.json")
    assert report is not None
    assert (report.exit_code, report.started_at) == (9, running.started_at)


def lives(pid: int) -> bool:
    """Whether there is such a process; one that waits only for its parent to notice does not count."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def keeper_of(walls: Walls, instance_id: str) -> int:
    return int(json.loads((walls.run_root / "instances" / instance_id[:16] / "keeper.json").read_text())["pid"])


async def test_a_killed_keeper_takes_its_instance_along_and_leaves_nothing(walls: Walls) -> None:
    launch = await walls.prepare("sh", "-c", "sleep 1000 & sleep 1000")
    running = await walls.start(launch)
    os.kill(keeper_of(walls, launch.instance.id), signal.SIGKILL)
    report = await asyncio.wait_for(running.wait(), 20)
    assert (report.exit_code, report.started_at) == (255, running.started_at)
    assert await walls.settled() == {}
    assert not lives(running.pid)
    with pytest.raises(Unavailable):
        await running.stats()
    # The same instance can be started again.
    assert await (await walls.start(replace(launch))).stats()


async def test_a_keeper_killed_while_nobody_is_connected(walls: Walls) -> None:
    launch = await walls.prepare("sleep", "1000")
    running = await walls.start(launch)
    running.abandon()
    os.kill(keeper_of(walls, launch.instance.id), signal.SIGKILL)
    await until(lambda: not lives(running.pid))
    assert await walls.driver.reconnect(launch.instance, walls.on_event) is None
    assert await walls.settled() == {}


async def test_a_killed_launcher_is_replaced_and_its_keepers_live_on(walls: Walls) -> None:
    launch = await walls.prepare("sleep", "1000")
    running = await walls.start(launch)
    old = walls.launcher.pid
    os.kill(old, signal.SIGKILL)
    report, output = await walls.run("echo", "hello")
    assert (report.exit_code, output) == (0, b"hello\n")
    assert walls.launcher.pid != old
    assert (await running.status())["state"] == "running"


async def test_a_launcher_killed_under_load_loses_no_start(walls: Walls) -> None:
    async def one() -> int:
        report, _output = await walls.run("true")
        return report.exit_code

    runs = [asyncio.create_task(one()) for _ in range(20)]
    await until(lambda: any(run.done() for run in runs))
    os.kill(walls.launcher.pid, signal.SIGKILL)
    results = await asyncio.gather(*runs, return_exceptions=True)
    assert [result for result in results if result != 0 and not isinstance(result, Unavailable)] == []
    assert len([result for result in results if result == 0]) >= 15


async def test_a_cancelled_start_leaves_nothing_running(walls: Walls) -> None:
    launch = await walls.prepare("sleep", "1000")
    starting = asyncio.create_task(walls.driver.start(launch, walls.on_event))
    await until((walls.run_root / "instances" / launch.instance.id[:16]).exists)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert await walls.settled() == {}


async def test_200_in_parallel_leave_nothing(walls: Walls) -> None:
    launches = [await walls.prepare("sleep", "1000") for _ in range(200)]
    gate = asyncio.Semaphore(32)

    async def start(number: int) -> None:
        async with gate:
            await walls.start(launches[number])

    await asyncio.gather(*(start(number) for number in range(200)))
    assert len({running.pid for running in walls.running}) == 200
    for running in walls.running:
        await running.signal(9)
    reports = await asyncio.wait_for(asyncio.gather(*(running.wait() for running in walls.running)), 60)
    assert {report.exit_code for report in reports} == {137}
    assert await walls.settled(60) == {}


# --- joining others, and what the plan leaves to the kernel ---------------------------------------------------------


async def test_joined_namespaces(walls: Walls) -> None:
    first = await walls.prepare("sh", "-c", "echo shared > /dev/shm/note; sleep 1000", hostname="one")
    running = await walls.start(first)
    await until(lambda: Path(f"/proc/{running.pid}/root/dev/shm/note").exists())
    modes = {"network_mode": "container:x", "pid_mode": "container:x", "ipc_mode": "container:x"}
    joins = dict.fromkeys(("net", "pid", "ipc"), running.pid)
    names = "readlink /proc/self/ns/net; readlink /proc/self/ns/pid; readlink /proc/self/ns/ipc"
    report, output = await walls.run("sh", "-c", f"{names}; cat /dev/shm/note; ps", joins=joins, **modes)
    lines = output.decode().splitlines()
    assert report.exit_code == 0, output
    inside = [os.readlink(f"/proc/{running.pid}/ns/{name}") for name in ("net", "pid", "ipc")]
    assert lines[:3] == inside
    assert lines[3] == "shared"
    assert any("sleep 1000" in line for line in lines[4:])
    assert (await running.status())["state"] == "running"


async def test_the_hosts_namespaces(walls: Walls) -> None:
    names = ("net", "pid", "ipc", "uts", "cgroup")
    script = "; ".join(f"readlink /proc/self/ns/{name}" for name in names)
    modes = {"network_mode": "host", "pid_mode": "host", "ipc_mode": "host", "uts_mode": "host"}
    _report, output = await walls.run("sh", "-c", script, cgroupns_mode="host", **modes)
    assert output.decode().split() == [os.readlink(f"/proc/self/ns/{name}") for name in names]
    _report, output = await walls.run("sh", "-c", script)
    assert not set(output.decode().split()) & {os.readlink(f"/proc/self/ns/{name}") for name in names}


async def test_devices_sysctls_ulimits_and_shm(walls: Walls) -> None:
    script = (
        "echo > /dev/mine && echo written; cd /proc/sys; cat kernel/msgmax net/ipv4/ip_unprivileged_port_start;"
        "ulimit -n; mount | grep /dev/shm; cat /proc/self/oom_score_adj; dd if=/dev/kmsg count=1 2>&1"
    )
    _report, output = await walls.run(
        "sh",
        "-c",
        script,
        devices=Devices(devices=(Device(host_path="/dev/null", path="/dev/mine", access="w"),)),
        sysctls={"kernel.msgmax": "4242"},
        ulimits=(Ulimit(name="nofile", soft=77, hard=99),),
        shm_size_bytes=2 << 20,
        oom_score_adj=333,
    )
    lines = output.decode().splitlines()
    assert lines[:4] == ["written", "4242", "0", "77"]
    assert "size=2048k" in lines[4]
    assert lines[5] == "333"
    assert "can't open '/dev/kmsg'" in lines[6]


async def test_privileged(walls: Walls) -> None:
    script = "mount -t tmpfs none /tmp && echo mounted; test -w /sys && cat /proc/self/status"
    _report, output = await walls.run("sh", "-c", script, privileged=True)
    lines = output.decode().splitlines()
    assert lines[0] == "mounted"
    assert "Seccomp:\t0" in lines
    own = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("CapBnd"))
    assert next(line for line in lines if line.startswith("CapEff")).split()[1] == own.split()[1]


async def test_no_new_privileges_and_a_profile_of_the_users(walls: Walls) -> None:
    profile = '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}'
    options = ("no-new-privileges", f"seccomp={profile}")
    _report, output = await walls.run(
        "sh", "-c", "busybox mkdir /tmp/a; cat /proc/self/status", security_options=options
    )
    assert b"Operation not permitted" in output
    assert b"NoNewPrivs:\t1" in output
