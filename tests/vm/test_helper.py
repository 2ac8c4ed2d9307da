"""A helper VM on the disks of an instance that does not run."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from enisle.launcher.wall import WallError
from tests.vm.wall import Vm

pytestmark = pytest.mark.timeout(400)


def test_files_of_a_stopped_instance(new_vm: Callable[[], Vm], erofs: Path) -> None:
    first = new_vm()
    assert first.run("sh", "-c", "echo kept > /tmp/file").exit_code == 0
    first.wall.close()
    helper = Vm(erofs, directory=first.directory)
    try:
        helper.open_files()
        with tarfile.open(fileobj=io.BytesIO(helper.read_files("get", "/tmp/file"))) as tar:
            content = tar.extractfile("file")
            assert content is not None and content.read() == b"kept\n"
        error = helper.exec("true").error
        assert isinstance(error, WallError)
    finally:
        helper.wall.close()
