"""The end of a VM whose guest was told to kill its workload and does not: its kernel hangs, or is not ours any more."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enisle.launcher.vm.qmp import Qmp
    from enisle.launcher.wall import Loop

LOOK_EVERY_S = 6.0  # two looks are less than a client of kill or rm waits
LOOKS = 10


class LastResort:
    """``begin`` when the workload is killed; ``give_up`` is called with the reason when it has not ended in time.

    A guest that ends writes its disk first, which may take long: as long as it writes it is let, for a minute.
    """

    def __init__(self, loop: Loop, qmp: Qmp, give_up: Callable[[str], None]) -> None:
        self._loop = loop
        self._qmp = qmp
        self._give_up = give_up
        self._timer: Any = None
        self._looks = 0
        self._before: int | None = None
        self._written: int | None = None

    def begin(self) -> None:
        """Idempotent."""
        if self._timer is None:
            self._next()

    def cancel(self) -> None:
        """It has ended. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
        self._looks = LOOKS

    def _next(self) -> None:
        self._written = None
        self._qmp.execute("query-blockstats", self._counted)
        self._timer = self._loop.call_later(LOOK_EVERY_S, self._look)

    def _counted(self, answer: dict[str, Any]) -> None:
        self._written = written_bytes(answer)

    def _look(self) -> None:
        self._looks += 1
        moves = self._written is not None and (self._looks == 1 or self._written != self._before)
        if not moves or self._looks >= LOOKS:
            self._give_up("it did not end when it was killed")
            return
        self._before = self._written
        self._next()


def written_bytes(answer: dict[str, Any]) -> int | None:
    """What all disks have been written by an answer to query-blockstats; None when it is none."""
    try:
        return sum(int(disk["stats"]["wr_bytes"]) for disk in answer["return"])
    except (KeyError, TypeError, ValueError):
        return None
