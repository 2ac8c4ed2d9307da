"""Where the time of a container's life goes: CPU per process, and enisled's functions."""

from __future__ import annotations

import io
import os
import pstats
import time
from pathlib import Path

from benchmarks.engines import Enisle
from benchmarks.measures import api_life

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid: int, *, children: bool = False) -> float:
    """CPU time of a process; with ``children``, of those it has waited for (proc(5), fields 14 to 17)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    first = 13 if children else 11
    return (int(fields[first]) + int(fields[first + 1])) / _TICKS_PER_S


def profile(engine: Enisle, archive: Path, count: int) -> str:
    """Run lives with enisled under cProfile; text for people. Starts and stops the engine."""
    output = engine.root.parent / "enisled.profile"
    engine.profile = output
    engine.start(archive)
    before = cpu_seconds(engine.pid)
    begun = time.perf_counter()
    samples = api_life(engine, count, "none")
    elapsed = time.perf_counter() - begun
    used = cpu_seconds(engine.pid) - before
    engine.stop()
    text = io.StringIO()
    lives = count + 2
    median = sorted(samples)[count // 2]
    text.write(
        f"{lives} lives of `true` in {elapsed:.2f} s (under the profiler, median {median:.1f} ms); "
        f"enisled used {used / lives * 1000:.2f} ms of CPU for each.\n\n"
    )
    stats = pstats.Stats(str(output), stream=text)
    stats.strip_dirs().sort_stats("tottime").print_stats(30)
    output.unlink()
    return text.getvalue()
