"""Calls in both directions over a real socket."""

from __future__ import annotations

import asyncio
import socket

import pytest

from enisle.buildkit.grpc import Call, CallFailed, Calling, Code, Server, call
from enisle.buildkit.http2 import adopt
from enisle.buildkit.protobuf import Message
from enisle.buildkit.session_messages import Bytes, Empty
from enisle.errors import NotFound
from tests.unit.buildkit.peers import connected


async def echo(call: Call) -> None:
    while (piece := await call.receive(Bytes)) is not None:
        await call.send(piece)


async def fail(call: Call) -> Message:
    raise NotFound("no such thing: 100 % gone, é")


async def stumble(call: Call) -> Message:
    raise ValueError("a fault of ours")


async def test_streams_larger_than_every_window_pass_in_both_directions() -> None:
    async with connected({"/s/echo": echo}) as client, Calling(client, "/s/echo", []) as calling:
        sent = [bytes([number]) * 700_000 for number in range(12)]

        async def send() -> None:
            for piece in sent:
                await calling.send(Bytes(data=piece))
            await calling.end()

        sending = asyncio.create_task(send())
        assert [piece.data async for piece in calling.messages(Bytes)] == sent
        await sending


async def test_failures_have_their_code_and_text() -> None:
    async with connected({"/s/fail": fail, "/s/stumble": stumble}) as client:
        with pytest.raises(CallFailed, match="no such thing: 100 % gone, é") as failed:
            await call(client, "/s/fail", Empty(), Empty)
        assert failed.value.code == Code.NOT_FOUND
        with pytest.raises(CallFailed, match="internal error") as failed:
            await call(client, "/s/stumble", Empty(), Empty)
        assert failed.value.code == Code.INTERNAL
        with pytest.raises(CallFailed, match="unknown service x") as failed:
            await call(client, "/x/y", Empty(), Empty)
        assert failed.value.code == Code.UNIMPLEMENTED


async def test_a_call_that_the_client_gives_up_is_called_off() -> None:
    called_off = asyncio.Event()
    began = asyncio.Event()

    async def wait(call: Call) -> Message:
        began.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            called_off.set()
        return Empty()

    async with connected({"/s/wait": wait}) as client:
        waiting = asyncio.create_task(call(client, "/s/wait", Empty(), Empty))
        await began.wait()
        waiting.cancel()
        await asyncio.wait_for(called_off.wait(), 10)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\5\4\0\0\0\0\0abcde", bytes(64)]
)
async def test_bytes_that_are_no_http2_end_the_connection(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours:
        connection = await adopt(theirs.detach(), data, Server({}).accept)
        await asyncio.wait_for(connection.closed(), 10)


async def test_what_is_no_message_is_answered_with_a_status() -> None:
    async def read(call: Call) -> Message:
        return await call.request(Bytes)

    async with connected({"/s/read": read}) as client:
        for data, code in (
            (b"\1\0\0\0\0", Code.UNIMPLEMENTED),
            (b"\0\xff\xff\xff\xff", Code.RESOURCE_EXHAUSTED),
            (b"\0\0\0\0\2\x0a\x09", Code.INTERNAL),
            (b"\0\0\0\0\2\x0a", Code.INTERNAL),
        ):
            async with Calling(client, "/s/read", []) as calling:
                await calling._there.stream.write(data, end=True)
                with pytest.raises(CallFailed) as failed:
                    await calling.receive(Bytes)
                assert failed.value.code == code
