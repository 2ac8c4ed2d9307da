"""A trial of KVM: does a guest's kernel boot under it? A program, run by path with one argument, JSON.

It starts QEMU as a keeper would, confined in the same way, so that what it finds holds for VMs: ``qemu``, ``kernel``,
``initramfs`` (paths), ``uid`` and ``limit_s``. It prints {"works": bool, "why": text} and ends with 0. It goes with
enisled, and its QEMU with it.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
from typing import Any

_MACHINE = "q35,usb=off,vmport=off,smm=off,sata=off,smbus=off,i8042=off,graphics=off"


def command(qemu: str, kernel: int, initramfs: int, agent: int) -> list[str]:
    """QEMU's command line: a machine with nothing but the agent's port."""
    words = [qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-machine", _MACHINE]
    words += ["-accel", "kvm", "-cpu", "host", "-m", "256M", "-bios", "qboot.rom", "-kernel", f"/dev/fd/{kernel}"]
    words += ["-initrd", f"/dev/fd/{initramfs}", "-append", "console=none quiet panic=-1"]
    words += ["-chardev", f"socket,id=agent,fd={agent}", "-device", "virtio-serial-pci"]
    return [*words, "-device", "virtserialport,chardev=agent,name=enisle,nr=1"]


def attempt(*, qemu: str, kernel: str, initramfs: str, uid: int, limit_s: float) -> tuple[bool, str]:
    """(whether the agent has spoken, why)."""
    from enisle.launcher.vm.confine import confine_qemu
    from enisle.launcher.vm.spawn import read_errors, spawn

    ours, theirs = socket.socketpair()
    image, ramdisk = os.open(kernel, os.O_RDONLY), os.open(initramfs, os.O_RDONLY)
    program = spawn(
        command(qemu, image, ramdisk, theirs.fileno()),
        inherit=[image, ramdisk, theirs.fileno()],
        prepare=lambda: confine_qemu(uid, uid, kvm=True, readable=[image, ramdisk]),
    )
    theirs.close()
    try:
        spoken = _first_byte(ours, limit_s)
    finally:
        os.kill(program.pid, signal.SIGKILL)
        os.waitpid(program.pid, 0)
    if spoken is None:
        return False, f"a guest under KVM did not boot within {limit_s:g} s"
    if spoken:
        return True, "a guest has booted under KVM"
    complaint = read_errors(program.errors).split(" / ")[0].removeprefix(f"{os.path.basename(qemu)}: ")
    return False, f"QEMU could not use KVM: {complaint[:150] or 'it ended'}"


def _first_byte(connection: socket.socket, limit_s: float) -> bool | None:
    """Whether something came before the end of the other side; None when neither did in time."""
    ready, _, _ = select.select([connection], [], [], limit_s)
    if not ready:
        return None
    try:
        return bool(connection.recv(1))
    except OSError:
        return False


def main() -> None:
    """Carry out one trial."""
    script = os.path.abspath(__file__)
    for _ in range(4):
        script = os.path.dirname(script)
    sys.path.insert(0, script)
    from enisle.linux.syscalls import PR_SET_PDEATHSIG, prctl

    prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody is left to hear of it when enisled is killed
    arguments: dict[str, Any] = json.loads(sys.argv[1])
    try:
        works, why = attempt(**arguments)
    except OSError as error:
        works, why = False, str(error)
    sys.stdout.write(json.dumps({"works": works, "why": why}))


if __name__ == "__main__":
    main()
