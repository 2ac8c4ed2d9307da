"""What a program finds behind the container wall."""

from __future__ import annotations

import json
import os
import signal
import struct
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.wire.plans import DevicePlan, MountPlan, to_json
from tests.linux.keepers import Failed, Host, host


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    with host(tmp_path_factory.mktemp("box")) as made:
        yield made


def lines(output: bytes) -> list[str]:
    return output.decode().splitlines()


def test_output_and_exit_code(box: Host) -> None:
    assert box.shell("echo out; echo err >&2; exit 7") == (7, b"out\nerr\n")


def test_death_by_signal_is_128_and_its_number(box: Host) -> None:
    assert box.shell("kill -TERM $$; sleep 5", init=True)[0] == 128 + signal.SIGTERM


def test_exit_file_and_log_are_written_before_anybody_is_told(box: Host) -> None:
    plan = box.plan("sh", "-c", "echo hello; exit 3")
    assert box.run(plan)[0] == 3
    report = json.loads(Path(plan.exit_file).read_text())
    assert (report["exit_code"], report["oom_killed"], report["error"]) == (3, False, "")
    assert report["finished_at"] > report["started_at"] > 0
    record = json.loads(Path(plan.log.path).read_text())
    assert (record["log"], record["stream"]) == ("hello\n", "stdout")


def test_nothing_is_left_behind(box: Host) -> None:
    plan = box.plan("true")
    box.run(plan)
    assert not (box.run_root / "instances" / plan.id[:16]).exists()
    assert not [base for base in Path("/sys/fs/cgroup").iterdir() if (base / plan.cgroup_parent / plan.id).exists()]
    assert plan.id not in Path("/proc/self/mountinfo").read_text()


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("nope", 127, 'exec: "nope": executable file not found in $PATH'),
        ("/nope", 127, 'exec: "/nope": stat /nope: no such file or directory'),
        ("/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
        ("/etc", 126, 'exec: "/etc": is a directory'),
        ("/bin/sh/x", 126, 'exec: "/bin/sh/x": not a directory'),
    ],
)
def test_command_that_cannot_be_run(box: Host, command: str, code: int, words: str) -> None:
    with pytest.raises(Failed) as failure:
        box.run(box.plan(command))
    assert failure.value.exit_code == code
    assert words in str(failure.value)
    assert str(failure.value).startswith("OCI runtime create failed: ")


def test_script_without_its_interpreter(box: Host) -> None:
    plan = box.plan("/script")
    script = Path(plan.upper) / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(Failed) as failure:
        box.run(plan)
    assert failure.value.exit_code == 127


@pytest.mark.parametrize(
    ("user", "groups", "expected"),
    [
        ("", [], "0 0 0"),
        ("user", [], "1000 1000 1000 2000"),
        ("1000", [], "1000 1000 1000 2000"),
        ("user:extra", [], "1000 2000 2000"),
        ("1234", [], "1234 0 0"),
        ("1234:77", [], "1234 77 77"),
        ("user", ["extra", "3000"], "1000 1000 1000 2000 3000"),
    ],
)
def test_identity(box: Host, user: str, groups: list[str], expected: str) -> None:
    code, output = box.shell("echo $(id -u) $(id -g) $(id -G)", user=user, groups=groups)
    assert (code, output.decode().strip()) == (0, expected)


@pytest.mark.parametrize("user", ["4294967296", "2147483648", "-1", "1000\n", "00", "+0", "１", "nobody-here"])
def test_identity_that_is_none(box: Host, user: str) -> None:
    (box.layer / "etc/passwd").write_text(
        "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n-1:x:0:0:::\n+0:x:0:0:::\n00:x:0:0:::\n"
    )
    with pytest.raises(Failed) as failure:
        box.shell("id -u", user=user)
    assert failure.value.exit_code == (126 if user == "nobody-here" else 128)  # as runc has it for names


