"""What the events that were kept tell of instances, and what they leave out: enisled may be killed between a change and
the event of it, or the other way round. So that who follows the events sees whole lives, once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

from enisle.engine.announce import announce
from enisle.engine.core import Core
from enisle.engine.events import RING
from enisle.model.event import Event
from enisle.model.instance import Instance

_PASSING = frozenset({"exitCode", "execDuration", "execID", "signal", "comment", "imageID", "imageRef", "oldName"})


class History:
    """The past as it is told. What is older than the events at hand counts as told."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._reach = events[0].time if len(events) >= RING else 0
        self._lives: dict[str, list[Event]] = defaultdict(list)
        for event in events:
            if event.kind == "container":
                self._lives[event.actor].append(event)

    def tells(self, instance_id: str, action: str, since_ns: int) -> bool:
        """Whether it is told that this happened to the instance, then or later."""
        told = any(event.action == action and event.time >= since_ns for event in self._lives.get(instance_id, ()))
        return told or since_ns <= self._reach

    def unfinished(self) -> dict[str, Event]:
        """The last event of each instance whose creation is told and whose removal is not."""
        return {
            actor: events[-1]
            for actor, events in self._lives.items()
            if events[0].action == "create" and not any(event.action == "destroy" for event in events)
        }


def tell_creation(core: Core, past: History, record: Instance) -> None:
    """Tell that it was made, if that was not."""
    if not past.tells(record.id, "create", record.created_at):
        announce(core, record, "create")


def tell_start(core: Core, past: History, record: Instance, started_at: int) -> None:
    """Tell that it was started, if that was not."""
    if started_at and not past.tells(record.id, "start", started_at):
        announce(core, record, "start")


def tell_removals(core: Core, past: History) -> None:
    """Tell of those that are gone and were not told to be."""
    for actor, last in past.unfinished().items():
        if actor not in core.slots:
            attributes = {key: value for key, value in last.attributes.items() if key not in _PASSING}
            core.events.publish(replace(last, action="destroy", attributes=attributes, time=0))
