"""The container wall's driver."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from enisle.contracts import Launch
from enisle.drivers import limits, logs, process
from enisle.drivers.base import KeeperDriver
from enisle.drivers.container import devices, foreign, mounts, plan, security, sysctls
from enisle.drivers.container.capabilities import DEFAULT, capabilities
from enisle.drivers.container.facts import HostFacts, read_facts
from enisle.drivers.container.idranges import IdRanges
from enisle.drivers.launcher import LauncherClient
from enisle.errors import Exhausted, Internal, Invalid, NotSupported
from enisle.model.instance import Instance, InstanceSpec
from enisle.model.process import ExecSpec
from enisle.model.runtime import OciRuntime, plain_name
from enisle.wire.plans import ContainerPlan, LimitsPlan, ProcessPlan

_OWN_NAMES = frozenset({"", "enisle", "runc"})
_IPC_MODES = frozenset({"", "none", "host", "private", "shareable"})


class ContainerDriver(KeeperDriver):
    """Instances behind the kernel's own wall: namespaces, cgroups, capabilities, seccomp."""

    wall: ClassVar[str] = "container"

    def __init__(
        self,
        *,
        launcher: LauncherClient,
        run_root: Path,
        data_root: Path,
        cgroup_parent: str = "enisle",
        facts: HostFacts | None = None,
        userns: str = "host",
        runtimes: Mapping[str, OciRuntime] | None = None,
    ) -> None:
        """``userns``: what an instance that does not say gets, "host" or "private". ``runtimes``: by name."""
        super().__init__(launcher=launcher, run_root=run_root, data_root=data_root, cgroup_parent=cgroup_parent)
        self._facts = facts or read_facts(limits.read_limit_facts())
        self._userns = userns
        self._id_ranges = IdRanges(data_root)
        self._runtimes = dict(runtimes or {})

    def plan(self, launch: Launch) -> ContainerPlan:
        own_users = self._has_own_users(launch.instance.spec)
        first_id = self._id_ranges.claim(launch.instance.id) if own_users else None
        made = plan.container_plan(launch, self._facts, cgroup_parent=self._cgroup_parent, first_id=first_id)
        runtime = self._runtime_of(launch.instance.spec)
        return made if runtime is None else foreign.for_runtime(made, runtime, launch.instance.spec, self._facts)

    def _runtime_of(self, spec: InstanceSpec) -> OciRuntime | None:
        """None for our own wall, and for a runtime that the settings do not name any more."""
        return self._runtimes.get(plain_name(spec.runtime))

    def wall_of(self, instance: Instance) -> str:
        spec = instance.spec
        if self._runtime_of(spec) is not None:
            return "oci"
        if plain_name(spec.runtime) not in _OWN_NAMES:
            raise Invalid(f"unknown or invalid runtime name: {spec.runtime}")
        return self.wall

    def _has_own_users(self, spec: InstanceSpec) -> bool:
        return (spec.userns_mode or self._userns) != "host"

    def exec_plan(self, instance: Instance, spec: ExecSpec) -> ProcessPlan:
        return plan.exec_plan(instance, spec, self._facts)

    def limits_plan(self, spec: InstanceSpec) -> LimitsPlan:
        return limits.limits_plan(spec.resources)

    def check(self, spec: InstanceSpec) -> list[str]:
        _check_modes(spec)
        if self._has_own_users(spec):
            _check_own_users(spec)
        runtime = self._runtime_of(spec)
        if runtime is not None:
            foreign.check(spec, runtime, own_users=self._has_own_users(spec))
        _check_strings(spec)
        logs.check(spec.log)
        process.check_ulimits(spec.ulimits)
        devices.check(spec)
        mounts.check_targets([mount.target for mount in spec.mounts] + list(spec.volumes))
        sysctls.sysctls(spec)
        plan.cgroup_path(spec, self._cgroup_parent)
        options = security.parse(spec.security_options, self._facts)
        held = capabilities(spec, self._facts)
        if not spec.privileged:
            security.seccomp_filter(options.seccomp, held)
        warnings = limits.check(spec.resources, self._facts.limits)
        missing = sorted(set(held) - set(self._facts.capabilities))
        if missing and spec.cap_add:
            warnings.append(f"The engine itself does not have these capabilities and cannot give them: {missing}")
        return warnings

    async def prepare(self, launch: Launch) -> None:
        for name in ("upper", "work"):
            try:
                os.mkdir(launch.directory / name, 0o755 if name == "upper" else 0o700)
            except FileExistsError:
                continue
            except OSError as error:
                kind = Exhausted if error.errno in (28, 122) else Internal  # ENOSPC, EDQUOT
                raise kind(f"{launch.directory / name} cannot be made: {error.strerror}.") from error

    async def warm_up(self) -> None:
        """Compile the usual filter ahead of the first start (some 20 ms)."""
        with suppress(NotSupported, Invalid):
            await asyncio.to_thread(security.seccomp_filter, "", tuple(sorted(DEFAULT)))


