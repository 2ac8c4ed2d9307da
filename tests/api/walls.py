"""The docker client with a wall chosen."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable

from tests.daemon import Daemon

WALLS = {"container": [], "vm": ["--runtime", "vm"], "runtime": ["--runtime", "debian-runc"]}


class Wall:
    """docker, with what chooses the wall put behind run and create, and a name prefix of its own."""

    def __init__(self, daemon: Daemon, kind: str) -> None:
        self.daemon = daemon
        self.kind = kind
        self.made: list[str] = []

    def name(self, suffix: str) -> str:
        name = f"{self.kind}-{suffix}-{os.urandom(2).hex()}"
        self.made.append(name)
        return name

    def run(self, *args: str, timeout_s: float = 120, **options: object) -> subprocess.CompletedProcess[str]:
        return self.daemon.docker("run", *WALLS[self.kind], *args, timeout_s=timeout_s, **options)

    def start(self, suffix: str, *args: str, command: tuple[str, ...] = ("sleep", "1000")) -> str:
        """A running instance's name."""
        name = self.name(suffix)
        self.run("-d", "--name", name, *args, "busybox", *command)
        return name

    def inspect(self, name: str, template: str) -> str:
        return self.daemon.docker("inspect", "-f", template, name).stdout.strip()

    def clean(self) -> None:
        if self.made:
            self.daemon.docker("rm", "-f", "-v", *self.made, check=False, timeout_s=120)


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 60) -> None:
    """Ask again and again; AssertionError when it does not hold in time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.05)
