"""One control group, whichever version: what the rest of the program does with it."""

from __future__ import annotations

import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field

from enisle.linux.cgroup.devices import DeviceRule
from enisle.linux.cgroup.limits import Limits


@dataclass(slots=True)
class Usage:
    """One reading. Nanoseconds, bytes, counts; limits are 0 where there is none."""

    cpu_total_ns: int = 0
    cpu_user_ns: int = 0
    cpu_system_ns: int = 0
    cpu_percpu_ns: list[int] = field(default_factory=list)
    periods: int = 0
    throttled_periods: int = 0
    throttled_ns: int = 0
    memory_bytes: int = 0
    memory_max_bytes: int = 0
    memory_limit_bytes: int = 0
    memory_stats: dict[str, int] = field(default_factory=dict)
    pids: int = 0
    pids_limit: int = 0
    block_read_bytes: int = 0
    block_write_bytes: int = 0
    block_io: list[list[int | str]] = field(default_factory=list)


class Group(ABC):
    """A control group below the hierarchies' roots. Methods raise OSError; a group that is gone gives empty answers.

    ``path`` is relative ("enisle/4f2a..."); parents are made as needed and left behind.
    """

    path: str

    @abstractmethod
    def create(self) -> None:
        """Make it, with its parents. FileExistsError when it is there already."""

    @abstractmethod
    def apply(self, limits: Limits) -> list[str]:
        """Set limits; warnings for what this kernel has no file for. OSError names the file that refused."""

    @abstractmethod
    def restrict_devices(self, rules: Sequence[DeviceRule]) -> None:
        """Allow only what the rules allow; once, on a fresh group."""

    @abstractmethod
    def add(self, pid: int) -> None:
        """Move a process into it; 0 is the caller, which has one thread only."""

    @abstractmethod
    def doors(self) -> list[str]:
        """The files by which a process that has one thread moves itself into it, writing "0" to each."""

    @abstractmethod
    def pids(self) -> list[int]:
        """Every process in it and below."""

    @abstractmethod
    def freeze(self, *, frozen: bool) -> None:
        """Stop or continue everything in it; returns once it has stopped, at most 10 s later (TimeoutError)."""

    @abstractmethod
    def oom_kills(self) -> int:
        """How many processes the kernel has killed for want of memory in it."""

    @abstractmethod
    def usage(self) -> Usage:
        """What it uses now."""

    @abstractmethod
    def directory_fd(self) -> int:
        """For clone3's CLONE_INTO_CGROUP: a descriptor that is the caller's; -1 where that cannot be done."""

    @abstractmethod
    def oom_event_fd(self) -> int:
        """A descriptor, the caller's, that gets readable when memory has run out; -1 where there is none."""

    @abstractmethod
    def directories(self) -> list[str]:
        """Every directory that it consists of."""

    def kill(self) -> None:
        """Send SIGKILL to everything in it until nothing is left, at most 10 s (TimeoutError)."""
        deadline = time.monotonic() + 10
        while pids := self.pids():
            for pid in pids:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {pids} of cgroup {self.path} do not die")
            time.sleep(0.001)

    def remove(self) -> None:
        """Remove it and what is below; idempotent. Dying processes are waited for, at most 10 s (OSError EBUSY)."""
        deadline = time.monotonic() + 10
        for directory in self.directories():
            while True:
                try:
                    _remove_tree(directory)
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.001)


def _remove_tree(directory: str) -> None:
    try:
        os.rmdir(directory)
        return
    except FileNotFoundError:
        return
    except OSError:
        inner = [entry.path for entry in os.scandir(directory) if entry.is_dir(follow_symlinks=False)]
        if not inner:
            raise
    for path in inner:
        _remove_tree(path)
    os.rmdir(directory)


def write_file(path: str, value: str) -> None:
    """Write one value into a control file. OSError carries the path and the value."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror} on writing {value!r}", path) from None


def read_file(path: str) -> str:
    """The content of a control file, "" when it is not there."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        blocks = []
        while block := os.read(fd, 1 << 16):
            blocks.append(block)
        return b"".join(blocks).decode("ascii", "replace")
    except OSError:
        return ""
    finally:
        os.close(fd)


def read_number(path: str) -> int:
    """The number in a control file; 0 when it is not there, and for "max" and v1's huge stand-ins for it."""
    text = read_file(path).strip()
    number = int(text) if text.isdigit() else 0
    return 0 if number >= 1 << 60 else number


def read_table(path: str) -> dict[str, int]:
    """The "key number" lines of a control file."""
    found = {}
    for line in read_file(path).splitlines():
        key, _, value = line.rpartition(" ")
        if value.isdigit():
            found[key] = int(value)
    return found


def read_pids(directory: str) -> list[int]:
    """The processes of a group's directory and of those below it."""
    found = [int(word) for word in read_file(f"{directory}/cgroup.procs").split()]
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    found += read_pids(entry.path)
    except FileNotFoundError:
        pass
    return found