def _check_modes(spec: InstanceSpec) -> None:
    if spec.pid_mode not in ("", "host", "private") and not _joins(spec.pid_mode):
        raise Invalid(f"invalid PID mode: {spec.pid_mode}")
    if spec.ipc_mode not in _IPC_MODES and not _joins(spec.ipc_mode):
        raise Invalid(f"invalid IPC mode: {spec.ipc_mode}")
    if spec.uts_mode not in ("", "host"):
        raise Invalid(f"invalid UTS mode: {spec.uts_mode}")
    if spec.cgroupns_mode not in ("", "host", "private"):
        raise Invalid(f"invalid cgroup namespace mode: {spec.cgroupns_mode}")
    if spec.userns_mode not in ("", "host", "private"):
        raise Invalid(f"invalid USER mode: {spec.userns_mode}")
    if spec.uts_mode == "host" and spec.hostname:
        raise Invalid("conflicting options: hostname and the UTS mode")
    if not -1000 <= spec.oom_score_adj <= 1000:
        raise Invalid(f"Invalid value {spec.oom_score_adj}, range for oom score adj is [-1000, 1000]")
    if spec.shm_size_bytes < 0:
        raise Invalid("SHM size can not be less than 0")
    for name in spec.storage_options:
        if name != "size":
            raise Invalid(f"Unknown option {name[:80]}")
        raise Invalid(
            "--storage-opt size= cannot be had for a container: its files are on the disk of the data root",
            remedy="Use --vm (--runtime vm), whose disk has a size, or a volume with one.",
        )


def _check_own_users(spec: InstanceSpec) -> None:
    """A user namespace of its own has no rights over what belongs to others."""
    if spec.privileged:
        raise Invalid(
            "privileged mode is incompatible with user namespaces.  "
            "You must run the container in the host namespace when running privileged mode"
        )
    modes = (("network", spec.network_mode), ("PID", spec.pid_mode), ("IPC", spec.ipc_mode), ("UTS", spec.uts_mode))
    for what, mode in modes:
        if mode == "host":
            raise Invalid(f"cannot share the host's {what} namespace when user namespaces are enabled")
        if mode.startswith("container:"):
            raise Invalid(
                f"cannot join the {what} namespace of another container when user namespaces are enabled",
                remedy="Use --userns host for both.",
            )


def _joins(mode: str) -> bool:
    return mode.startswith("container:") and len(mode) > len("container:")


def _check_strings(spec: InstanceSpec) -> None:
    """What ends up in files, mount data and argument vectors must not break out of its line."""
    for what, value in (("hostname", spec.hostname), ("domainname", spec.domainname)):
        if len(value) > 64 or not value.isprintable() or any(c.isspace() or c == "/" for c in value):
            raise Invalid(f"invalid {what}: {value[:80]!r}")
    process.check_text("command", (*(spec.entrypoint or ()), *(spec.command or ())))
    process.check_text("environment variable", spec.env)
    process.check_text("working directory", (spec.working_dir,))
    if spec.working_dir and not spec.working_dir.startswith("/"):
        raise Invalid(f"the working directory '{spec.working_dir[:200]}' is invalid, it needs to be an absolute path")
    for value in (spec.user, *spec.group_add):
        if len(value) > 512 or any(ord(c) < 32 for c in value):
            raise Invalid(f"invalid user or group: {value[:80]!r}")
