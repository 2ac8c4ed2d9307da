"""Networks and instances of one test's own, and what it does with them."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from tests.daemon import Daemon


@dataclass
class Place:
    """Networks and instances with names of this test's own, removed after it."""

    daemon: Daemon
    suffix: str = field(default_factory=lambda: os.urandom(3).hex())
    instances: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)

    def network(self, name: str, *args: str) -> str:
        self.networks.append(f"{name} {self.suffix}")  # with a space, as dockerd allows
        self.daemon.docker("network", "create", *args, self.networks[-1])
        return self.networks[-1]

    def start(self, name: str, *args: str, command: tuple[str, ...] = ("sleep", "1000")) -> str:
        self.instances.append(f"{name}-{self.suffix}")
        self.daemon.docker("run", "-d", "--name", self.instances[-1], *args, "busybox", *command)
        return self.instances[-1]

    def inside(self, name: str, *command: str, check: bool = True) -> str:
        return self.daemon.docker("exec", name, *command, check=check).stdout

    def refused(self, *args: str) -> str:
        """What the docker client says to a command that fails."""
        failed = self.daemon.docker(*args, check=False)
        assert failed.returncode != 0
        return failed.stderr
