"""Volumes and binds: directories and single files of the host in a VM, and what a VM cannot do to them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enisle.wire.plans import MountPlan
from tests.daemon import run
from tests.vm.wall import Vm

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is shared, beside what is not."""
    top = tmp_path_factory.mktemp("host")
    for name in ("rw", "ro", "volume", "single", "top", "top/below"):
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
        MountPlan(kind="bind", target="/deep", source=str(host / "top"), options=["rbind", "ro"]),
        MountPlan(kind="bind", target="/flat", source=str(host / "top"), options=["bind"]),
    ]
    run("mount", "-t", "tmpfs", "below", str(host / "top/below"))
    try:
        (host / "top/below/file").write_text("below\n")
        machine.start("sleep", "100000", mounts=mounts)
    finally:
        run("umount", str(host / "top/below"))
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


def test_what_is_mounted_below_comes_along_unless_it_must_not(shared: Vm) -> None:
    assert shared.exec("cat", "/deep/below/file").output == b"below\n"
    assert shared.exec("touch", "/deep/below/new").exit_code == 1
    assert shared.exec("ls", "/flat/below").output == b""


def test_a_single_file_comes_without_its_siblings(shared: Vm, host: Path) -> None:
    assert shared.exec("cat", "/etc/one").output == b"one\n"
    assert shared.exec("sh", "-c", "echo two > /etc/one").exit_code == 0
    assert (host / "single/one").read_text() == "two\n"
    assert b"secret" not in shared.exec("sh", "-c", "find / -xdev -name sibling; cat /proc/mounts").output


def test_an_empty_volume_is_filled_from_the_image(shared: Vm, host: Path) -> None:
    assert (host / "volume/seed").read_text() == "from the image\n"
    assert shared.exec("cat", "/data/seed").output == b"from the image\n"


def _server_status(shared: Vm) -> list[dict[str, str]]:
    """/proc/PID/status of every process of the file servers."""
    assert shared.wall._machine is not None
    found = []
    leaders = {server.program.pid for server in shared.wall._machine._servers}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            lines = (entry / "status").read_text().splitlines()
        except OSError:
            continue
        status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
        if leaders & {int(status["Pid"]), int(status["PPid"])}:
            found.append(status)
    return found


def test_the_servers_are_nobody_on_the_host(shared: Vm) -> None:
    """Row 72: users of their own, and root of a user namespace in which alone their capabilities count."""
    assert shared.plan is not None
    servers = _server_status(shared)
    assert len(servers) >= 4
    for status in servers:
        assert set(status["Uid"].split()) == {str(shared.plan.uid + 100_000_000)}, status["Name"]
        assert status["Groups"].strip() == ""
        own = os.readlink("/proc/self/ns/user")
        assert os.readlink(f"/proc/{status['Pid']}/ns/user") != own


def test_owners_and_modes_are_what_they_are_for_a_container(shared: Vm, host: Path) -> None:
    """No root squash: all owners, those beyond 65535 too, and root's own."""
    for uid in (0, 1, 1000, 65534, 65536, 1_200_000_000, 4_000_000_000):
        (host / f"rw/of-{uid}").write_text("x")
        os.chown(host / f"rw/of-{uid}", uid, uid)
        os.chmod(host / f"rw/of-{uid}", 0o600)
        seen = shared.exec("sh", "-c", f"stat -c '%u %g %a' /rw/of-{uid}; cat /rw/of-{uid}; chmod 640 /rw/of-{uid}")
        assert seen.output == f"{uid} {uid} 600\nx".encode(), seen.errors
        made = shared.exec("sh", "-c", f"touch /rw/by-{uid}; chown {uid}:{uid} /rw/by-{uid}")
        assert made.exit_code == 0, made.errors
        status = os.stat(host / f"rw/by-{uid}")
        assert (status.st_uid, status.st_gid) == (uid, uid)
        assert os.stat(host / f"rw/of-{uid}").st_mode & 0o7777 == 0o640


def test_a_user_of_the_guest_writes_as_that_user(shared: Vm, host: Path) -> None:
    (host / "rw/open").mkdir()
    os.chmod(host / "rw/open", 0o1777)
    assert shared.exec("sh", "-c", "echo x > /rw/open/mine; ln -s mine /rw/open/link", user="33").exit_code == 0
    assert os.stat(host / "rw/open/mine").st_uid == 33
    assert os.lstat(host / "rw/open/link").st_uid == 33
    (host / "rw/root-only").write_text("no\n")
    os.chmod(host / "rw/root-only", 0o600)
    assert shared.exec("cat", "/rw/root-only", user="33").exit_code != 0


def test_a_share_on_a_file_system_without_idmapped_mounts_is_served_too(new_vm: Callable[[], Vm], host: Path) -> None:
    """proc has none: the server is then root of a namespace of its own, still without capabilities on the host."""
    machine = new_vm()
    mounts = [MountPlan(kind="bind", target="/host", source="/proc/sys/kernel", options=["rbind", "ro"])]
    machine.start("sleep", "100000", mounts=mounts)
    assert machine.exec("stat", "-c", "%u %a", "/host/osrelease").output == b"0 444\n"
    for status in _server_status(machine):
        assert set(status["Uid"].split()) == {"0"}
        assert os.readlink(f"/proc/{status['Pid']}/ns/user") != os.readlink("/proc/self/ns/user")


def test_programs_of_a_share_run_again_and_again(new_vm: Callable[[], Vm]) -> None:
    """With shared libraries, under emulation: what a file server writes must not meet translations of older code."""
    machine = new_vm()
    machine.start(
        "sleep", "100000", mounts=[MountPlan(kind="bind", target="/usr", source="/usr", options=["rbind", "ro"])]
    )
    assert machine.exec("sh", "-c", "ln -s usr/lib /lib; ln -s usr/lib64 /lib64").exit_code == 0
    loop = "for i in 1 2 3 4; do /usr/bin/id -u || echo failed; done"
    for _ in range(3):
        done = machine.exec("/usr/bin/sh", "-c", loop)
        assert (done.exit_code, done.output) == (0, b"0\n" * 4), done.errors


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
