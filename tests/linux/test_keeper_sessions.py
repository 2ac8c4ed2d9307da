"""Clients, execs, files and the end of a container, over the keeper's protocol."""

from __future__ import annotations

import io
import json
import os
import select
import signal
import socket
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enisle.linux.route import Route
from enisle.wire.plans import ContainerPlan, NicPlan, to_json
from tests.linux.keepers import Failed, Host, Peer, connect, host, read_all


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with host(tmp_path_factory.mktemp("box")) as made:
        yield made


def start(box: Host, plan: ContainerPlan) -> Peer:
    keeper = box.keeper(plan)
    keeper.ask("start", wall="container", plan=to_json(plan))
    return keeper


def end(keeper: Peer) -> int:
    keeper.ask("signal", signal=9)
    code = int(keeper.event("exit")["exit_code"])
    keeper.close()
    return code


@pytest.fixture
def idle(box: Host) -> Iterator[Peer]:
    keeper = start(box, box.plan("sleep", "1000", init=True))
    yield keeper
    end(keeper)


def attach(keeper: Peer, **options: Any) -> socket.socket:
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    values = {"stdin": False, "stdout": True, "stderr": True, "framed": False, **options}
    number = keeper.post("attach", (theirs.fileno(),), **values)
    theirs.close()
    keeper.answer(number)
    return ours


def run_exec(box: Host, keeper: Peer, name: str, *args: str, client: bool = True, **process: Any) -> tuple[int, bytes]:
    plan = to_json(box.plan(*args, **process).process)
    if not client:
        keeper.ask("exec", exec_id=name, process=plan)
        return int(keeper.event("exec_exit")["exit_code"]), b""
    ours, theirs = socket.socketpair()
    number = keeper.post("exec", (theirs.fileno(),), exec_id=name, process=plan, stdin=False)
    theirs.close()
    keeper.answer(number)
    output = read_all(ours)
    ours.close()
    return int(keeper.event("exec_exit")["exit_code"]), output


def read_until(sock: socket.socket, words: bytes) -> bytes:
    found = b""
    while words not in found:
        block = sock.recv(4096)
        if not block:
            raise ConnectionError(f"only {found!r} came")
        found += block
    return found


# --- clients -------------------------------------------------------------------------------------------------------


def test_framed_output(box: Host) -> None:
    plan = box.plan("sh", "-c", "echo out; sleep 0.05; echo error >&2")
    keeper = box.keeper(plan)
    client = attach(keeper, framed=True)
    keeper.ask("start", wall="container", plan=to_json(plan))
    assert read_all(client) == struct.pack(">BxxxI", 1, 4) + b"out\n" + struct.pack(">BxxxI", 2, 6) + b"error\n"
    keeper.event("exit")


def test_input_and_its_end(box: Host) -> None:
    plan = box.plan("cat", stdin=True, stdin_once=True)
    keeper = box.keeper(plan)
    client = attach(keeper, stdin=True, initial="Zmlyc3QK")
    client.sendall(b"second\n")
    client.shutdown(socket.SHUT_WR)
    keeper.ask("start", wall="container", plan=to_json(plan))
    assert read_all(client) == b"first\nsecond\n"
    assert keeper.event("exit")["exit_code"] == 0


def test_much_input_to_a_slow_reader(box: Host) -> None:
    plan = box.plan("sh", "-c", "sleep 0.2; wc -c", stdin=True, stdin_once=True)
    keeper = box.keeper(plan)
    client = attach(keeper, stdin=True)
    keeper.ask("start", wall="container", plan=to_json(plan))
    client.sendall(b"x" * 3_000_000)
    client.shutdown(socket.SHUT_WR)
    assert read_all(client) == b"3000000\n"
    keeper.event("exit")


def test_input_stays_open_between_clients(box: Host) -> None:
    plan = box.plan("cat", stdin=True)
    keeper = start(box, plan)
    for text in (b"one\n", b"two\n"):
        client = attach(keeper, stdin=True)
        client.sendall(text)
        assert read_until(client, b"\n") == text
        client.close()
    end(keeper)


def test_terminal(box: Host) -> None:
    plan = box.plan(
        "sh",
        "-c",
        "test -t 0 && stty size && tty && stty size < /dev/console; read a; stty size; echo got $a",
        terminal=True,
        terminal_size=[30, 100],
        stdin=True,
    )
    keeper = box.keeper(plan)
    client = attach(keeper, stdin=True)
    keeper.ask("start", wall="container", plan=to_json(plan))
    assert read_until(client, b"/dev/pts/0\r\n30 100\r\n").startswith(b"30 100\r\n")
    keeper.ask("resize", rows=24, columns=80)
    client.sendall(b"x\n")
    assert b"24 80\r\ngot x\r\n" in read_all(client)
    assert keeper.event("exit")["exit_code"] == 0


