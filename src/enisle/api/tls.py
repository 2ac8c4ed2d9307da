"""The API over TCP, with mutual TLS: whoever has no certificate of the settings' authority gets no further.

The API gives connections away as descriptors (``attach``, ``exec``), which a TLS connection is not: its keys live in
this process. So each client gets a socket pair. The API serves one end as if the client were local; this module ciphers
between the other end and the network, half-closes included. Such streams end with enisled; those of the
unix socket do not.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from enisle.errors import Invalid

HANDSHAKE_TIMEOUT_S = 10.0
STRANGERS = 128  # connections at a time that have not shown their certificate yet
_GONE_CHECK_S = 5.0
_READ_BYTES = 65536

_log = logging.getLogger(__name__)

Adopt = Callable[[socket.socket], Awaitable[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsFiles:
    """PEM files: the authority that clients' certificates must be of, our certificate with its chain, its key."""

    ca: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """For servers; demands a certificate of the client. Invalid names the file that is missing or wrong."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.verify_mode = ssl.CERT_REQUIRED
        for path in (self.ca, self.certificate, self.key):
            if not os.access(path, os.R_OK):
                raise Invalid(f"TLS file {path} cannot be read.", remedy="See ca, certificate and key in [api].")
        try:
            context.load_verify_locations(self.ca)
        except (OSError, ssl.SSLError) as error:
            raise Invalid(f"TLS file {self.ca} is no certificate of an authority: {error}.") from error
        try:
            context.load_cert_chain(self.certificate, self.key)
        except (OSError, ssl.SSLError) as error:
            raise Invalid(f"TLS files {self.certificate} and {self.key} are no pair: {error}.") from error
        return context


class TlsListener:
    """Accepts clients on a bound TCP socket and has the API adopt them. Files that change serve new connections."""

    def __init__(self, files: TlsFiles, adopt: Adopt) -> None:
        self._files = files
        self._adopt = adopt
        self._context = files.context()
        self._stamp = self._read_stamp()
        self._clients: set[_Client] = set()
        self.strangers = 0

    async def listen(self, sock: socket.socket) -> asyncio.AbstractServer:
        """Accept from now on."""
        return await asyncio.get_running_loop().create_server(self._make_client, sock=sock, backlog=128)

    def close(self) -> None:
        """End every connection, once what was answered is sent."""
        for client in list(self._clients):
            client.close()

    def _make_client(self) -> _Client:
        client = _Client(self._current_context(), self._adopt, self)
        self._clients.add(client)
        return client

    def forget(self, client: _Client) -> None:
        """The connection is gone."""
        self._clients.discard(client)

    def _current_context(self) -> ssl.SSLContext:
        stamp = self._read_stamp()
        if stamp != self._stamp:
            self._stamp = stamp
            try:
                self._context = self._files.context()
            except Invalid as error:
                _log.warning("new TLS files are not used: %s", error)
        return self._context

    def _read_stamp(self) -> list[tuple[int, int, int]]:
        found = []
        for path in (self._files.ca, self._files.certificate, self._files.key):
            with contextlib.suppress(OSError):
                status = path.stat()
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return found


class _Client(asyncio.Protocol):
    """The network's side of one connection."""

    def __init__(self, context: ssl.SSLContext, adopt: Adopt, listener: TlsListener) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._adopt = adopt
        self._listener = listener
        self._network: asyncio.Transport | None = None
        self._local: _Local | None = None
        self._opening: asyncio.Task[None] | None = None
        self._deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._network = network = cast(asyncio.Transport, transport)  # uvloop's is of no class of asyncio's
        self._listener.strangers += 1
        self._deadline = asyncio.get_running_loop().call_later(HANDSHAKE_TIMEOUT_S, network.abort)
        if self._listener.strangers > STRANGERS:
            network.abort()

    def data_received(self, data: bytes) -> None:
        self._incoming.write(data)
        self._advance()

    def eof_received(self) -> bool:
        self._incoming.write_eof()
        self._advance()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._known()
        self._network = None
        if self._opening is not None:
            self._opening.cancel()
        if self._local is not None:
            self._local.close()
        self._listener.forget(self)

    def pause_writing(self) -> None:
        if self._local is not None:
            self._local.pause()

    def resume_writing(self) -> None:
        if self._local is not None:
            self._local.resume()

    def close(self) -> None:
        """Send what is still to be sent, then end."""
        if self._network is not None:
            self._network.close()

    def pause(self) -> None:
        """Take nothing more from the network for now."""
        if self._network is not None:
            self._network.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if self._network is not None:
            self._network.resume_reading()

    def send(self, data: bytes) -> None:
        """Encrypt and send."""
        self._tls.write(data)
        self._flush()

    def send_eof(self) -> None:
        """Say that nothing more will come; the client may go on sending."""
        # SSL_shutdown has then sent its alert, and would like to wait for the client's.
        with contextlib.suppress(ssl.SSLError):
            self._tls.unwrap()
        self._flush()

    def _flush(self) -> None:
        if self._network is not None and (data := self._outgoing.read()):
            self._network.write(data)

    def _advance(self) -> None:
        try:
            if self._deadline is not None:
                self._tls.do_handshake()
                self._known()
                self._greet()
            elif self._local is not None:
                self._decrypt(self._local)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            _log.info("TLS client %s was turned away: %s", self._peer(), error.reason or error)
            self._flush()
            self.close()
            return
        self._flush()

    def _known(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
            self._listener.strangers -= 1

    def _greet(self) -> None:
        _log.info("TLS client %s: certificate of %s", self._peer(), _subject(self._tls.getpeercert() or {}))
        self.pause()
        self._opening = asyncio.get_running_loop().create_task(self._open())

    def _peer(self) -> str:
        address = self._network.get_extra_info("peername") if self._network is not None else None
        return f"{address[0]}:{address[1]}" if address else "(gone)"

    async def _open(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            theirs.setblocking(False)
            _, local = await asyncio.get_running_loop().create_unix_connection(lambda: _Local(self), sock=ours)
            await self._adopt(theirs)
        except BaseException:
            ours.close()
            theirs.close()
            self.close()
            raise
        self._local = local
        self.resume()
        self._advance()

    def _decrypt(self, local: _Local) -> None:
        while data := self._tls.read(_READ_BYTES):
            local.send(data)
        local.send_eof()


class _Local(asyncio.Protocol):
    """Our end of the socket pair; the API has the other."""

    def __init__(self, client: _Client) -> None:
        self._client = client
        self._transport: asyncio.Transport | None = None
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._client.send(data)

    def eof_received(self) -> bool:
        self._client.send_eof()
        self._check_gone()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._client.close()

    def pause_writing(self) -> None:
        self._client.pause()

    def resume_writing(self) -> None:
        self._client.resume()

    def pause(self) -> None:
        """Take nothing more from the API for now."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume(self) -> None:
        """Go on reading."""
        if self._transport is not None:
            self._transport.resume_reading()

    def send(self, data: bytes) -> None:
        """Hand on what the client sent."""
        if self._transport is not None:
            self._transport.write(data)

    def send_eof(self) -> None:
        """The client will send no more."""
        if self._transport is not None and not self._ended:
            self._ended = True
            self._transport.write_eof()

    def close(self) -> None:
        """The client is gone."""
        if self._transport is not None:
            self._transport.close()

    def _check_gone(self) -> None:
        """After the end of its data the other end is either closed, which nothing reports, or still takes input."""
        if self._transport is None:
            return
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket").fileno(), 0)
        if any(event & select.POLLHUP for _, event in poll.poll(0)):
            self._client.close()
        else:
            asyncio.get_running_loop().call_later(_GONE_CHECK_S, self._check_gone)


def _subject(certificate: Mapping[str, Any]) -> str:
    """The common name that a certificate was issued for."""
    names = [value for part in certificate.get("subject", ()) for key, value in part if key == "commonName"]
    return ", ".join(map(repr, names)) or "nobody in particular"
