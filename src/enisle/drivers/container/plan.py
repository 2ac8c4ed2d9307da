"""From what was asked for to everything a keeper has to do: ``Launch`` -> ``ContainerPlan``."""

from __future__ import annotations

import dataclasses

from enisle.contracts import Launch
from enisle.drivers.base import EXIT_FILE, nic_plan
from enisle.drivers.container.capabilities import capabilities
from enisle.drivers.container.devices import device_plans, device_rules
from enisle.drivers.container.facts import HostFacts
from enisle.drivers.container.idranges import SIZE
from enisle.drivers.container.mounts import mount_plans
from enisle.drivers.container.security import parse, seccomp_filter
from enisle.drivers.container.sysctls import sysctls
from enisle.drivers.limits import limits_plan
from enisle.drivers.logs import log_plan
from enisle.drivers.process import exec_process, main_process
from enisle.errors import Invalid
from enisle.model.instance import Instance, InstanceSpec
from enisle.model.process import ExecSpec
from enisle.wire.plans import ContainerPlan, NamespacePlan, ProcessPlan

# The engine, and so every container, should outlive a program that takes all memory: it goes first.
_OOM_SCORE_ADJ = 100


def container_plan(
    launch: Launch, facts: HostFacts, *, cgroup_parent: str, first_id: int | None = None
) -> ContainerPlan:
    """The whole plan of one start. Looks at the host for devices and the engine's own files only.

    ``first_id``: of the range for a user namespace of its own; None for the host's.
    """
    instance, spec = launch.instance, launch.instance.spec
    return ContainerPlan(
        id=instance.id,
        hostname="" if spec.uts_mode == "host" else hostname(instance, facts),
        domainname=spec.domainname,
        lower=[str(layer) for layer in launch.layers],
        upper=str(launch.directory / "upper"),
        work=str(launch.directory / "work"),
        read_only_root=spec.read_only_root,
        process=_secured(main_process(instance, hostname(instance, facts)), spec, facts),
        namespaces=namespaces(launch, first_id),
        mounts=mount_plans(launch),
        devices=device_plans(spec),
        device_rules=device_rules(spec),
        masked_paths=_paths(spec, spec.masked_paths, facts.masked_paths),
        read_only_paths=_paths(spec, spec.read_only_paths, facts.read_only_paths),
        sysctls=sysctls(spec) if first_id is None else sysctls(spec, last_gid=SIZE - 1),
        cgroup_parent=cgroup_path(spec, cgroup_parent),
        limits=limits_plan(spec.resources),
        nics=[nic_plan(endpoint, published=bool(launch.port_sockets)) for endpoint in launch.endpoints],
        log=log_plan(instance, launch.log_path),
        exit_file=str(launch.directory / EXIT_FILE),
    )


def exec_plan(instance: Instance, spec: ExecSpec, facts: HostFacts) -> ProcessPlan:
    """A further process, behind the same wall; a privileged one has all capabilities and no filter."""
    process = exec_process(instance, hostname(instance, facts), spec)
    if spec.privileged:
        return _secured(process, dataclasses.replace(instance.spec, privileged=True), facts)
    return _secured(process, instance.spec, facts)


def hostname(instance: Instance, facts: HostFacts) -> str:
    """As asked for; else the host's with the host's network or UTS namespace, and the short id with one's own."""
    spec = instance.spec
    if spec.hostname:
        return spec.hostname
    return facts.nodename if "host" in (spec.network_mode, spec.uts_mode) else instance.id[:12]


def namespaces(launch: Launch, first_id: int | None = None) -> NamespacePlan:
    """Where each namespace comes from."""
    spec = launch.instance.spec
    plan = NamespacePlan()
    if first_id is not None:
        plan.user, plan.uid_map, plan.gid_map = "private", [[0, first_id, SIZE]], [[0, first_id, SIZE]]
    for name, mode in (("net", spec.network_mode), ("pid", spec.pid_mode), ("ipc", spec.ipc_mode)):
        if mode == "host":
            setattr(plan, name, "host")
        elif mode.startswith("container:"):
            if name not in launch.joins:
                raise Invalid(f"cannot join {name} namespace of a non running container: {mode.partition(':')[2]}")
            setattr(plan, name, str(launch.joins[name]))
    if spec.uts_mode == "host":
        plan.uts = "host"
    if spec.cgroupns_mode == "host":
        plan.cgroup = "host"
    return plan


def cgroup_path(spec: InstanceSpec, default: str) -> str:
    """The cgroup below which the instance's own is made, relative to each hierarchy's root."""
    path = spec.cgroup_parent.strip("/")
    if not path:
        return default
    if any(part in ("", ".", "..") for part in path.split("/")) or "\0" in path or "\n" in path:
        raise Invalid(f"cgroup-parent {spec.cgroup_parent[:200]!r} must be a path without . and .. in it")
    return path


def _secured(process: ProcessPlan, spec: InstanceSpec, facts: HostFacts) -> ProcessPlan:
    options = parse(spec.security_options, facts)
    process.capabilities = capabilities(spec, facts)
    process.privileged = spec.privileged
    process.no_new_privileges = options.no_new_privileges
    if not spec.privileged or options.seccomp:
        process.seccomp_bpf = seccomp_filter(options.seccomp, process.capabilities)
    process.oom_score_adj = spec.oom_score_adj or _OOM_SCORE_ADJ
    return process


def _paths(spec: InstanceSpec, asked: tuple[str, ...] | None, default: tuple[str, ...]) -> list[str]:
    if asked is not None:
        return list(asked)
    return [] if spec.privileged else list(default)
