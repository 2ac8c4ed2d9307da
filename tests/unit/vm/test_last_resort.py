"""A VM whose guest does not end when its workload is killed is ended; one that still writes its disk is waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from enisle.launcher.vm.last_resort import LOOKS, LastResort, written_bytes


class Clock:
    """A loop and a monitor of a test: time passes by ``tick``, the monitor answers with what it was given last."""

    def __init__(self) -> None:
        self.timers: list[Callable[[], None]] = []
        self.answer: dict[str, Any] | None = blocks(0)
        self.reasons: list[str] = []

    def call_later(self, delay_s: float, callback: Callable[[], None]) -> Clock:
        assert delay_s > 0
        self.timers.append(callback)
        return self

    def cancel(self) -> None:
        self.timers.clear()

    def execute(self, command: str, done: Callable[[dict[str, Any]], None]) -> None:
        assert command == "query-blockstats"
        if self.answer is not None:
            done(self.answer)

    def tick(self) -> None:
        due, self.timers = self.timers, []
        for callback in due:
            callback()


def blocks(*written: int) -> dict[str, Any]:
    return {"return": [{"stats": {"wr_bytes": each}} for each in written]}


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def last_resort(clock: Clock) -> LastResort:
    return LastResort(clock, clock, clock.reasons.append)  # type: ignore[arg-type]


def test_a_guest_that_does_nothing_is_ended(clock: Clock, last_resort: LastResort) -> None:
    last_resort.begin()
    last_resort.begin()
    assert len(clock.timers) == 1
    clock.tick()
    assert clock.reasons == []
    clock.tick()
    assert clock.reasons == ["it did not end when it was killed"]
    assert clock.timers == []


def test_a_monitor_that_does_not_answer_is_the_end(clock: Clock, last_resort: LastResort) -> None:
    clock.answer = None
    last_resort.begin()
    clock.tick()
    assert len(clock.reasons) == 1


def test_a_guest_that_writes_is_let_for_a_while(clock: Clock, last_resort: LastResort) -> None:
    last_resort.begin()
    for number in range(1, LOOKS):
        clock.answer = blocks(5, 1000 * number)
        clock.tick()
        assert clock.reasons == []
    clock.tick()
    assert len(clock.reasons) == 1


def test_what_has_ended_is_left_alone(clock: Clock, last_resort: LastResort) -> None:
    last_resort.cancel()
    last_resort.begin()
    last_resort.cancel()
    clock.tick()
    assert clock.reasons == []


@pytest.mark.parametrize("answer", [{}, {"return": 5}, {"return": [{}]}, {"return": [{"stats": {"wr_bytes": "x"}}]}])
def test_answers_that_make_no_sense(answer: dict[str, Any]) -> None:
    assert written_bytes(answer) is None
    assert written_bytes(blocks(1, 2)) == 3
