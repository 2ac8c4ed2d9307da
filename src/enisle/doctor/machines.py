"""What virtual machines need: an accelerator, QEMU, and the tools that make their disks."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from enisle.contracts import HostCapability

_KVM_GET_API_VERSION = 0xAE00
_KVM_API = 12
_EMULATED = "VMs run, slower, under TCG. For KVM:"
_NO_KVM = f"{_EMULATED} turn on virtualization in the firmware (in a VM: nested virtualization)."
_NO_DEVICE = f"{_EMULATED} turn on virtualization in the firmware (in a VM: nested virtualization), and modprobe kvm."
_NO_ACCESS = (
    f"{_EMULATED} allow enisled to make device nodes, or: chgrp kvm /dev/kvm && chmod 660 /dev/kvm (udev rule)."
)
_NO_BOOT = f"{_EMULATED} this host is itself virtual and nests badly: use a host of another kind, or bare metal."
_FETCHED = "enisled fetches one from Debian before the first VM starts. In advance:"
_VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")


def probe(data_root: Path) -> list[HostCapability]:
    """``data_root`` is where the guest's kernel is looked for."""
    return [
        kvm(verdict=kvm_verdict(data_root / "guest")),
        qemu(),
        virtiofsd(),
        _tool("mkfs.erofs", package="erofs-utils", use="image disks of VMs", wall="vm"),
        _tool("mkfs.ext4", package="e2fsprogs", use="writable disks of VMs", wall="vm"),
        guest(data_root / "guest"),
        _tool("mmdebstrap", package="mmdebstrap", use="enisle image bootstrap", wall=""),
    ]


def kvm(device: str = "/dev/kvm", *, verdict: dict[str, Any] | None = None) -> HostCapability:
    """Whether /dev/kvm speaks KVM and, as the daemon's ``verdict`` says if there is one, boots a kernel."""
    reason = _kvm_reason(device)
    if not reason and verdict is not None and not verdict.get("works"):
        reason = f"{device} opens, but {verdict.get('why') or 'it could not boot a guest'}"
    detail = f"{device} opens and has booted a guest" if verdict else f"{device} opens; proven before its first use"
    return HostCapability(name="kvm", ok=not reason, detail=reason or detail, remedy=_kvm_remedy(device, reason))


def _kvm_remedy(device: str, reason: str) -> str:
    if not reason:
        return ""
    if not os.path.exists(device):
        return _NO_DEVICE
    if "Permission denied" in reason:
        return _NO_ACCESS
    return _NO_BOOT if "opens, but" in reason else _NO_KVM


def kvm_verdict(directory: Path) -> dict[str, Any] | None:
    """What the daemon found when it tried; None when it has not yet."""
    try:
        verdict = json.loads((directory / "kvm.json").read_bytes())
    except (OSError, ValueError):
        return None
    return verdict if isinstance(verdict, dict) else None


def _kvm_reason(device: str) -> str:
    try:
        descriptor = os.open(device, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"{device}: {error.strerror}"
    try:
        version = fcntl.ioctl(descriptor, _KVM_GET_API_VERSION)
    except OSError as error:
        return f"{device} does not answer: {error.strerror}"
    finally:
        os.close(descriptor)
    return "" if version == _KVM_API else f"{device} speaks version {version} of KVM's interface, not {_KVM_API}"


def qemu() -> HostCapability:
    """Whether QEMU is there, and which."""
    program = f"qemu-system-{os.uname().machine}"
    path = shutil.which(program)
    if path is None:
        return HostCapability(
            name="qemu", ok=False, detail=f"{program} is missing", remedy="apt install qemu-system-x86", wall="vm"
        )
    match = re.search(r"version (\S+)", _output([path, "--version"]))
    version = f"version {match[1]}" if match else "does not tell its version"
    return HostCapability(name="qemu", ok=match is not None, detail=f"{path}, {version}", wall="vm")


def virtiofsd() -> HostCapability:
    """Whether volumes and binds of VMs can be served."""
    path = next((path for path in (*_VIRTIOFSD, shutil.which("virtiofsd")) if path and os.access(path, os.X_OK)), None)
    return HostCapability(
        name="virtiofsd",
        ok=path is not None,
        detail=path or "missing: VMs cannot have volumes",
        remedy="" if path else "apt install virtiofsd (Debian 12: qemu-system-common)",
    )


def guest(directory: Path) -> HostCapability:
    """Whether the guest's kernel has been fetched. No wall: enisled fetches it."""
    current = directory / "current"
    there = current.exists()
    return HostCapability(
        name="guest kernel",
        ok=there,
        detail=current.resolve().name if there else f"none yet in {directory}",
        remedy="" if there else f"{_FETCHED} {sys.executable} -m enisle.guest.build --output {directory}",
    )


def _tool(program: str, *, package: str, use: str, wall: str) -> HostCapability:
    path = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    return HostCapability(
        name=program,
        ok=path is not None,
        detail=f"{path}, for {use}" if path else f"missing: for {use}",
        remedy="" if path else f"apt install {package}",
        wall=wall,
    )


def _output(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
