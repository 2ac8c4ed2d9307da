"""How long a container takes from start to exit in launcher and keeper alone, and what they weigh.

    .venv/bin/python benchmarks/wall_container.py [--runs N] [--network] [--profile]

Needs root and busybox-static. Prints medians in milliseconds: keeper forked, program running, exit reported, all gone.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from tests.linux.keepers import Host, host  # noqa: E402

from enisle.wire.plans import to_json  # noqa: E402


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as directory, host(Path(directory)) as made:
        measure_lives(made, arguments.runs)
        measure_execs(made, arguments.runs)
        measure_memory(made)
        measure_output(made)


def measure_lives(made: Host, runs: int) -> None:
    """The whole life of /bin/true."""
    forked, running, ended = [], [], []
    for _ in range(runs):
        plan = made.plan("/bin/true")
        values = to_json(plan)
        begin = time.perf_counter()
        keeper = made.keeper(plan)
        forked.append(time.perf_counter() - begin)
        keeper.ask("start", wall="container", plan=values)
        running.append(time.perf_counter() - begin)
        keeper.event("exit")
        ended.append(time.perf_counter() - begin)
        keeper.close()
    for name, values in (("keeper forked", forked), ("program running", running), ("exit reported", ended)):
        show(name, values)


def measure_execs(made: Host, runs: int) -> None:
    """``exec true`` in a running container."""
    plan = made.plan("sleep", "1000")
    keeper = made.keeper(plan)
    keeper.ask("start", wall="container", plan=to_json(plan))
    process = to_json(made.plan("/bin/true").process)
    times = []
    for number in range(runs):
        begin = time.perf_counter()
        keeper.ask("exec", exec_id=str(number), process=process)
        keeper.event("exec_exit")
        times.append(time.perf_counter() - begin)
    show("exec true", times)
    keeper.ask("signal", signal=9)
    keeper.event("exit")
    keeper.close()


def measure_memory(made: Host) -> None:
    """Resident and proportional memory of the launcher and of ten idle keepers."""
    keepers = []
    for _ in range(10):
        plan = made.plan("sleep", "1000")
        keeper = made.keeper(plan)
        keeper.ask("start", wall="container", plan=to_json(plan))
        keepers.append(keeper)
    pids = children(made.launcher_pid)
    print(f"launcher: RSS {memory(made.launcher_pid, 'Rss'):.1f} MiB, PSS {memory(made.launcher_pid, 'Pss'):.1f} MiB")
    for name in ("Pss", "Private_Dirty"):
        print(f"keeper {name}: {statistics.median(memory(pid, name) for pid in pids):.2f} MiB (median of {len(pids)})")
    for keeper in keepers:
        keeper.ask("signal", signal=9)
        keeper.event("exit")
        keeper.close()


def measure_output(made: Host) -> None:
    """100 MB of short lines into the log."""
    plan = made.plan("sh", "-c", "yes abcdefghijklmnopqrstuvwxyz0123456789 | head -c 100000000")
    plan.log.max_bytes = 10 << 20
    keeper = made.keeper(plan)
    begin = time.perf_counter()
    keeper.ask("start", wall="container", plan=to_json(plan))
    keeper.event("exit")
    print(f"100 MB of output logged: {time.perf_counter() - begin:.2f} s")
    keeper.close()


def children(pid: int) -> list[int]:
    """Its direct children."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def memory(pid: int, name: str) -> float:
    """A line of smaps_rollup, in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    return 0.0


def show(name: str, seconds: list[float]) -> None:
    """Median, best and 95th percentile."""
    ordered = sorted(value * 1000 for value in seconds)
    high = ordered[int(len(ordered) * 0.95)]
    print(f"{name:16} {statistics.median(ordered):6.2f} ms   best {ordered[0]:6.2f}   95% {high:6.2f}")


if __name__ == "__main__":
    if os.geteuid():
        sys.exit("wall_container: needs root")
    main()
