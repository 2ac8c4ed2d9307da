"""Network namespaces for tests: each stands for a host, a container or another machine."""

from __future__ import annotations

import contextlib
import ctypes
import queue
import socket
import subprocess
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)

T = TypeVar("T")


class Namespace:
    """A thread in a network namespace of its own; ``run`` calls a function there.

    ``pid`` is the thread's id, which the kernel takes where it asks for a process.
    """

    def __init__(self) -> None:
        self._jobs: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._ready = threading.Event()
        self._failure: OSError | None = None
        self.pid = 0
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._open: list[socket.socket] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        if self._failure:
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._open:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept or recvfrom
            server.close()
        self._jobs.put(None)
        self._thread.join()

    def _work(self) -> None:
        if _libc.unshare(CLONE_NEWNET) != 0:
            self._failure = OSError(ctypes.get_errno(), "unshare(CLONE_NEWNET)")
        self.pid = threading.get_native_id()
        self._ready.set()
        while (job := self._jobs.get()) is not None:
            job()

    def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """What the function returns (or raises) when called in this namespace."""
        done: queue.Queue[tuple[T | None, BaseException | None]] = queue.Queue()

        def job() -> None:
            try:
                done.put((function(*args, **kwargs), None))
            except BaseException as error:
                done.put((None, error))

        self._jobs.put(job)
        result, error = done.get()
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def keep(self, server: socket.socket) -> None:
        """Close a socket when the namespace is closed."""
        self._open.append(server)

    def serve_tcp(self, address: str, port: int, answer: bytes | None = None) -> None:
        """Answer every connection with ``answer``, or with the client's address, until the namespace is closed."""
        family = socket.AF_INET6 if ":" in address else socket.AF_INET

        def listen() -> socket.socket:
            server = socket.socket(family, socket.SOCK_STREAM)
            server.bind((address, port))
            server.listen()
            return server

        def accept() -> None:
            while True:
                try:
                    connection, peer = server.accept()
                except OSError:
                    return
                with connection:
                    connection.sendall(answer if answer is not None else str(peer[0]).encode())

        server = self.run(listen)
        self._open.append(server)
        threading.Thread(target=accept, daemon=True).start()

    def serve_udp(self, address: str, port: int) -> None:
        """Send every datagram back, until the namespace is closed."""

        def listen() -> socket.socket:
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            server.bind((address, port))
            return server

        def echo() -> None:
            while True:
                try:
                    data, peer = server.recvfrom(65536)
                    if not data:
                        return
                    server.sendto(data, peer)
                except OSError:
                    return

        server = self.run(listen)
        self._open.append(server)
        threading.Thread(target=echo, daemon=True).start()


def nft(script: str) -> str:
    """What nft prints for a script, in the namespace of the calling thread; CalledProcessError when it refuses."""
    return subprocess.run(["nft", "-f", "-"], input=script, check=True, capture_output=True, text=True).stdout
