"""Where a keeper is found: its run directory, with a socket and a file that says who it is."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable

from enisle.launcher.connection import listen, peer_is_root
from enisle.launcher.loop import EpollLoop, complain
from enisle.wire.keeper import SOCKET_NAME, STATUS_NAME
from enisle.wire.plans import GENERATION


class Presence:
    """``on_connected`` gets each connection of root's."""

    def __init__(
        self, loop: EpollLoop, instance_id: str, run_dir: str, on_connected: Callable[[socket.socket], None]
    ) -> None:
        self._loop = loop
        self._instance_id = instance_id
        self._run_dir = run_dir
        self._on_connected = on_connected
        self._has_begun = False
        self._listener: socket.socket | None = None

    def begin(self) -> None:
        """Be there to be found. OSError."""
        self._has_begun = True
        os.makedirs(self._run_dir, mode=0o700, exist_ok=True)
        self._write_identity()
        self._listener = listen(f"{self._run_dir}/{SOCKET_NAME}")
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def end(self) -> None:
        """Leave nothing behind; before ``begin``, touch nothing, for what is there is another's."""
        if not self._has_begun:
            return
        self._has_begun = False
        if self._listener is not None:
            self._loop.remove(self._listener.fileno())
            self._listener.close()
        for name in (SOCKET_NAME, STATUS_NAME):
            try:
                os.unlink(os.path.join(self._run_dir, name))
            except FileNotFoundError:
                pass
        try:
            os.rmdir(self._run_dir)
        except OSError as error:
            complain(f"{self._run_dir} stays behind: {error.strerror}")

    def _write_identity(self) -> None:
        """Our pid, and our start time in ticks to tell it from a reused pid."""
        with open("/proc/self/stat", "rb", buffering=0) as file:
            start_time = int(file.read().rpartition(b")")[2].split()[19])
        identity = {
            "pid": os.getpid(),
            "start_time": start_time,
            "instance": self._instance_id,
            "generation": GENERATION,
        }
        with open(f"{self._run_dir}/{STATUS_NAME}", "wb", buffering=0) as target:
            target.write(json.dumps(identity).encode())  # before anybody can find our socket beside it

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            sock, _address = self._listener.accept()
        except OSError:
            return
        if peer_is_root(sock):
            self._on_connected(sock)
        else:
            sock.close()
