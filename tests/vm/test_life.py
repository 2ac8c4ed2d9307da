"""A VM's life: start, output, exit codes, ends of every kind, and that nothing is left behind."""

import hashlib
import os
import re
import select
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enisle.launcher.wall import WallError
from enisle.linux import capabilities
from enisle.linux.cgroup.choose import group
from tests.vm.wall import Vm

pytestmark = pytest.mark.timeout(400)


def test_output_exit_code_and_the_root_the_workload_sees(vm: Vm) -> None:
    main = vm.run(
        "sh",
        "-c",
        "echo out; echo err >&2; hostname; id -u; cat /etc/hosts; cat /data/seed; echo $HOME; ulimit -n; "
        "cat /proc/1/comm; ls /dev; cat /proc/sys/net/ipv4/ip_forward; exit 7",
        process={"rlimits": [["NOFILE", 333, 444]]},
        sysctls={"net.ipv4.ip_forward": "1"},
    )
    assert main.exit_code == 7
    assert main.errors == b"err\n"
    lines = main.output.decode().splitlines()
    assert lines[:8] == ["out", "island", "0", "127.0.0.1 localhost", "from the image", "/root", "333", "sh"]
    assert {"null", "zero", "pts", "shm", "ptmx", "stdin"} <= set(lines)
    assert not any(line.startswith("vd") for line in lines)  # no disks
    assert lines[-1] == "1"
    assert not vm.wall.oom_killed()


@pytest.mark.parametrize(
    ("command", "code", "words"),
    [
        ("nope", 127, "executable file not found in $PATH"),
        ("/no/such", 127, "no such file or directory"),
        ("/etc/plain", 126, "permission denied"),
        ("/etc", 126, "is a directory"),
    ],
)
def test_commands_that_cannot_be_run(vm: Vm, command: str, code: int, words: str) -> None:
    error = vm.start(command).error
    assert error.exit_code == code
    assert words in error.message


def test_what_is_written_is_there_in_the_next_life(new_vm: Callable[[], Vm], erofs: Path) -> None:
    first = new_vm()
    assert first.run("sh", "-c", "echo kept > /tmp/file; rm /data/seed").exit_code == 0
    first.wall.close()
    second = Vm(erofs, directory=first.directory)
    try:
        main = second.run("sh", "-c", "cat /tmp/file; ls /data")
    finally:
        second.wall.close()
    assert main.output == b"kept\n"


def test_a_read_only_root(vm: Vm) -> None:
    script = "touch /x; touch /dev/shm/y && echo shm; pwd"
    main = vm.run("sh", "-c", script, read_only_root=True, process={"cwd": "/made/here", "user": "www"})
    assert b"Read-only file system" in main.errors
    assert main.output == b"shm\n/made/here\n"


def test_signals_reach_the_workload_and_its_exit_code_says_so(vm: Vm) -> None:
    main = vm.start("sh", "-c", "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.1; done")
    vm.wait(lambda: b"ready" in main.output, 60)
    main.session.signal(signal.SIGTERM)
    vm.wait(lambda: main.ended, 60)
    assert (main.exit_code, main.output) == (5, b"ready\ngot\n")


def test_kill_ends_it_with_137(vm: Vm) -> None:
    main = vm.start("sleep", "1000")
    main.session.signal(signal.SIGKILL)
    vm.wait(lambda: main.ended, 60)
    assert main.exit_code == 137
    assert vm.wall.failure() == ""


def test_memory_that_runs_out_is_reported(vm: Vm) -> None:
    main = vm.run("sh", "-c", "exec tail /dev/zero", memory_bytes=128 << 20)
    assert main.exit_code == 137
    assert vm.wall.oom_killed()


def test_a_qemu_that_is_killed_is_an_exit_with_a_reason(vm: Vm) -> None:
    main = vm.start("sleep", "1000")
    assert vm.wall._machine is not None
    os.kill(vm.wall._machine.pid, signal.SIGKILL)
    vm.wait(lambda: main.ended, 30)
    assert main.exit_code == 137
    assert "signal 9" in vm.wall.failure()


def test_a_guest_whose_kernel_panics_is_an_exit_with_a_reason(vm: Vm) -> None:
    main = vm.start("sh", "-c", "echo 1 > /proc/sys/kernel/sysrq; echo c > /proc/sysrq-trigger; sleep 1000")
    vm.wait(lambda: main.ended, 60)
    assert main.exit_code == 255
    assert "its kernel stopped" in vm.wall.failure()


def test_a_disk_in_use_is_refused(new_vm: Callable[[], Vm], erofs: Path) -> None:
    first = new_vm()
    first.start("sleep", "1000")
    second = Vm(erofs, directory=first.directory)
    with pytest.raises(WallError, match="in use"):
        second.start("true")
    second.wall.close()


