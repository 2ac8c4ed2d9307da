"""The keeper's end of the agent channel: sessions, flow control, and guests that mean harm."""

import errno
import os
import random
import struct
from collections.abc import Iterator

import pytest

from enisle.launcher.vm.calls import GuestCall
from enisle.launcher.vm.protocol import (
    INPUT_WINDOW_BYTES,
    MAX_FROM_GUEST_BYTES,
    OUTPUT_WINDOW_BYTES,
    Call,
    FromGuest,
    Stage,
    ToGuest,
)
from enisle.launcher.vm.session import GuestSession
from enisle.launcher.wall import WallError
from tests.unit.vm.guest_end import HEADER, Channel, Events


@pytest.fixture
def channel() -> Iterator[Channel]:
    made = Channel()
    yield made
    made.agent.close()
    made.guest.close()


@pytest.fixture
def events() -> Events:
    return Events()


def started(channel: Channel, events: Events) -> GuestSession:
    session = GuestSession(channel.agent, b"body", events, events.done)
    assert channel.hear() == (ToGuest.RUN, 1, b"body")
    channel.say(FromGuest.STARTED, 1, struct.pack("<I", 42))
    assert events.result is session
    assert session.pid == 0  # what the guest says is a number of its own
    return session


def test_a_session_from_start_to_exit(channel: Channel, events: Events) -> None:
    started(channel, events)
    channel.say(FromGuest.OUTPUT, 1, b"out", stream=1)
    channel.say(FromGuest.OUTPUT, 1, b"err", stream=2)
    channel.say(FromGuest.EXITED, 1, struct.pack("<I", 7))
    assert (events.output, events.errors, events.exit_code, events.closed) == (b"out", b"err", 7, False)
    channel.say(FromGuest.CLOSED, 1)
    assert events.closed
    assert channel.told == []


def test_a_start_that_fails_is_worded_as_docker_words_it(channel: Channel, events: Events) -> None:
    GuestSession(channel.agent, b"", events, events.done)
    channel.say(FromGuest.FAILED, 1, bytes([Stage.EXEC]) + struct.pack("<I", errno.ENOENT) + b"nope")
    assert isinstance(events.result, WallError)
    assert events.result.exit_code == 127
    assert 'exec: "nope": executable file not found in $PATH' in events.result.message


def test_control_frames(channel: Channel) -> None:
    channel.say(FromGuest.HELLO, 0, struct.pack("<I", 1))
    channel.say(FromGuest.READY)
    channel.say(FromGuest.OOM)
    assert channel.told == [("hello", 1), ("ready", None), "oom"]


