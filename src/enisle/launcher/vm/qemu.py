"""QEMU's command line, as a pure function of the plan.

Nothing a user wrote is part of it: files arrive as descriptors, names are made from numbers, and what has a JSON form
is given as JSON, so that no value can become an option.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from enisle.wire.plans import NicPlan, VmPlan

HOTPLUG_BUS = "hot"
"""A bridge of 31 slots, where ACPI can plug NICs in and out of a running VM; pcie.0 itself cannot."""

TCG_TRANSLATION_MIB = 128
_MACHINE = (
    "q35,usb=off,vmport=off,smm=off,sata=off,smbus=off,i8042=off,hpet=off,graphics=off,"
    "mem-merge=off,dump-guest-core=off,memory-backend=ram"
)
_SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"

# No console: nobody reads it, and emulated serial output is slow. On a panic the machine resets, which -no-reboot turns
# into the end of QEMU.
_KERNEL_WORDS = (
    "console=none quiet panic=-1 oops=panic no_timer_check cryptomgr.notests random.trust_cpu=on "
    "rcupdate.rcu_expedited=1 8250.nr_uarts=0 audit=0 apparmor=0 net.ifnames=0 pci=noaer "
    # Initialisation of what a VM of ours has no use for: keys for signed modules, tracing of probes, hibernation.
    "initcall_blacklist=load_system_certificate_list,init_kprobe_trace,blacklist_init,crypto_kdf108_init,"
    "dh_init,init_encrypted,digsig_init,init_blk_tracer,init_trace_printk_function_export,init_graph_trace,"
    "nvme_core_init,dmi_sysfs_init,snapshot_device_init"
)
# Hardening of the guest against its own processes, which under emulation would cost a quarter of the boot.
_TCG_KERNEL_WORDS = "mitigations=off init_on_alloc=0"
# A file server writes a page behind the back of TCG, which goes on with the code it has translated from what was there
# before: programs on a share crash (seen with QEMU 10, where translations fit any address). A page that the guest's
# kernel clears before its use is one whose translations TCG has dropped.
_TCG_SHARES_KERNEL_WORDS = "mitigations=off init_on_alloc=1"


@dataclass(frozen=True, kw_only=True, slots=True)
class Descriptors:
    """The descriptors QEMU inherits. ``taps``: one per NIC; ``shares``: connected sockets of file servers.

    ``modules_disk`` is -1 for a VM that has none.
    """

    kernel: int
    initramfs: int
    image_disk: int
    writable_disk: int
    agent: int
    qmp: int
    modules_disk: int = -1
    taps: list[int] = field(default_factory=list)
    shares: list[int] = field(default_factory=list)

    def all(self) -> list[int]:
        """Every descriptor."""
        files = [self.kernel, self.initramfs, self.image_disk, self.writable_disk, self.agent, self.qmp]
        if self.modules_disk >= 0:
            files.append(self.modules_disk)
        return [*files, *self.taps, *self.shares]


def argv(plan: VmPlan, fds: Descriptors) -> list[str]:
    """The whole command line."""
    words = [plan.qemu, "-name", f"enisle-{plan.id[:12]}", "-nodefaults", "-no-user-config", "-no-reboot"]
    words += ["-display", "none", "-sandbox", _SANDBOX, "-machine", _MACHINE]
    words += _accelerator(plan)
    words += ["-smp", str(plan.vcpus), "-m", f"{_mebibytes(plan.memory_bytes)}M"]
    words += ["-object", _json(_memory(plan, shared=bool(fds.shares)))]
    # qboot jumps to the kernel a fifth of a second (emulated) sooner than a full BIOS would.
    words += ["-bios", "qboot.rom", "-kernel", f"/dev/fd/{fds.kernel}", "-initrd", f"/dev/fd/{fds.initramfs}"]
    words += ["-append", kernel_command_line(plan, shares=bool(fds.shares))]
    words += _disk(0, fds.image_disk, read_only=True) + _disk(1, fds.writable_disk, read_only=False)
    if fds.modules_disk >= 0:
        words += _disk(2, fds.modules_disk, read_only=True)
    words += ["-chardev", f"socket,id=agent,fd={fds.agent}", "-device", _json(_SERIAL), "-device", _json(_PORT)]
    words += ["-device", _json({"driver": "pcie-pci-bridge", "id": HOTPLUG_BUS, "addr": "1e.0"})]
    for number, (nic, fd) in enumerate(zip(plan.nics, fds.taps, strict=True)):
        words += ["-netdev", f"tap,id=net{number},fd={fd}", "-device", _json(nic_device(nic, number))]
    for number, fd in enumerate(fds.shares):
        words += ["-chardev", f"socket,id=share{number},fd={fd}", "-device", _json(_share(number))]
    words += ["-device", _json(_BALLOON)]
    words += ["-chardev", f"socket,id=qmp,fd={fds.qmp}", "-mon", "chardev=qmp,mode=control"]
    return words


def kernel_command_line(plan: VmPlan, *, shares: bool) -> str:
    """What the guest's kernel is told."""
    if plan.accelerator != "tcg":
        return f"{_KERNEL_WORDS} tsc=reliable"
    return f"{_KERNEL_WORDS} {_tcg_time(plan.tsc_khz)} {_TCG_SHARES_KERNEL_WORDS if shares else _TCG_KERNEL_WORDS}"


