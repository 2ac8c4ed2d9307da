"""Two ends of a connection that speaks gRPC."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from enisle.buildkit.grpc import Method, Server
from enisle.buildkit.http2 import Connection, adopt


@asynccontextmanager
async def connected(methods: Mapping[str, Method]) -> AsyncIterator[Connection]:
    """The client's end; at the other, the methods are served."""
    ours, theirs = socket.socketpair()
    server = await adopt(theirs.detach(), b"", Server(methods).accept)
    client = await adopt(ours.detach(), b"", None)
    try:
        yield client
    finally:
        client.close()
        server.close()
        await server.called_off()
        await server.lost
        await client.lost
