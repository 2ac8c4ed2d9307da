"""The pure parts of the VM wall: QEMU's command line, message bodies, mounts, figures, words."""

import dataclasses
import errno
import json
import os
import socket
from pathlib import Path

import pytest

from enisle.launcher.vm import figures, files, messages, protocol, qemu, shares
from enisle.launcher.vm.protocol import Failure, MountKind, Stage
from enisle.launcher.wall import WallError
from enisle.wire.keeper import Stats
from enisle.wire.plans import MountPlan, NicPlan, ProcessPlan, VmPlan

GOLDEN = Path(__file__).parent / "qemu_argv.json"


def plan(**changes: object) -> VmPlan:
    values: dict[str, object] = {
        "id": "ab" * 32,
        "hostname": "web",
        "accelerator": "tcg",
        "tsc_khz": 2_500_000,
        "kernel": "/k",
        "initramfs": "/i",
        "image_disk": "/image",
        "writable_disk": "/disk",
        "process": ProcessPlan(args=["sh"]),
        "memory_bytes": 512 << 20,
        "vcpus": 2,
        "nics": [NicPlan(name="eth0", host_ifname="tap0", bridge="br0", mac="02:00:00:00:00:01")],
    }
    return VmPlan(**{**values, **changes})  # type: ignore[arg-type]


def descriptors(**changes: list[int]) -> qemu.Descriptors:
    fds: dict[str, list[int]] = {"taps": [16], "shares": [17], **changes}
    return qemu.Descriptors(
        kernel=10,
        initramfs=11,
        image_disk=12,
        writable_disk=13,
        agent=14,
        qmp=15,
        taps=fds["taps"],
        shares=fds["shares"],
    )


def test_a_disk_of_modules_comes_last_in_the_guests_order() -> None:
    fds = dataclasses.replace(descriptors(), modules_disk=18)
    words = qemu.argv(plan(), fds)
    assert "fd=18,set=2" in words and 18 in fds.all()
    devices = [json.loads(word) for word in words if word.startswith("{") and "virtio-blk-pci" in word]
    assert [int(device["addr"].removesuffix(".0"), 16) for device in devices] == [2, 3, 0x1D]


def test_a_guest_trusts_a_counter_whose_frequency_is_known() -> None:
    assert "tsc_early_khz=2500000 tsc=reliable" in qemu.kernel_command_line(plan(), shares=False)
    assert "tsc=unstable" in qemu.kernel_command_line(plan(tsc_khz=0), shares=False)
    assert "tsc_early_khz" not in qemu.kernel_command_line(plan(accelerator="kvm"), shares=False)


def test_the_command_line_is_as_it_was() -> None:
    """A change of the golden file is a change of the machine that every VM runs on."""
    assert qemu.argv(plan(), descriptors()) == json.loads(GOLDEN.read_text())


def test_under_kvm_the_guest_keeps_its_mitigations() -> None:
    words = qemu.argv(plan(accelerator="kvm"), descriptors())
    assert words[words.index("-accel") + 1] == "kvm"
    assert words[words.index("-cpu") + 1] == "host"
    assert "mitigations=off" not in words[words.index("-append") + 1]


def test_no_text_of_the_user_reaches_the_command_line() -> None:
    hostile = plan(
        hostname="x,readonly=off -netdev user",
        domainname="-S",
        kernel="-monitor",
        image_disk="/a,file=/etc/shadow",
        process=ProcessPlan(args=["-device", "a,b=c"], env=["X=,"], cwd="-"),
        files={"/etc/hosts": "-drive"},
        sysctls={"a": "-b"},
    )
    assert qemu.argv(hostile, descriptors()) == qemu.argv(plan(), descriptors())


def test_disks_are_raw_whatever_they_hold_and_the_image_is_read_only() -> None:
    words = qemu.argv(plan(), descriptors())
    nodes = [json.loads(words[at + 1]) for at, word in enumerate(words) if word == "-blockdev"]
    assert [(node["driver"], node["read-only"], node["file"]["read-only"]) for node in nodes] == [
        ("raw", True, True),
        ("raw", False, False),
    ]


def test_bodies_are_what_the_agent_reads() -> None:
    body = protocol.run_body(
        ProcessPlan(args=["a", "bc"], env=["E=1"], cwd="/w", user="u", terminal=True, terminal_size=[24, 80]),
        protocol.Identity(1 << 40, [(7, 5, -1)]),
        main=True,
    )
    assert body.hex(" ", -4) == (
        "21000000 12000000 00000000 18005000 00000000 00010000 01000000 75020000 002f7702 00000001 00000061 02000000 "
        "62630100 00000300 0000453d 31000000 00010000 00070000 00050000 00000000 00ffffff ffffffff ff"
    )


def test_strings_with_nul_are_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        protocol.text("a\0b")


def test_nic_bodies_hold_addresses_as_bytes() -> None:
    nic = NicPlan(
        name="eth0",
        host_ifname="h",
        bridge="b",
        mac="02:00:00:00:00:01",
        addresses=["10.0.0.2/24", "fd00::2/64"],
        gateway4="10.0.0.1",
        routes=[["192.168.0.0/16", "10.0.0.9"]],
    )
    body = protocol.nic_body(nic)
    assert bytes.fromhex("0a000002") + b"\x18" in body
    assert bytes.fromhex("fd00" + "00" * 13 + "02") + b"\x40" in body
    assert bytes.fromhex("c0a80000") + b"\x10" in body


