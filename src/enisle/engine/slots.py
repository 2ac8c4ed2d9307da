"""The records of all instances in memory, found by id, name and id prefix, and written through to the store."""

from __future__ import annotations

import asyncio
from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from enisle.contracts import ExitReport, Running
from enisle.engine.early import EarlyClients
from enisle.engine.journal import Journal
from enisle.errors import Conflict, EnisleError, Invalid, NotFound
from enisle.formats.records import encode
from enisle.model.ids import check_name, is_id_prefix, new_name
from enisle.model.instance import ALIVE, Instance, InstanceState, MountKind, Status
from enisle.model.process import Exec

PREFIX = "instances/"


@dataclass(eq=False)
class Slot:
    """One instance: its record, and what of it lives only as long as this process.

    ``lock`` is held by whoever moves it from one state to another (start, the settling of an exit, remove, rename,
    update); signals do not take it. ``running`` is set from start to the settling of the exit.
    """

    record: Instance
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    running: Running | None = None
    supervisor: asyncio.Task[Any] | None = None
    restart_timer: asyncio.Task[Any] | None = None
    health: asyncio.Task[Any] | None = None
    early: EarlyClients = field(default_factory=EarlyClients)
    waiters: list[tuple[str, asyncio.Future[ExitReport]]] = field(default_factory=list)
    execs: dict[str, Exec] = field(default_factory=dict)
    restarting: bool = False  # a restart asked for by the user: neither policy nor auto-remove apply to its exit
    sick: bool = False  # its health check has failed, and it is being ended to be started again
    restart_attempts: int = 0  # since it last ran for long; the backoff grows with it
    removed: bool = False

    @property
    def id(self) -> str:
        return self.record.id

    @property
    def status(self) -> Status:
        return self.record.state.status

    @property
    def alive(self) -> bool:
        return self.record.state.status in ALIVE

    def add_waiter(self, condition: str) -> asyncio.Future[ExitReport]:
        """A future for the end named; it is forgotten when nobody awaits it any more."""
        future: asyncio.Future[ExitReport] = asyncio.get_running_loop().create_future()
        entry = (condition, future)
        self.waiters.append(entry)
        future.add_done_callback(lambda _done: self.waiters.remove(entry) if entry in self.waiters else None)
        return future

    def wake(self, *conditions: str) -> None:
        """Tell the waiters of these conditions how it ended."""
        report = self.report()
        for condition, future in list(self.waiters):
            if condition in conditions and not future.done():
                future.set_result(report)

    def wake_failed(self, condition: str, error: EnisleError) -> None:
        """Tell the waiters of this condition that it will not come true."""
        for waited, future in list(self.waiters):
            if waited == condition and not future.done():
                future.set_exception(error)
                future.exception()  # seen: not everybody awaits it

    def report(self) -> ExitReport:
        """How it ended last."""
        state = self.record.state
        return ExitReport(
            exit_code=state.exit_code,
            oom_killed=state.oom_killed,
            error=state.error,
            started_at=state.started_at,
            finished_at=state.finished_at,
        )


class Slots:
    """All instances. What is found is found without I/O; what is changed is in the store when the call returns."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._by_id: dict[str, Slot] = {}  # oldest first
        self._by_name: dict[str, str] = {}
        self._ids: list[str] = []  # sorted
        self._by_image: dict[str, set[str]] = {}

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    def __contains__(self, instance_id: str) -> bool:
        return instance_id in self._by_id

    def newest_first(self) -> list[Instance]:
        return [slot.record for slot in reversed(self._by_id.values())]

    def of_image(self, image_id: str) -> list[Slot]:
        return [self._by_id[instance_id] for instance_id in sorted(self._by_image.get(image_id, ()))]

    def find(self, ref: str) -> Slot:
        """By full id, name or unique id prefix. NotFound, Invalid (several) in Docker's wording."""
        slot = self._by_id.get(ref)
        if slot is not None:
            return slot
        name = ref.removeprefix("/")
        slot = self._by_id.get(self._by_name.get(name, ""))
        if slot is not None:
            return slot
        if is_id_prefix(ref):
            at = bisect_left(self._ids, ref)
            matches = [found for found in self._ids[at : at + 2] if found.startswith(ref)]
            if len(matches) == 1:
                return self._by_id[matches[0]]
            if matches:
                raise Invalid(f"Multiple IDs found with provided prefix: {ref}")
        raise NotFound(f"No such container: {ref}")

    def claim_name(self, name: str | None, instance_id: str) -> str:
        """Reserve a name (None: a new one) for an instance. Conflict in Docker's wording."""
        if name is None:
            return self._claim_new_name(instance_id)
        name = check_name(name.removeprefix("/"))
        holder = self._by_name.get(name)
        if holder is not None:
            raise Conflict(
                f'Conflict. The container name "/{name}" is already in use by container "{holder}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        self._by_name[name] = instance_id
        return name

    def _claim_new_name(self, instance_id: str) -> str:
        name = new_name()
        number = 0
        while name in self._by_name:
            number += 1
            name = f"{new_name()}{number}"
        self._by_name[name] = instance_id
        return name

    def release_name(self, name: str, instance_id: str) -> None:
        """Give up a claim; a name that meanwhile belongs to another instance stays."""
        if self._by_name.get(name) == instance_id:
            del self._by_name[name]

    def adopt(self, record: Instance) -> Slot:
        """Take in a record that is in the store already."""
        slot = Slot(record)
        self._by_id[record.id] = slot
        self._by_name[record.name] = record.id
        insort(self._ids, record.id)
        for image_id in _images_of(record):
            self._by_image.setdefault(image_id, set()).add(record.id)
        return slot

    async def add(self, record: Instance) -> Slot:
        """Store a new record; it can be found from then on."""
        await self._journal.note(PREFIX + record.id, encode(record))
        return self.adopt(record)

    def change(self, slot: Slot, **fields: Any) -> asyncio.Future[None]:
        """Change fields of a record, at once in memory; await the result where it must be in the store."""
        slot.record = replace(slot.record, **fields)
        return self._save(slot)

    def change_state(self, slot: Slot, **fields: Any) -> asyncio.Future[None]:
        """Change fields of a record's state, as ``change`` does."""
        state: InstanceState = replace(slot.record.state, **fields)
        return self.change(slot, state=state)

    def rename(self, slot: Slot, name: str) -> asyncio.Future[None]:
        """Give an instance a name that was claimed for it; the old one is free from then on."""
        self.release_name(slot.record.name, slot.id)
        return self.change(slot, name=name)

    def _save(self, slot: Slot) -> asyncio.Future[None]:
        if slot.removed:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            done.set_result(None)
            return done
        return self._journal.note(PREFIX + slot.id, encode(slot.record))

    async def discard(self, slot: Slot) -> None:
        """Forget an instance, in the store first."""
        await self._journal.note(PREFIX + slot.id, None)
        slot.removed = True
        self._by_id.pop(slot.id, None)
        self.release_name(slot.record.name, slot.id)
        at = bisect_left(self._ids, slot.id)
        if at < len(self._ids) and self._ids[at] == slot.id:
            del self._ids[at]
        for image_id in _images_of(slot.record):
            users = self._by_image.get(image_id)
            if users is not None:
                users.discard(slot.id)
                if not users:
                    del self._by_image[image_id]


def _images_of(record: Instance) -> set[str]:
    """The image it was made from, and those it mounts."""
    return {record.spec.image_id, *(mount.source for mount in record.mounts if mount.kind is MountKind.IMAGE)}
