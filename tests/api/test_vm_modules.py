"""A VM's kernel is its own: who may load modules there can, and the host's kernel knows nothing of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.daemon import Daemon

_LOOK = "brctl addbr br7 && ip link show br7; ls /lib/modules"


@pytest.mark.parametrize(
    "flags",
    [("--privileged",), ("--cap-add", "SYS_MODULE", "--cap-add", "NET_ADMIN", "--read-only")],
    ids=["privileged", "capability"],
)
def test_the_kernel_loads_what_it_misses(daemon: Daemon, flags: tuple[str, ...]) -> None:
    before = Path("/proc/modules").read_text() if Path("/proc/modules").exists() else ""
    script = f"{_LOOK}; modprobe nf_tables && grep -c '^nf_tables' /proc/modules"
    done = daemon.docker("run", "--rm", "--runtime", "vm", *flags, "busybox", "sh", "-c", script)
    assert "br7" in done.stdout
    assert done.stdout.splitlines()[-1] == "1"
    assert (Path("/proc/modules").read_text() if Path("/proc/modules").exists() else "") == before


def test_others_load_nothing(daemon: Daemon) -> None:
    words = ("--cap-add", "NET_ADMIN", "busybox", "sh", "-c", _LOOK)
    done = daemon.docker("run", "--rm", "--runtime", "vm", *words, check=False)
    assert done.returncode != 0
    assert "br7" not in done.stdout
    assert "No such file or directory" in done.stderr
