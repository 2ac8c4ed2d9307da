"""The mounts of a container, in order: the kernel's file systems, /dev, the engine's /etc files, then the user's."""

from __future__ import annotations

from enisle.contracts import HostMount, Launch
from enisle.errors import Invalid
from enisle.model.instance import DEFAULT_SHM_BYTES
from enisle.wire.mounts import kernel_mounts, shared_memory
from enisle.wire.plans import MountPlan

# Mounts below /proc that programs such as lxcfs make; anything else there would hide or fake what the kernel says.
_ALLOWED_IN_PROC = frozenset(
    "/proc/cpuinfo /proc/diskstats /proc/meminfo /proc/stat /proc/swaps /proc/uptime /proc/loadavg /proc/slabinfo "
    "/proc/net/dev /proc/sys/kernel/ns_last_pid".split()
)
_OURS = frozenset({"volume", "image"})  # a bind shows the host's files, to which the container's root has no right
_ETC_FILES = ("hosts", "hostname", "resolv.conf")


def mount_plans(launch: Launch) -> list[MountPlan]:
    """All of them; a mount of the user's takes the place of ours at the same target."""
    users = {_normal(mount.target): _user_mount(mount) for mount in launch.mounts}
    ours = [*kernel_mounts(read_only=not launch.instance.spec.privileged), *_shared_memory(launch), *_etc_files(launch)]
    planned = [mount for mount in ours if mount.target not in users]
    # Outer before inner: a mount would hide what was mounted below its target before it.
    return planned + sorted(users.values(), key=lambda mount: (mount.target.count("/"), mount.target))


def check_targets(targets: list[str]) -> None:
    """Refuse targets that no container can have. Invalid."""
    for target in targets:
        path = _normal(target)
        if path == "/":
            raise Invalid("invalid mount config: invalid specification: destination can't be '/'")
        inside_proc = path == "/proc" or path.startswith("/proc/")
        if inside_proc and path not in _ALLOWED_IN_PROC:
            raise Invalid(f'invalid mount config: "{path[:200]}" cannot be mounted because it is inside /proc')


def _shared_memory(launch: Launch) -> list[MountPlan]:
    """/dev/shm as the IPC mode has it: one's own, none, the host's, or that of the instance joined."""
    spec = launch.instance.spec
    if spec.ipc_mode == "none":
        return []
    if spec.ipc_mode == "host":
        return [MountPlan(kind="bind", target="/dev/shm", source="/dev/shm", options=["rbind", "rprivate"])]
    if "ipc" in launch.joins:
        source = f"/proc/{launch.joins['ipc']}/root/dev/shm"
        return [MountPlan(kind="bind", target="/dev/shm", source=source, options=["bind", "rprivate"])]
    return [shared_memory(spec.shm_size_bytes or DEFAULT_SHM_BYTES)]


def _etc_files(launch: Launch) -> list[MountPlan]:
    """The files the engine wrote for this instance; those that are not there are the image's own."""
    return [
        MountPlan(
            kind="bind",
            target=f"/etc/{name}",
            source=str(launch.directory / name),
            options=["rbind", "rprivate"],
            map_ids=True,
        )
        for name in _ETC_FILES
        if (launch.directory / name).exists()
    ]


def _user_mount(mount: HostMount) -> MountPlan:
    return MountPlan(
        kind=mount.kind,
        target=_normal(mount.target),
        source=mount.source,
        options=list(mount.options),
        copy_up=mount.copy_up,
        subpath=mount.subpath,
        name=mount.name,
        layers=list(mount.layers),
        map_ids=mount.kind in _OURS,
    )


def _normal(target: str) -> str:
    """The target without doubled slashes, dots and a final slash. ".." was refused by the engine, and stays inside."""
    parts: list[str] = []
    for part in target.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
