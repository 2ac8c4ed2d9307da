"""A group on cgroup v2: one directory (Documentation/admin-guide/cgroup-v2.rst)."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence

from enisle.linux.cgroup.devices import DeviceRule, allows_everything, attach_filter
from enisle.linux.cgroup.group import Group, Usage, read_file, read_number, read_pids, read_table, write_file
from enisle.linux.cgroup.layout import Layout
from enisle.linux.cgroup.limits import Limits, v2_settings
from enisle.linux.inotify import IN_MODIFY, Inotify

_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "pids", "hugetlb")


class V2Group(Group):
    """Controllers are switched on in every parent as the group is made."""

    def __init__(self, layout: Layout, path: str) -> None:
        self.path = path
        self._root = layout.unified
        self._directory = f"{layout.unified}/{path}"

    def directories(self) -> list[str]:
        return [self._directory]

    def create(self) -> None:
        try:
            os.mkdir(self._directory)
        except FileNotFoundError:
            self._make_parents()
            os.mkdir(self._directory)

    def _make_parents(self) -> None:
        """A group may hold processes or hand controllers on, not both; our parents hold none."""
        parent = self._root
        for part in self.path.split("/")[:-1]:
            self._hand_on(parent)
            parent = f"{parent}/{part}"
            try:
                os.mkdir(parent)
            except FileExistsError:
                pass
        self._hand_on(parent)

    @staticmethod
    def _hand_on(directory: str) -> None:
        present = read_file(f"{directory}/cgroup.controllers").split()
        active = read_file(f"{directory}/cgroup.subtree_control").split()
        for name in _CONTROLLERS:
            if name in present and name not in active:
                try:
                    write_file(f"{directory}/cgroup.subtree_control", f"+{name}")
                except OSError as error:
                    if error.errno not in (errno.EBUSY, errno.EINVAL, errno.ENOTSUP):
                        raise  # those three: a controller that this host cannot hand on; limits by it give a warning

    def apply(self, limits: Limits) -> list[str]:
        warnings = []
        for setting in v2_settings(limits):
            try:
                write_file(f"{self._directory}/{setting.file}", setting.value)
            except FileNotFoundError:
                if not setting.optional:
                    warnings.append(f"{setting.file} is not set: cgroup controller {setting.controller} is not there")
            except OSError as error:
                if not setting.optional or error.errno != errno.EOPNOTSUPP:
                    raise
                warnings.append(f"{setting.file} is not set: the scheduler of the device has no weights")
        return warnings

    def restrict_devices(self, rules: Sequence[DeviceRule]) -> None:
        if allows_everything(rules):
            return
        fd = self.directory_fd()
        try:
            attach_filter(fd, rules)
        finally:
            os.close(fd)

    def add(self, pid: int) -> None:
        write_file(f"{self._directory}/cgroup.procs", str(pid))

    def doors(self) -> list[str]:
        return [f"{self._directory}/cgroup.procs"]

    def pids(self) -> list[int]:
        return read_pids(self._directory)

    def freeze(self, *, frozen: bool) -> None:
        wanted = int(frozen)
        write_file(f"{self._directory}/cgroup.freeze", str(wanted))
        deadline = time.monotonic() + 10
        while read_table(f"{self._directory}/cgroup.events").get("frozen", wanted) != wanted:
            if time.monotonic() > deadline:
                write_file(f"{self._directory}/cgroup.freeze", "0")
                raise TimeoutError(f"cgroup {self.path} does not get {'frozen' if frozen else 'thawed'}")
            time.sleep(0.001)

    def kill(self) -> None:
        try:
            write_file(f"{self._directory}/cgroup.kill", "1")  # Linux 5.14
        except FileNotFoundError:
            pass
        super().kill()

    def oom_kills(self) -> int:
        return read_table(f"{self._directory}/memory.events").get("oom_kill", 0)

    def directory_fd(self) -> int:
        return os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def oom_event_fd(self) -> int:
        inotify = Inotify()
        try:
            inotify.add(f"{self._directory}/memory.events", IN_MODIFY)
        except OSError:
            inotify.close()
            return -1
        return inotify.detach()

    def usage(self) -> Usage:
        cpu = read_table(f"{self._directory}/cpu.stat")
        usage = Usage(
            cpu_total_ns=cpu.get("usage_usec", 0) * 1000,
            cpu_user_ns=cpu.get("user_usec", 0) * 1000,
            cpu_system_ns=cpu.get("system_usec", 0) * 1000,
            periods=cpu.get("nr_periods", 0),
            throttled_periods=cpu.get("nr_throttled", 0),
            throttled_ns=cpu.get("throttled_usec", 0) * 1000,
            memory_bytes=read_number(f"{self._directory}/memory.current"),
            memory_max_bytes=read_number(f"{self._directory}/memory.peak"),
            memory_limit_bytes=read_number(f"{self._directory}/memory.max"),
            memory_stats=read_table(f"{self._directory}/memory.stat"),
            pids=read_number(f"{self._directory}/pids.current"),
            pids_limit=read_number(f"{self._directory}/pids.max"),
        )
        for line in read_file(f"{self._directory}/io.stat").splitlines():
            _read_block(usage, line)
        return usage


def _read_block(usage: Usage, line: str) -> None:
    device, *pairs = line.split()
    major, _, minor = device.partition(":")
    values = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    if not (major.isdigit() and minor.isdigit()):
        return
    for key, operation in (("rbytes", "read"), ("wbytes", "write")):
        count = int(values.get(key, "0"))
        usage.block_io.append([int(major), int(minor), operation, count])
        if operation == "read":
            usage.block_read_bytes += count
        else:
            usage.block_write_bytes += count
