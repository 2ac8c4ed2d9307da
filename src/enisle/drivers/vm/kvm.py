"""Whether KVM works here: shown by booting the guest's kernel under it, once per host kernel, QEMU and guest.

A /dev/kvm that opens is no proof: under some hypervisors an ordinary kernel never gets past its first instructions.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from enisle.drivers.vm.plan import FIRST_UID
from enisle.guest.build import Guest

_LIMIT_S = 8.0
_FILE = "kvm.json"
_DEVICE = "/dev/kvm"


async def works(directory: Path, guest: Guest, qemu: str) -> tuple[bool, str]:
    """(verdict, why), from the cache under ``directory`` or by trying it, which takes up to some seconds."""
    key = _key(guest, qemu)
    known = _read(directory / _FILE)
    if known.get("key") == key:
        return bool(known.get("works")), str(known.get("why", ""))
    trial = _Trial()
    try:
        works, why = await asyncio.to_thread(_try, guest, qemu, trial)
    except asyncio.CancelledError:
        trial.give_up()  # a thread cannot be cancelled; without its QEMU it ends
        raise
    _write(directory / _FILE, {"key": key, "works": works, "why": why})
    return works, why


class _Trial:
    """The QEMU of one trial, so that it can be ended from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._given_up = False

    def began(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._process = process
            if self._given_up:
                process.kill()

    def give_up(self) -> None:
        with self._lock:
            self._given_up = True
            if self._process is not None:
                self._process.kill()


def _key(guest: Guest, qemu: str) -> str:
    try:
        status = os.stat(qemu)
        program = f"{status.st_size} {status.st_mtime_ns}"
    except OSError:
        program = "none"
    return f"{os.uname().release} {guest.version} {program} {os.path.exists(_DEVICE)}"


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return values if isinstance(values, dict) else {}


def _write(path: Path, values: dict[str, Any]) -> None:
    with suppress(OSError):
        handle, name = tempfile.mkstemp(prefix="making-kvm-", dir=path.parent)
        with open(handle, "w", encoding="utf-8") as target:
            json.dump(values, target)
        os.rename(name, path)


def _try(guest: Guest, qemu: str, trial: _Trial) -> tuple[bool, str]:
    try:
        status = os.stat(_DEVICE)
    except OSError:
        return False, "there is no /dev/kvm"
    ours, theirs = socket.socketpair()
    kernel, initramfs = os.open(guest.kernel, os.O_RDONLY), os.open(guest.initramfs, os.O_RDONLY)
    try:
        process = subprocess.Popen(
            _command(qemu, kernel, initramfs, theirs.fileno()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=[kernel, initramfs, theirs.fileno()],
            start_new_session=True,
            user=FIRST_UID,
            group=FIRST_UID,
            extra_groups=[status.st_gid] if status.st_mode & stat.S_IRGRP and status.st_mode & stat.S_IWGRP else [],
        )
    except OSError as error:
        ours.close()
        return False, f"{qemu}: {error.strerror}"
    finally:
        theirs.close()
        os.close(kernel)
        os.close(initramfs)
    trial.began(process)
    with ours:
        return _verdict(process, ours)


def _verdict(process: subprocess.Popen[bytes], ours: socket.socket) -> tuple[bool, str]:
    ours.settimeout(_LIMIT_S)
    try:
        received = ours.recv(64)
    except TimeoutError:
        return False, f"a guest under KVM did not boot within {_LIMIT_S:g} s"
    except OSError:
        received = b""
    finally:
        process.kill()
        _, errors = process.communicate()
    if received:
        return True, "a guest has booted under KVM"
    reason = errors.decode("utf-8", "replace").strip().splitlines()
    return False, f"QEMU could not use KVM: {reason[-1][:200] if reason else 'it ended'}"


def _command(qemu: str, kernel: int, initramfs: int, agent: int) -> list[str]:
    words = [qemu, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    words += ["-machine", "q35,usb=off,vmport=off,smm=off,sata=off,smbus=off,i8042=off,graphics=off"]
    words += ["-accel", "kvm", "-cpu", "host", "-m", "256M", "-bios", "qboot.rom", "-kernel", f"/dev/fd/{kernel}"]
    words += ["-initrd", f"/dev/fd/{initramfs}", "-append", "console=none quiet panic=-1"]
    words += ["-chardev", f"socket,id=agent,fd={agent}", "-device", "virtio-serial-pci"]
    return [*words, "-device", "virtserialport,chardev=agent,name=enisle,nr=1"]
