"""The container wall on cgroup v2: its tests, run inside a VM of our own, whose kernel has nothing else.

Left out there: what only shows on a fast machine.
"""

from __future__ import annotations

import io
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import REPOSITORY, Daemon

LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
FOLDERS = ("usr", "etc", "proc", "sys", "dev", "run", "var/tmp", "tmp", "root")
# Enisle hands controllers on from the top, so nothing may run there: a VM's program begins in the top group.
SCRIPT = """
mkdir /sys/fs/cgroup/first && for pid in $(cat /sys/fs/cgroup/cgroup.procs); do
    echo $pid > /sys/fs/cgroup/first/cgroup.procs 2>/dev/null
done
cd {repository} && exec {python} -m pytest -p no:cacheprovider --timeout 150 -k "not many" {tests}
"""
TESTS = ("tests/linux/test_keeper_container.py", "tests/linux/test_keeper_sessions.py")


def root_file_system() -> bytes:
    """A root that takes its programs from the host's /usr."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(folder)
        for name, target in LINKS.items():
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, target
            archive.addfile(link)
        passwd = tarfile.TarInfo("etc/passwd")
        passwd.size = len(b"root:x:0:0::/root:/bin/sh\n")
        archive.addfile(passwd, io.BytesIO(b"root:x:0:0::/root:/bin/sh\n"))
    return buffer.getvalue()


@pytest.fixture
def host_image(daemon: Daemon, tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "root.tar"
    path.write_bytes(root_file_system())
    daemon.docker("import", str(path), "host-programs")
    yield "host-programs"
    daemon.docker("rmi", "host-programs")


@pytest.mark.timeout(500)
def test_containers_on_cgroup_v2(daemon: Daemon, host_image: str) -> None:
    script = SCRIPT.format(repository=REPOSITORY, python=sys.executable, tests=" ".join(TESTS))
    done = daemon.docker(
        *("run", "--rm", "--runtime", "vm", "--privileged", "-m", "1500m", "--cpus", "2", "--tmpfs", "/var/tmp:exec"),
        *("--tmpfs", "/tmp:exec", "-v", "/usr:/usr:ro", "-v", f"{REPOSITORY}:{REPOSITORY}:ro"),
        *("-e", "PATH=/usr/sbin:/usr/bin", "-e", "PYTHONDONTWRITEBYTECODE=1", "-e", "TMPDIR=/var/tmp"),
        *(host_image, "sh", "-c", script),
        timeout_s=480,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
