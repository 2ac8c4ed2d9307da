"""The frequency of the processor's time-stamp counter (x86)."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable
from itertools import pairwise

_WINDOW_S = 0.1
_TRIES = 20
_TOLERANCE = 1e-3
_READ = bytes.fromhex("0f31 48c1e220 4809d0 c3")  # rdtsc; shl rdx, 32; or rax, rdx; ret


def measure_khz() -> int:
    """The counter's frequency in kHz, measured for 0.2 s; 0 where there is none or it does not run evenly."""
    if os.uname().machine != "x86_64":
        return 0
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    except OSError:
        return 0  # a kernel that allows no code in anonymous memory
    page.write(_READ)
    start = ctypes.c_char.from_buffer(page)
    read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(start))
    try:
        return _frequency(read)
    finally:
        del read, start
        page.close()


def _frequency(read: Callable[[], int]) -> int:
    samples = []
    for window in range(3):
        if window:
            time.sleep(_WINDOW_S)
        samples.append(_sample(read))
    rates = [(b[1] - a[1]) * 1e6 / (b[0] - a[0]) for a, b in pairwise(samples)]
    if min(rates) <= 0 or max(rates) / min(rates) > 1 + _TOLERANCE:
        return 0
    return round((samples[2][1] - samples[0][1]) * 1e6 / (samples[2][0] - samples[0][0]))


def _sample(read: Callable[[], int]) -> tuple[int, int]:
    """Time in ns and count, read as close to each other as can be had: we may be interrupted in between."""
    best = (1 << 62, 0, 0)
    for _ in range(_TRIES):
        before = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        count = read()
        after = time.clock_gettime_ns(time.CLOCK_MONOTONIC_RAW)
        best = min(best, (after - before, (before + after) // 2, count))
    return best[1], best[2]
