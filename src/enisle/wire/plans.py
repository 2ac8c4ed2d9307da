"""What enisled tells a keeper to do: complete, literal plans. Whoever carries a plan out decides nothing.

Plans cross process boundaries as JSON (:func:`to_json`, :func:`from_json`), so fields hold str, int, float, bool,
None, lists of those and other plans only. ``GENERATION`` is raised when a field changes its meaning; a keeper refuses
plans of a generation it does not know. Standard library only: the launcher imports this.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

GENERATION = 4


@dataclass(slots=True, kw_only=True)
class ProcessPlan:
    """One process inside an instance: its main one or an exec session.

    ``user`` is what the image or the user wrote ("", "1000", "www-data", "1000:1000", "u:g"); it is resolved against
    the instance's own /etc/passwd and /etc/group by whoever starts the process. ``capabilities`` are bare upper-case
    names without CAP_; bounding = permitted = effective for root, bounding only for others. ``seccomp`` is the name
    of a BPF program in the instance's plan ("" for none). ``rlimits`` are (name without RLIMIT_, soft, hard), -1 is
    infinity. ``terminal_size`` is (rows, columns).
    """

    args: list[str]
    env: list[str] = field(default_factory=list)
    cwd: str = "/"
    user: str = ""
    groups: list[str] = field(default_factory=list)
    terminal: bool = False
    terminal_size: list[int] = field(default_factory=lambda: [0, 0])
    stdin: bool = False
    stdin_once: bool = False
    no_new_privileges: bool = False
    capabilities: list[str] = field(default_factory=list)
    privileged: bool = False
    rlimits: list[list[Any]] = field(default_factory=list)
    apparmor: str = ""  # name of a loaded profile; "" leaves it as it is
    seccomp_bpf: str = ""  # base64 of struct sock_filter[]; "" for no filter
    oom_score_adj: int = 0
    umask: int = 0o022
    init: bool = False  # run under a reaping init (docker run --init)
    detach_keys: str = ""  # raw bytes as latin-1; "" is the default ctrl-p ctrl-q


@dataclass(slots=True, kw_only=True)
class MountPlan:
    """One mount, in order. ``kind``: bind, volume, tmpfs, proc, sysfs, devpts, mqueue, cgroup, image.

    ``source`` is a host path for bind and volume (``/proc/PID/root/…`` for what another process has mounted);
    ``name`` is the volume's or image's, for messages; ``layers`` are an image's, topmost first. ``target`` is absolute
    in the instance and resolved inside its root.
    ``options`` are mount(8) words (ro, nosuid, size=64m, mode=1777, rprivate, rshared, rbind...); ``ro=top`` leaves
    what is mounted below it writable.
    ``copy_up``: fill the (empty) volume from what the image has at target before mounting it; ``map_ids``: in a
    user namespace of its own the instance sees the owners that are on the disk, instead of the host's.
    """

    kind: str
    target: str
    source: str = ""
    options: list[str] = field(default_factory=list)
    copy_up: bool = False
    subpath: str = ""
    name: str = ""
    layers: list[str] = field(default_factory=list)
    map_ids: bool = False


@dataclass(slots=True, kw_only=True)
class DevicePlan:
    """A device node made inside: ``kind`` c or b; access is a subset of rwm. ``host_path`` for messages."""

    host_path: str
    path: str
    kind: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


@dataclass(slots=True, kw_only=True)
class NicPlan:
    """One NIC of an instance: on a bridge of the host a veth for a container, a tap for a VM.

    The keeper makes ``host_ifname`` and enslaves it to ``bridge``; or, where ``parent`` is set, it makes a macvlan (for
    a VM a macvtap called ``host_ifname``) of ``mode`` on that interface, or an ipvlan ("l2 bridge": mode and flag).
    Inside it is called ``name`` and has the MAC and the addresses (CIDR strings). ``gateway4``/``gateway6`` are ""
    where the network has no way out, and unspecified addresses where the link itself is the way. ``hairpin`` and
    ``isolated`` are options of the bridge's port.
    """

    name: str
    host_ifname: str
    bridge: str
    mac: str
    addresses: list[str] = field(default_factory=list)
    gateway4: str = ""
    gateway6: str = ""
    mtu: int = 1500
    routes: list[list[str]] = field(default_factory=list)  # [destination CIDR, via]
    hairpin: bool = False
    isolated: bool = False
    parent: str = ""
    mode: str = ""


def asks_inside(nics: list[NicPlan]) -> bool:
    """Whether an instance with these NICs asks for names inside of itself: no gateway of ours is on its networks."""
    return bool(nics) and not any(nic.bridge for nic in nics)


@dataclass(slots=True, kw_only=True)
class NamespacePlan:
    """Where each namespace comes from: "private", "host", or the pid (as text) of the process to join.

    ``user`` is "private" or "host"; its maps are lists of [first id inside, first id outside, count].
    """

    net: str = "private"
    pid: str = "private"
    ipc: str = "private"
    uts: str = "private"
    cgroup: str = "private"
    user: str = "host"
    uid_map: list[list[int]] = field(default_factory=list)
    gid_map: list[list[int]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class LimitsPlan:
    """Cgroup limits. 0 or None: no limit of our own. Memory in bytes, swap None: unset, -1: unlimited.

    ``memory_swap_bytes`` counts memory and swap together as Docker does. ``cpu_quota_us`` per ``cpu_period_us``.
    ``blkio_*_devices`` are [path, major, minor, rate-or-weight].
    """

    memory_bytes: int = 0
    memory_swap_bytes: int = 0
    memory_reservation_bytes: int = 0
    memory_swappiness: int | None = None
    kernel_memory_tcp_bytes: int = 0
    oom_kill_disable: bool = False
    cpu_shares: int = 0
    cpu_quota_us: int = 0
    cpu_period_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids: int = 0
    blkio_weight: int = 0
    blkio_weight_devices: list[list[Any]] = field(default_factory=list)
    blkio_read_bps: list[list[Any]] = field(default_factory=list)
    blkio_write_bps: list[list[Any]] = field(default_factory=list)
    blkio_read_iops: list[list[Any]] = field(default_factory=list)
    blkio_write_iops: list[list[Any]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class LogPlan:
    """Where output goes. ``driver``: json-file, local, journald or none. Rotation at ``max_bytes`` per file,
    ``max_files`` in all.

    ``extra`` are the attributes a json-file line carries (labels, tag, env), or the fields of a journal's entry.
    ``path`` is the journal's socket for journald. ``buffer_bytes``: what may wait for a slow journal, 0: nothing.
    """

    driver: str = "json-file"
    path: str = ""
    max_bytes: int = 10 << 20
    max_files: int = 5
    compress: bool = False
    extra: dict[str, str] = field(default_factory=dict)
    buffer_bytes: int = 0


@dataclass(slots=True, kw_only=True)
class RuntimePlan:
    """The OCI runtime that makes the container; ``name`` "" is none: we do.

    ``path`` is the program's, ``options`` go before the verb. ``seccomp``: linux.seccomp of the runtime spec, {} for
    no filter. ``init``: a static program of the host that is shown inside and run as the first process ("" for none).
    """

    name: str = ""
    path: str = ""
    options: list[str] = field(default_factory=list)
    seccomp: dict[str, Any] = field(default_factory=dict)
    init: str = ""


@dataclass(slots=True, kw_only=True)
class ContainerPlan:
    """Everything a container's wall needs to start one instance."""

    id: str
    hostname: str
    domainname: str = ""
    lower: list[str]  # overlay lower directories, topmost first
    upper: str
    work: str
    read_only_root: bool = False
    process: ProcessPlan
    namespaces: NamespacePlan = field(default_factory=NamespacePlan)
    mounts: list[MountPlan] = field(default_factory=list)
    devices: list[DevicePlan] = field(default_factory=list)
    device_rules: list[str] = field(default_factory=list)  # extra cgroup device rules: "c 1:3 rwm", "a *:* rwm"
    masked_paths: list[str] = field(default_factory=list)
    read_only_paths: list[str] = field(default_factory=list)
    sysctls: dict[str, str] = field(default_factory=dict)
    cgroup_parent: str = "enisle"  # below every hierarchy's root; the instance's own is <parent>/<id>
    runtime: RuntimePlan = field(default_factory=RuntimePlan)
    limits: LimitsPlan = field(default_factory=LimitsPlan)
    nics: list[NicPlan] = field(default_factory=list)
    resolver: str = ""  # its socket, for who asks inside (see wire.names)
    log: LogPlan = field(default_factory=LogPlan)
    exit_file: str = ""
    stop_signal: int = 15
    generation: int = GENERATION


