"""Attach over a web socket: its messages are carried over a socket pair, one end of which a keeper holds."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

from aiohttp import WSMsgType, web

from enisle.errors import Invalid

_CHUNK_BYTES = 65536


async def relay(request: web.BaseRequest, hand_over: Callable[[int], Awaitable[None]]) -> web.StreamResponse:
    """Carry bytes both ways until one side ends. ``hand_over`` takes (and owns) the descriptor of the other end.

    Raises Invalid for a request that does not begin a web socket.
    """
    web_socket = web.WebSocketResponse(compress=False, max_msg_size=1 << 20)
    try:
        await web_socket.prepare(request)
    except web.HTTPBadRequest as error:
        raise Invalid(error.text or "not a web socket's handshake") from error
    ours, theirs = socket.socketpair()
    with ours:
        ours.setblocking(False)
        await hand_over(theirs.detach())
        incoming = asyncio.create_task(_incoming(web_socket, ours))
        try:
            await _outgoing(web_socket, ours)
        finally:
            incoming.cancel()
            await asyncio.gather(incoming, return_exceptions=True)
    await web_socket.close()
    return web_socket


async def _incoming(web_socket: web.WebSocketResponse, sock: socket.socket) -> None:
    """Browser -> instance; its going away is the end of input."""
    loop = asyncio.get_running_loop()
    async for message in web_socket:
        if message.type is WSMsgType.TEXT:
            await loop.sock_sendall(sock, message.data.encode())
        elif message.type is WSMsgType.BINARY:
            await loop.sock_sendall(sock, message.data)
    sock.shutdown(socket.SHUT_RDWR)


async def _outgoing(web_socket: web.WebSocketResponse, sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while data := await loop.sock_recv(sock, _CHUNK_BYTES):
        try:
            await web_socket.send_bytes(data)
        except ConnectionError:
            return
