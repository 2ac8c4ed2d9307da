"""A group on cgroup v1: one directory per controller's hierarchy (Documentation/admin-guide/cgroup-v1)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence

from enisle.linux.cgroup.devices import DeviceRule, allows_everything
from enisle.linux.cgroup.group import Group, Usage, read_file, read_number, read_pids, read_table, write_file
from enisle.linux.cgroup.layout import Layout
from enisle.linux.cgroup.limits import Limits, v1_settings

_USER_HZ = os.sysconf("SC_CLK_TCK")


class V1Group(Group):
    """Controllers mounted together (cpu,cpuacct) share a directory."""

    def __init__(self, layout: Layout, path: str) -> None:
        self.path = path
        self._mounts = layout.v1
        self._directories = {name: f"{mount}/{path}" for name, mount in layout.v1.items()}

    def directories(self) -> list[str]:
        return list(dict.fromkeys(self._directories.values()))

    def create(self) -> None:
        made: list[str] = []
        try:
            for name, mount in self._mounts.items():
                directory = self._directories[name]
                if directory in made:
                    continue
                self._make(directory, mount, fill_cpuset=name == "cpuset")
                made.append(directory)
        except OSError:
            for directory in made:
                os.rmdir(directory)
            raise

    def _make(self, directory: str, mount: str, *, fill_cpuset: bool) -> None:
        try:
            os.mkdir(directory)
        except FileNotFoundError:
            parent = os.path.dirname(directory)
            if len(parent) <= len(mount):
                raise
            try:
                self._make(parent, mount, fill_cpuset=fill_cpuset)
            except FileExistsError:
                pass  # somebody else made it meanwhile
            os.mkdir(directory)
        if fill_cpuset:
            _fill_cpuset(directory, mount)

    def apply(self, limits: Limits) -> list[str]:
        warnings = []
        settings = v1_settings(limits)
        if limits.memory_bytes and limits.memory_swap_bytes and self._must_raise_swap_first(limits):
            settings.sort(key=lambda setting: setting.file != "memory.memsw.limit_in_bytes")
        for setting in settings:
            directory = self._directories.get(setting.controller)
            if directory is None:
                warnings.append(f"{setting.file} is not set: cgroup controller {setting.controller} is not mounted")
                continue
            try:
                write_file(f"{directory}/{setting.file}", setting.value)
            except FileNotFoundError:
                if not setting.optional:
                    warnings.append(f"{setting.file} is not set: this kernel has no such file")
            except OSError as error:
                if not setting.optional or error.errno != errno.EOPNOTSUPP:
                    raise
                warnings.append(f"{setting.file} is not set: the scheduler of the device has no weights")
        return warnings

    def _must_raise_swap_first(self, limits: Limits) -> bool:
        """Memory may never exceed memory and swap together, not even between two writes."""
        current = read_number(f"{self._directories.get('memory', '')}/memory.memsw.limit_in_bytes")
        return bool(current) and limits.memory_bytes > current

    def restrict_devices(self, rules: Sequence[DeviceRule]) -> None:
        directory = self._directories.get("devices")
        if directory is None or allows_everything(rules):
            return
        write_file(f"{directory}/devices.deny", "a")
        fd = os.open(f"{directory}/devices.allow", os.O_WRONLY | os.O_CLOEXEC)
        try:
            for rule in rules:
                for kind in ("b", "c") if rule.kind == "a" else (rule.kind,):
                    os.write(fd, str(DeviceRule(kind, rule.major, rule.minor, rule.access)).encode())
        finally:
            os.close(fd)

    def add(self, pid: int) -> None:
        for file in [f"{directory}/cgroup.procs" for directory in self.directories()] if pid else self.doors():
            write_file(file, str(pid))

    def doors(self) -> list[str]:
        """By ``tasks`` the kernel needs no lock over all processes, for which it may wait 10 ms for a grace period
        (kernel/cgroup/cgroup.c, cgroup_procs_write_start).
        """
        return [f"{directory}/tasks" for directory in self.directories()]

    def pids(self) -> list[int]:
        for name in ("pids", "freezer", "devices", "memory"):
            if name in self._directories:
                return read_pids(self._directories[name])
        return []

    def freeze(self, *, frozen: bool) -> None:
        path = f"{self._directories['freezer']}/freezer.state"
        wanted = "FROZEN" if frozen else "THAWED"
        deadline = time.monotonic() + 10
        while True:
            write_file(path, wanted)  # again each time: a fork while it was freezing needs another push
            if read_file(path).strip() == wanted:
                return
            if time.monotonic() > deadline:
                write_file(path, "THAWED")
                raise TimeoutError(f"cgroup {self.path} does not get {wanted.lower()}")
            time.sleep(0.002)

    def kill(self) -> None:
        if not self.pids():
            return
        if "freezer" in self._directories and read_file(f"{self._directories['freezer']}/freezer.state") != "THAWED\n":
            self.freeze(frozen=False)  # what is frozen does not die
        super().kill()

    def oom_kills(self) -> int:
        return read_table(f"{self._directories.get('memory', '')}/memory.oom_control").get("oom_kill", 0)

    def directory_fd(self) -> int:
        return -1

    def oom_event_fd(self) -> int:
        directory = self._directories.get("memory")
        if directory is None:
            return -1
        event_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        try:
            control_fd = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
            try:
                write_file(f"{directory}/cgroup.event_control", f"{event_fd} {control_fd}")
            finally:
                os.close(control_fd)
        except OSError:
            os.close(event_fd)
            return -1
        return event_fd

    def usage(self) -> Usage:
        usage = Usage()
        self._read_cpu(usage)
        self._read_memory(usage)
        self._read_block(usage)
        pids = self._directories.get("pids", "")
        usage.pids = read_number(f"{pids}/pids.current")
        usage.pids_limit = read_number(f"{pids}/pids.max")
        return usage

    def _read_cpu(self, usage: Usage) -> None:
        accounts = self._directories.get("cpuacct", "")
        usage.cpu_total_ns = read_number(f"{accounts}/cpuacct.usage")
        usage.cpu_percpu_ns = [int(word) for word in read_file(f"{accounts}/cpuacct.usage_percpu").split()]
        ticks = read_table(f"{accounts}/cpuacct.stat")
        usage.cpu_user_ns = ticks.get("user", 0) * 1_000_000_000 // _USER_HZ
        usage.cpu_system_ns = ticks.get("system", 0) * 1_000_000_000 // _USER_HZ
        throttling = read_table(f"{self._directories.get('cpu', '')}/cpu.stat")
        usage.periods = throttling.get("nr_periods", 0)
        usage.throttled_periods = throttling.get("nr_throttled", 0)
        usage.throttled_ns = throttling.get("throttled_time", 0)

    def _read_memory(self, usage: Usage) -> None:
        memory = self._directories.get("memory", "")
        usage.memory_bytes = read_number(f"{memory}/memory.usage_in_bytes")
        usage.memory_max_bytes = read_number(f"{memory}/memory.max_usage_in_bytes")
        usage.memory_limit_bytes = read_number(f"{memory}/memory.limit_in_bytes")
        usage.memory_stats = read_table(f"{memory}/memory.stat")

    def _read_block(self, usage: Usage) -> None:
        blkio = self._directories.get("blkio", "")
        for line in read_file(f"{blkio}/blkio.throttle.io_service_bytes").splitlines():
            words = line.split()
            if len(words) != 3 or words[1] not in ("Read", "Write"):
                continue
            major, _, minor = words[0].partition(":")
            count = int(words[2])
            usage.block_io.append([int(major), int(minor), words[1].lower(), count])
            if words[1] == "Read":
                usage.block_read_bytes += count
            else:
                usage.block_write_bytes += count


def _fill_cpuset(directory: str, mount: str) -> None:
    """Give a new cpuset its parent's CPUs and nodes; a parent that somebody has made but not filled yet is filled."""
    parent = os.path.dirname(directory)
    for file in ("cpuset.cpus", "cpuset.mems"):
        value = read_file(f"{parent}/{file}").strip()
        if not value and len(parent) > len(mount):
            _fill_cpuset(parent, mount)
            value = read_file(f"{parent}/{file}").strip()
        write_file(f"{directory}/{file}", value)