def test_interrupt_by_terminal(box: Host) -> None:
    plan = box.plan(
        "sh",
        "-c",
        "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.01; done",
        terminal=True,
        stdin=True,
    )
    keeper = box.keeper(plan)
    client = attach(keeper, stdin=True)
    keeper.ask("start", wall="container", plan=to_json(plan))
    read_until(client, b"ready")
    client.sendall(b"\x03")
    assert b"caught" in read_all(client)
    assert keeper.event("exit")["exit_code"] == 5


def test_detach_keys(box: Host) -> None:
    keeper = start(box, box.plan("cat", terminal=True, stdin=True))
    client = attach(keeper, stdin=True)
    client.sendall(b"a\x10")
    read_until(client, b"a")
    client.sendall(b"\x11")
    assert keeper.event("terminal_detached")["exec_id"] == ""
    assert read_all(client) == b""
    client = attach(keeper, stdin=True, detach_keys="xy")
    client.sendall(b"\x10\x11 bxx")
    assert read_until(client, b"x").count(b"x") == 1
    client.sendall(b"y")
    assert keeper.event("terminal_detached")
    assert read_all(client) == b""
    assert keeper.ask("status")["state"] == "running"
    end(keeper)


def test_a_client_that_never_reads_holds_up_nobody_when_it_goes(box: Host) -> None:
    plan = box.plan("sh", "-c", "head -c 5000000 /dev/zero | tr '\\0' x; echo; echo end")
    plan.log.max_bytes = 100 << 20
    keeper = box.keeper(plan)
    client = attach(keeper)
    keeper.ask("start", wall="container", plan=to_json(plan))
    assert keeper.ask("status")["state"] == "running"
    client.close()
    assert keeper.event("exit")["exit_code"] == 0
    records = [json.loads(line)["log"] for line in Path(plan.log.path).read_text().splitlines()]
    assert sum(len(record) for record in records) == 5_000_005


def test_log_is_replayed_and_then_followed(box: Host) -> None:
    plan = box.plan("sh", "-c", "echo one; echo two >&2; printf thr; read x; echo ee", stdin=True)
    keeper = box.keeper(plan)
    first = attach(keeper)
    keeper.ask("start", wall="container", plan=to_json(plan))
    read_until(first, b"thr")
    second = attach(keeper, logs=True, stdin=True)
    assert sorted(read_until(second, b"thr").splitlines()) == [b"one", b"thr", b"two"]
    second.sendall(b"\n")
    assert read_all(second) == b"ee\n"
    assert read_all(first).endswith(b"ee\n")
    keeper.event("exit")


def test_log_rotates(box: Host) -> None:
    plan = box.plan("sh", "-c", "for i in $(seq 1 2000); do echo line $i; done")
    plan.log.max_bytes, plan.log.max_files = 20_000, 3
    assert box.run(plan)[0] == 0
    files = [Path(f"{plan.log.path}{suffix}") for suffix in (".2", ".1", "")]
    assert all(file.stat().st_size <= 20_100 for file in files)
    assert not Path(f"{plan.log.path}.3").exists()
    found = [json.loads(line)["log"] for file in files for line in file.read_text().splitlines()]
    last = int(found[0].split()[1])
    assert found == [f"line {number}\n" for number in range(last, 2001)]


def test_log_is_packed(box: Host) -> None:
    plan = box.plan("sh", "-c", "for i in $(seq 1 2000); do echo line $i; done")
    plan.log.max_bytes, plan.log.max_files, plan.log.compress = 30_000, 10, True
    assert box.run(plan)[0] == 0
    packed = sorted(Path(plan.log.path).parent.glob("log.json.*"))
    assert [path.name for path in packed] == [f"log.json.{n}.gz" for n in range(1, len(packed) + 1)]


# --- execs ---------------------------------------------------------------------------------------------------------


def test_exec(box: Host, idle: Peer) -> None:
    assert run_exec(box, idle, "a", "sh", "-c", "echo $$ $HOME; hostname; exit 3")[0] == 3
    code, output = run_exec(
        box,
        idle,
        "b",
        "sh",
        "-c",
        "id -u; pwd; ps | grep -c sleep; readlink /proc/self/ns/pid",
        user="user",
        cwd="/tmp",
    )
    assert code == 0
    assert output.splitlines()[:2] == [b"1000", b"/tmp"]
    assert os.fsencode(os.readlink("/proc/self/ns/pid")) not in output
    assert run_exec(box, idle, "c", "true", client=False) == (0, b"")
    assert [(entry["exec_id"], entry["exit_code"]) for entry in idle.ask("status")["execs"]] == [
        ("a", 3),
        ("b", 0),
        ("c", 0),
    ]


