"""What this host can and cannot do: all probes, each of which may fail without taking the others along."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from enisle.contracts import HostCapability
from enisle.doctor import cgroups, containers, kernel, machines, networking, storage
from enisle.model.runtime import OciRuntime

DEFAULT_DATA_ROOT = Path("/var/lib/enisle")
_TRIAL_TIMEOUT_S = 20


def report(
    *, data_root: Path = DEFAULT_DATA_ROOT, runtimes: Mapping[str, OciRuntime] | None = None
) -> list[HostCapability]:
    """All lines; ``runtimes`` are those of the settings. Blocks for some tenths of a second: call it in a thread."""
    trial = attempt()
    probes: tuple[tuple[str, Callable[[], list[HostCapability]]], ...] = (
        ("kernel", lambda: kernel.probe(trial)),
        ("cgroups", cgroups.probe),
        ("network", lambda: networking.probe(trial)),
        ("machines", lambda: machines.probe(data_root)),
        ("runtimes", lambda: containers.probe(runtimes or {})),
        ("storage", lambda: storage.probe(data_root)),
    )
    lines = []
    for name, probe in probes:
        try:
            lines += probe()
        except OSError as error:
            lines.append(HostCapability(name=name, ok=False, detail=f"cannot be looked at: {error}"))
    return lines


def attempt() -> dict[str, str]:
    """What :mod:`enisle.doctor.trial` finds, in a process of its own; empty without root."""
    if os.geteuid() != 0:
        return {}
    environment = {"PATH": os.environ.get("PATH", ""), "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "enisle.doctor.trial"],
            capture_output=True,
            text=True,
            timeout=_TRIAL_TIMEOUT_S,
            env=environment,
            check=False,
        )
        found = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return {}
    return found if isinstance(found, dict) else {}


def failing_walls(lines: Sequence[HostCapability]) -> dict[str, list[str]]:
    """For each wall that cannot work here, the names of what is missing as far as it was tried."""
    failed: dict[str, list[str]] = {}
    for line in lines:
        if line.ok or not line.tried or not line.wall:
            continue
        for wall in ("container", "vm") if line.wall == "both" else (line.wall,):
            failed.setdefault(wall, []).append(line.name)
    return failed
