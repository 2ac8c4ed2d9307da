"""From what was asked for to everything a keeper has to do for a VM: ``Launch`` -> ``VmPlan``."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path

from enisle.contracts import Launch
from enisle.drivers.base import EXIT_FILE, nic_plan
from enisle.drivers.container.capabilities import capabilities
from enisle.drivers.container.facts import HostFacts
from enisle.drivers.container.plan import cgroup_path
from enisle.drivers.container.security import parse
from enisle.drivers.limits import limits_plan
from enisle.drivers.logs import log_plan
from enisle.drivers.process import exec_process, main_process
from enisle.errors import Internal, Invalid, NotSupported
from enisle.linux.route import MACVLAN_MODES
from enisle.model.instance import DEFAULT_SHM_BYTES, Endpoint, Instance, InstanceSpec
from enisle.model.process import ExecSpec
from enisle.model.resources import Resources
from enisle.wire.mounts import shared_memory
from enisle.wire.plans import MountPlan, NicPlan, ProcessPlan, VmPlan, asks_inside

DEFAULT_MEMORY_BYTES = 512 << 20
MINIMUM_MEMORY_BYTES = 128 << 20
DISK_FILE = "disk.raw"

# Of the ranges that systemd's UIDS-GIDS lists, this one belongs to nobody. As many again after it are those of the file
# servers (launcher.vm.identity).
FIRST_UID, _UIDS = 1_900_000_000, 100_000_000
_ETC_FILES = ("hosts", "hostname", "resolv.conf")
_MAX_ETC_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True, slots=True)
class Machine:
    """What all VMs of this host have in common."""

    kernel: Path
    initramfs: Path
    modules: Path  # a disk with all of the kernel's; may be missing
    accelerator: str  # kvm or tcg
    tsc_khz: int = 0  # of the host's time-stamp counter
    qemu: str
    virtiofsd: str


def vm_plan(launch: Launch, machine: Machine, facts: HostFacts, *, cgroup_parent: str) -> VmPlan:
    """The whole plan of one start. Reads the files the engine wrote for the instance, nothing else."""
    instance, spec = launch.instance, launch.instance.spec
    if launch.disk is None:
        raise Internal(f"instance {instance.name}: its image has no disk.")
    uid = uid_of(instance)
    may_load = spec.privileged or "SYS_MODULE" in guest_capabilities(spec, facts)
    nics = [vm_nic_plan(endpoint, published=bool(launch.port_sockets)) for endpoint in launch.endpoints]
    wants_modules = may_load or asks_inside(nics)
    modules = str(machine.modules.resolve()) if wants_modules and machine.modules.exists() else ""
    return VmPlan(
        id=instance.id,
        hostname=hostname(instance),
        domainname=spec.domainname,
        accelerator=machine.accelerator,
        tsc_khz=machine.tsc_khz,
        kernel=str(machine.kernel.resolve()),
        initramfs=str(machine.initramfs.resolve()),
        image_disk=str(launch.disk),
        writable_disk=str(launch.directory / DISK_FILE),
        modules_disk=modules,
        load_modules=bool(modules) and may_load,
        read_only_root=spec.read_only_root,
        process=_secured(main_process(instance, hostname(instance)), spec, facts),
        memory_bytes=spec.resources.memory_bytes or DEFAULT_MEMORY_BYTES,
        vcpus=vcpus(spec.resources),
        mounts=_mounts(launch),
        files=_etc_files(launch),
        sysctls=dict(spec.sysctls),
        cgroup_parent=cgroup_path(spec, cgroup_parent),
        limits=limits_plan(spec.resources),
        nics=nics,
        log=log_plan(instance, launch.log_path),
        exit_file=str(launch.directory / EXIT_FILE),
        qemu=machine.qemu,
        virtiofsd=machine.virtiofsd,
        uid=uid,
        gid=uid,
    )


def exec_plan(instance: Instance, spec: ExecSpec, facts: HostFacts) -> ProcessPlan:
    """A further process in the VM; a privileged one has all capabilities there."""
    process = exec_process(instance, hostname(instance), spec)
    wanted = dataclasses.replace(instance.spec, privileged=True) if spec.privileged else instance.spec
    return _secured(process, wanted, facts)


def hostname(instance: Instance) -> str:
    """As asked for, or the short id."""
    return instance.spec.hostname or instance.id[:12]


def uid_of(instance: Instance) -> int:
    """The identity its QEMU runs as: one that no other VM, and nobody else, has."""
    return FIRST_UID + int(instance.id[:12], 16) % _UIDS


def vcpus(resources: Resources) -> int:
    """Virtual CPUs: what was asked for, rounded up; 1 by default. Invalid for more than the host has."""
    count = os.cpu_count() or 1
    if resources.nano_cpus:
        wanted = -(-resources.nano_cpus // 1_000_000_000)
    elif resources.cpu_quota_us > 0:
        wanted = -(-resources.cpu_quota_us // (resources.cpu_period_us or 100_000))
    else:
        return 1
    if wanted > count:
        raise Invalid(f"range of CPUs is from 0.01 to {count}.00, as there are only {count} CPUs available")
    return max(wanted, 1)


def guest_capabilities(spec: InstanceSpec, facts: HostFacts) -> list[str]:
    """The same as in a container, so that an image behaves the same; but nothing the host lacks is missing."""
    return capabilities(spec, dataclasses.replace(facts, capabilities=facts.known_capabilities))


def _secured(process: ProcessPlan, spec: InstanceSpec, facts: HostFacts) -> ProcessPlan:
    process.capabilities = guest_capabilities(spec, facts)
    process.privileged = spec.privileged
    process.no_new_privileges = parse(spec.security_options, facts).no_new_privileges
    process.oom_score_adj = spec.oom_score_adj
    return process


def _mounts(launch: Launch) -> list[MountPlan]:
    """/dev/shm and the user's, outer before inner."""
    shared = shared_memory(launch.instance.spec.shm_size_bytes or DEFAULT_SHM_BYTES)
    planned = {shared.target: shared}
    for mount in launch.mounts:
        target = os.path.normpath("/" + mount.target.lstrip("/"))
        planned[target] = MountPlan(
            kind=mount.kind,
            target=target,
            source=mount.source,
            options=list(mount.options),
            copy_up=mount.copy_up,
            subpath=mount.subpath,
            name=mount.name,
            layers=list(mount.layers),
        )
    return sorted(planned.values(), key=lambda mount: (mount.target.count("/"), mount.target))


def _etc_files(launch: Launch) -> dict[str, str]:
    """The files the engine wrote for this instance; one that a mount of the user's covers is left out."""
    covered = {mount.target for mount in launch.mounts}
    found: dict[str, str] = {}
    for name in _ETC_FILES:
        path = launch.directory / name
        if f"/etc/{name}" in covered:
            continue
        try:
            with open(path, "rb") as file:
                found[f"/etc/{name}"] = file.read(_MAX_ETC_BYTES).decode("utf-8", "surrogateescape")
        except FileNotFoundError:
            continue
    return found


def vm_nic_plan(endpoint: Endpoint, *, published: bool = False) -> NicPlan:
    """NotSupported for an ipvlan, which shares the MAC of its parent: a guest has one of its own."""
    if endpoint.parent and endpoint.mode not in MACVLAN_MODES:
        raise NotSupported(
            f"network {endpoint.network}: virtual machines cannot be on ipvlan networks",
            remedy="Use a macvlan network, or the container wall.",
        )
    return nic_plan(endpoint, published=published)