def test_exec_is_in_the_cgroup_and_has_no_more_rights(box: Host, idle: Peer) -> None:
    output = run_exec(
        box,
        idle,
        "rights",
        "sh",
        "-c",
        "grep -E 'memory|^0:' /proc/self/cgroup | head -n 1; grep Cap /proc/self/status; ls /proc/self/fd;"
        "mount -t tmpfs x /tmp",
    )[1]
    words = output.split()
    assert words[0].endswith(b":/"), "its own cgroup is all it sees"
    assert words[words.index(b"CapInh:") + 1] == words[words.index(b"CapAmb:") + 1] == b"0" * 16
    assert words[words.index(b"CapAmb:") + 2 :][:4] == [b"0", b"1", b"2", b"3"]
    assert b"denied" in output or b"not permitted" in output


@pytest.mark.parametrize(("command", "code"), [("nope", 127), ("/nope", 127), ("/etc/passwd", 126), ("/etc", 126)])
def test_exec_of_what_cannot_be_run(box: Host, idle: Peer, command: str, code: int) -> None:
    with pytest.raises(Failed, match="OCI runtime exec failed") as failure:
        run_exec(box, idle, f"x{command}", command)
    assert failure.value.exit_code == code
    assert f"x{command}" not in [entry["exec_id"] for entry in idle.ask("status")["execs"]]


def test_exec_with_a_terminal(box: Host, idle: Peer) -> None:
    ours, theirs = socket.socketpair()
    plan = to_json(
        box.plan(
            "sh", "-c", "tty; stty size; read x; stty size; exit 4", terminal=True, terminal_size=[10, 20], stdin=True
        ).process
    )
    number = idle.post("exec", (theirs.fileno(),), exec_id="tty", process=plan, stdin=True)
    theirs.close()
    idle.answer(number)
    assert b"/dev/pts/0\r\n10 20\r\n" in read_until(ours, b"10 20\r\n")
    idle.ask("resize", exec_id="tty", rows=11, columns=22)
    ours.sendall(b"\n")
    assert b"11 22\r\n" in read_all(ours)
    assert idle.event("exec_exit") == {"event": "exec_exit", "exec_id": "tty", "exit_code": 4}


def test_exec_gets_signals(box: Host, idle: Peer) -> None:
    idle.ask("exec", exec_id="sleeper", process=to_json(box.plan("sleep", "100").process))
    idle.ask("signal", exec_id="sleeper", signal=signal.SIGTERM)
    assert idle.event("exec_exit")["exit_code"] == 143
    with pytest.raises(Failed, match="No such exec"):
        idle.ask("signal", exec_id="sleeper", signal=signal.SIGTERM)


def test_execs_end_with_their_container(box: Host) -> None:
    keeper = start(box, box.plan("sleep", "1000"))
    ours, theirs = socket.socketpair()
    number = keeper.post("exec", (theirs.fileno(),), exec_id="x", process=to_json(box.plan("sleep", "1000").process))
    theirs.close()
    keeper.answer(number)
    end(keeper)
    assert read_all(ours) == b""


# --- looking and acting --------------------------------------------------------------------------------------------


def test_pause(box: Host) -> None:
    plan = box.plan("sh", "-c", "while :; do echo tick; sleep 0.01; done")
    keeper = start(box, plan)
    keeper.ask("pause")
    assert keeper.ask("status")["state"] == "paused"
    with pytest.raises(Failed, match="is paused"):
        keeper.ask("exec", exec_id="x", process=to_json(plan.process))
    group = f"{plan.cgroup_parent}/{plan.id}"
    v1, v2 = Path(f"/sys/fs/cgroup/freezer/{group}/freezer.state"), Path(f"/sys/fs/cgroup/{group}/cgroup.events")
    assert "FROZEN" in v1.read_text() if v1.exists() else "frozen 1" in v2.read_text()
    keeper.ask("unpause")
    assert keeper.ask("status")["state"] == "running"
    keeper.ask("pause")
    keeper.ask("signal", signal=9)
    if v1.exists():
        keeper.ask("unpause")  # the freezer of v1 holds even a kill back, that of v2 does not
    assert keeper.event("exit")["exit_code"] == 137


