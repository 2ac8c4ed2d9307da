"""Compare enisle with dockerd and podman from Debian's packages; print one Markdown table.

Usage: benchmarks/run [--count N] [--only enisle,dockerd,podman] [--rows api,build,data-pull,...] [--skip storm,vm,...]
       [--profile] [--output FILE]
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from tests.daemon import image_archive

from benchmarks import builds, measures
from benchmarks.data import DATA, data_rows
from benchmarks.engines import GUEST, Docker, Engine, Enisle, Podman, command
from benchmarks.floor import floor
from benchmarks.material import make_material
from benchmarks.profile import profile
from benchmarks.table import Row, render

ENGINES: dict[str, type[Engine]] = {"enisle": Enisle, "dockerd": Docker, "podman": Podman}
STORM_CONTAINERS = 200

Measure = Callable[[Engine, int], list[float]]


def rows() -> list[tuple[str, Row, Measure]]:
    """Every row of the table with its measure; the first word is its name for --skip and --rows."""
    return [
        ("none", Row("run --rm --network none true", aim_ratio=0.25), measures.run_without_network),
        ("net", Row("run --rm true, default network", aim_ratio=0.3), measures.run_with_network),
        (
            "api",
            Row("API create+start+wait+remove, no network", aim=20),
            lambda engine, count: measures.api_life(engine, count, "none"),
        ),
        (
            "api-net",
            Row("API create+start+wait+remove, bridge", aim=30),
            lambda engine, count: measures.api_life(engine, count, "bridge"),
        ),
        (
            "api-rest",
            Row("API create+start+wait+remove, no network, after a rest", aim=20),
            lambda engine, count: measures.api_life(engine, count, "none", rest_s=0.1),
        ),
        ("cpu", Row("CPU of the engine for that, no network"), measures.cpu_per_life),
        ("exec", Row("exec true", aim_ratio=0.3), measures.exec_client),
        ("api-exec", Row("API exec true", aim_ratio=0.3), measures.exec_api),
        (
            "memory",
            Row("memory beside each of 20 idle containers (PSS)", unit="KiB", aim=3 * 1024),
            measures.memory_per_container,
        ),
        ("build-cached", Row("build, 20 steps, all cached", aim_ratio=0.5), builds.cached_steps),
        ("build-runs", Row("build, 20 small RUNs, nothing cached", aim_ratio=1), builds.small_runs),
        ("build-files", Row("build, COPY of 10,000 files, nothing cached", aim_ratio=1), builds.many_files),
        ("build-files-cached", Row("build, COPY of 10,000 files, cached", aim_ratio=1), builds.many_files_cached),
    ]


def measure(engine: Engine, table: list[tuple[str, Row, Measure]], options: argparse.Namespace) -> None:
    """Fill in one engine's column. What an engine cannot do is said here and in the table."""
    for name, row, take in table:
        if not _wanted(name, options):
            continue
        try:
            row.samples[engine.name] = take(engine, options.count)
            _say(f"{engine.name}: {row.title}: {row.cell(engine.name)}")
        except Exception as error:  # whatever an engine does in one row, the others are measured
            row.failed.add(engine.name)
            _say(f"{engine.name}: {row.title}: {_explained(error)}")
        try:
            engine.tidy()
        except Exception as error:
            _say(f"{engine.name}: tidying up after {row.title}: {_explained(error)}")


def _explained(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()[-400:]}"


def _wanted(name: str, options: argparse.Namespace) -> bool:
    """Whether a row was asked for by its name, or by its group: what stands before the first hyphen."""
    names = {name, name.partition("-")[0]}
    return not names & set(options.skip) and (not options.rows or bool(names & set(options.rows)))


def _say(text: str) -> None:
    print(f"  {text}", file=sys.stderr, flush=True)


def storm(engine: Engine, found: dict[str, Row]) -> None:
    """200 containers; a row per phase."""
    try:
        for phase, seconds in measures.storm(engine, STORM_CONTAINERS).items():
            title = f"{STORM_CONTAINERS} containers: {phase}"
            found.setdefault(phase, Row(title, unit="s")).samples[engine.name] = [seconds]
    except Exception as error:
        for phase in measures.STORM_PHASES:
            found.setdefault(phase, Row(f"{STORM_CONTAINERS} containers: {phase}", unit="s")).failed.add(engine.name)
        _say(f"{engine.name}: storm: {_explained(error)}")


def compare(options: argparse.Namespace, archive: Path, scratch: Path) -> str:
    """Run all engines, one after the other, so that they do not take each other's CPU."""
    before = os.getloadavg()[1]
    table = rows()
    if any(_wanted(name, options) for name in DATA):
        table += data_rows(make_material(options.material or scratch / "material"))
    storms: dict[str, Row] = {}
    vm = Row("VM, cold boot: run --rm echo", note="")
    base = Row("floor: the kernel's work alone (floor.c)")
    if _wanted("floor", options):
        base.samples["enisle"] = floor(archive, scratch, max(options.count, 10))
    versions = []
    for name in options.only:
        engine = ENGINES[name](scratch)
        try:
            engine.start(archive)
            versions.append(f"{name} {engine.version()}")
            measure(engine, table, options)
            if _wanted("storm", options):
                storm(engine, storms)
            if isinstance(engine, Enisle) and _wanted("vm", options):
                vm.samples[name] = measures.vm_first_output(engine, max(options.count // 2, 5))
        except Exception as error:  # an engine that does not start leaves its column empty
            _say(f"{name}: {_explained(error)}")
        finally:
            engine.stop()
    load = max(before, os.getloadavg()[1] - 1)  # our own work adds about one
    machine = f"{os.cpu_count()} CPUs, Linux {platform.release()}, {time.strftime('%Y-%m-%d')}"
    if load > 1:
        machine += f"; the machine had other work to do (load {load:.1f}), so all of it is too slow"
    head = f"Medians of at most {options.count}; {', '.join(versions)}; {machine}.\n\n"
    measured = (*(row for _name, row, _take in table), base, *storms.values(), vm)
    shown = [row for row in measured if row.samples or row.failed]
    return head + render(shown, list(options.only))


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks/run", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=20, help="rounds per measure (default 20)")
    parser.add_argument("--only", default="enisle,dockerd,podman", type=lambda text: text.split(","))
    parser.add_argument(
        "--rows", default=[], type=lambda text: text.split(","), help="only these, or their group: build, data"
    )
    parser.add_argument("--skip", default="", type=lambda text: text.split(","), help="none,net,api,...,storm,vm")
    parser.add_argument("--material", type=Path, help="where the files of the data rows are kept for another run")
    parser.add_argument("--profile", action="store_true", help="also say where enisled's time goes")
    parser.add_argument("--output", type=Path, help="write the Markdown there as well")
    options = parser.parse_args()
    archive = image_archive("busybox")
    if _wanted("vm", options):
        # Its package is downloaded, which an engine in a network namespace of its own cannot do.
        command(sys.executable, "-m", "enisle.guest.build", "--output", str(GUEST), timeout_s=900)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # by way of everything that removes what was made
    scratch = Path(tempfile.mkdtemp(prefix="enisle-bench-", dir="/var/tmp"))
    try:
        text = compare(options, archive, scratch)
        if options.profile:
            text += "\n```\n" + profile(Enisle(scratch), archive, 100) + "```\n"
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
