"""A reading of what an instance uses (wire.keeper.Stats as a dict) -> Docker's stats JSON."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from enisle.api.times import SECOND_NS, ZERO, rfc3339
from enisle.model.instance import Instance

_USED_FIELDS = 8  # of /proc/stat's cpu line: user ... steal; guest time is part of user time
_NIC_COUNTERS = (
    "rx_bytes",
    "rx_packets",
    "rx_errors",
    "rx_dropped",
    "tx_bytes",
    "tx_packets",
    "tx_errors",
    "tx_dropped",
)


def host_cpu_ns() -> int:
    """CPU time the whole host has spent since it was booted, idle time included."""
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1 : 1 + _USED_FIELDS]
    return sum(map(int, fields)) * SECOND_NS // os.sysconf("SC_CLK_TCK")


def stats_json(
    instance: Instance, reading: dict[str, Any], before: dict[str, Any] | None, host: dict[str, int]
) -> dict[str, Any]:
    """``before``: an earlier answer of this function, for precpu_stats. ``host``: cpus, memory_bytes, cpu_ns.

    All zeros, as dockerd answers, for an instance that does not run.
    """
    read_at = reading.get("read_at", 0)
    result: dict[str, Any] = {
        "read": rfc3339(read_at),
        "preread": before["read"] if before else ZERO,
        "pids_stats": _pids(reading),
        "blkio_stats": _block_io(reading),
        "num_procs": 0,
        "storage_stats": {},
        "cpu_stats": _cpu(reading, host),
        "precpu_stats": before["cpu_stats"] if before else _cpu({}, {}),
        "memory_stats": _memory(reading, host) if read_at else {},
        "name": f"/{instance.name}",
        "id": instance.id,
    }
    nics = reading.get("nics") or {}
    if nics:
        result["networks"] = {
            name: {counter: values.get(counter, 0) for counter in _NIC_COUNTERS} for name, values in nics.items()
        }
    return result


def _pids(reading: dict[str, Any]) -> dict[str, int]:
    result = {}
    if reading.get("pids"):
        result["current"] = reading["pids"]
    if reading.get("pids_limit", 0) > 0:
        result["limit"] = reading["pids_limit"]
    return result


def _cpu(reading: dict[str, Any], host: dict[str, int]) -> dict[str, Any]:
    usage: dict[str, Any] = {
        "total_usage": reading.get("cpu_total_ns", 0),
        "usage_in_kernelmode": reading.get("cpu_system_ns", 0),
        "usage_in_usermode": reading.get("cpu_user_ns", 0),
    }
    if reading.get("cpu_percpu_ns"):
        usage["percpu_usage"] = reading["cpu_percpu_ns"]
    result: dict[str, Any] = {
        "cpu_usage": usage,
        "throttling_data": {
            "periods": reading.get("periods", 0),
            "throttled_periods": reading.get("throttled_periods", 0),
            "throttled_time": reading.get("throttled_ns", 0),
        },
    }
    if reading.get("read_at"):
        result["system_cpu_usage"] = host["cpu_ns"]
        result["online_cpus"] = host["cpus"]
    return result


def _memory(reading: dict[str, Any], host: dict[str, int]) -> dict[str, Any]:
    limit = reading.get("memory_limit_bytes", 0)
    if limit <= 0 or limit > host["memory_bytes"]:
        limit = host["memory_bytes"]
    result = {
        "usage": reading.get("memory_bytes", 0),
        "stats": reading.get("memory_stats") or {},
        "limit": limit,
    }
    if reading.get("memory_max_bytes"):
        result["max_usage"] = reading["memory_max_bytes"]
    return result


def _block_io(reading: dict[str, Any]) -> dict[str, Any]:
    entries = [
        {"major": major, "minor": minor, "op": operation, "value": value}
        for major, minor, operation, value in reading.get("block_io") or []
    ]
    if not entries and (reading.get("block_read_bytes") or reading.get("block_write_bytes")):
        entries = [
            {"major": 0, "minor": 0, "op": "read", "value": reading["block_read_bytes"]},
            {"major": 0, "minor": 0, "op": "write", "value": reading["block_write_bytes"]},
        ]
    empty = dict.fromkeys(
        (
            "io_serviced_recursive",
            "io_queue_recursive",
            "io_service_time_recursive",
            "io_wait_time_recursive",
            "io_merged_recursive",
            "io_time_recursive",
            "sectors_recursive",
        )
    )
    return {"io_service_bytes_recursive": entries or None, **empty}
