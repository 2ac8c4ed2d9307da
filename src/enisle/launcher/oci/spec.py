"""From a container's plan to what an OCI runtime reads (runtime-spec 1.0.2): config.json, process.json, resources.

Pure. What only the keeper can know (who a user is inside, where mounts are shown to the runtime) is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from enisle.launcher.container.devices import rules
from enisle.launcher.container.identity import Identity
from enisle.launcher.container.options import READ_ONLY_TOP
from enisle.wire.plans import ContainerPlan, DevicePlan, LimitsPlan, MountPlan, ProcessPlan

VERSION = "1.0.2"
INIT_TARGET = "/sbin/docker-init"  # where Docker's clients and images expect it
_INFINITY = 2**64 - 1
# The spec's names of namespaces, and ours.
_NAMESPACES = (("network", "net"), ("pid", "pid"), ("ipc", "ipc"), ("uts", "uts"), ("cgroup", "cgroup"))
_NOT_FOR_RUNTIMES = frozenset({"nocopy", "copy", "z", "Z", "cached", "delegated", "consistent", "newinstance"})
_SHARED, _SLAVE = frozenset({"shared", "rshared"}), frozenset({"slave", "rslave"})
_KINDS = {"image": "bind", "volume": "bind"}
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where the runtime finds things. ``root``: the root file system; ``sources``: target of a bind -> its source;
    ``network``: path of the network namespace made for the container, "" where it has none of its own."""

    root: str
    sources: dict[str, str] = field(default_factory=dict)
    network: str = ""


def config(plan: ContainerPlan, who: Identity, place: Place) -> Json:
    """config.json."""
    made: Json = {
        "ociVersion": VERSION,
        "root": {"path": place.root, "readonly": plan.read_only_root},
        "process": process(plan.process, who, arguments=_arguments(plan)),
        "mounts": [*(_mount(mount, place) for mount in plan.mounts), *_init_mount(plan)],
        "linux": _linux(plan, place),
    }
    if plan.namespaces.uts == "private" and plan.hostname:
        made["hostname"] = plan.hostname
    return made


def process(plan: ProcessPlan, who: Identity, *, arguments: Sequence[str] = ()) -> Json:
    """process.json, or that part of config.json. ``arguments`` instead of the plan's."""
    names = [f"CAP_{name}" for name in plan.capabilities]
    env = list(plan.env)
    if not any(word.startswith("HOME=") and word != "HOME=" for word in env):
        env = [word for word in env if word != "HOME="] + [f"HOME={who.home}"]
    made: Json = {
        "terminal": plan.terminal,
        "user": {"uid": who.uid, "gid": who.gid, "additionalGids": list(who.groups), "umask": plan.umask},
        "args": list(arguments or plan.args),
        "env": env,
        "cwd": plan.cwd or "/",
        # Not inheritable (CVE-2022-24769) and not ambient, as dockerd has it: those that are not root get none.
        "capabilities": {"bounding": names, "effective": names, "permitted": names},
        "rlimits": [_rlimit(*limit) for limit in plan.rlimits],
        "noNewPrivileges": plan.no_new_privileges,
        "oomScoreAdj": plan.oom_score_adj,
    }
    if plan.terminal and all(plan.terminal_size):
        made["consoleSize"] = {"height": plan.terminal_size[0], "width": plan.terminal_size[1]}
    if plan.apparmor:
        made["apparmorProfile"] = plan.apparmor
    return made


def resources(limits: LimitsPlan) -> Json:
    """linux.resources without devices: what was asked for only, so that it serves for an update as well."""
    memory = {
        "limit": limits.memory_bytes,
        "swap": limits.memory_swap_bytes,
        "reservation": limits.memory_reservation_bytes,
        "kernelTCP": limits.kernel_memory_tcp_bytes,
        "disableOOMKiller": limits.oom_kill_disable,
    }
    cpu = {
        "shares": limits.cpu_shares,
        "quota": limits.cpu_quota_us,
        "period": limits.cpu_period_us,
        "cpus": limits.cpuset_cpus,
        "mems": limits.cpuset_mems,
    }
    io = {
        "weight": limits.blkio_weight,
        "weightDevice": _block(limits.blkio_weight_devices, "weight"),
        "throttleReadBpsDevice": _block(limits.blkio_read_bps, "rate"),
        "throttleWriteBpsDevice": _block(limits.blkio_write_bps, "rate"),
        "throttleReadIOPSDevice": _block(limits.blkio_read_iops, "rate"),
        "throttleWriteIOPSDevice": _block(limits.blkio_write_iops, "rate"),
    }
    made = {"memory": _said(memory), "cpu": _said(cpu), "blockIO": _said(io), "pids": _said({"limit": limits.pids})}
    if limits.memory_swappiness is not None and limits.memory_swappiness >= 0:
        made["memory"]["swappiness"] = limits.memory_swappiness
    return _said(made)