@dataclass(slots=True, kw_only=True)
class VmPlan:
    """Everything the VM wall needs to start one instance."""

    id: str
    hostname: str
    domainname: str = ""
    accelerator: str  # kvm or tcg
    tsc_khz: int = 0  # what the host's time-stamp counter runs at, for a guest that sees it; 0: not known
    kernel: str
    initramfs: str
    image_disk: str  # EROFS, read-only, shared by all VMs of the image
    writable_disk: str  # raw, sparse, this instance's own
    modules_disk: str = ""  # EROFS, read-only: all modules of the kernel, for those that the guest needs itself
    load_modules: bool = False  # the workload sees that disk, and may load more
    read_only_root: bool = False
    process: ProcessPlan
    memory_bytes: int
    vcpus: int
    mounts: list[MountPlan] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)  # guest path -> content: /etc/hosts, /etc/resolv.conf, ...
    sysctls: dict[str, str] = field(default_factory=dict)
    cgroup_parent: str = "enisle"
    limits: LimitsPlan = field(default_factory=LimitsPlan)
    nics: list[NicPlan] = field(default_factory=list)
    resolver: str = ""  # as of ContainerPlan
    log: LogPlan = field(default_factory=LogPlan)
    exit_file: str = ""
    stop_signal: int = 15
    qemu: str = "/usr/bin/qemu-system-x86_64"
    virtiofsd: str = ""
    uid: int = 0  # the identity QEMU runs as; 0 only where no other could be had
    gid: int = 0
    generation: int = GENERATION


