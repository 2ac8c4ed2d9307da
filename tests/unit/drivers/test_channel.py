"""Frames and descriptors on the event loop."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator

import pytest
import uvloop

from enisle.drivers.channel import Channel
from enisle.errors import Conflict, Internal, StartFailed, Unavailable
from enisle.wire import frames
from enisle.wire.plans import ProcessPlan, from_json, to_json
from tests.unit.drivers.peer import Message, Peer


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


async def test_answers_find_their_requests_in_any_order(peer: Peer) -> None:
    channel = Channel(peer.ours, peer="The keeper")
    first, second = channel.post("one"), channel.post("two", {"x": 1})
    one, two = await peer.expect("one"), await peer.expect("two")
    assert two["x"] == 1
    await peer.answer(two, value=2)
    await peer.answer(one, value=1)
    assert ((await first)["value"], (await second)["value"]) == (1, 2)
    channel.close()


@pytest.mark.parametrize("word", ["plain", "\udcff is no UTF-8"])
async def test_plans_arrive_as_json(peer: Peer, word: str) -> None:
    channel = Channel(peer.ours, peer="The keeper")
    plan = ProcessPlan(args=[word], rlimits=[("NOFILE", 1, 1 << 70)])
    channel.post("exec", {"process": plan})
    received = (await peer.expect("exec"))["process"]
    assert received == json.loads(json.dumps(to_json(plan)))
    assert from_json(ProcessPlan, received).args == [word]
    channel.close()


async def test_failures_keep_kind_and_exit_code(peer: Peer) -> None:
    channel = Channel(peer.ours, peer="The keeper")
    cases = [("conflict", 0, Conflict), ("invalid", 127, StartFailed), ("nonsense", 0, Internal)]
    for kind, exit_code, expected in cases:
        future = channel.post("op")
        await peer.fail(await peer.receive(), kind, "no such thing", exit_code)
        with pytest.raises(expected, match="no such thing") as caught:
            await future
        if isinstance(caught.value, StartFailed):
            assert caught.value.exit_code == exit_code
    channel.close()


async def test_descriptors_arrive_and_stay_ours(peer: Peer) -> None:
    channel = Channel(peer.ours, peer="The keeper")
    reading, writing = os.pipe()
    channel.post("files", fds=[writing])
    request = await peer.expect("files")
    assert request["fds"] == len(peer.fds) == 1
    os.write(writing, b"a")
    os.write(peer.fds[0], b"b")
    assert os.read(reading, 9) == b"ab"
    os.close(reading)
    os.close(writing)
    channel.close()


async def test_a_peer_that_does_not_read_makes_us_wait_and_loses_nothing(peer: Peer) -> None:
    channel = Channel(peer.ours, peer="The keeper")
    reading, writing = os.pipe()
    big = "x" * (2 << 20)
    futures = [channel.post("big", {"data": big}), channel.post("small", fds=[writing])]
    os.close(writing)  # the channel has a duplicate while the frame waits
    message = await peer.expect("big")
    assert message["data"] == big
    await peer.answer(message)
    await peer.answer(await peer.expect("small"))
    await asyncio.gather(*futures)
    os.write(peer.fds[0], b"!")
    assert os.read(reading, 1) == b"!"
    os.close(reading)
    channel.close()


async def test_open_requests_fail_when_the_peer_goes(peer: Peer) -> None:
    channel = Channel(peer.ours, peer="The keeper")
    future = channel.post("op")
    peer.close()
    with pytest.raises(Unavailable, match="The keeper has ended"):
        await future
    assert not channel.is_open
    with pytest.raises(Unavailable):
        await channel.request("again")
    await channel.wait_closed()


@pytest.mark.parametrize("garbage", [b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x03{a}", b"\0\0\0\x01\xff"])
async def test_a_peer_that_talks_nonsense_is_dropped(peer: Peer, garbage: bytes) -> None:
    channel = Channel(peer.ours, peer="The keeper")
    future = channel.post("op")
    peer.raw(garbage)
    with pytest.raises(Unavailable):
        await future


async def test_odd_but_well_formed_messages_do_no_harm(peer: Peer) -> None:
    events: list[Message] = []
    channel = Channel(peer.ours, peer="The keeper", on_event=events.append)
    future = channel.post("op")
    request = await peer.receive()
    for message in ({"id": 999, "ok": {}}, {"id": "x", "ok": {}}, {"id": [1], "error": 5}, {"event": "oom"}):
        await peer.send(message)
    await peer.send({"id": request["id"], "error": "no object"})
    with pytest.raises(Internal):
        await future
    assert events == [{"event": "oom"}]
    channel.close()


async def test_a_silent_peer_runs_into_the_timeout(peer: Peer) -> None:
    channel = Channel(peer.ours, peer="The keeper")
    with pytest.raises(Unavailable, match=r"did not answer 'op' within 0\.01 s"):
        await channel.request("op", timeout_s=0.01)
    late = await peer.receive()
    await peer.answer(late)  # an answer that nobody waits for any more
    future = channel.post("next")
    await peer.answer(await peer.expect("next"), fine=True)
    assert (await future)["fine"]
    channel.close()


def test_the_end_is_noticed_on_uvloop_after_a_reset(peer: Peer) -> None:
    """A peer that ends with our request unread resets the connection; uvloop tells of that once."""

    async def life() -> None:
        channel = Channel(peer.ours, peer="The keeper")
        unread = channel.post("pause")
        peer.raw(frames.encode({"event": "ended"}))
        peer.close()
        await asyncio.wait_for(channel.wait_closed(), 5)
        with pytest.raises(Unavailable):
            await unread

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(life())