def test_environment(box: Host) -> None:
    script = "echo $HOME $A; cd; pwd"
    assert lines(box.shell(script, env=["PATH=/bin", "A=b c=d"])[1]) == ["/root b c=d", "/root"]
    assert lines(box.shell("echo $HOME", user="user")[1]) == ["/home/user"]
    assert lines(box.shell("echo $HOME", env=["HOME=/x"], user="user")[1]) == ["/x"]


def test_working_directory_is_made(box: Host) -> None:
    assert box.shell("pwd", cwd="/made/for/it") == (0, b"/made/for/it\n")


def test_capabilities(box: Host) -> None:
    root = box.shell("grep Cap /proc/self/status", capabilities=["CHOWN", "KILL"])[1].decode().split()
    assert root[1::2] == ["0" * 16, f"{1 | 1 << 5:016x}", f"{1 | 1 << 5:016x}", f"{1 | 1 << 5:016x}", "0" * 16]
    user = box.shell("grep Cap /proc/self/status", capabilities=["CHOWN"], user="user")[1].decode().split()
    assert user[1::2] == ["0" * 16, "0" * 16, "0" * 16, f"{1:016x}", "0" * 16]


def test_no_new_privileges(box: Host) -> None:
    assert box.shell("grep NoNewPrivs /proc/self/status", no_new_privileges=True)[1].split()[1] == b"1"


@pytest.mark.parametrize("user", ["", "user"])
@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_filter(box: Host, user: str, no_new_privileges: bool) -> None:
    """sethostname(2) is refused by the filter, whose installation takes no more rights than the program has."""
    number = {"x86_64": 170, "aarch64": 161}[os.uname().machine]
    code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050000 | 95), (0x06, 0, 0, 0x7FFF0000)]
    program = b64encode(b"".join(struct.pack("HBBI", *instruction) for instruction in code)).decode()
    options = {"capabilities": ["CHOWN"], "user": user, "no_new_privileges": no_new_privileges, "seccomp_bpf": program}
    output = lines(box.shell("grep -E 'CapEff|Seccomp:' /proc/self/status; hostname x 2>&1", **options)[1])
    assert output[0].split()[1] == ("0" * 16 if user else f"{1:016x}")
    assert output[1].split()[1] == "2"
    assert "not supported" in output[2]  # EOPNOTSUPP, which nothing but the filter gives


def test_descriptors_and_parent(box: Host) -> None:
    code, output = box.run(box.plan("ls", "/proc/self/fd"))
    assert (code, sorted(lines(output))) == (0, ["0", "1", "2", "3"])  # 3 is ls's own, of the directory it lists
    assert box.shell("echo $$; readlink /proc/self/fd/0")[1] == b"1\n/dev/null\n"


def test_devices(box: Host) -> None:
    script = """
        stat -c '%a %t %T' /dev/null /dev/zero /dev/tty
        mknod /tmp/null c 1 3 && echo made
        mknod /tmp/kmsg c 1 11 2>&1
        mknod /tmp/disk b 254 0 2>&1
        head -c 4 /dev/zero | wc -c
    """
    output = lines(box.shell(script)[1])
    assert output[:4] == ["666 1 3", "666 1 5", "666 5 0", "made"]
    assert output[4].endswith("Operation not permitted")
    assert output[5].endswith("Operation not permitted")
    assert output[6] == "4"


def test_device_asked_for(box: Host) -> None:
    plan = box.plan(
        "sh",
        "-c",
        "stat -c '%a %u %t %T' /dev/inner/loop; head -c 1 /dev/inner/loop 2>&1 | wc -c; echo x > /dev/inner/loop",
    )
    plan.devices = [
        DevicePlan(
            host_path="/dev/zero", path="/dev/inner/loop", kind="c", major=1, minor=11, mode=0o640, uid=5, access="r"
        )
    ]
    output = lines(box.run(plan)[1])
    assert output[0] == "640 5 1 b"
    assert "can't create" in output[-1]


