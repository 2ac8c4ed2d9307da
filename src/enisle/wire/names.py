"""What a keeper says to the resolver for an instance that asks for names inside of itself.

It connects to ``SOCKET_NAME`` in the run root for each question (``BY_UDP``) or connection (``BY_TCP``) and sends that
byte and the instance's id; then both speak as over TCP, each message after its length (RFC 1035, 4.2.2).
Standard library only: the launcher imports this.
"""

from __future__ import annotations

SOCKET_NAME = "names.sock"
NAMESERVER = "127.0.0.11"  # inside the instance, where images expect Docker's
BY_UDP, BY_TCP = b"u", b"t"
ID_BYTES = 64
HEAD_BYTES = 1 + ID_BYTES


def head(kind: bytes, instance_id: str) -> bytes:
    """What a connection begins with. ValueError for what is no whole id of an instance."""
    raw = instance_id.encode("ascii")
    if len(raw) != ID_BYTES:
        raise ValueError(f"{instance_id!r} is not the id of an instance")
    return kind + raw