def test_stats_and_update(box: Host) -> None:
    plan = box.plan("sh", "-c", "head -c 3000000 /dev/zero > /dev/shm/x; exec sleep 1000")
    plan.limits.memory_bytes, plan.limits.memory_swap_bytes = 32 << 20, 64 << 20
    keeper = start(box, plan)
    while (stats := keeper.ask("stats"))["memory_bytes"] < 3_000_000 or stats["pids"] > 1:
        pass
    assert stats["memory_limit_bytes"] == 32 << 20
    assert stats["cpu_total_ns"] > 0
    limits = to_json(plan.limits) | {"memory_bytes": 128 << 20, "memory_swap_bytes": 256 << 20, "pids": 7}
    keeper.ask("update", limits=limits)
    stats = keeper.ask("stats")
    assert (stats["memory_limit_bytes"], stats["pids_limit"]) == (128 << 20, 7)
    with pytest.raises(Failed, match="Cannot update"):
        keeper.ask("update", limits=limits | {"cpuset_cpus": "77"})
    end(keeper)


def test_top(box: Host, idle: Peer) -> None:
    answer = idle.ask("top", ps_args="")
    assert answer["titles"] == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert [row[0] for row in answer["processes"]] == ["root", "root"]
    assert answer["processes"][1][7] == "sleep 1000"
    other = idle.ask("top", ps_args="-o pid,args")
    assert other["titles"] == ["PID", "COMMAND"]
    assert other["processes"][1][1] == "sleep 1000"
    with pytest.raises(Failed):
        idle.ask("top", ps_args="-o args")
    with pytest.raises(Failed, match="ps"):
        idle.ask("top", ps_args="--no-such-option")


def test_unknown_and_broken_requests(box: Host, idle: Peer) -> None:
    for op, fields in (
        ("dance", {}),
        ("resize", {}),
        ("signal", {"signal": "x"}),
        ("exec", {"exec_id": "q"}),
        ("files", {"verb": "x"}),
    ):
        with pytest.raises(Failed):
            idle.ask(op, **fields)
    with pytest.raises(Failed):
        idle.ask("start", wall="container", plan={})
    assert idle.ask("status")["state"] == "running"


# --- files ---------------------------------------------------------------------------------------------------------


def get(keeper: Peer, verb: str, path: str = "/") -> tarfile.TarFile:
    reading, writing = os.pipe()
    number = keeper.post("files", (writing,), verb=verb, path=path)
    os.close(writing)
    with open(reading, "rb") as file:
        data = file.read()
    keeper.answer(number)
    return tarfile.open(fileobj=io.BytesIO(data))


def put(keeper: Peer, path: str, name: str, content: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(content)
        archive.addfile(member, io.BytesIO(content))
    reading, writing = os.pipe()
    number = keeper.post("files", (reading,), verb="put", path=path)
    os.close(reading)
    with open(writing, "wb") as file:
        file.write(buffer.getvalue())
    keeper.answer(number)


def use_files(keeper: Peer) -> None:
    assert keeper.ask("files", verb="stat", path="/etc/passwd")["stat"]["name"] == "passwd"
    put(keeper, "/tmp", "new", b"content")
    archive = get(keeper, "get", "/tmp/new")
    member = archive.extractfile("new")
    assert member is not None
    assert member.read() == b"content"
    assert ["/tmp/new", 1] in keeper.ask("files", verb="changes", path="/")["changes"]
    assert "tmp/new" in [name.lstrip("./") for name in get(keeper, "upper").getnames()]
    assert "bin/busybox" in [name.lstrip("./") for name in get(keeper, "export").getnames()]
    with pytest.raises(Failed, match="Could not find the file /nope in container") as failure:
        keeper.ask("files", verb="stat", path="/nope")
    assert failure.value.kind == "not_found"


def test_files_of_a_running_container(box: Host, idle: Peer) -> None:
    use_files(idle)
    assert run_exec(box, idle, "cat", "cat", "/tmp/new") == (0, b"content")


def test_files_of_a_stopped_container(box: Host) -> None:
    plan = box.plan("true")
    keeper = box.keeper(plan)
    keeper.ask("start", wall="container", plan=to_json(plan), files_only=True)
    assert keeper.ask("status")["state"] == "files"
    use_files(keeper)
    keeper.ask("stop")
    keeper.close()
    assert (Path(plan.upper) / "tmp/new").read_text() == "content"


def test_a_files_keeper_ends_with_its_client(box: Host) -> None:
    plan = box.plan("true")
    keeper = box.keeper(plan)
    keeper.ask("start", wall="container", plan=to_json(plan), files_only=True)
    status = Path(box.run_root / "instances" / plan.id[:16] / "keeper.json")
    pid = json.loads(status.read_text())["pid"]
    pidfd = os.pidfd_open(pid)
    keeper.close()
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)
    assert not status.parent.exists()


