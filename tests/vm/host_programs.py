"""A VM whose programs are the host's: for tests of ours that want another kernel."""

from __future__ import annotations

import io
import platform
import subprocess
import tarfile

from tests.daemon import REPOSITORY, Daemon

LIBRARIES = f"lib/{platform.machine()}-linux-gnu"
LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", LIBRARIES: f"../usr/{LIBRARIES}", "lib64": "usr/lib64"}
# The VM's modules are put into /lib/modules, which not every host has in its own /usr/lib.
FOLDERS = ("usr", "etc", "proc", "sys", "dev", "run", "var/tmp", "tmp", "root", "lib/modules")


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


def run_inside(
    daemon: Daemon, image: str, script: str, *flags: str, timeout_s: float
) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a privileged VM of that root, with this repository at its place.

    It is ended from inside before the time is up: so what it has said is not lost, and nothing is left.
    """
    return daemon.docker(
        *("run", "--rm", "--runtime", "vm", "--privileged", "--tmpfs", "/var/tmp:exec", "--tmpfs", "/tmp:exec"),
        *("-v", "/usr:/usr:ro", "-v", f"{REPOSITORY}:{REPOSITORY}:ro"),
        *("-e", "PATH=/usr/sbin:/usr/bin", "-e", "PYTHONDONTWRITEBYTECODE=1", "-e", "TMPDIR=/var/tmp"),
        *(*flags, image, "timeout", f"{timeout_s - 40:g}", "sh", "-c", script),
        timeout_s=timeout_s,
        check=False,
    )