def _tcg_time(tsc_khz: int) -> str:
    """An emulated guest reads the host's counter. It would find out its frequency by an emulated timer, and on a busy
    host take it for many times too low or high, and its clock would run by as much too fast or slow.
    """
    return f"tsc_early_khz={tsc_khz} tsc=reliable" if tsc_khz else "tsc=unstable"


def nic_device(nic: NicPlan, number: int) -> dict[str, Any]:
    """The device of a NIC, for the command line and for device_add."""
    return {
        "driver": "virtio-net-pci",
        "id": f"nic{number}",
        "netdev": f"net{number}",
        "mac": nic.mac,
        "bus": HOTPLUG_BUS,
        "addr": f"{number + 1:x}.0",
        "romfile": "",
    }


_SERIAL = {"driver": "virtio-serial-pci", "id": "serial", "max_ports": 2, "addr": "4.0"}
_PORT = {"driver": "virtserialport", "bus": "serial.0", "chardev": "agent", "name": "enisle", "nr": 1}
# On the bridge, because qboot sets up no windows and Linux makes them only where it finds a device: without one behind
# the bridge there would be no room for a NIC that is plugged in later.
_BALLOON = {
    "driver": "virtio-balloon-pci",
    "id": "balloon",
    "bus": HOTPLUG_BUS,
    "addr": "1f.0",
    "deflate-on-oom": True,
    "free-page-reporting": True,
}


def _accelerator(plan: VmPlan) -> list[str]:
    if plan.accelerator == "kvm":
        return ["-accel", "kvm", "-cpu", "host"]
    # 5-level page tables would only cost time. Copies by "rep movsb" (ERMS), emulated byte by byte,
    # take six times as long as by words. The rest of "max" is what images may have been compiled for.
    return ["-accel", f"tcg,thread=multi,tb-size={TCG_TRANSLATION_MIB}", "-cpu", "max,la57=off,erms=off"]


def _mebibytes(size: int) -> int:
    return max(size >> 20, 64)


def _memory(plan: VmPlan, *, shared: bool) -> dict[str, Any]:
    """File servers reach the guest's memory directly, so it is a memfd then."""
    kind = "memory-backend-memfd" if shared else "memory-backend-ram"
    return {"qom-type": kind, "id": "ram", "size": _mebibytes(plan.memory_bytes) << 20, "share": shared}


_DISK_SLOTS = ("2.0", "3.0", "1d.0")  # the guest finds them in this order; 4.0 and on are taken


def _disk(number: int, fd: int, *, read_only: bool) -> list[str]:
    """A virtio disk on a file that is raw, whatever a guest has written to its beginning."""
    node = {
        "driver": "raw",
        "node-name": f"disk{number}",
        "read-only": read_only,
        "discard": "unmap",
        "file": {
            "driver": "file",
            "filename": f"/dev/fdset/{number}",
            "read-only": read_only,
            "discard": "unmap",
            "locking": "off",  # the keeper holds a lock of its own
        },
    }
    device = {"driver": "virtio-blk-pci", "drive": f"disk{number}", "addr": _DISK_SLOTS[number], "id": f"vd{number}"}
    return [
        "-add-fd",
        f"fd={fd},set={number}",
        "-blockdev",
        _json(node),
        "-device",
        _json(device),
    ]


def _share(number: int) -> dict[str, Any]:
    return {
        "driver": "vhost-user-fs-pci",
        "id": f"fs{number}",
        "chardev": f"share{number}",
        "tag": f"share{number}",
        "addr": f"{number + 5:x}.0",
    }


MAX_SHARES = 24  # slots of pcie.0 that are left for them


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))
