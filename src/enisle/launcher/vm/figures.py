"""What a VM uses: the guest's own figures joined with those of QEMU on the host. Parsing is pure."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from enisle.launcher.vm.protocol import printable
from enisle.wire.keeper import Stats

_MAX_ITEMS = 512
_MAX_VALUE = 1 << 63
_NIC_FIELDS = "rx_bytes rx_packets rx_errors rx_dropped tx_bytes tx_packets tx_errors tx_dropped".split()
TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
AUX_TITLES = ["USER", "PID", "%CPU", "%MEM", "VSZ", "RSS", "TTY", "STAT", "START", "TIME", "COMMAND"]


def guest_stats(answer: bytes, stats: Stats) -> None:
    """Put the agent's lines ("<key> <value>...") into ``stats``. What makes no sense is left out."""
    for line in answer.decode("ascii", "replace").splitlines()[:_MAX_ITEMS]:
        words = line.split()
        if len(words) < 2:
            continue
        key, values = words[0], words[1:]
        if key == "nic" and len(values) == 9:
            stats.nics[printable(values[0].encode(), limit=16)] = dict(
                zip(_NIC_FIELDS, map(_number, values[1:]), strict=True)
            )
        elif key == "disk" and len(values) == 6:
            _disk(stats, [_number(value) for value in values])
        else:
            _plain(stats, key, _number(values[0]))


def _plain(stats: Stats, key: str, value: int) -> None:
    if key == "memory_current":
        stats.memory_bytes = value
    elif key == "memory_peak":
        stats.memory_max_bytes = value
    elif key == "pids":
        stats.pids = value
    elif key == "cpu.usage_usec":
        stats.cpu_total_ns = value * 1000
    elif key == "cpu.user_usec":
        stats.cpu_user_ns = value * 1000
    elif key == "cpu.system_usec":
        stats.cpu_system_ns = value * 1000
    elif key.startswith("memory."):
        stats.memory_stats[key.removeprefix("memory.")] = value


def _disk(stats: Stats, values: list[int]) -> None:
    major, minor, _reads, read_bytes, _writes, write_bytes = values
    stats.block_read_bytes += read_bytes
    stats.block_write_bytes += write_bytes
    stats.block_io += [[major, minor, "Read", read_bytes], [major, minor, "Write", write_bytes]]


def _number(text: str) -> int:
    return min(int(text), _MAX_VALUE) if text.isascii() and text.isdigit() else 0


def host_memory(pid: int) -> dict[str, int]:
    """QEMU's memory on the host, bytes: what it holds now (rss, pss) and has held at most."""
    found: dict[str, int] = {}
    for path, names in (
        (f"/proc/{pid}/status", {"VmRSS:": "host_rss", "VmHWM:": "host_peak_rss"}),
        (f"/proc/{pid}/smaps_rollup", {"Pss:": "host_pss"}),
    ):
        try:
            with open(path, "rb", buffering=0) as file:
                lines = file.read().decode("ascii", "replace").splitlines()
        except OSError:
            continue
        for line in lines:
            key, _, rest = line.partition(":")
            if f"{key}:" in names:
                found[names[f"{key}:"]] = int(rest.split()[0]) << 10
    return found


def process_list(answer: bytes, ps_args: str, *, now: float | None = None) -> dict[str, Any]:
    """The rows of ``ps -ef`` or ``ps aux`` from the agent's list of processes.

    ValueError for other arguments: there is no ps in a guest that could be asked.
    """
    rows = [row for item in answer.split(b"\0") if (row := _process(item)) is not None]
    rows.sort(key=lambda row: row["pid"])
    moment = time.time() if now is None else now
    words = ps_args.split()
    if words in ([], ["-ef"], ["ef"], ["-e", "-f"]):
        return {"titles": TITLES, "processes": [_full(row, moment) for row in rows]}
    if words in (["aux"], ["-aux"], ["au"], ["axu"]):
        return {"titles": AUX_TITLES, "processes": [_aux(row, moment) for row in rows]}
    if words[:1] == ["-o"] or words[:1] == ["-eo"]:
        return _columns(rows, "".join(words[1:]).split(","), moment)
    raise ValueError(f"ps {ps_args!r}: the processes of a virtual machine can be listed with -ef, aux or -o only")


def _process(item: bytes) -> dict[str, Any] | None:
    fields = item.split(b" ", 8)
    if len(fields) != 9:
        return None
    try:
        uid, pid, parent, cpu, started, terminal, rss = (int(fields[n]) for n in (0, 1, 2, 4, 5, 6, 7))
    except ValueError:
        return None
    return {
        "uid": str(uid),
        "pid": pid,
        "ppid": parent,
        "state": printable(fields[3], limit=1),
        "cpu": cpu,
        "started": min(started, 1 << 40),
        "tty": terminal,
        "rss": rss,
        "command": printable(fields[8], limit=4096),
    }


def _full(row: dict[str, Any], now: float) -> list[str]:
    columns = ("uid", "pid", "ppid", "c", "stime", "tty", "time", "cmd")
    return [_column(row, name, now) for name in columns]


def _aux(row: dict[str, Any], now: float) -> list[str]:
    columns = ("user", "pid", "pcpu", "pmem", "vsz", "rss", "tty", "stat", "start", "time", "cmd")
    return [_column(row, name, now) for name in columns]


def _columns(rows: Iterable[dict[str, Any]], names: list[str], now: float) -> dict[str, Any]:
    wanted = [name.strip().lower() for name in names if name.strip()]
    if "pid" not in wanted:
        raise ValueError("Couldn't find PID field in ps output")
    titles = [{"cmd": "CMD", "args": "COMMAND", "comm": "COMMAND"}.get(name, name.upper()) for name in wanted]
    return {"titles": titles, "processes": [[_column(row, name, now) for name in wanted] for row in rows]}


def _column(row: dict[str, Any], name: str, now: float) -> str:
    age = max(now - row["started"], 0.001)
    local = time.localtime(row["started"])
    started = time.strftime("%H:%M" if age < 86_400 else "%b%d", local)
    seconds = row["cpu"]
    if name in ("c", "pcpu"):
        share = min(100 * seconds / age, 99.0)
        return str(int(share)) if name == "c" else f"{share:.1f}"
    if name == "tty":
        number = row["tty"]
        return f"pts/{number & 0xFF | number >> 12 & 0xFFF00}" if number else "?"
    known = {
        "uid": row["uid"],
        "user": row["uid"],
        "pid": str(row["pid"]),
        "ppid": str(row["ppid"]),
        "stime": started,
        "start": started,
        "time": f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}",
        "stat": row["state"],
        "state": row["state"],
        "rss": str(row["rss"]),
        "cmd": row["command"],
        "args": row["command"],
        "command": row["command"],
        "comm": row["command"].split(" ")[0].rpartition("/")[2],
    }
    return str(known.get(name, "-"))
