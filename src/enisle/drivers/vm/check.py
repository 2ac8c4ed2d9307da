"""What a VM cannot honour, said before anything is made; one sentence each."""

from __future__ import annotations

import os
import re
import stat

from enisle.drivers import limits, logs, process
from enisle.drivers.container.facts import HostFacts
from enisle.drivers.container.mounts import check_targets
from enisle.drivers.container.plan import cgroup_path
from enisle.drivers.container.security import parse
from enisle.drivers.vm.disk import disk_bytes
from enisle.drivers.vm.plan import MINIMUM_MEMORY_BYTES, guest_capabilities, vcpus
from enisle.errors import Invalid
from enisle.model.instance import InstanceSpec, Mount, MountKind

_WHY = "a virtual machine has a kernel of its own"
_SYSCTL = re.compile(r"[a-zA-Z0-9_:@-]+([./][a-zA-Z0-9_:@-]+)+")
_VALUE = re.compile(r"[ -~\t]{0,4096}")
_HOSTNAME = re.compile(r"[a-zA-Z0-9._-]{0,64}")
_SHARED_PROPAGATION = frozenset({"shared", "rshared", "slave", "rslave"})


def check(spec: InstanceSpec, facts: HostFacts, *, cgroup_parent: str, virtiofsd: str) -> list[str]:
    """Warnings; raises Invalid for what this wall refuses."""
    _refuse_host_namespaces(spec)
    _refuse_host_devices(spec)
    _check_texts(spec)
    logs.check(spec.log)
    process.check_ulimits(spec.ulimits)
    cgroup_path(spec, cgroup_parent)
    parse(spec.security_options, facts)
    guest_capabilities(spec, facts)
    disk_bytes(spec.storage_options)
    check_targets([mount.target for mount in spec.mounts] + list(spec.volumes))
    return [*_check_resources(spec, facts), *_check_mounts(spec, virtiofsd)]


def _refuse_host_namespaces(spec: InstanceSpec) -> None:
    if spec.network_mode == "host":
        raise Invalid(f"--network host cannot be had in a virtual machine: {_WHY}; publish ports with -p instead.")
    if spec.network_mode.startswith("container:"):
        raise Invalid(
            f"--network {spec.network_mode[:80]} cannot be had in a virtual machine: {_WHY}; "
            "put both on one network instead."
        )
    for flag, mode in (("pid", spec.pid_mode), ("ipc", spec.ipc_mode), ("uts", spec.uts_mode)):
        if mode not in ("", "private", "none") and not (flag == "ipc" and mode == "shareable"):
            raise Invalid(f"--{flag} {mode[:80]} cannot be had in a virtual machine: {_WHY}.")
    if spec.userns_mode not in ("", "private"):
        raise Invalid(f"--userns {spec.userns_mode[:80]} cannot be had in a virtual machine: {_WHY}.")
    if spec.cgroupns_mode == "host":
        raise Invalid(f"--cgroupns host cannot be had in a virtual machine: {_WHY}.")


def _refuse_host_devices(spec: InstanceSpec) -> None:
    devices = spec.devices
    if devices.devices:
        raise Invalid(f"--device {devices.devices[0].host_path[:200]} cannot be given to a virtual machine yet.")
    if devices.requests:
        raise Invalid("--gpus and other device requests cannot be given to a virtual machine yet.")
    if devices.cgroup_rules:
        raise Invalid(f"--device-cgroup-rule does not apply to a virtual machine: {_WHY}.")


def _check_texts(spec: InstanceSpec) -> None:
    process.check_text("command", [*(spec.entrypoint or ()), *(spec.command or ())])
    process.check_text("environment", spec.env)
    process.check_text("working directory and user", [spec.working_dir, spec.user, *spec.group_add])
    if not _HOSTNAME.fullmatch(spec.hostname) or not _HOSTNAME.fullmatch(spec.domainname):
        raise Invalid(f"invalid hostname: {spec.hostname[:80]!r}")
    for key, value in spec.sysctls.items():
        if not _SYSCTL.fullmatch(key) or ".." in key or not _VALUE.fullmatch(value):
            raise Invalid(f"invalid sysctl: {key[:80]!r}={value[:80]!r}")


def _check_resources(spec: InstanceSpec, facts: HostFacts) -> list[str]:
    resources = spec.resources
    warnings = limits.check(resources, facts.limits)
    if 0 < resources.memory_bytes < MINIMUM_MEMORY_BYTES:
        raise Invalid(f"Minimum memory limit allowed for a virtual machine is {MINIMUM_MEMORY_BYTES >> 20}MB")
    if resources.oom_kill_disable:
        raise Invalid(f"--oom-kill-disable does not apply to a virtual machine: {_WHY}.")
    vcpus(resources)
    if resources.memory_swap_bytes not in (0, -1, resources.memory_bytes, 2 * resources.memory_bytes):
        warnings.append("A virtual machine has no swap: --memory-swap is without effect.")
    if resources.memory_swappiness not in (None, -1):
        warnings.append("A virtual machine has no swap: --memory-swappiness is without effect.")
    if resources.memory_reservation_bytes or resources.kernel_memory_tcp_bytes:
        warnings.append("A virtual machine's memory is its own: reservations within it are without effect.")
    return [warning for warning in warnings if "swap limit" not in warning and "memory limit" not in warning]


def _check_mounts(spec: InstanceSpec, virtiofsd: str) -> list[str]:
    warnings = []
    for mount in spec.mounts:
        if mount.propagation in _SHARED_PROPAGATION:
            warnings.append(
                f"Mounts made later do not propagate into a virtual machine: {mount.propagation} at "
                f"{mount.target[:200]} is without effect."
            )
    served = [mount for mount in spec.mounts if mount.kind is not MountKind.TMPFS and not _is_socket(mount)]
    shared = served or spec.volumes
    if shared and not virtiofsd:
        raise Invalid(
            "Volumes and binds of a virtual machine need virtiofsd.",
            remedy="Install the package virtiofsd (Debian 13) or qemu-system-common (Debian 12).",
        )
    if spec.masked_paths is not None or spec.read_only_paths is not None:
        warnings.append("Masked and read-only paths are of no use in a virtual machine and are not applied.")
    return warnings


def _is_socket(mount: Mount) -> bool:
    try:
        return mount.kind is MountKind.BIND and stat.S_ISSOCK(os.stat(mount.source).st_mode)
    except OSError:  # what is not there is said where it is looked for
        return False
