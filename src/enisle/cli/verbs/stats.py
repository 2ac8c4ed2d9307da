"""``enisle stats``."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any

from enisle.cli import table
from enisle.cli.command import Command, Context, warn
from enisle.cli.flags import Options, switch
from enisle.cli.human import bytes_text
from enisle.cli.listing import FORMAT, JSON, NO_TRUNC, Listing, Row
from enisle.cli.table import Column
from enisle.errors import EnisleError
from enisle.sdk import instances
from enisle.sdk.client import Client

_REFRESH_S = 1.0
_LISTING = Listing(
    (
        ("ID", Column("CONTAINER ID", drop=3)),
        ("Name", Column("NAME", shrink=1)),
        ("CPUPerc", Column("CPU %", right=True)),
        ("MemUsage", Column("MEM USAGE / LIMIT", right=True)),
        ("MemPerc", Column("MEM %", drop=2, right=True)),
        ("NetIO", Column("NET I/O", drop=-2, right=True)),
        ("BlockIO", Column("BLOCK I/O", drop=-1, right=True)),
        ("PIDs", Column("PIDS", drop=1, right=True)),
    )
)


def stats(context: Context, options: Options, arguments: list[str]) -> int:
    """Show what instances use."""
    names = arguments or [item["Id"] for item in context.client.instances.list(everything=options.all)]
    if options.no_stream:
        found = _once(context, names)
        _LISTING.show(context, options, found, lambda item: row(item, full=options.no_trunc))
        return 1 if len(found) < len(names) else 0
    _Watch(context, options, names, follow_new=not arguments).run()
    return 0


def _once(context: Context, names: list[str]) -> list[dict[str, Any]]:
    """One sample of each, taken at the same time: a sample lasts a second, for the rates."""
    found: dict[str, dict[str, Any]] = {}

    def one(name: str) -> None:
        with Client(context.host) as client:
            try:
                found[name] = client.call(instances.stats(name, stream=False))
            except EnisleError as error:
                warn(f"enisle: {error}")

    threads = [threading.Thread(target=one, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[name] for name in names if name in found]


class _Watch:
    """The table that renews itself, fed by a thread per instance."""

    def __init__(self, context: Context, options: Options, names: list[str], *, follow_new: bool) -> None:
        self._context = context
        self._options = options
        self._follow_new = follow_new
        self._samples: dict[str, dict[str, Any] | None] = {}
        self._changed = threading.Event()
        self._errors: list[str] = []
        for name in names:
            self._follow(name)

    def run(self) -> None:
        """Draw until the user interrupts, or nothing is left to watch."""
        height = 0
        while True:
            self._changed.wait(_REFRESH_S)
            self._changed.clear()
            for error in self._errors:
                warn(f"enisle: {error}")
            self._errors.clear()
            if self._follow_new:
                self._look_for_new()
            samples = [sample for sample in self._samples.values() if sample]
            height = self._draw(samples, height)
            if not self._samples and not self._follow_new:
                return
            self._changed.wait(_REFRESH_S)

    def _look_for_new(self) -> None:
        for item in self._context.client.instances.list(everything=self._options.all):
            if item["Id"] not in self._samples:
                self._follow(item["Id"])

    def _follow(self, name: str) -> None:
        self._samples[name] = None
        threading.Thread(target=self._read, args=(name,), daemon=True).start()

    def _read(self, name: str) -> None:
        try:
            with Client(self._context.host) as client, client.instances.open_stats(name) as exchange:
                for sample in exchange.objects():
                    self._samples[name] = sample
                    self._changed.set()
        except EnisleError as error:
            self._errors.append(str(error))
        self._samples.pop(name, None)
        self._changed.set()

    def _draw(self, samples: list[dict[str, Any]], height: int) -> int:
        if not sys.stdout.isatty() or self._options.json or self._options.format:
            _LISTING.show(self._context, self._options, samples, self._row)
            sys.stdout.flush()
            return 0
        size = os.get_terminal_size(1)
        columns, rows = _LISTING.cells(samples, self._row)
        lines = table.lines(columns, rows, limit=size.columns, colour=table.use_colour(sys.stdout))[: size.lines - 1]
        up = f"\x1b[{height}A" if height else ""
        print(up + "\x1b[J" + "\n".join(lines), flush=True)
        return len(lines)

    @property
    def _row(self) -> Callable[[dict[str, Any]], Row]:
        return lambda item: row(item, full=self._options.no_trunc)


def row(item: dict[str, Any], *, full: bool) -> Row:
    """One sample as Docker's columns."""
    memory = item.get("memory_stats") or {}
    used, limit = memory_used(memory), memory.get("limit", 0)
    networks = (item.get("networks") or {}).values()
    received = sum(network.get("rx_bytes", 0) for network in networks)
    sent = sum(network.get("tx_bytes", 0) for network in networks)
    read, written = _block_bytes(item)
    identity = str(item.get("id", ""))
    return {
        "ID": identity if full else identity[:12],
        "Container": identity if full else identity[:12],
        "Name": str(item.get("name", "")).removeprefix("/"),
        "CPUPerc": f"{cpu_percent(item):.2f}%",
        "MemUsage": f"{bytes_text(used, binary=True)} / {bytes_text(limit, binary=True)}",
        "MemPerc": f"{used / limit * 100 if limit else 0:.2f}%",
        "NetIO": f"{bytes_text(received)} / {bytes_text(sent)}",
        "BlockIO": f"{bytes_text(read)} / {bytes_text(written)}",
        "PIDs": str((item.get("pids_stats") or {}).get("current", 0)),
    }


def cpu_percent(item: dict[str, Any]) -> float:
    """CPU use between the two samples; 100 is one CPU."""
    now, before = item.get("cpu_stats") or {}, item.get("precpu_stats") or {}
    used = (now.get("cpu_usage") or {}).get("total_usage", 0) - (before.get("cpu_usage") or {}).get("total_usage", 0)
    system = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)
    if used <= 0 or system <= 0:
        return 0.0
    return float(used / system * (now.get("online_cpus") or 1) * 100)


def memory_used(memory: dict[str, Any]) -> int:
    """Memory without the page cache that the kernel would give back first, as Docker counts it."""
    usage = int(memory.get("usage", 0))
    details = memory.get("stats") or {}
    for name in ("total_inactive_file", "inactive_file"):
        if 0 < details.get(name, 0) < usage:
            return usage - int(details[name])
    return usage


def _block_bytes(item: dict[str, Any]) -> tuple[int, int]:
    read = written = 0
    for entry in (item.get("blkio_stats") or {}).get("io_service_bytes_recursive") or []:
        operation = str(entry.get("op", "")).lower()
        if operation == "read":
            read += entry.get("value", 0)
        elif operation == "write":
            written += entry.get("value", 0)
    return read, written


STATS = Command(
    summary="Show what instances use, again and again",
    usage="[OPTIONS] [INSTANCE...]",
    run=stats,
    flags=(
        switch("all", "a", "Show all, not only those that run"),
        FORMAT,
        JSON,
        switch("no-stream", "", "Show it once"),
        NO_TRUNC,
    ),
    completes="running",
)
