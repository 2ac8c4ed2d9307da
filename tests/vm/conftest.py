"""Machines for the tests of the VM wall."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from enisle.linux.cgroup.choose import group
from tests.daemon import Daemon
from tests.vm.host_programs import root_file_system
from tests.vm.wall import CGROUP_PARENT, Vm, busybox_image


@pytest.fixture(scope="session", autouse=True)
def cgroups() -> Iterator[None]:
    """Remove the groups that our machines were in."""
    yield
    group(CGROUP_PARENT).remove()


@pytest.fixture(scope="session")
def erofs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return busybox_image(tmp_path_factory.mktemp("image"))


@pytest.fixture
def vm(erofs: Path) -> Iterator[Vm]:
    """A machine that the test starts."""
    made = Vm(erofs)
    yield made
    made.close()


@pytest.fixture
def new_vm(erofs: Path) -> Iterator[Callable[[], Vm]]:
    """A maker of machines."""
    made: list[Vm] = []

    def make() -> Vm:
        made.append(Vm(erofs))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="module")
def running(erofs: Path) -> Iterator[Vm]:
    """One machine for all tests of a module, whose main program waits."""
    made = Vm(erofs)
    made.start("sh", "-c", "echo up; exec sleep 100000", process={"init": True})
    yield made
    made.close()


@pytest.fixture
def host_image(daemon: Daemon, tmp_path: Path) -> Iterator[str]:
    """A root that takes its programs from the host's /usr."""
    path = tmp_path / "root.tar"
    path.write_bytes(root_file_system())
    daemon.docker("import", str(path), "host-programs")
    yield "host-programs"
    daemon.docker("rmi", "host-programs")