def test_mounts_become_shares_and_what_the_agent_mounts(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket"))
    (tmp_path / "socket").chmod(0o640)
    guest, served, sockets = shares.plan_mounts(
        [
            MountPlan(kind="tmpfs", target="/run", options=["size=1m", "nosuid", "rw"]),
            MountPlan(kind="volume", target="/data", source=str(tmp_path), copy_up=True),
            MountPlan(kind="bind", target="/f", source=str(tmp_path / "file"), options=["rbind", "ro", "rprivate"]),
            MountPlan(kind="bind", target="/s", source=str(tmp_path / "socket")),
        ]
    )
    assert [(mount.kind, mount.target, mount.tag, mount.inside, mount.data, mount.copy_up) for mount in guest] == [
        (MountKind.TMPFS, "/run", "", "", "size=1m", False),
        (MountKind.SHARE, "/data", "share0", "", "", True),
        (MountKind.SHARE, "/f", "share1", "file", "", False),
        (MountKind.SOCKET, "/s", "", "", f"uid={os.geteuid()},gid={os.getegid()},mode=640", False),
    ]
    assert [(share.read_only, share.is_file) for share in served] == [(False, False), (True, True)]
    [source] = sockets
    os.close(source)
    listening.close()


def test_a_source_that_is_not_there_is_named() -> None:
    with pytest.raises(WallError, match="/nowhere/at/all"):
        shares.plan_mounts([MountPlan(kind="bind", target="/x", source="/nowhere/at/all")])


@pytest.mark.parametrize("program", ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"])
def test_file_servers_are_sandboxed(program: str) -> None:
    words = " ".join(shares.command(program, "/run/x/share0", 5))
    assert "sandbox=namespace" in words
    assert "--fd=5" in words


def test_guest_figures_are_read_and_nonsense_is_passed_over() -> None:
    stats = Stats(read_at=0)
    figures.guest_stats(
        b"cpu.usage_usec 5\nmemory_current 700\npids 3\nnic eth0 1 2 3 4 5 6 7 8\ndisk 254 0 1 512 2 1024\n"
        b"nic bad\nmemory.anon -5\n\xff\xff\n" + b"pids 99999999999999999999999\n" + b"x\n" * 10,
        stats,
    )
    assert stats.cpu_total_ns == 5000
    assert stats.memory_bytes == 700
    assert stats.pids == 1 << 63
    assert stats.nics == {
        "eth0": {
            "rx_bytes": 1,
            "rx_packets": 2,
            "rx_errors": 3,
            "rx_dropped": 4,
            "tx_bytes": 5,
            "tx_packets": 6,
            "tx_errors": 7,
            "tx_dropped": 8,
        }
    }
    assert (stats.block_read_bytes, stats.block_write_bytes) == (512, 1024)


def test_process_lists_as_ps_prints_them() -> None:
    answer = b"0 73 1 S 61 1000 0 100 sleep 1\x00" + b"33 80 73 R 0 1000 34816 8 sh\x1b -c x\x00" + b"nonsense\x00"
    listed = figures.process_list(answer, "", now=1100.0)
    assert listed["titles"] == figures.TITLES
    assert [row[:4] + row[5:] for row in listed["processes"]] == [
        ["0", "73", "1", "61", "?", "00:01:01", "sleep 1"],
        ["33", "80", "73", "0", "pts/0", "00:00:00", "sh\ufffd -c x"],
    ]
    assert figures.process_list(answer, "-o pid,args")["processes"][0] == ["73", "sleep 1"]
    with pytest.raises(ValueError, match="PID"):
        figures.process_list(answer, "-o args")
    with pytest.raises(ValueError, match="-ef"):
        figures.process_list(answer, "--forest")


def test_stat_answers_speak_go() -> None:
    found = files.stat_answer("/bin/sh", b"41471 7 1600000000 5000 /bin/busybox")
    assert found == {
        "name": "sh",
        "size": 7,
        "mode": 1 << 27 | 0o777,
        "mtime": "2020-09-13T12:26:40.000005Z",
        "linkTarget": "/bin/busybox",
    }


def test_changes_are_sorted_and_known_kinds_only() -> None:
    assert files.changes_answer(b"1/b\x000/a\x007/evil\x00\x00") == [["/a", 0], ["/b", 1]]


@pytest.mark.parametrize(
    ("stage", "number", "detail", "code", "words"),
    [
        (Stage.EXEC, errno.ENOENT, "nope", 127, 'exec: "nope": executable file not found in $PATH'),
        (Stage.EXEC, errno.ENOENT, "/nope", 127, 'exec: "/nope": stat /nope: no such file or directory'),
        (Stage.EXEC, errno.EACCES, "/etc/passwd", 126, 'exec: "/etc/passwd": permission denied'),
        (Stage.EXEC, errno.ENOEXEC, "/x", 126, "exec /x: exec format error"),
        (Stage.USER, errno.ENOENT, "bob", 126, "unable to find user bob: no matching entries in passwd file"),
        (Stage.GROUP, errno.ENOENT, "them", 126, "Unable to find group them: no matching entries in group file"),
        (Stage.CWD, errno.ENOTDIR, "/f", 126, 'chdir to cwd ("/f")'),
        (Stage.SESSION, errno.EAGAIN, "start a process", 128, "start a process"),
    ],
)
def test_failures_have_dockers_codes_and_words(stage: int, number: int, detail: str, code: int, words: str) -> None:
    error = messages.start_error(Failure(stage, number, detail))
    assert error.exit_code == code
    assert words in error.message
