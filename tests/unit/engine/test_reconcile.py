"""What a restart of enisled finds: keepers that live, ends that nobody saw, things half done."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest

from enisle.engine.create import copy_record
from enisle.errors import NotFound
from enisle.formats.records import decode, encode
from enisle.model.instance import Instance, Mount, MountKind, PublishedPort, RestartKind, RestartPolicy, Status
from enisle.model.process import ExecSpec
from tests.unit.engine.conftest import Bench, until

ALWAYS = RestartPolicy(kind=RestartKind.ALWAYS)


async def status(bench: Bench, name: str) -> Status:
    return (await bench.engine.instances.get(name)).state.status


async def test_what_runs_is_adopted(bench: Bench) -> None:
    record, running = await bench.run("web", ports=(PublishedPort(container_port=80, host_port=80),))
    before = await bench.engine.instances.get("web")
    await bench.reopen()
    assert await bench.engine.instances.get("web") == before
    assert bench.networks.republished == [record.id]
    waiter = await bench.engine.instances.prepare_wait("web")
    running.finish(5)
    assert (await waiter).exit_code == 5
    assert len(bench.driver.launches) == 1


async def test_a_paused_one_stays_paused(bench: Bench) -> None:
    await bench.run("web")
    await bench.engine.instances.pause("web")
    await bench.reopen()
    assert await status(bench, "web") is Status.PAUSED
    await bench.engine.instances.unpause("web")


async def test_exec_sessions_are_learnt_again(bench: Bench) -> None:
    _, running = await bench.run("web")
    exec_id = await bench.engine.execs.create("web", ExecSpec(command=("sh",)))
    await bench.engine.execs.start(exec_id, None)
    await bench.reopen()
    assert bench.engine.execs.get(exec_id).running
    await running.finish_exec(exec_id, 4)
    assert await bench.engine.execs.wait(exec_id) == 4
    assert bench.engine.execs.get(exec_id).exit_code == 4


async def test_an_end_meanwhile_is_known_by_its_exit_code(bench: Bench) -> None:
    _, running = await bench.run("web")
    await bench.engine.close()
    running.finish(42, oom_killed=True, tell=False)
    await bench.open()
    after = (await bench.engine.instances.get("web")).state
    assert (after.status, after.exit_code, after.oom_killed) == (Status.EXITED, 42, True)
    assert bench.networks.attached == {}


async def test_an_end_without_a_report_is_255_with_a_reason(bench: Bench) -> None:
    record, _ = await bench.run("web")
    await bench.engine.close()
    del bench.driver.running[record.id]
    await bench.open()
    after = (await bench.engine.instances.get("web")).state
    assert (after.status, after.exit_code) == (Status.EXITED, 255)
    assert "left no exit code" in after.error


async def test_restart_policies_after_a_crash_of_the_host(bench: Bench) -> None:
    for name, policy in (
        ("always", ALWAYS),
        ("unless", RestartPolicy(kind=RestartKind.UNLESS_STOPPED)),
        ("failure", RestartPolicy(kind=RestartKind.ON_FAILURE)),
        ("nothing", RestartPolicy()),
    ):
        await bench.run(name, restart=policy)
    await bench.engine.close()
    bench.driver.running.clear()
    await bench.open()
    await until(lambda: len(bench.driver.running) == 3)
    names = {running.instance.name for running in bench.driver.running.values()}
    assert names == {"always", "unless", "failure"}
    assert await status(bench, "nothing") is Status.EXITED


async def test_what_the_user_stopped_is_started_only_by_always(bench: Bench) -> None:
    await bench.run("always", restart=ALWAYS)
    await bench.run("unless", restart=RestartPolicy(kind=RestartKind.UNLESS_STOPPED))
    for name in ("always", "unless"):
        await bench.engine.instances.stop(name)
    await bench.reopen()
    await until(lambda: len(bench.driver.running) == 1)
    assert await status(bench, "unless") is Status.EXITED


async def test_auto_remove_of_what_ended_meanwhile(bench: Bench) -> None:
    record, running = await bench.run("web", auto_remove=True)
    await bench.engine.close()
    running.finish(0, tell=False)
    await bench.open()
    assert bench.engine.instances.all() == [] and not bench.directory(record).exists()


async def test_a_creation_cut_short_leaves_nothing(bench: Bench) -> None:
    record = await bench.create("web", mounts=(Mount(kind=MountKind.VOLUME, target="/d", source="kept"),))
    await bench.engine.close()
    await bench.store.commit({}, deletes=[f"instances/{record.id}"])
    (bench.root / "data" / "volumes" / "stray" / "_data").mkdir(parents=True)
    await bench.open()
    assert bench.engine.instances.all() == [] and not bench.directory(record).exists()
    assert [volume.name for volume in bench.engine.volumes.all()] == ["kept"]
    assert not (bench.root / "data" / "volumes" / "stray").exists()


async def test_a_removal_cut_short_is_finished(bench: Bench) -> None:
    record = await bench.create("web")
    await bench.engine.close()
    cut = replace(record, state=replace(record.state, status=Status.REMOVING))
    await bench.store.commit({f"instances/{record.id}": encode(cut)})
    await bench.open()
    with pytest.raises(NotFound):
        await bench.engine.instances.get("web")
    assert not bench.directory(record).exists()


async def test_a_start_cut_short_before_the_keeper(bench: Bench) -> None:
    record, running = await bench.run("web")
    claimed = await bench.engine.instances.get("web")
    await bench.engine.close()
    running.finish(0, tell=False)
    (bench.directory(record) / "exit.json").unlink()
    await bench.store.commit({f"instances/{record.id}": encode(replace(claimed, state=record.state))})
    await bench.open()
    assert await status(bench, "web") is Status.CREATED
    assert bench.networks.attached == {}
    await bench.engine.instances.start("web")


async def test_a_start_cut_short_after_the_keeper(bench: Bench) -> None:
    record, running = await bench.run("web")
    claimed = await bench.engine.instances.get("web")
    await bench.engine.close()
    await bench.store.commit({f"instances/{record.id}": encode(replace(claimed, state=record.state))})
    await bench.open()
    after = await bench.engine.instances.get("web")
    assert (after.state.status, after.state.pid) == (Status.RUNNING, running.pid)
    assert after.endpoints == claimed.endpoints


async def test_a_start_and_an_end_that_no_record_tells_of(bench: Bench) -> None:
    record = await bench.create("web")
    await bench.engine.close()
    report = {"exit_code": 9, "finished_at": time.time_ns(), "started_at": time.time_ns() - 10**9}
    (bench.directory(record) / "exit.json").write_text(json.dumps(report))
    await bench.open()
    assert (await bench.engine.instances.get("web")).state.exit_code == 9
    await bench.reopen()
    assert bench.actions().count("die") == 1


async def test_after_the_loss_of_the_store_records_come_back(bench: Bench) -> None:
    record, running = await bench.run("web", mounts=(Mount(kind=MountKind.VOLUME, target="/d", source="data"),))
    copy_record(bench.engine._core, record.id)
    await bench.engine.close()
    for key, _, _ in await bench.store.scan(""):
        await bench.store.commit({}, deletes=[key])
    await bench.open(store_was_lost=True)
    assert (await bench.engine.instances.get("web")).state.pid == running.pid
    assert [volume.name for volume in bench.engine.volumes.all()] == ["data"]
    assert bench.engine.volumes.in_use_by("data") == [record.id]


async def test_reconciling_twice_gives_the_same(bench: Bench) -> None:
    _, running = await bench.run("web")
    await bench.create("idle")
    await bench.engine.close()
    running.finish(3, tell=False)
    await bench.open()
    first = await bench.store.scan("instances/")
    await bench.reopen()
    second = await bench.store.scan("instances/")
    assert [decode(Instance, value) for _, value, _ in first] == [decode(Instance, value) for _, value, _ in second]


async def test_an_unreadable_record_does_not_stop_the_others(bench: Bench) -> None:
    await bench.create("web")
    await bench.engine.close()
    await bench.store.commit({"instances/broken": b"{"})
    await bench.open()
    assert [record.name for record in bench.engine.instances.all()] == ["web"]
