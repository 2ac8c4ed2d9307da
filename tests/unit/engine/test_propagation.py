"""Which mount a path lies on, from mountinfo's lines."""

from __future__ import annotations

import pytest

from enisle.engine import propagation
from enisle.engine.propagation import mount_of
from enisle.errors import Invalid

LINES = [
    "1 1 254:0 / / rw,relatime - ext4 /dev/vda rw",
    "2 1 0:5 / /mnt rw shared:7 - tmpfs tmpfs rw",
    "3 2 0:6 / /mnt/with\\040blank rw shared:9 master:3 - tmpfs tmpfs rw",
    "4 2 0:7 / /mnt rw master:4 - tmpfs tmpfs rw",
]


@pytest.mark.parametrize(
    ("path", "place", "tags"),
    [
        ("/etc", "/", set()),
        ("/mntx", "/", set()),
        ("/mnt/with blank/deep", "/mnt/with blank", {"shared", "master"}),
        ("/mnt/a", "/mnt", {"master"}),
    ],
)
def test_the_mount_of_a_path(path: str, place: str, tags: set[str]) -> None:
    assert mount_of(path, LINES) == (place, tags)


def test_what_is_not_passed_on_is_not_looked_at() -> None:
    propagation.check("/nowhere", "rprivate")
    propagation.check("/nowhere", "")


def test_proc_is_no_shared_mount() -> None:
    with pytest.raises(Invalid, match="is mounted on /proc but it is not a shared"):
        propagation.check("/proc/self", "shared")
