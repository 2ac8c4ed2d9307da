"""Volumes and binds: directories and single files of the host in a VM, and what a VM cannot do to them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enisle.wire.plans import MountPlan
from tests.vm.wall import Vm

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is shared, beside what is not."""
    top = tmp_path_factory.mktemp("host")
    for name in ("rw", "ro", "volume", "single"):
        (top / name).mkdir()
    (top / "rw/file").write_text("host\n")
    (top / "ro/file").write_text("look\n")
    (top / "single/one").write_text("one\n")
    (top / "single/sibling").write_text("secret\n")
    (top / "rw/out").symlink_to("/etc/shadow")
    return top


@pytest.fixture(scope="module")
def shared(erofs: Path, host: Path) -> Iterator[Vm]:
    machine = Vm(erofs)
    mounts = [
        MountPlan(kind="bind", target="/rw", source=str(host / "rw"), options=["rbind"]),
        MountPlan(kind="bind", target="/ro", source=str(host / "ro"), options=["rbind", "ro"]),
        MountPlan(kind="bind", target="/etc/one", source=str(host / "single/one"), options=["rbind"]),
        MountPlan(kind="volume", target="/data", source=str(host / "volume"), copy_up=True),
    ]
    machine.start("sleep", "100000", mounts=mounts)
    yield machine
    machine.close()


def test_a_directory_is_shared_both_ways(shared: Vm, host: Path) -> None:
    assert shared.exec("cat", "/rw/file").output == b"host\n"
    assert shared.exec("sh", "-c", "echo guest > /rw/made; chown 12:34 /rw/made").exit_code == 0
    status = os.stat(host / "rw/made")
    assert (status.st_uid, status.st_gid) == (12, 34)
    (host / "rw/later").write_text("later\n")
    assert shared.exec("cat", "/rw/later").output == b"later\n"


def test_read_only_is_enforced_on_the_host(shared: Vm, host: Path) -> None:
    assert shared.exec("cat", "/ro/file").output == b"look\n"
    all_capabilities = [f"{name}" for name in ("SYS_ADMIN", "DAC_OVERRIDE", "CHOWN", "FOWNER", "MKNOD")]
    remount = shared.exec(
        "sh",
        "-c",
        "mount -o remount,rw /ro; echo evil > /ro/file; rm /ro/file; touch /ro/new",
        capabilities=all_capabilities,
    )
    assert remount.exit_code != 0
    assert sorted(os.listdir(host / "ro")) == ["file"]
    assert (host / "ro/file").read_text() == "look\n"


def test_a_single_file_comes_without_its_siblings(shared: Vm, host: Path) -> None:
    assert shared.exec("cat", "/etc/one").output == b"one\n"
    assert shared.exec("sh", "-c", "echo two > /etc/one").exit_code == 0
    assert (host / "single/one").read_text() == "two\n"
    assert b"secret" not in shared.exec("sh", "-c", "find / -xdev -name sibling; cat /proc/mounts").output


def test_an_empty_volume_is_filled_from_the_image(shared: Vm, host: Path) -> None:
    assert (host / "volume/seed").read_text() == "from the image\n"
    assert shared.exec("cat", "/data/seed").output == b"from the image\n"


def test_links_lead_nowhere_outside(shared: Vm) -> None:
    """A link of the share is resolved by the guest, in its own root."""
    assert b"root:" not in shared.exec("cat", "/rw/out").output


def test_nothing_is_mounted_on_the_host(shared: Vm, host: Path) -> None:
    with open("/proc/self/mountinfo") as file:
        assert not [line for line in file if str(shared.directory) in line]


def test_what_is_not_there_is_refused_before_anything_is_started(new_vm: Callable[[], Vm]) -> None:
    machine = new_vm()
    mounts = [MountPlan(kind="bind", target="/x", source="/no/such/place")]
    with pytest.raises(Exception, match="/no/such/place"):
        machine.start("true", mounts=mounts)
