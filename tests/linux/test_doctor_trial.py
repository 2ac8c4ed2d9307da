"""The doctor's trial on a real kernel."""

from __future__ import annotations

import os
from pathlib import Path

from enisle.doctor import report


def test_the_trial_leaves_nothing_behind() -> None:
    mounts = Path("/proc/self/mountinfo").read_text()
    found = report.attempt()
    assert {"overlay", "bridge", "veth", "tun", "nftables", "namespace net", "namespace user"} <= set(found)
    assert found["overlay"] == ""
    assert Path("/proc/self/mountinfo").read_text().count("trial") == mounts.count("trial")
    assert [name for name in os.listdir("/sys/class/net") if name.startswith("trial")] == []
