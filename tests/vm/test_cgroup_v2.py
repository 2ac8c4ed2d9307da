"""The container wall on cgroup v2: its tests, run inside a VM of our own, whose kernel has nothing else.

So are those of networks on interfaces that few kernels of test machines have. Left out there: what only shows on a fast
machine.
"""

from __future__ import annotations

import sys

import pytest

from tests.daemon import REPOSITORY, Daemon
from tests.vm.host_programs import run_inside

# Enisle hands controllers on from the top, so nothing may run there: a VM's program begins in the top group.
SCRIPT = """
mkdir /sys/fs/cgroup/first && for pid in $(cat /sys/fs/cgroup/cgroup.procs); do
    echo $pid > /sys/fs/cgroup/first/cgroup.procs 2>/dev/null
done
cd {repository} && exec {python} -m pytest -p no:cacheprovider --timeout 150 -k "not many" {tests}
"""
TESTS = (
    "tests/linux/test_keeper_container.py",
    "tests/linux/test_keeper_sessions.py",
    "tests/vm/inside_network_parents.py",
)


@pytest.mark.timeout(500)
def test_containers_on_cgroup_v2(daemon: Daemon, host_image: str) -> None:
    script = SCRIPT.format(repository=REPOSITORY, python=sys.executable, tests=" ".join(TESTS))
    done = run_inside(daemon, host_image, script, "-m", "1500m", "--cpus", "2", timeout_s=480)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