Plan = TypeVar("Plan")


_names: dict[type, tuple[str, ...]] = {}


def to_json(plan: Any) -> dict[str, Any]:
    """A plan as plain JSON values; lists and dictionaries of plain values are not copied (asdict takes 1 ms)."""
    kind = type(plan)
    names = _names.get(kind)
    if names is None:
        names = _names[kind] = tuple(field.name for field in dataclasses.fields(kind))
    return {name: _plain(getattr(plan, name)) for name in names}


def _plain(value: Any) -> Any:
    if isinstance(value, list) and value and dataclasses.is_dataclass(value[0]):
        return [to_json(item) for item in value]
    return to_json(value) if type(value) in _names or dataclasses.is_dataclass(value) else value


_nested: dict[type, tuple[tuple[str, type, bool], ...]] = {}


def _nested_of(kind: type) -> tuple[tuple[str, type, bool], ...]:
    """(name, kind of plan, whether it is a list of them) of each field that holds plans; asked for once per kind."""
    found = _nested.get(kind)
    if found is None:
        fields = []
        for name, hint in get_type_hints(kind).items():
            many = get_origin(hint) is list
            inner = get_args(hint)[0] if many else hint
            if isinstance(inner, type) and dataclasses.is_dataclass(inner):
                fields.append((name, inner, many))
        found = _nested[kind] = tuple(fields)
    return found


def from_json(kind: type[Plan], values: dict[str, Any]) -> Plan:
    """The plan of that kind. Unknown keys raise TypeError, so that a newer plan is never half understood."""
    built = dict(values)
    for name, inner, many in _nested_of(kind):
        value = built.get(name)
        if many and isinstance(value, list):
            built[name] = [from_json(inner, item) for item in value]
        elif isinstance(value, dict):
            built[name] = from_json(inner, value)
    return kind(**built)