def test_paused_output_is_held_and_its_credit_with_it(channel: Channel, events: Events) -> None:
    session = started(channel, events)
    session.pause_output()
    for _ in range(OUTPUT_WINDOW_BYTES // 32_000):
        channel.say(FromGuest.OUTPUT, 1, b"x" * 32_000, stream=1)
    channel.say(FromGuest.CLOSED, 1)
    assert events.output == b""
    assert not events.closed
    session.resume_output()
    assert len(events.output) == OUTPUT_WINDOW_BYTES // 32_000 * 32_000
    assert events.closed


def test_credit_is_granted_as_output_is_consumed(channel: Channel, events: Events) -> None:
    started(channel, events)
    channel.say(FromGuest.OUTPUT, 1, b"x" * 32_000, stream=1)
    channel.say(FromGuest.OUTPUT, 1, b"x" * 32_000, stream=1)
    channel.say(FromGuest.OUTPUT, 1, b"x" * 10_000, stream=1)
    kind, number, body = channel.hear()
    assert (kind, number, struct.unpack("<I", body)[0]) == (ToGuest.CREDIT, 1, 74_000)


def test_input_waits_for_room_and_ends_after_what_was_queued(channel: Channel, events: Events) -> None:
    session = started(channel, events)
    data = os.urandom(INPUT_WINDOW_BYTES + 300_000)
    assert not session.write_stdin(data)
    session.close_stdin()
    received = b""
    while True:
        channel.run()
        kind, _, body = channel.hear()
        if kind == ToGuest.INPUT_END:
            break
        assert kind == ToGuest.INPUT
        received += body
        channel.say(FromGuest.INPUT_CREDIT, 1, struct.pack("<I", len(body)))
    assert received == data
    assert events.drained == 1


def test_the_end_of_the_machine_ends_every_session(channel: Channel, events: Events) -> None:
    started(channel, events)
    waiting = Events()
    GuestSession(channel.agent, b"", waiting, waiting.done)
    channel.agent.close(255)
    assert (events.exit_code, events.closed) == (255, True)
    assert isinstance(waiting.result, WallError)


def test_what_had_arrived_is_delivered_before_the_end(channel: Channel, events: Events) -> None:
    started(channel, events)
    channel.guest.sendall(HEADER.pack(4, 1, FromGuest.OUTPUT, 1) + b"last")
    channel.guest.sendall(HEADER.pack(4, 1, FromGuest.EXITED, 0) + struct.pack("<I", 3))
    channel.agent.close()
    assert (events.output, events.exit_code) == (b"last", 3)


def fault(channel: Channel) -> str:
    [(kind, reason)] = [told for told in channel.told if isinstance(told, tuple)]
    assert kind == "fault"
    return str(reason)


def test_a_frame_of_a_gibibyte_is_refused_at_its_header(channel: Channel, events: Events) -> None:
    started(channel, events)
    channel.guest.sendall(HEADER.pack(1 << 30, 1, FromGuest.OUTPUT, 1))
    channel.run()
    assert "1073741824 bytes" in fault(channel)


def test_output_beyond_what_was_granted_ends_the_guest(channel: Channel, events: Events) -> None:
    session = started(channel, events)
    session.pause_output()
    for _ in range(OUTPUT_WINDOW_BYTES // MAX_FROM_GUEST_BYTES + 1):
        channel.say(FromGuest.OUTPUT, 1, b"x" * MAX_FROM_GUEST_BYTES, stream=1)
    assert "not granted" in fault(channel)


@pytest.mark.parametrize(
    ("kind", "body", "stream"),
    [
        (FromGuest.OUTPUT, b"", 1),
        (FromGuest.OUTPUT, b"x", 3),
        (FromGuest.STARTED, b"123", 0),
        (FromGuest.INPUT_CREDIT, b"\xff\xff\xff\xff", 0),
        (FromGuest.HELLO, b"\0\0\0\0", 0),
        (200, b"", 0),
    ],
)
def test_frames_without_sense_end_the_guest(
    channel: Channel, events: Events, kind: int, body: bytes, stream: int
) -> None:
    started(channel, events)
    channel.say(kind, 1, body, stream)
    assert "broke the protocol" in fault(channel)


def test_a_flood_of_frames_for_nobody_ends_the_guest(channel: Channel) -> None:
    frame = HEADER.pack(0, 999, FromGuest.CLOSED, 0)
    for _ in range(50):
        if not channel.told:
            channel.guest.sendall(frame * 100)
            channel.run()
    assert "flood" in fault(channel)


def test_a_guest_that_does_not_read_is_given_up(channel: Channel, events: Events) -> None:
    started(channel, events)
    for _ in range(400):
        channel.agent.send(ToGuest.CLOCK, body=b"x" * 65536)
    assert "does not read" in fault(channel)


def test_garbage_never_raises_into_the_loop(capfd: pytest.CaptureFixture[str]) -> None:
    source = random.Random(3)
    for _ in range(150):
        made, events = Channel(), Events()
        GuestSession(made.agent, b"", events, events.done)
        made.guest.sendall(source.randbytes(source.randrange(1, 400)))
        made.run_until(lambda: False, idle_s=0.001)
        made.agent.close()
        made.guest.close()
    assert "Traceback" not in capfd.readouterr().err


def test_calls_collect_their_answer(channel: Channel) -> None:
    results: list[bytes | WallError] = []
    GuestCall(channel.agent, Call.STATS, b"arguments", limit=100, done=results.append)
    assert channel.hear() == (ToGuest.CALL, 1, b"\1arguments")
    channel.say(FromGuest.OUTPUT, 1, b"a 1\n", stream=1)
    channel.say(FromGuest.CLOSED, 1)
    assert results == []
    channel.say(FromGuest.EXITED, 1, b"\0\0\0\0")
    assert results == [b"a 1\n"]


def test_a_failed_call_says_why_in_printable_words(channel: Channel) -> None:
    results: list[bytes | WallError] = []
    GuestCall(channel.agent, Call.STAT, b"", limit=100, done=results.append)
    channel.say(FromGuest.OUTPUT, 1, b"/x\x1b[2J: No such file", stream=2)
    channel.say(FromGuest.CLOSED, 1)
    channel.say(FromGuest.EXITED, 1, struct.pack("<I", 2))
    [error] = results
    assert isinstance(error, WallError)
    assert error.kind == "not_found"
    assert "\x1b" not in error.message


def test_an_answer_without_end_is_cut_off(channel: Channel) -> None:
    results: list[bytes | WallError] = []
    GuestCall(channel.agent, Call.TOP, b"", limit=1000, done=results.append)
    channel.hear()
    channel.hear()
    channel.say(FromGuest.OUTPUT, 1, b"x" * 1001, stream=1)
    [error] = results
    assert isinstance(error, WallError)
    assert "1000 bytes" in error.message
    assert channel.hear()[0] == ToGuest.ABORT
