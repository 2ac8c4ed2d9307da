"""A TLS connection as a plain socket: a thread encrypts and decrypts between a socket pair and the network.

Python's own TLS sockets can be neither half closed nor used by two threads, and an attached session needs both.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading

_READ_BYTES = 65536
_HELD_BYTES = 1 << 20  # of one direction at most, while the other side does not read


def through_tls(plain: socket.socket, context: ssl.SSLContext, host: str) -> socket.socket:
    """Shake hands on a connected socket, which becomes ours; the near end of the pair. Raises OSError."""
    try:
        pump = _Pump(plain, context, host)
        pump.shake_hands()
    except BaseException:
        plain.close()
        raise
    near, pump.far = socket.socketpair()
    threading.Thread(target=pump.run, name="tls", daemon=True).start()
    return near


class _Pump:
    def __init__(self, network: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self.far: socket.socket
        self._network = network
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=host)
        self._to_network, self._to_far = bytearray(), bytearray()
        self._network_ended = self._far_ended = self._far_gone = False

    def shake_hands(self) -> None:
        """With the time limit that the socket has."""
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._network.sendall(self._outgoing.read())
                data = self._network.recv(_READ_BYTES)
                if not data:
                    raise ConnectionResetError("the server closed the connection") from None
                self._incoming.write(data)
            else:
                self._network.sendall(self._outgoing.read())
                return

    def run(self) -> None:
        """Until both directions have ended, or either side is gone."""
        with self._network, self.far, contextlib.suppress(OSError):
            self._network.setblocking(False)
            self.far.setblocking(False)
            self._decrypt()
            while not self._done():
                self._step()

    def _done(self) -> bool:
        if self._to_network:
            return False
        return self._far_gone or (self._network_ended and self._far_ended and not self._to_far)

    def _step(self) -> None:
        poll = select.poll()
        poll.register(self._network, _events(self._network_ended, self._to_far, self._to_network))
        if not self._far_gone:
            poll.register(self.far, _events(self._far_ended, self._to_network, self._to_far))
        events = dict(poll.poll())
        far = events.get(self.far.fileno(), 0)
        if far & select.POLLHUP and not far & select.POLLIN:
            self._far_gone = True  # nobody is interested in answers any more
            return
        if far & select.POLLIN:
            self._take_far()
        if far & select.POLLOUT:
            del self._to_far[: self.far.send(self._to_far)]
            self._end_far()
        network = events.get(self._network.fileno(), 0)
        if network & select.POLLOUT:
            del self._to_network[: self._network.send(self._to_network)]
        if network & (select.POLLIN | select.POLLHUP | select.POLLERR) and not self._network_ended:
            self._take_network()

    def _take_far(self) -> None:
        data = self.far.recv(_READ_BYTES)
        if data:
            self._tls.write(data)
        else:
            self._far_ended = True
            # SSL_shutdown has then sent its alert, and would like to wait for the server's.
            with contextlib.suppress(ssl.SSLError):
                self._tls.unwrap()
        self._to_network += self._outgoing.read()

    def _take_network(self) -> None:
        data = self._network.recv(_READ_BYTES)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()
        self._decrypt()

    def _decrypt(self) -> None:
        try:
            while data := self._tls.read(_READ_BYTES):
                self._to_far += data
            self._network_ended = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self._network_ended = True
        self._to_network += self._outgoing.read()
        self._end_far()

    def _end_far(self) -> None:
        """What the server sent has been handed on, and there is no more."""
        if self._network_ended and not self._to_far:
            self.far.shutdown(socket.SHUT_WR)


def _events(ended: bool, held: bytearray, wanted: bytearray) -> int:
    """Read while there is room for it; write when there is something."""
    reads = select.POLLIN if not ended and len(held) < _HELD_BYTES else 0
    return reads | (select.POLLOUT if wanted else 0)
