"""Limits: Docker's refusals and warnings, word for word."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from enisle.drivers.limits import LimitFacts, check, cpu_set, has_weights, read_limit_facts
from enisle.errors import Invalid
from enisle.model.resources import DeviceRate, Resources

HOST = LimitFacts(cpus=frozenset({0, 1}), nodes=frozenset({0}))
BARE = LimitFacts(
    memory=False,
    swap=False,
    oom_control=False,
    swappiness=False,
    cpu=False,
    cpuset=False,
    pids=False,
    io=False,
    io_weight=False,
    cpus=frozenset({0, 1}),
)
MB = 1 << 20


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"memory_bytes": 5 * MB}, "Minimum memory limit allowed is 6MB"),
        ({"memory_bytes": 64 * MB, "memory_swap_bytes": 32 * MB}, "Minimum memoryswap limit should be larger"),
        ({"memory_swap_bytes": 32 * MB}, "You should always set the Memory limit when using Memoryswap limit"),
        ({"memory_swappiness": 101}, "Invalid value: 101, valid memory swappiness range is 0-100"),
        ({"memory_reservation_bytes": MB}, "Minimum memory reservation allowed is 6MB"),
        ({"memory_bytes": 8 * MB, "memory_reservation_bytes": 9 * MB}, "can not be less than memory reservation"),
        ({"memory_bytes": -1}, "must not be negative"),
        ({"nano_cpus": 1, "cpu_period_us": 5000}, "Nano CPUs and CPU Period cannot both be set"),
        ({"nano_cpus": 1, "cpu_quota_us": 5000}, "Nano CPUs and CPU Quota cannot both be set"),
        ({"nano_cpus": 2_000_000_001}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        ({"nano_cpus": -1}, "range of CPUs"),
        ({"cpu_period_us": 999}, "CPU cfs period can not be less than 1ms"),
        ({"cpu_quota_us": 999}, "CPU cfs quota can not be less than 1ms"),
        ({"cpuset_cpus": "a"}, "Invalid value a for cpuset cpus"),
        ({"cpuset_cpus": "0-999999999999"}, "Invalid value"),
        ({"cpuset_cpus": "0-2"}, "Requested CPUs are not available - requested 0-2, available: 0,1"),
        ({"cpuset_mems": "3"}, "Requested memory nodes are not available - requested 3, available: 0"),
        ({"blkio_weight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"blkio_weight_devices": (DeviceRate(path="/dev/x", value=1001),)}, "Range of blkio weight"),
    ],
)
def test_refusals(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(Invalid, match=re.escape(message)):
        check(Resources(**fields), HOST)


@pytest.mark.parametrize(
    ("fields", "warning"),
    [
        ({"memory_bytes": 64 * MB}, "Your kernel does not support memory limit capabilities"),
        ({"memory_swappiness": 5}, "Your kernel does not support memory swappiness capabilities"),
        ({"memory_reservation_bytes": 64 * MB}, "Your kernel does not support memory soft limit capabilities"),
        ({"oom_kill_disable": True}, "Your kernel does not support OomKillDisable. OomKillDisable discarded."),
        ({"pids_limit": 5}, "Your kernel does not support PIDs limit capabilities"),
        ({"cpu_shares": 5}, "Your kernel does not support CPU shares"),
        ({"nano_cpus": 1_000_000_000}, "Your kernel does not support CPU CFS scheduler"),
        ({"cpuset_cpus": "0"}, "Your kernel does not support cpuset"),
        ({"blkio_weight": 10}, "Your kernel does not support Block I/O weight"),
    ],
)
def test_warnings_of_a_bare_kernel(fields: dict[str, Any], warning: str) -> None:
    assert check(Resources(**fields), HOST) == [] or "oom_kill_disable" in fields
    (found,) = check(Resources(**fields), BARE)
    assert found.startswith(warning)


def test_swap_accounting_may_be_missing_alone() -> None:
    facts = LimitFacts(swap=False)
    (warning,) = check(Resources(memory_bytes=64 * MB), facts)
    assert warning.endswith("Memory limited without swap.")
    assert check(Resources(memory_bytes=64 * MB, memory_swap_bytes=-1), facts) == []


def test_cpu_sets() -> None:
    assert cpu_set("0-2,7") == {0, 1, 2, 7}
    for bad in (",", "1-", "-1", "1;2", "0x1", "1\n", "٣"):
        with pytest.raises(ValueError, match=re.escape(bad)):
            cpu_set(bad)


def test_this_host_has_cpus() -> None:
    assert 0 in read_limit_facts().cpus


def test_weights_are_looked_for_below_the_top_group(tmp_path: Path) -> None:
    assert has_weights(str(tmp_path))  # nobody knows
    (tmp_path / "group").mkdir()
    assert not has_weights(str(tmp_path))
    (tmp_path / "group" / "blkio.bfq.weight").write_text("100")
    assert has_weights(str(tmp_path))
