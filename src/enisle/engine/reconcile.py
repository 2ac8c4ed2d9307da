"""What enisled does first: bring its records and what an earlier enisled left into agreement.

Workloads, exit codes and logs belong to the keepers, so nothing here may end one that runs. Every step can be cut
short and begun again.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from enisle.contracts import ExitReport
from enisle.engine import boot as boot_order
from enisle.engine import health, history, launch, removal, supervision
from enisle.engine.addressing import release_all
from enisle.engine.core import Core
from enisle.engine.create import RECORD_NAME, copy_record
from enisle.engine.execs import Execs
from enisle.engine.history import History
from enisle.engine.mounts import volume_names
from enisle.engine.restart import should_start_on_boot
from enisle.engine.slots import PREFIX, Slot
from enisle.errors import EnisleError, Internal
from enisle.formats.records import decode
from enisle.model.ids import ExecId
from enisle.model.instance import Instance, Status, publisher
from enisle.model.process import Exec, ExecSpec

EXIT_FILE = "exit.json"
_UNKNOWN_EXIT = 255
_ENDED_UNSEEN = "it ended while enisled did not run, and left no exit code: the host went down or its keeper was killed"

log = logging.getLogger("enisle.engine")


async def reconcile(core: Core, execs: Execs, *, store_was_lost: bool) -> None:
    """Load all records, adopt what runs, settle what ended, finish what was cut short, start what is to run."""
    unreadable: set[str] = set()
    for key, value, _revision in await core.store.scan(PREFIX):
        try:
            record = decode(Instance, value)
        except Internal as error:
            log.error("record %s is passed over, its directory is kept: %s", key, error)
            unreadable.add(key.removeprefix(PREFIX))
            continue
        core.slots.adopt(record)
        core.volumes.hold(record)
    if store_was_lost:
        await core.volumes.adopt_directories()
        await _adopt_lost_records(core)
    past = History(core.events.recent)
    history.tell_removals(core, past)
    boot = []
    for slot in core.slots:
        history.tell_creation(core, past, slot.record)
        if not (core.directory(slot.id) / RECORD_NAME).exists():
            copy_record(core, slot.id)
        try:
            if await _reconcile_one(core, execs, slot, past):
                boot.append(slot)
        except EnisleError as error:
            log.error("container %s could not be reconciled: %s", slot.id[:12], error)
    await core.volumes.storage.resume()
    if not store_was_lost:
        await _delete_orphans(core, unreadable)
        await core.volumes.sweep()
    boot_order.start_in_order(core, boot)


async def _reconcile_one(core: Core, execs: Execs, slot: Slot, past: History) -> bool:
    """Make one record true; whether its restart policy wants it started now."""
    state = slot.record.state
    if state.status in (Status.REMOVING, Status.DEAD):
        async with slot.lock:
            await removal.remove_locked(core, slot, volumes=slot.record.spec.auto_remove)
        return False
    if slot.alive or core.keeper_directory(slot.id).exists():
        running = await core.driver(slot.record).reconnect(slot.record, launch.event_handler(core, slot))
        if running is not None and await _adopt_running(core, execs, slot, running):
            history.tell_start(core, past, slot.record, running.started_at)
            return False
    report = _exit_report(core.directory(slot.id) / EXIT_FILE)
    if report is not None and report.finished_at <= state.finished_at:
        report = None
    was_alive = slot.alive
    if was_alive or report is not None:
        await _settle_unseen(core, slot, report, past)
    elif slot.record.endpoints or slot.record.bound_ports:
        await release_all(core, slot)
        core.slots.change(slot, endpoints=(), bound_ports=())
    return _wants_boot(slot)


async def _adopt_running(core: Core, execs: Execs, slot: Slot, running: Any) -> bool:
    """Take over a keeper that lives; False when its workload has ended."""
    status = await running.status()
    if status.get("state") not in ("running", "paused", "starting"):
        return False
    slot.running = running
    for name in volume_names(slot.record):
        core.volumes.storage.note_use(name, slot.id)
    wanted = Status.PAUSED if status["state"] == "paused" else Status.RUNNING
    state = slot.record.state
    if state.status is not wanted or state.pid != running.pid:
        core.slots.change_state(slot, status=wanted, pid=running.pid, started_at=running.started_at)
    for session in status.get("execs") or []:
        execs.adopt(slot, _exec_of(slot, session))
    exposed_by = publisher(slot.record.endpoints)
    if slot.record.bound_ports and exposed_by is not None:
        await core.network_provider.republish(slot.id, exposed_by, slot.record.bound_ports)
    supervision.watch(core, slot)
    health.watch(core, slot)
    return True


def _exec_of(slot: Slot, session: dict[str, Any]) -> Exec:
    """A session as far as its keeper knows it; what was asked for is not kept there."""
    running = bool(session.get("running"))
    return Exec(
        id=ExecId(str(session["exec_id"])),
        instance=slot.record.id,
        spec=ExecSpec(command=()),
        running=running,
        pid=int(session.get("pid") or 0) if running else 0,
        exit_code=None if running else int(session.get("exit_code") or 0),
        created_at=time.time_ns(),
    )


async def _settle_unseen(core: Core, slot: Slot, report: ExitReport | None, past: History) -> None:
    """Record an end that nobody saw. Restarts are decided afterwards, by the rules of a boot."""
    if report is None and slot.status is Status.RESTARTING:
        core.slots.change_state(slot, status=Status.EXITED)
        return
    if report is None:
        report = ExitReport(exit_code=_UNKNOWN_EXIT, error=_ENDED_UNSEEN, finished_at=time.time_ns())
    slot.restarting = not slot.record.spec.auto_remove  # no policy of a running engine applies
    started_at = report.started_at or slot.record.state.started_at
    history.tell_start(core, past, slot.record, started_at)
    try:
        async with slot.lock:
            await supervision.settle(core, slot, report, told=past.tells(slot.id, "die", max(started_at, 1)))
    finally:
        slot.restarting = False


def _exit_report(path: Path) -> ExitReport | None:
    """What a keeper wrote before it ended; None when there is no such file, or none that makes sense."""
    try:
        values = json.loads(path.read_bytes())
        return ExitReport(
            exit_code=int(values["exit_code"]),
            oom_killed=bool(values.get("oom_killed")),
            error=str(values.get("error") or ""),
            started_at=int(values.get("started_at") or 0),
            finished_at=int(values["finished_at"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is no exit report: %s", path, error)
        return None


def _wants_boot(slot: Slot) -> bool:
    state = slot.record.state
    if slot.removed or state.status is not Status.EXITED:
        return False
    return should_start_on_boot(
        slot.record.spec.restart,
        exit_code=state.exit_code,
        manually_stopped=state.manually_stopped,
        restart_count=state.restart_count,
    )


async def _delete_orphans(core: Core, kept: set[str]) -> None:
    """Directories of instances that no record names: creations that were cut short before their commit."""
    root = core.settings.data_root / "instances"
    for entry in list(os.scandir(root)):
        if entry.name in core.slots or entry.name in kept or not entry.is_dir(follow_symlinks=False):
            continue
        if core.keeper_directory(entry.name).exists():
            log.error("%s belongs to an instance that runs, but has no record: it is left alone", entry.path)
            continue
        log.info("removing %s, left by a creation that was cut short", entry.path)
        for driver in core.drivers.values():
            await driver.destroy(Path(entry.path))
        removal.delete_directory(Path(entry.path))


async def _adopt_lost_records(core: Core) -> None:
    """After the store was lost: take the records that lie in the instances' directories."""
    root = core.settings.data_root / "instances"
    for entry in os.scandir(root):
        path = Path(entry.path) / RECORD_NAME
        if entry.name in core.slots or not path.is_file():
            continue
        try:
            record = decode(Instance, path.read_bytes())
            core.slots.claim_name(record.name, record.id)
            await core.slots.add(record)
        except EnisleError as error:
            log.error("%s could not be taken back: %s", path, error)
            continue
        core.volumes.hold(record)
        log.warning("container %s (%s) was taken back from %s", record.id[:12], record.name, path)
