from __future__ import annotations

from pathlib import Path

from enisle.linux.tsc import measure_khz


def test_the_counter_is_measured_twice_alike() -> None:
    first, second = measure_khz(), measure_khz()
    assert abs(first - second) <= first / 500
    if "constant_tsc" in Path("/proc/cpuinfo").read_text():
        assert first > 100_000
