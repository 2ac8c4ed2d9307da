"""Cgroups without a kernel: layouts, which file gets which value, and version 2 on a tree of plain files."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from enisle.linux.cgroup.choose import group
from enisle.linux.cgroup.devices import DeviceRule, allows_everything, parse_rule, program
from enisle.linux.cgroup.layout import Layout, parse_mountinfo
from enisle.linux.cgroup.limits import io_weight, v1_settings, v2_settings, weight_of_shares
from enisle.linux.cgroup.v1 import V1Group
from enisle.linux.cgroup.v2 import V2Group
from enisle.wire.plans import LimitsPlan

HYBRID = """\
25 20 0:22 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
28 25 0:25 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
29 25 0:26 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
UNIFIED = "30 20 0:27 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def test_layouts() -> None:
    hybrid = parse_mountinfo(HYBRID)
    assert hybrid.version == 1
    assert hybrid.v1 == {
        "memory": "/sys/fs/cgroup/memory",
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
    }
    assert hybrid.unified == "/sys/fs/cgroup/unified"
    assert parse_mountinfo(UNIFIED) == Layout({}, "/sys/fs/cgroup")
    assert parse_mountinfo(UNIFIED).version == 2
    assert parse_mountinfo("").version == 0


def test_group_without_cgroups() -> None:
    with pytest.raises(OSError, match="no cgroup hierarchy"):
        group("x", Layout())
    assert isinstance(group("x", parse_mountinfo(HYBRID)), V1Group)
    assert isinstance(group("x", parse_mountinfo(UNIFIED)), V2Group)


def full_limits() -> LimitsPlan:
    return LimitsPlan(
        memory_bytes=100 << 20,
        memory_swap_bytes=150 << 20,
        memory_reservation_bytes=50 << 20,
        memory_swappiness=10,
        oom_kill_disable=True,
        cpu_shares=512,
        cpu_quota_us=50_000,
        cpu_period_us=100_000,
        cpuset_cpus="0-1",
        cpuset_mems="0",
        pids=100,
        blkio_weight=500,
        blkio_weight_devices=[["/dev/x", 8, 0, 300]],
        blkio_read_bps=[["/dev/x", 8, 0, 1000]],
        blkio_write_iops=[["/dev/x", 8, 0, 20]],
    )


def test_settings_of_version_1() -> None:
    assert [(setting.file, setting.value) for setting in v1_settings(full_limits())] == [
        ("memory.limit_in_bytes", "104857600"),
        ("memory.memsw.limit_in_bytes", "157286400"),
        ("memory.soft_limit_in_bytes", "52428800"),
        ("memory.swappiness", "10"),
        ("memory.oom_control", "1"),
        ("cpu.shares", "512"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "50000"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "100"),
        ("blkio.weight", "500"),
        ("blkio.bfq.weight", "500"),
        ("blkio.weight_device", "8:0 300"),
        ("blkio.bfq.weight_device", "8:0 300"),
        ("blkio.throttle.read_bps_device", "8:0 1000"),
        ("blkio.throttle.write_iops_device", "8:0 20"),
    ]


def test_settings_of_version_2() -> None:
    assert [(setting.file, setting.value) for setting in v2_settings(full_limits())] == [
        ("memory.max", "104857600"),
        ("memory.swap.max", "52428800"),
        ("memory.low", "52428800"),
        ("cpu.weight", "20"),
        ("cpu.max", "50000 100000"),
        ("cpuset.cpus", "0-1"),
        ("cpuset.mems", "0"),
        ("pids.max", "100"),
        ("io.bfq.weight", "500"),
        ("io.weight", "4950"),
        ("io.bfq.weight", "8:0 300"),
        ("io.weight", "8:0 2930"),
        ("io.max", "8:0 rbps=1000"),
        ("io.max", "8:0 wiops=20"),
    ]


def test_no_limits_write_nothing_and_unlimited_ones_say_so() -> None:
    assert v1_settings(LimitsPlan()) == v2_settings(LimitsPlan()) == []
    limits = LimitsPlan(pids=-1, memory_swap_bytes=-1, cpu_quota_us=-1)
    assert [setting.value for setting in v2_settings(limits)] == ["max", "max 100000", "max"]
    assert [setting.value for setting in v1_settings(limits)] == ["-1", "-1", "max"]


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 39), (262_144, 10_000), (0, 1), (10**9, 10_000)])
def test_weights(shares: int, weight: int) -> None:
    assert weight_of_shares(shares) == weight
    assert 1 <= io_weight(shares) <= 10_000


@pytest.mark.parametrize(
    "text", ["", "c", "c 1:3", "d 1:3 rwm", "c 1 rwm", "c 1:3 x", "c 1:3 ", "c -1:3 r", "c ١:3 r", "c 1:3 rwm x"]
)
def test_rules_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="device rule"):
        parse_rule(text)


def test_rules() -> None:
    for text in ("c 1:3 rwm", "b 8:* r", "a *:* rwm"):
        assert str(parse_rule(text)) == text
    assert allows_everything([parse_rule("a")])
    assert not allows_everything([parse_rule("c *:* rwm"), parse_rule("a *:* r")])


