"""The kernel's file systems as nearly every container has them: part of its plan, and made ahead of need."""

from __future__ import annotations

from enisle.wire.plans import MountPlan

NEVER = ("nosuid", "noexec", "nodev")
USUAL_SHM_BYTES = 64 << 20  # what is asked for where nobody says anything: a test holds it to the model's


def kernel_mounts(*, read_only: bool) -> list[MountPlan]:
    """/proc, /dev and /sys with what is below them, in order; ``read_only``: whether those that show the host are."""
    kernel = ["ro" if read_only else "rw", *NEVER]
    return [
        MountPlan(kind="proc", target="/proc", options=list(NEVER)),
        MountPlan(kind="tmpfs", target="/dev", options=["nosuid", "strictatime", "mode=755", "size=65536k"]),
        MountPlan(kind="devpts", target="/dev/pts", options=["nosuid", "noexec", "newinstance", "ptmxmode=0666"]),
        MountPlan(kind="sysfs", target="/sys", options=kernel),
        MountPlan(kind="cgroup", target="/sys/fs/cgroup", options=[*kernel, "relatime"]),
        MountPlan(kind="mqueue", target="/dev/mqueue", options=list(NEVER)),
    ]


def shared_memory(size_bytes: int) -> MountPlan:
    """A /dev/shm of one's own."""
    return MountPlan(kind="tmpfs", target="/dev/shm", options=[*NEVER, "mode=1777", f"size={size_bytes}"])
