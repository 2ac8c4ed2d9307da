"""Size limits by project quotas and a mounted NFS, in a VM of our own: its kernel has what a host's may lack."""

from __future__ import annotations

import sys

import pytest

from tests.daemon import REPOSITORY, Daemon
from tests.vm.host_programs import run_inside

# The volume keeper sees what is mounted after its start where "/" is shared, as systemd has it.
# Imports take long in there: no plugins but those that are used.
SCRIPT = """
mount --make-rshared /
export TMPDIR=/root PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
cd {repository} && exec {python} -m pytest --noconftest -p pytest_asyncio.plugin -p pytest_timeout \\
    -p no:cacheprovider --timeout 150 --tb short --durations 10 tests/vm/inside/volumes.py
"""


@pytest.mark.timeout(500)
def test_volumes_on_quotas_and_nfs(daemon: Daemon, host_image: str) -> None:
    script = SCRIPT.format(repository=REPOSITORY, python=sys.executable)
    done = run_inside(daemon, host_image, script, "-m", "1g", "--network", "none", timeout_s=480)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
