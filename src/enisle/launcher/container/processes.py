"""What runs in a container, as ps shows it (docker top). The usual columns are read from /proc, without a program."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from typing import Any

_PS = "/bin/ps"
TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
USUAL_ARGUMENTS = frozenset({"", "-ef"})
_TICKS = os.sysconf("SC_CLK_TCK")


def full_list(pids: Iterable[int]) -> dict[str, Any]:
    """The columns of ``ps -ef`` for those processes; one that has just ended is left out."""
    uptime_s = float(_read("/proc/uptime").split()[0])
    names = _user_names()
    rows = [row for pid in sorted(pids) if (row := _row(pid, uptime_s, names)) is not None]
    return {"titles": TITLES, "processes": rows}


def _row(pid: int, uptime_s: float, names: dict[int, str]) -> list[str] | None:
    stat = _read(f"/proc/{pid}/stat")
    if not stat:
        return None
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    fields = stat[stat.rindex(")") + 2 :].split()
    cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS
    age_s = max(uptime_s - int(fields[19]) / _TICKS, 0.001)
    arguments = _read(f"/proc/{pid}/cmdline").rstrip("\0").replace("\0", " ") or f"[{name}]"
    try:
        uid = os.stat(f"/proc/{pid}").st_uid if fields[0] != "Z" else 0
    except FileNotFoundError:
        return None
    uid = _real_uid(pid, uid)
    return [
        names.get(uid, str(uid)),
        str(pid),
        fields[1],
        str(min(int(100 * cpu_s / age_s), 99)),
        _start_time(age_s),
        _terminal(int(fields[4])),
        f"{int(cpu_s) // 3600:02d}:{int(cpu_s) // 60 % 60:02d}:{int(cpu_s) % 60:02d}",
        arguments,
    ]


def _real_uid(pid: int, default: int) -> int:
    """The effective uid; the owner of /proc/PID is root for a process that may not be looked into."""
    for line in _read(f"/proc/{pid}/status").splitlines():
        if line.startswith("Uid:"):
            return int(line.split()[2])
    return default


def _start_time(age_s: float) -> str:
    started = time.localtime(time.time() - age_s)
    return time.strftime("%H:%M" if age_s < 86_400 else "%b%d", started)


def _terminal(number: int) -> str:
    if number == 0:
        return "?"
    major, minor = os.major(number), os.minor(number)
    return f"pts/{minor + 256 * (major - 136)}" if 136 <= major < 144 else f"{major}:{minor}"


def _user_names() -> dict[int, str]:
    names: dict[int, str] = {}
    for line in _read("/etc/passwd").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdigit():
            names.setdefault(int(fields[2]), fields[0])
    return names


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read().decode("utf-8", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def run_ps(arguments: list[str]) -> str:
    """What the host's ps prints. ValueError with its complaint when it fails. Waits; for a child of its own."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    actions = [(os.POSIX_SPAWN_DUP2, writing, 1), (os.POSIX_SPAWN_DUP2, writing, 2)]
    try:
        pid = os.posix_spawn(_PS, [_PS, *arguments], {}, file_actions=actions)
    except FileNotFoundError as error:
        raise ValueError(f"{_PS} is not there: install procps, or ask for the usual columns (-ef)") from error
    finally:
        os.close(writing)
    with open(reading, "rb") as file:
        output = file.read().decode("utf-8", "replace")
    if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]):
        raise ValueError(f"ps: {output.strip().partition(chr(10))[0][:400]}")  # the rest is how ps is used
    return output


def filter_ps(output: str, pids: set[int]) -> dict[str, Any]:
    """The rows of ps's own output that are about those processes. ValueError when it shows no PID column."""
    lines = output.splitlines()
    titles = lines[0].split() if lines else []
    if "PID" not in titles:
        raise ValueError("Couldn't find PID field in ps output")
    column = titles.index("PID")
    rows = []
    for line in lines[1:]:
        fields = line.split(None, len(titles) - 1)
        if len(fields) > column and fields[column].isdigit() and int(fields[column]) in pids:
            rows.append(fields)
    return {"titles": titles, "processes": rows}