def test_a_broken_disk_is_a_clear_error(vm: Vm) -> None:
    plan = vm.make_plan("true")
    Path(plan.writable_disk).write_bytes(b"QFI\xfb" + b"\0" * (1 << 20))  # the mark of qcow2 is not believed
    error = vm.start("true").error
    assert error.exit_code == 128
    assert "mount the writable disk" in error.message


def test_nothing_is_left_behind(vm: Vm) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    main = vm.run("true")
    assert main.exit_code == 0
    assert vm.plan is not None and vm.wall._machine is not None
    pid = vm.wall._machine.pid
    group_of_vm = group(f"{vm.plan.cgroup_parent}/{vm.plan.id}")
    assert any(os.path.isdir(path) for path in group_of_vm.directories())
    vm.wall.close()
    assert not any(os.path.isdir(path) for path in group_of_vm.directories())
    assert not os.path.exists(f"/proc/{pid}")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_qemu_runs_without_rights(vm: Vm) -> None:
    vm.start("sleep", "1000")
    assert vm.wall._machine is not None and vm.plan is not None
    with open(f"/proc/{vm.wall._machine.pid}/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    assert set(status["Uid"].split()) == {str(vm.plan.uid)}
    assert set(status["Gid"].split()) == {str(vm.plan.gid)}
    assert status["Groups"].strip() == ""
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[kind], 16) == 0, kind
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    for kind in ("net", "mnt", "ipc", "uts"):
        own = os.readlink(f"/proc/self/ns/{kind}")
        assert os.readlink(f"/proc/{vm.wall._machine.pid}/ns/{kind}") != own


def test_two_cpus(vm: Vm) -> None:
    assert vm.run("sh", "-c", "grep -c ^processor /proc/cpuinfo", vcpus=2).output == b"2\n"


def test_the_machine_has_no_device_that_it_does_not_need(vm: Vm) -> None:
    vm.start("sleep", "1000")
    assert vm.wall._qmp is not None
    answers: list[dict[str, Any]] = []
    vm.wall._qmp.execute("human-monitor-command", answers.append, **{"command-line": "info qtree"})
    vm.wait(lambda: bool(answers), 30)
    found = set(re.findall(r"dev: ([^,\r\n]+)", answers[0]["return"]))
    chipset = {"q35-pcihost", "mch", "ICH9-LPC", "ioapic", "isa-i8259", "mc146818rtc", "port92", "isa-pit", "isa-pcspk"}
    chipset |= {"fw_cfg_io", "i8257", "kvmvapic", "ps2-mouse", "ps2-kbd"}
    virtio = {"virtio-blk", "virtio-serial", "virtio-balloon"}
    ours = {
        "pcie-pci-bridge",
        "virtserialport",
        *(f"{name}-pci" for name in virtio),
        *(f"{name}-device" for name in virtio),
    }
    assert found <= chipset | ours, found - chipset - ours


def test_the_image_cannot_be_written_even_by_a_privileged_workload(vm: Vm, erofs: Path) -> None:
    before = hashlib.sha256(erofs.read_bytes()).hexdigest()
    everything = list(capabilities.NAMES)
    main = vm.run(
        "sh",
        "-c",
        "ls /dev/vda && echo evil | dd of=/dev/vda bs=1k seek=1; echo 0 > /sys/block/vda/ro; sync",
        process={"privileged": True, "capabilities": everything},
    )
    assert b"/dev/vda" in main.output
    assert b"dd: " in main.errors
    assert hashlib.sha256(erofs.read_bytes()).hexdigest() == before


def test_the_vm_dies_with_its_keeper(vm: Vm) -> None:
    """A keeper that is killed cannot clean up; the kernel does."""
    reading, writing = os.pipe()
    keeper = os.fork()
    if keeper == 0:
        vm.start("sleep", "1000")
        assert vm.wall._machine is not None
        os.write(writing, b"%d" % vm.wall._machine.pid)
        signal.pause()
    qemu = int(os.read(reading, 32))
    pidfd = os.pidfd_open(qemu)
    os.kill(keeper, signal.SIGKILL)
    os.waitpid(keeper, 0)
    assert select.select([pidfd], [], [], 20)[0], "QEMU outlived its keeper"
    for fd in (reading, writing, pidfd):
        os.close(fd)


def test_the_console_is_the_terminal(vm: Vm) -> None:
    main = vm.run(
        "sh",
        "-c",
        "tty; stty size; test -c /dev/console && echo console > /dev/console",
        process={"terminal": True, "terminal_size": [31, 77]},
    )
    assert main.output.replace(b"\r", b"").splitlines() == [b"/dev/pts/0", b"31 77", b"console"]