def _said(values: Json) -> Json:
    return {key: value for key, value in values.items() if value}


def _block(rates: list[list[Any]], word: str) -> list[Json]:
    return [{"major": major, "minor": minor, word: value} for _path, major, minor, value in rates]


def _arguments(plan: ContainerPlan) -> list[str]:
    return [INIT_TARGET, "--", *plan.process.args] if plan.runtime.init else list(plan.process.args)


def _init_mount(plan: ContainerPlan) -> list[Json]:
    if not plan.runtime.init:
        return []
    options = ["bind", "ro", "nosuid", "nodev"]
    return [{"destination": INIT_TARGET, "type": "bind", "source": plan.runtime.init, "options": options}]


def _rlimit(name: str, soft: int, hard: int) -> Json:
    return {
        "type": f"RLIMIT_{name}",
        "soft": _INFINITY if soft < 0 else soft,
        "hard": _INFINITY if hard < 0 else hard,
    }


def _mount(plan: MountPlan, place: Place) -> Json:
    words = ["ro" if word == READ_ONLY_TOP else word for word in plan.options if word not in _NOT_FOR_RUNTIMES]
    kind = _KINDS.get(plan.kind, plan.kind)
    if kind == "bind":
        if not {"bind", "rbind"} & set(words):
            words.insert(0, "rbind")
        return {"destination": plan.target, "type": "bind", "source": place.sources[plan.target], "options": words}
    if kind == "devpts":  # 5 is tty in every distribution
        words += [word for word in ("mode=0620", "gid=5") if not any(word[:4] == other[:4] for other in words)]
        words.insert(0, "newinstance")
    return {"destination": plan.target, "type": kind, "source": kind, "options": words}


def _linux(plan: ContainerPlan, place: Place) -> Json:
    sysctls = dict(plan.sysctls)
    if plan.domainname and plan.namespaces.uts == "private":
        sysctls["kernel.domainname"] = plan.domainname
    made: Json = {
        "cgroupsPath": f"/{plan.cgroup_parent}/{plan.id}",
        "namespaces": _namespaces(plan, place),
        "sysctl": sysctls,
        "devices": [_device(device) for device in plan.devices],
        "resources": {**resources(plan.limits), "devices": _device_rules(plan)},
        "maskedPaths": list(plan.masked_paths),
        "readonlyPaths": list(plan.read_only_paths),
        "rootfsPropagation": _propagation(plan.mounts),
    }
    if plan.runtime.seccomp:
        made["seccomp"] = plan.runtime.seccomp
    return made


def _propagation(planned: Sequence[MountPlan]) -> str:
    """As far as the binds need it: what is shared inside has to be shared with the runtime's own mounts first."""
    words = {word for mount in planned for word in mount.options}
    return "shared" if words & _SHARED else "slave" if words & _SLAVE else "private"


def _namespaces(plan: ContainerPlan, place: Place) -> list[Json]:
    made: list[Json] = [{"type": "mount"}]
    for name, ours in _NAMESPACES:
        origin = getattr(plan.namespaces, ours)
        if origin == "private":
            made.append({"type": name, "path": place.network} if name == "network" else {"type": name})
        elif origin != "host":
            made.append({"type": name, "path": f"/proc/{origin}/ns/{ours}"})
    return made


def _device(plan: DevicePlan) -> Json:
    return {
        "path": plan.path,
        "type": plan.kind,
        "major": plan.major,
        "minor": plan.minor,
        "fileMode": plan.mode,
        "uid": plan.uid,
        "gid": plan.gid,
    }


def _device_rules(plan: ContainerPlan) -> list[Json]:
    made: list[Json] = [{"allow": False, "access": "rwm"}]
    for rule in rules(plan.devices, plan.device_rules):
        allowed: Json = {"allow": True, "type": rule.kind, "access": rule.access}
        if rule.major >= 0:
            allowed["major"] = rule.major
        if rule.minor >= 0:
            allowed["minor"] = rule.minor
        made.append(allowed)
    return made
