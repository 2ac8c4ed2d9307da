"""``enisle system dial-stdio``: the daemon's socket on stdin and stdout, for clients that come by SSH."""

from __future__ import annotations

import os
import socket
import threading

from enisle.cli.command import Command, Context
from enisle.cli.flags import Options

_READ_BYTES = 65536


def dial_stdio(context: Context, options: Options, arguments: list[str]) -> None:
    """Copy both ways until the daemon has closed the connection, or nobody reads what it says."""
    from enisle.sdk import address

    with address.connect(context.client.address) as connection:
        threading.Thread(target=_send, args=(connection,), daemon=True).start()
        while data := connection.recv(_READ_BYTES):
            view = memoryview(data)
            while view:
                view = view[os.write(1, view) :]


def _send(connection: socket.socket) -> None:
    while data := os.read(0, _READ_BYTES):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


DIAL_STDIO = Command(
    summary="Connect stdin and stdout to the daemon (used by ssh:// addresses)",
    usage="",
    run=dial_stdio,
    most=0,
)