def run(code: bytes, kind: int, access: int, major: int, minor: int) -> int:
    """What the kernel's machine would answer: enough of BPF for our programs."""
    registers = [0] * 11
    context = {0: access << 16 | kind, 4: major, 8: minor}
    position = 0
    while True:
        opcode, both, offset, value = struct.unpack_from("<BBhi", code, position * 8)
        target, source = both & 15, both >> 4
        position += 1
        if opcode == 0x61:
            registers[target] = context[offset]
        elif opcode == 0xBF:
            registers[target] = registers[source]
        elif opcode == 0xB7:
            registers[target] = value
        elif opcode == 0x57:
            registers[target] &= value
        elif opcode == 0x77:
            registers[target] >>= value
        elif opcode == 0x55:
            position += offset if registers[target] != value else 0
        elif opcode == 0x95:
            return registers[0]
        else:
            raise AssertionError(f"opcode {opcode:#x}")


def test_device_program_allows_what_the_rules_allow() -> None:
    letters = {"m": 1, "r": 2, "w": 4}
    rules = [
        DeviceRule("c", 1, 3, "rwm"),
        DeviceRule("c", 1, 5, "r"),
        DeviceRule("b", 8, -1, "rw"),
        DeviceRule("a", -1, 7, "m"),
    ]
    code = program(rules)
    for kind in (1, 2):
        for access in range(1, 8):
            for major in (1, 8, 9):
                for minor in (3, 5, 7):
                    allowed = any(
                        rule.kind in ("a", "bc"[kind - 1])
                        and rule.major in (-1, major)
                        and rule.minor in (-1, minor)
                        and access & ~sum(letters[letter] for letter in rule.access) == 0
                        for rule in rules
                    )
                    assert run(code, kind, access, major, minor) == allowed


def test_empty_device_program_allows_nothing() -> None:
    assert run(program([]), 2, 2, 1, 3) == 0


# --- version 2 on plain files --------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for directory in (tmp_path, tmp_path / "enisle"):
        directory.mkdir(exist_ok=True)
        (directory / "cgroup.controllers").write_text("cpu io memory pids\n")
        (directory / "cgroup.subtree_control").write_text("cpu\n")
    return tmp_path


def test_v2_parents_hand_controllers_on(tree: Path) -> None:
    made = V2Group(Layout({}, str(tree)), "enisle/x/y")
    made.create()
    assert (tree / "enisle/x/y").is_dir()
    assert (tree / "cgroup.subtree_control").read_text().startswith("+pids")  # the last of those written one by one
    with pytest.raises(FileExistsError):
        made.create()


def test_v2_limits_and_warnings(tree: Path) -> None:
    made = V2Group(Layout({}, str(tree)), "enisle/x")
    made.create()
    for name in ("memory.max", "pids.max"):
        (tree / "enisle/x" / name).write_text("max\n")
    warnings = made.apply(LimitsPlan(memory_bytes=1 << 30, memory_swap_bytes=2 << 30, pids=5, cpu_shares=100))
    assert (tree / "enisle/x/memory.max").read_text().strip() == str(1 << 30)
    assert (tree / "enisle/x/pids.max").read_text().startswith("5")
    assert warnings == ["cpu.weight is not set: cgroup controller cpu is not there"]


def test_v2_usage(tree: Path) -> None:
    directory = tree / "enisle/x"
    directory.mkdir()
    values = {
        "cpu.stat": "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 4\nnr_throttled 1\nthrottled_usec 7\n",
        "memory.current": "4096\n",
        "memory.peak": "8192\n",
        "memory.max": "max\n",
        "memory.stat": "anon 1024\nfile 2048\n",
        "memory.events": "low 0\noom 2\noom_kill 3\n",
        "pids.current": "2\n",
        "pids.max": "10\n",
        "io.stat": "8:0 rbytes=100 wbytes=200 rios=1 wios=2\n8:16 rbytes=1 wbytes=2\n",
        "cgroup.procs": "12\n13\n",
        "cgroup.events": "populated 1\nfrozen 1\n",
        "cgroup.freeze": "0\n",
    }
    for name, text in values.items():
        (directory / name).write_text(text)
    made = V2Group(Layout({}, str(tree)), "enisle/x")
    usage = made.usage()
    assert (usage.cpu_total_ns, usage.cpu_user_ns, usage.throttled_ns) == (30_000, 20_000, 7_000)
    assert (usage.memory_bytes, usage.memory_max_bytes, usage.memory_limit_bytes) == (4096, 8192, 0)
    assert (usage.block_read_bytes, usage.block_write_bytes, len(usage.block_io)) == (101, 202, 4)
    assert (usage.pids, usage.pids_limit) == (2, 10)
    assert made.oom_kills() == 3
    assert made.pids() == [12, 13]
    made.freeze(frozen=True)
    assert (directory / "cgroup.freeze").read_text().startswith("1")
    made.add(0)
    assert (directory / "cgroup.procs").read_text().startswith("0")
    descriptor = made.directory_fd()
    assert os.fstat(descriptor).st_ino == directory.stat().st_ino
    os.close(descriptor)


def test_v2_oom_event(tree: Path) -> None:
    directory = tree / "enisle/x"
    directory.mkdir()
    (directory / "memory.events").write_text("oom_kill 0\n")
    descriptor = V2Group(Layout({}, str(tree)), "enisle/x").oom_event_fd()
    (directory / "memory.events").write_text("oom_kill 1\n")
    assert os.read(descriptor, 4096)
    os.close(descriptor)


def test_remove_takes_what_is_below_along(tree: Path) -> None:
    made = V2Group(Layout({}, str(tree)), "enisle/x")
    (tree / "enisle/x/a/b").mkdir(parents=True)
    made.remove()
    assert not (tree / "enisle/x").exists()
    made.remove()