def test_masked_and_read_only_paths(box: Host) -> None:
    script = """
        head -c 1 /proc/keys | wc -c; ls /sys/firmware | wc -l; wc -c < /proc/interrupts
        echo 1 2>&1 > /proc/sys/kernel/panic
        cd /sys/fs/cgroup; cd memory 2>/dev/null; mkdir x 2>&1
        touch /sys/x 2>&1
    """
    output = lines(box.shell(script)[1])
    assert output[:3] == ["0", "0", "0"]
    assert len(output) == 6
    assert [line for line in output[3:] if "Read-only file system" not in line] == []


def test_read_only_root(box: Host) -> None:
    plan = box.plan("sh", "-c", "touch /x 2>&1; echo y > /dev/shm/y && cat /dev/shm/y; pwd", cwd="/new")
    plan.read_only_root = True
    output = lines(box.run(plan)[1])
    assert "Read-only file system" in output[0]
    assert output[1:] == ["y", "/new"]


def test_namespaces_are_its_own(box: Host) -> None:
    inside = lines(box.shell("for n in mnt pid net ipc uts cgroup; do readlink /proc/self/ns/$n; done; hostname")[1])
    outside = [os.readlink(f"/proc/self/ns/{name}") for name in ("mnt", "pid", "net", "ipc", "uts", "cgroup")]
    assert inside[-1] == "box"
    assert not set(inside) & set(outside)


def test_host_namespaces(box: Host) -> None:
    plan = box.plan("sh", "-c", "for n in pid net ipc uts; do readlink /proc/self/ns/$n; done; sleep 100 & exit 4")
    for name in ("pid", "net", "ipc", "uts"):
        setattr(plan.namespaces, name, "host")
    code, output = box.run(plan)
    assert lines(output) == [os.readlink(f"/proc/self/ns/{name}") for name in ("pid", "net", "ipc", "uts")]
    assert code == 4  # and what was left of it was killed, or its output would still be open


def test_joining_another_container(box: Host) -> None:
    first = box.plan("sh", "-c", "sleep 1000")
    keeper = box.keeper(first)
    pid = keeper.ask("start", wall="container", plan=to_json(first))["pid"]
    plan = box.plan(
        "sh",
        "-c",
        "readlink /proc/self/ns/pid; readlink /proc/self/ns/net; kill -9 1; ps -o args | grep -c '^sleep 1000'",
    )
    plan.namespaces.pid = plan.namespaces.net = str(pid)
    output = lines(box.run(plan)[1])
    assert output[:2] == [os.readlink(f"/proc/{pid}/ns/pid"), os.readlink(f"/proc/{pid}/ns/net")]
    assert output[2] == "1"
    keeper.ask("signal", signal=9)
    assert keeper.event("exit")["exit_code"] == 137
    with pytest.raises(Failed, match="has ended"):
        box.run(plan)


def test_loopback_is_up(box: Host) -> None:
    assert b"UP" in box.shell("ip link show lo")[1]


def test_limits(box: Host) -> None:
    files = ("memory.max", "pids.max")
    if Path("/sys/fs/cgroup/memory").is_dir():
        files = ("memory/memory.limit_in_bytes", "pids/pids.max")
    plan = box.plan("sh", "-c", f"cd /sys/fs/cgroup; cat {' '.join(files)}; nproc")
    plan.limits.memory_bytes, plan.limits.pids, plan.limits.cpuset_cpus = 64 << 20, 33, "0"
    assert lines(box.run(plan)[1]) == [str(64 << 20), "33", "1"]


def test_out_of_memory(box: Host) -> None:
    plan = box.plan("sh", "-c", "a=$(head -c 60000000 /dev/zero | tr '\\0' x); echo unreached")
    plan.limits.memory_bytes = plan.limits.memory_swap_bytes = 16 << 20
    keeper = box.keeper(plan)
    keeper.ask("start", wall="container", plan=to_json(plan))
    assert keeper.event("oom")
    event = keeper.event("exit")
    assert event["oom_killed"] is True


def test_rlimits(box: Host) -> None:
    plan = box.plan("sh", "-c", "ulimit -Sn; ulimit -Hn; ulimit -c", rlimits=[["NOFILE", 100, 200], ["CORE", 0, 0]])
    assert lines(box.run(plan)[1]) == ["100", "200", "0"]


