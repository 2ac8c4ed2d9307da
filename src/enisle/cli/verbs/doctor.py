"""``enisle doctor``."""

from __future__ import annotations

import dataclasses
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from enisle.cli import table
from enisle.cli.command import Command, Context
from enisle.cli.flags import Options, option, switch
from enisle.cli.printing import printable, say_json
from enisle.contracts import HostCapability
from enisle.doctor.report import DEFAULT_DATA_ROOT, failing_walls, report
from enisle.errors import EnisleError

_NAME_CELLS = 16


def doctor(context: Context, options: Options, arguments: list[str]) -> int:
    """Print what the host can and cannot do."""
    daemon, lines = _ask_daemon(context)
    if not lines:
        lines = report(data_root=Path(options.data_root))
    lines = [daemon, *lines]
    failed = failing_walls(lines)
    if options.json:
        say_json([dataclasses.asdict(line) for line in lines], indent=2)
    else:
        _show(lines, failed)
    return 1 if failed else 0


def _ask_daemon(context: Context) -> tuple[HostCapability, list[HostCapability]]:
    """A line about the daemon, and its own report if it has one: its host is what counts, not ours."""
    try:
        answer = context.client.system.version()
        lines = [HostCapability(**line) for line in context.client.system.doctor()]
    except (EnisleError, TypeError) as error:
        return HostCapability(name="daemon", ok=False, detail=str(error)), []
    detail = f"version {answer.get('Version', '?')} at {context.client.address.text}"
    return HostCapability(name="daemon", ok=True, detail=detail), lines


def _show(lines: Sequence[HostCapability], failed: dict[str, list[str]]) -> None:
    colour = table.use_colour(sys.stdout)
    width = min(table.terminal_columns(sys.stdout) or 200, 200)
    for line in lines:
        mark, code = _mark(line)
        shown = f"\x1b[{code}m{mark}\x1b[0m" if colour else mark
        _print_wrapped(f"{shown} {line.name:{_NAME_CELLS}} ", printable(line.detail), width)
        if line.remedy and not line.ok:
            _print_wrapped(" " * (_NAME_CELLS + 3), f"→ {line.remedy}", width)
    print()
    for wall, what in (("container", "containers"), ("vm", "virtual machines")):
        if wall in failed:
            print(f"This host cannot run {what}: {', '.join(failed[wall])}.")
        elif any(not line.tried and line.wall in (wall, "both") for line in lines):
            print(f"Whether this host can run {what} is not known.")
        else:
            print(f"This host can run {what}.")


def _mark(line: HostCapability) -> tuple[str, str]:
    """The sign before a line, and its colour."""
    if line.ok:
        return "✓", "32"
    if not line.tried:
        return "?", "33"
    return ("✗", "31") if line.wall else ("!", "33")


def _print_wrapped(start: str, text: str, width: int) -> None:
    indent = _NAME_CELLS + 3
    pieces = textwrap.wrap(text, max(width - indent, 30)) or [""]
    print(start + pieces[0])
    for piece in pieces[1:]:
        print(" " * indent + piece)


DOCTOR = Command(
    summary="Show what this host can and cannot do, and what to do about it",
    usage="[OPTIONS]",
    run=doctor,
    flags=(
        switch("json", "", "Print the lines as a JSON array"),
        option("data-root", "", "directory", "Where the daemon keeps (or would keep) its data",
               default=str(DEFAULT_DATA_ROOT), completes="file"),
    ),
    most=0,
    long="""Asks the daemon if it runs, else looks at this host itself. Ends with 1 when containers or VMs cannot work.

✓ works   ! works, with a drawback   ✗ a wall cannot work without it   ? only root can find out""",
)  # fmt: skip
