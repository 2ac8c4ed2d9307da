"""A relay in front of a test's engine: everything passes unchanged, and a recorder reads along.

It must not be noticed: ends of a connection travel one by one (half-close), streams that a connection turns into pass
through, and the first bytes of such a stream wait until the client has read the head, as those of the engine do.
"""

from __future__ import annotations

import fcntl
import select
import socket
import termios
import threading
import time
from contextlib import suppress
from pathlib import Path

from tests.api.contract.recorder import Exchange, Recorder

_CHUNK_BYTES = 1 << 16
_HEAD_WAIT_S = 0.05


class Relay:
    """Listens on ``path`` (unix) and passes connections on to ``engine``, until ``close``."""

    def __init__(self, path: Path, engine: Path, recorder: Recorder) -> None:
        self._path, self._engine, self._recorder = path, engine, recorder
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(1024)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no more; connections that are under way go on."""
        self._path.unlink(missing_ok=True)
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            engine = socket.socket(socket.AF_UNIX)
            try:
                engine.connect(str(self._engine))
            except OSError:
                client.close()
                engine.close()
                continue
            _Pair(client, engine, Exchange(self._recorder)).start()


class _Pair:
    """Two connected sockets, a thread for each direction; the last one to end closes both."""

    def __init__(self, client: socket.socket, engine: socket.socket, exchange: Exchange) -> None:
        self._client, self._engine, self._exchange = client, engine, exchange
        self._lock = threading.Lock()  # of the exchange
        self._open = 2
        self._from_engine_ended = False

    def start(self) -> None:
        threading.Thread(target=self._run, args=(self._from_client,), daemon=True).start()
        threading.Thread(target=self._run, args=(self._from_engine,), daemon=True).start()

    def _run(self, direction: object) -> None:
        with suppress(OSError):
            direction()  # type: ignore[operator]
        with self._lock:
            self._open -= 1
            last = not self._open
        if last:
            self._client.close()
            self._engine.close()

    def _from_client(self) -> None:
        try:
            while data := self._client.recv(_CHUNK_BYTES):
                with self._lock:
                    self._exchange.client_said(data)
                self._engine.sendall(data)
            if not _is_gone(self._client):
                self._engine.shutdown(socket.SHUT_WR)
                self._wait_gone()
        finally:
            _end(self._engine if not self._from_engine_ended else self._client)

    def _wait_gone(self) -> None:
        """The client sends no more, but may still read: wait until it is gone, or nothing is left to be read."""
        poll = select.poll()
        poll.register(self._client, 0)
        while not self._from_engine_ended and not poll.poll(200):
            pass

    def _from_engine(self) -> None:
        try:
            while data := self._engine.recv(_CHUNK_BYTES):
                self._pass_on(data)
        finally:
            with self._lock:
                self._exchange.engine_ended()
            self._from_engine_ended = True
            if _is_gone(self._engine):
                _end(self._client)
            else:
                with suppress(OSError):
                    self._client.shutdown(socket.SHUT_WR)

    def _pass_on(self, data: bytes) -> None:
        with self._lock:
            was_raw = self._exchange.raw
            self._exchange.engine_said(data)
            became_raw = self._exchange.raw and not was_raw
        head, separator, rest = data.partition(b"\r\n\r\n")
        if not became_raw or not separator:
            self._client.sendall(data)
            return
        self._client.sendall(head + separator)
        deadline = time.monotonic() + _HEAD_WAIT_S
        while _unread(self._client) and time.monotonic() < deadline:
            time.sleep(0.0005)
        self._client.sendall(rest)


def _is_gone(sock: socket.socket) -> bool:
    """Whether the peer has closed its socket: it neither sends nor reads."""
    poll = select.poll()
    poll.register(sock, 0)
    return bool(poll.poll(0))


def _end(sock: socket.socket) -> None:
    with suppress(OSError):
        sock.shutdown(socket.SHUT_RDWR)


def _unread(sock: socket.socket) -> bool:
    return fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4) != b"\0" * 4
