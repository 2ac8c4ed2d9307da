"""The sockets that clients connect to."""

from __future__ import annotations

import contextlib
import grp
import logging
import os
import socket
from pathlib import Path

from enisle.errors import Invalid, Unavailable

SOCKET_MODE = 0o660

log = logging.getLogger("enisle.daemon")


def bind(path: Path, group: str) -> socket.socket:
    """A bound unix socket for root and the group (if there is one of that name); one left by an earlier enisled goes.

    The caller holds the run root, so nobody else can be listening there. Unavailable when it cannot be made.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            fresh.unlink()
        sock.bind(str(fresh))
        os.chmod(fresh, SOCKET_MODE)
        _give_to_group(fresh, group)
        sock.listen(1024)
        fresh.rename(path)
    except OSError as error:
        sock.close()
        raise Unavailable(f"socket {path} cannot be made: {error.strerror or error}") from error
    return sock


def bind_tcp(address: str) -> socket.socket:
    """A bound TCP socket for "HOST:PORT" or "[IPV6]:PORT". Invalid: no such address; Unavailable: it is taken."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise Invalid(f"api.listen {address!r} is not HOST:PORT")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise Invalid(f"api.listen {address!r} names no address: {error.strerror or error}") from error
    family, _, _, _, where = found[0]
    try:
        return socket.create_server(where[:2], family=family, backlog=128)
    except OSError as error:
        raise Unavailable(f"address {address} cannot be listened on: {error.strerror or error}") from error


def _give_to_group(path: Path, group: str) -> None:
    try:
        os.chown(path, 0, grp.getgrnam(group).gr_gid)
    except KeyError:
        log.debug("there is no group %s: only root can use the socket", group)
    except PermissionError:
        log.warning("%s could not be given to group %s", path, group)