def test_rlimit_that_cannot_be_raised_is_a_warning(box: Host) -> None:
    plan = box.plan("sh", "-c", "ulimit -Hn", rlimits=[["NOFILE", 1 << 30, 1 << 30]])
    keeper = box.keeper(plan)
    answer = keeper.ask("start", wall="container", plan=to_json(plan))
    assert any("ulimit nofile" in warning for warning in answer["warnings"])
    assert keeper.event("exit")["exit_code"] == 0


def test_sysctls(box: Host) -> None:
    plan = box.plan("sh", "-c", "cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax")
    plan.sysctls = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4242"}
    assert lines(box.run(plan)[1]) == ["1", "4242"]


def test_binds(box: Host, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dir/file").write_text("content")
    (tmp_path / "hosts").write_text("1.2.3.4 name\n")
    plan = box.plan("sh", "-c", "cat /a/b/file /etc/hosts; touch /a/b/new && touch /ro/x 2>&1")
    plan.mounts += [
        MountPlan(kind="bind", target="/a/b", source=str(tmp_path / "dir"), options=["rbind", "rprivate"]),
        MountPlan(kind="bind", target="/ro", source=str(tmp_path / "dir"), options=["rbind", "rprivate", "ro"]),
        MountPlan(kind="bind", target="/etc/hosts", source=str(tmp_path / "hosts"), options=["rbind", "rprivate"]),
    ]
    output = box.run(plan)[1].decode()
    assert output.startswith("content1.2.3.4 name\n")
    assert "Read-only file system" in output
    assert (tmp_path / "dir/new").exists()


def test_bind_of_what_is_not_there(box: Host, tmp_path: Path) -> None:
    plan = box.plan("true")
    plan.mounts.append(MountPlan(kind="bind", target="/x", source=str(tmp_path / "gone")))
    with pytest.raises(Failed, match=r"error mounting .*no such file or directory"):
        box.run(plan)


def test_volume_is_filled_from_the_image_once(box: Host, tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    plan = box.plan("sh", "-c", "ls /etc; rm /etc/group")
    plan.mounts.append(MountPlan(kind="volume", target="/etc", source=str(volume), copy_up=True))
    assert lines(box.run(plan)[1]) == ["group", "passwd"]
    assert sorted(os.listdir(volume)) == ["passwd"]
    again = box.plan("ls", "/etc")
    again.mounts.append(plan.mounts[-1])
    assert lines(box.run(again)[1]) == ["passwd"]


def test_tmpfs(box: Host) -> None:
    plan = box.plan("sh", "-c", "df -k /t | tail -1 | awk '{print $2}'; stat -c %a /t")
    plan.mounts.append(MountPlan(kind="tmpfs", target="/t", options=["nosuid", "size=2m", "mode=1700"]))
    assert lines(box.run(plan)[1]) == ["2048", "1700"]


def test_init_reaps_and_passes_signals_on(box: Host) -> None:
    plan = box.plan(
        "sh",
        "-c",
        "trap 'echo got; exit 9' USR1; (sh -c 'sleep 0.01 &'); cat /proc/1/comm; while :; do sleep 0.05; done",
        init=True,
    )
    keeper = box.keeper(plan)
    keeper.ask("start", wall="container", plan=to_json(plan))
    while not Path(plan.log.path).read_text():
        keeper.ask("status")
    keeper.ask("signal", signal=signal.SIGUSR1)
    assert keeper.event("exit")["exit_code"] == 9
    assert [json.loads(line)["log"] for line in Path(plan.log.path).read_text().splitlines()] == ["init\n", "got\n"]


def test_every_keyring_session_is_new(box: Host) -> None:
    """Two children never share what the launcher was started with; nor do they draw the same random numbers."""
    script = "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/boot_id"
    first, second = (lines(box.shell(script)[1]) for _ in range(2))
    assert first[0] != second[0]
