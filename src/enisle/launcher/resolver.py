"""Asking the resolver for an instance whose questions are heard inside of it (see wire.names)."""

from __future__ import annotations

import socket
from typing import NamedTuple

from enisle.wire.names import head


class Resolver(NamedTuple):
    """Where the questions of an instance go. ``path``: of the resolver's socket."""

    path: str
    instance_id: str

    def connect(self, kind: bytes, message: bytes = b"") -> socket.socket | None:
        """A connection on which that was said, not blocking; None when nobody is there, or has too much to do.

        ``kind``: BY_UDP or BY_TCP.
        """
        one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        said = head(kind, self.instance_id) + message
        try:
            one.connect(self.path)
            if one.send(said) == len(said):
                return one
        except OSError:
            pass
        one.close()
        return None
