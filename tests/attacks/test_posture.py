"""What a container may do when nobody has said anything: in run, exec and a build's RUN alike."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest

from tests.daemon import Daemon, dispose, image_archive, new_daemon
from tests.faults.lives import archive

_REFUSED = {str(errno.EPERM), str(errno.ENOSYS)}
_HIDDEN = (
    "/proc/acpi /proc/asound /proc/interrupts /proc/kcore /proc/keys /proc/latency_stats /proc/sched_debug /proc/scsi "
    "/proc/timer_list /proc/timer_stats /sys/firmware /sys/devices/virtual/powercap"
).split()
_FIXED = (
    "/proc/bus /proc/fs /proc/irq /proc/sys/kernel/core_pattern /proc/sysrq-trigger /sys/kernel /sys/fs/cgroup".split()
)
_LOOK = f"""
for f in {" ".join(_HIDDEN)}; do
    [ -e $f ] || continue
    if [ -d $f ]; then [ -z "$(ls -A $f)" ] || echo shown $f; else [ -z "$(head -c 1 $f)" ] || echo shown $f; fi
    if [ -d $f ]; then touch $f/x; else echo x > $f; fi
done 2>/dev/null
for f in {" ".join(_FIXED)} $(find /sys/fs/cgroup -name release_agent -o -name devices.allow -o -name cgroup.procs); do
    [ -e $f ] || continue
    if [ -d $f ]; then touch $f/x && echo written $f; else echo x > $f && echo written $f; fi
done 2>/dev/null
for d in /dev/*; do case $d in
    /dev/null|/dev/zero|/dev/full|/dev/random|/dev/urandom|/dev/tty|/dev/console|/dev/ptmx) ;;
    /dev/pts|/dev/shm|/dev/mqueue|/dev/fd|/dev/std*|/dev/core) ;;
    *) echo device $d;;
esac; done
mknod /tmp/disk b 254 0 2>/dev/null && head -c 1 /tmp/disk >/dev/null 2>&1 && echo opened a disk
mknod /tmp/mem c 1 1 2>/dev/null && head -c 1 /tmp/mem >/dev/null 2>&1 && echo opened memory
grep -E '^Cap(Inh|Amb)' /proc/self/status | grep -v 0000000000000000
for fd in /proc/self/fd/*; do
    case ${{fd##*/}} in 0|1|2) ;; *) [ -e $fd ] && echo descriptor $(readlink $fd);; esac
done
true
"""


def judge(output: str) -> None:
    """No call of the probe was let through."""
    results = [line.rpartition(" ")[::2] for line in output.splitlines() if line]
    assert len(results) > 40
    for name, result in results:
        assert result in _REFUSED or name.endswith("signal"), f"{name}: {result}"


@pytest.mark.parametrize("flags", [(), ("-t",), ("-u", "1000"), ("--init",), ("--cap-add", "SYS_PTRACE")])
def test_calls_of_a_container(daemon: Daemon, probe: Path, flags: tuple[str, ...]) -> None:
    judge(daemon.docker("run", "--rm", *flags, "-v", f"{probe}:/probe:ro", "busybox", "/probe").stdout)


def test_calls_of_an_exec(daemon: Daemon, probe: Path) -> None:
    daemon.docker("run", "-d", "--name", "probed", "-v", f"{probe}:/probe:ro", "busybox", "sleep", "1000")
    judge(daemon.docker("exec", "probed", "/probe").stdout)
    judge(daemon.docker("exec", "-u", "1000", "probed", "/probe").stdout)
    assert (
        "CapEff:\t0000000000000000" in daemon.docker("exec", "-u", "1000", "probed", "cat", "/proc/self/status").stdout
    )
    assert daemon.docker("exec", "probed", "sh", "-c", _LOOK).stdout == ""
    daemon.docker("rm", "-f", "probed")


def test_calls_of_a_build(daemon: Daemon, probe: Path) -> None:
    api = docker.APIClient(base_url=f"unix://{daemon.socket}", version="1.47", timeout=60)
    look = _LOOK.encode()
    dockerfile = b'FROM busybox\nCOPY --chmod=755 probe look /\nRUN /probe; echo look; sh -c "$(cat /look)"; echo end\n'
    context = archive({"Dockerfile": dockerfile, "probe": probe.read_bytes(), "look": look})
    lines = api.build(fileobj=io.BytesIO(context), custom_context=True, tag="probed", nocache=True, decode=True)
    output = "".join(line.get("stream", line.get("error", "")) for line in lines)
    calls, _, seen = output.partition("look\n")
    judge(calls[calls.index("unshare user") :])
    assert seen.startswith("end\n"), seen
    api.remove_image("probed")
    api.close()


@pytest.mark.parametrize("flags", [(), ("--init",), ("-t",)])
def test_what_a_container_sees_of_the_host(daemon: Daemon, flags: tuple[str, ...]) -> None:
    assert daemon.docker("run", "--rm", *flags, "busybox", "sh", "-c", _LOOK).stdout == ""


@pytest.fixture
def private() -> Iterator[Daemon]:
    """Gives every container a user namespace."""
    made = new_daemon(prefix="p", extra_config='[container]\nuserns = "private"\n')
    made.start()
    made.docker("load", "-q", "-i", str(image_archive("busybox")))
    yield made
    dispose(made)


def test_a_container_with_its_own_users(private: Daemon, probe: Path) -> None:
    judge(private.docker("run", "--rm", "-v", f"{probe}:/probe:ro", "busybox", "/probe").stdout)
    assert private.docker("run", "--rm", "busybox", "sh", "-c", _LOOK).stdout == ""


@pytest.mark.parametrize("flags", [(), ("--init",), ("-t",)])
def test_nothing_of_the_launcher_is_left(daemon: Daemon, flags: tuple[str, ...]) -> None:
    """The keeper's child becomes the program (or the init): descriptors, environment, memory, keys, random state."""
    script = (
        "for p in /proc/1 /proc/self; do cat $p/environ $p/maps $p/cmdline; ls -l $p/fd $p/exe; done 2>/dev/null;"
        "cat /proc/keys /proc/self/sessionid /proc/1/wchan"
    )
    output = daemon.docker("run", "--rm", *flags, "busybox", "sh", "-c", script, check=False).stdout
    for trace in (str(daemon.root), "python", "enisle", "socket:", "memfd:", "launcher"):
        assert trace not in output, trace
    draw = "head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid; echo $$"
    draws = {daemon.docker("run", "--rm", *flags, "busybox", "sh", "-c", draw).stdout for _ in range(2)}
    assert len(draws) == 2


def test_other_users_of_the_host_see_nothing(daemon: Daemon) -> None:
    """Set-user-id files of images and volumes are theirs to find otherwise (CVE-2021-41091)."""
    assert daemon.data_root.stat().st_mode & 0o777 == 0o700
    assert daemon.engine_socket.stat().st_mode & 0o007 == 0
