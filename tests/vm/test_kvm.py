"""KVM: who may open it, and that its trial comes to an end whatever this host's KVM does."""

import asyncio
import json
import os
import select
import stat
from pathlib import Path

import pytest

from enisle.drivers.vm import kvm
from enisle.launcher.vm.confine import confine_qemu
from enisle.launcher.vm.spawn import read_errors, spawn
from tests.vm.wall import Vm, guest

pytestmark = pytest.mark.timeout(120)
_DEVICE = "/dev/kvm"
_UID = 1_899_980_000
_QEMU = "/usr/bin/qemu-system-x86_64"


def _told_by(script: str) -> str:
    """What a Python program says on its standard error in QEMU's place."""
    program = spawn(
        ["/usr/bin/python3", "-I", "-S", "-c", script],
        inherit=[],
        prepare=lambda: confine_qemu(_UID, _UID, kvm=os.path.exists(_DEVICE), readable=[]),
    )
    select.select([program.pidfd], [], [], 60)
    os.waitpid(program.pid, 0)
    said = read_errors(program.errors)
    os.close(program.pidfd)
    os.close(program.errors)
    return said


def test_qemu_has_a_dev_of_its_own_with_a_node_that_it_may_open() -> None:
    """Also where the host's /dev/kvm is for root alone; and the host's stays as it is."""
    there = os.path.exists(_DEVICE)
    before = os.stat(_DEVICE) if there else None
    script = (
        "import os, sys\n"
        "names = [name for name in ('kvm', 'mem', 'net', 'null', 'urandom') if os.path.lexists('/dev/' + name)]\n"
        "if 'kvm' in names: os.open('/dev/kvm', os.O_RDWR)\n"
        "sys.stderr.write(' '.join(names))"
    )
    said = _told_by(script)
    assert said == ("kvm null urandom" if there else "null urandom")
    if before is not None:
        after = os.stat(_DEVICE)
        assert (after.st_ino, after.st_mode, after.st_uid) == (before.st_ino, before.st_mode, before.st_uid)


def test_the_trial_ends_with_a_verdict_that_is_kept(tmp_path: Path) -> None:
    works, why = asyncio.run(kvm.works(tmp_path, guest(), _QEMU))
    assert why
    assert "Permission denied" not in why
    kept = json.loads((tmp_path / "kvm.json").read_text())
    assert (kept["works"], kept["why"]) == (works, why)
    assert asyncio.run(kvm.works(tmp_path, guest(), _QEMU)) == (works, why)


def test_a_program_that_is_no_qemu_is_a_reason(tmp_path: Path) -> None:
    works, why = asyncio.run(kvm.works(tmp_path, guest(), "/bin/false"))
    assert not works
    assert why in ("QEMU could not use KVM: it ended", "there is no /dev/kvm")


def test_a_trial_that_is_given_up_leaves_no_qemu(tmp_path: Path) -> None:
    """enisled may be told to stop while it tries."""

    async def give_up() -> None:
        trial = asyncio.create_task(kvm.works(tmp_path, guest(), _QEMU))
        await asyncio.sleep(0)
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial

    asyncio.run(give_up())
    assert not (tmp_path / "kvm.json").exists()


def test_qemu_sees_no_device_of_the_host(vm: Vm) -> None:
    vm.start("sleep", "1000")
    assert vm.wall._machine is not None
    devices = f"/proc/{vm.wall._machine.pid}/root/dev"
    assert sorted(os.listdir(devices)) == ["fd", "null", "random", "urandom"]
    assert stat.S_ISCHR(os.stat(f"{devices}/null").st_mode)