# --- network -------------------------------------------------------------------------------------------------------


def test_nics(box: Host) -> None:
    bridge = f"p1b{os.getpid() % 100000}"
    with Route() as route:
        route.create_bridge(bridge, up=True)
        route.add_address(bridge, "10.213.7.1/24")
        try:
            plan = box.plan("sh", "-c", "ip -o -4 addr show eth0; ip route; exec sleep 1000")
            plan.nics = [nic(bridge, 0)]
            keeper = start(box, plan)
            ping = run_exec(box, keeper, "ping", "ping", "-c1", "-w5", "10.213.7.1", capabilities=["NET_RAW"])
            assert b"1 packets received" in ping[1]
            assert set(keeper.ask("stats")["nics"]) == {"eth0"}
            keeper.ask("nic_add", nic=to_json(nic(bridge, 1)))
            shown = run_exec(box, keeper, "show", "ip", "-o", "-4", "addr", "show", "eth1")[1]
            assert b"10.213.7.11/24" in shown
            keeper.ask("nic_remove", name="eth1")
            with pytest.raises(Failed, match="no network interface eth1"):
                keeper.ask("nic_remove", name="eth1")
            end(keeper)
            output = [json.loads(line)["log"] for line in Path(plan.log.path).read_text().splitlines()]
            assert "10.213.7.10/24" in output[0]
            assert "default via 10.213.7.1 dev eth0" in output[1]
        finally:
            route.delete_link(bridge)


def nic(bridge: str, number: int) -> NicPlan:
    return NicPlan(
        name=f"eth{number}",
        host_ifname=f"p1v{os.getpid() % 100000}{number}",
        bridge=bridge,
        mac=f"02:42:0a:d5:07:1{number}",
        addresses=[f"10.213.7.1{number}/24"],
        gateway4="10.213.7.1" if number == 0 else "",
    )


# --- who dies when -------------------------------------------------------------------------------------------------


def test_a_second_connection_finds_everything(box: Host, idle: Peer) -> None:
    instances = box.run_root / "instances"
    paths = [instances / name / "keeper.sock" for name in os.listdir(instances)]
    second = connect(paths[0])
    assert second.ask("watch")["state"]["state"] == "running"
    assert paths[0].stat().st_mode & 0o777 == 0o600
    second.close()


def test_exit_while_nobody_is_connected(box: Host) -> None:
    plan = box.plan("sh", "-c", "read x; exit 6", stdin=True, stdin_once=True)
    keeper = box.keeper(plan)
    client = attach(keeper, stdin=True)
    keeper.ask("start", wall="container", plan=to_json(plan))
    keeper.close()
    client.sendall(b"\n")
    assert read_all(client) == b""
    assert json.loads(Path(plan.exit_file).read_text())["exit_code"] == 6


def test_a_container_dies_with_its_keeper(box: Host) -> None:
    plan = box.plan("sleep", "1000")
    keeper = start(box, plan)
    pidfd = os.pidfd_open(keeper.ask("status")["pid"])
    status = Path(box.run_root / "instances" / plan.id[:16] / "keeper.json")
    os.kill(json.loads(status.read_text())["pid"], signal.SIGKILL)
    assert select.select([pidfd], [], [], 10)[0]
    os.close(pidfd)
    again = box.keeper(plan)  # what the dead keeper has left is in nobody's way
    again.ask("start", wall="container", plan=to_json(plan))
    end(again)


def test_keepers_outlive_the_launcher(box: Host) -> None:
    keeper = start(box, box.plan("sleep", "1000"))
    box.stop_launcher()
    assert keeper.ask("status")["state"] == "running"
    box.start_launcher()
    assert box.launcher.ask("ping")["pid"] == box.launcher_pid
    assert end(keeper) == 137


def test_many_at_once(box: Host) -> None:
    plans = [box.plan("sh", "-c", f"echo {number}; exit {number}") for number in range(60)]
    keepers = [box.keeper(plan) for plan in plans]
    numbers = [
        keeper.post("start", wall="container", plan=to_json(plan)) for keeper, plan in zip(keepers, plans, strict=True)
    ]
    for keeper, number in zip(keepers, numbers, strict=True):
        keeper.answer(number)
    assert [keeper.event("exit")["exit_code"] for keeper in keepers] == list(range(60))
    assert not os.listdir(box.run_root / "instances")
