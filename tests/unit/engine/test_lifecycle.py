"""Create, start, stop, wait, remove."""

from __future__ import annotations

import asyncio
import os
import socket
from functools import partial

import pytest

from enisle.contracts import Connection
from enisle.engine import stopping
from enisle.engine.engine import Engine
from enisle.errors import Conflict, Internal, Invalid, NotFound, NotModified, StartFailed
from enisle.formats.records import decode
from enisle.model.image import ImageConfig
from enisle.model.instance import (
    Instance,
    Mount,
    MountKind,
    PublishedPort,
    RestartKind,
    RestartPolicy,
    Status,
)
from tests.unit.engine.conftest import Bench, until


async def stored(bench: Bench, record: Instance) -> Instance | None:
    await bench.engine._journal.flush()
    entry = await bench.store.get(f"instances/{record.id}")
    return decode(Instance, entry[0]) if entry else None


def status(engine: Engine, record: Instance) -> Status:
    return engine._core.slots.find(record.id).status


async def test_create_completes_the_spec_and_stores_it(bench: Bench) -> None:
    record = await bench.create("web", env=("A=1",))
    assert record.spec.env == ("PATH=/bin", "A=1")
    assert record.spec.hostname == record.id[:12]
    assert (await stored(bench, record)) == record
    assert bench.directory(record).is_dir()
    assert bench.actions() == ["create"]


async def test_lookup_by_name_id_and_prefix(bench: Bench) -> None:
    record = await bench.create("web")
    for ref in ("web", "/web", record.id, record.id[:12], record.id[:3]):
        assert (await bench.engine.instances.get(ref)).id == record.id
    with pytest.raises(NotFound, match="No such container: nope"):
        await bench.engine.instances.get("nope")


async def test_names_are_unique(bench: Bench) -> None:
    record = await bench.create("web")
    with pytest.raises(Conflict) as failure:
        await bench.create("web")
    assert str(failure.value) == (
        f'Conflict. The container name "/web" is already in use by container "{record.id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )
    with pytest.raises(Invalid, match="Invalid container name"):
        await bench.create("-x")


async def test_a_failed_create_leaves_nothing(bench: Bench) -> None:
    mounts = (
        Mount(kind=MountKind.VOLUME, target="/data"),
        Mount(kind=MountKind.BIND, target="/b", source="/does/not/exist"),
    )
    with pytest.raises(Invalid, match="bind source path does not exist"):
        await bench.create("web", mounts=mounts)
    assert bench.engine.instances.all() == []
    assert bench.engine.volumes.all() == []
    assert list((bench.root / "data" / "instances").iterdir()) == []
    await bench.create("web")


async def test_unknown_runtime_image_and_network(bench: Bench) -> None:
    with pytest.raises(Invalid, match="unknown or invalid runtime name: x"):
        await bench.create(runtime="x")
    with pytest.raises(Invalid, match="network nope not found"):
        await bench.create(network_mode="nope")
    bench.images.images.clear()
    with pytest.raises(NotFound, match="No such image: busybox"):
        await bench.create()


async def test_start_runs_and_exit_is_recorded(bench: Bench) -> None:
    record, running = await bench.run("web")
    assert status(bench.engine, record) is Status.RUNNING
    waiter = await bench.engine.instances.prepare_wait("web", "not-running")
    running.finish(3)
    report = await waiter
    assert report.exit_code == 3
    after = await bench.engine.instances.get("web")
    assert (after.state.status, after.state.exit_code, after.state.pid) == (Status.EXITED, 3, 0)
    assert (await stored(bench, record)) == after
    assert bench.networks.attached == {}
    assert bench.actions() == ["create", "connect", "start", "disconnect", "die"]


async def test_start_twice_is_not_modified(bench: Bench) -> None:
    await bench.run("web")
    with pytest.raises(NotModified):
        await bench.engine.instances.start("web")


async def test_a_missing_command_is_recorded_with_127(bench: Bench) -> None:
    record = await bench.create("web", command=("missing",), ports=(PublishedPort(container_port=80),))
    with pytest.raises(StartFailed):
        await bench.engine.instances.start("web")
    after = await bench.engine.instances.get("web")
    assert (after.state.status, after.state.exit_code) == (Status.CREATED, 127)
    assert "executable file not found" in after.state.error
    assert bench.networks.attached == {} and bench.networks.published == {}
    assert after.endpoints == () and (await stored(bench, record)) == after


async def test_auto_remove(bench: Bench) -> None:
    record, running = await bench.run("web", auto_remove=True, mounts=(Mount(kind=MountKind.VOLUME, target="/data"),))
    waiter = await bench.engine.instances.prepare_wait("web", "removed")
    running.finish(7)
    assert (await waiter).exit_code == 7
    assert not bench.directory(record).exists()
    assert await stored(bench, record) is None
    with pytest.raises(NotFound):
        await bench.engine.instances.get("web")


async def test_auto_remove_of_what_never_started(bench: Bench) -> None:
    await bench.create("web", command=("missing",), auto_remove=True)
    waiter = await bench.engine.instances.prepare_wait("web", "removed")
    with pytest.raises(StartFailed):
        await bench.engine.instances.start("web")
    assert (await waiter).exit_code == 127
    assert bench.engine.instances.all() == []


async def test_stop_sends_the_signal_then_kills(bench: Bench) -> None:
    _, running = await bench.run("web", stop_signal="SIGUSR1")
    running.ignored = {10}
    await bench.engine.instances.stop("web", timeout_s=0)
    assert [number for number, _ in running.signals] == [10, 9]
    after = await bench.engine.instances.get("web")
    assert (after.state.exit_code, after.state.manually_stopped) == (137, True)
    with pytest.raises(NotModified):
        await bench.engine.instances.stop("web")


async def test_kill(bench: Bench) -> None:
    _, running = await bench.run("web")
    running.ignored = {1}
    await bench.engine.instances.kill("web", "HUP")
    assert running.signals == [(1, "")]
    with pytest.raises(Invalid, match="Invalid signal: NOPE"):
        await bench.engine.instances.kill("web", "NOPE")
    await bench.engine.instances.kill("web")
    with pytest.raises(Conflict, match="is not running"):
        await bench.engine.instances.kill("web")


async def test_remove_refuses_what_runs_unless_forced(bench: Bench) -> None:
    record, running = await bench.run("web")
    with pytest.raises(Conflict, match="container is running: stop the container before removing or force remove"):
        await bench.engine.instances.remove("web")
    await bench.engine.instances.remove("web", force=True)
    assert running.signals == [(9, "")]
    assert bench.engine.instances.all() == [] and not bench.directory(record).exists()


async def test_rename(bench: Bench) -> None:
    await bench.create("aa")
    await bench.create("bb")
    with pytest.raises(Conflict):
        await bench.engine.instances.rename("aa", "bb")
    await bench.engine.instances.rename("aa", "cc")
    assert (await bench.engine.instances.get("cc")).name == "cc"
    await bench.create("aa")


async def test_pause_and_unpause(bench: Bench) -> None:
    _, running = await bench.run("web")
    await bench.engine.instances.pause("web")
    assert running.paused
    for refused in (bench.engine.instances.pause("web"), bench.engine.instances.start("web")):
        with pytest.raises(Conflict):
            await refused
    with pytest.raises(Conflict, match="paused and must be unpaused first"):
        await bench.engine.instances.remove("web")
    await bench.engine.instances.unpause("web")
    assert not running.paused


async def test_restart_does_not_trigger_auto_remove(bench: Bench) -> None:
    record, first = await bench.run("web", auto_remove=True)
    await bench.engine.instances.restart("web")
    assert first.signals == [(15, "")]
    assert bench.driver.running[record.id] is not first


async def test_restart_policy_starts_again_until_stopped(bench: Bench) -> None:
    record, running = await bench.run("web", restart=RestartPolicy(kind=RestartKind.ALWAYS))
    running.finish(1)
    await until(lambda: len(bench.driver.launches) == 2 and status(bench.engine, record) is Status.RUNNING)
    assert (await bench.engine.instances.get("web")).state.restart_count == 1
    await bench.engine.instances.stop("web")
    assert status(bench.engine, record) is Status.EXITED


async def test_stop_during_the_backoff(bench: Bench) -> None:
    record, running = await bench.run("web", restart=RestartPolicy(kind=RestartKind.ALWAYS))
    ended = await bench.engine.instances.prepare_wait("web", "next-exit")
    running.finish(1)
    await ended
    assert status(bench.engine, record) is Status.RESTARTING
    await bench.engine.instances.stop("web")
    assert status(bench.engine, record) is Status.EXITED
    assert len(bench.driver.launches) == 1


@pytest.mark.parametrize("verb", ["stop", "kill", "remove"])
async def test_an_end_that_meets_a_restart_under_way_ends_it(bench: Bench, verb: str) -> None:
    """A VM takes seconds to start, which its policy may do just when the user wants it to end."""
    instances = bench.engine.instances
    record, running = await bench.run("web", restart=RestartPolicy(kind=RestartKind.ALWAYS))
    bench.driver.may_start.clear()
    running.finish(1)
    await until(lambda: len(bench.driver.launches) == 2)
    ends = {"stop": instances.stop, "kill": instances.kill, "remove": partial(instances.remove, force=True)}
    ending = asyncio.create_task(ends[verb]("web"))
    await asyncio.sleep(0.02)
    bench.driver.may_start.set()
    await ending
    await asyncio.sleep(0.3)  # longer than the backoff
    assert len(bench.driver.launches) == 2 and not bench.driver.running
    assert verb == "remove" or status(bench.engine, record) is Status.EXITED


async def test_a_kill_waits_as_long_as_others_end(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "KILL_TIMEOUT_S", 0.2)
    record, stuck = await bench.run("stuck")
    _, other = await bench.run("other")
    stuck.ignored.add(9)
    ending = asyncio.create_task(bench.engine.instances.kill("stuck"))
    await asyncio.sleep(0.1)
    other.finish(0)
    await asyncio.sleep(0.2)
    assert not ending.done()
    with pytest.raises(Internal, match="did not receive an exit event"):
        await ending
    stuck.finish(137)
    await until(lambda: status(bench.engine, record) is Status.EXITED)


async def test_attach_before_start_is_handed_to_the_launch(bench: Bench) -> None:
    await bench.create("web")
    ours, theirs = socket.socketpair()
    connection = Connection(fd=theirs.detach(), stdin=True, stdout=True, stderr=True, framed=True, initial=b"early")
    await bench.engine.instances.attach("web", connection)
    await bench.engine.instances.start("web")
    assert bench.driver.launches[0].connections == (connection,)
    with ours:
        assert ours.recv(100) == b"attached\n"
        assert ours.recv(100) == b""  # our copy of the keeper's end is closed


async def test_an_early_client_that_goes_is_dropped(bench: Bench) -> None:
    record = await bench.create("web")
    early = bench.engine._core.slots.find("web").early
    ours, theirs = socket.socketpair()
    fd = theirs.detach()
    await bench.engine.instances.attach("web", Connection(fd=fd, stdin=True, stdout=True, stderr=True, framed=True))
    ours.shutdown(socket.SHUT_WR)
    await asyncio.sleep(0.02)
    assert len(early) == 1  # the end of its input is not the end of the client
    ours.close()
    await until(lambda: len(early) == 0)
    with pytest.raises(OSError):
        os.fstat(fd)
    await bench.engine.instances.start(record.id)
    assert bench.driver.launches[0].connections == ()


async def test_ports_and_publish_all(bench: Bench) -> None:
    record, _ = await bench.run(
        "web", ports=(PublishedPort(container_port=80, host_port=8080),), exposed_ports=("443/tcp",), publish_all=True
    )
    bound = (await bench.engine.instances.get("web")).bound_ports
    assert [(port.container_port, port.host_port) for port in bound] == [(80, 8080), (443, 32769)]
    other = await bench.create("other", ports=(PublishedPort(container_port=80, host_port=8080),))
    with pytest.raises(Conflict, match="port is already allocated"):
        await bench.engine.instances.start("other")
    assert len(bench.networks.attached) == 1
    await bench.engine.instances.stop(record.id)
    await bench.engine.instances.start(other.id)


async def test_joining_another_network_namespace(bench: Bench) -> None:
    first = await bench.create("first")
    second = await bench.create("second", network_mode="container:first")
    assert second.spec.network_mode == f"container:{first.id}"
    with pytest.raises(Conflict, match="non running container"):
        await bench.engine.instances.start("second")
    await bench.engine.instances.start("first")
    await bench.engine.instances.start("second")
    assert bench.driver.launches[-1].joins == {"net": bench.driver.running[first.id].pid}
    assert (bench.directory(second) / "hosts").read_bytes() == (bench.directory(first) / "hosts").read_bytes()


async def test_volumes_named_anonymous_and_from(bench: Bench) -> None:
    bench.images.put("sha256:" + "e" * 64, "db:latest", ImageConfig(command=("db",), volumes=("/var/lib/db",)))
    spec_mounts = (Mount(kind=MountKind.VOLUME, target="/named", source="named"),)
    first = await bench.create("first", mounts=spec_mounts, volumes=("/anonymous/../x",))
    assert {mount.target: mount.name for mount in first.mounts}["/named"] == "named"
    assert "/x" in {mount.target for mount in first.mounts}
    second = await bench.create("second", volumes_from=("first:ro",))
    assert all(mount.read_only for mount in second.mounts) and len(second.mounts) == 2
    with pytest.raises(Invalid, match="No such container: nobody"):
        await bench.create("third", volumes_from=("nobody",))
    with pytest.raises(Invalid, match="No such image: nothing"):
        await bench.create("third", mounts=(Mount(kind=MountKind.IMAGE, target="/i", source="nothing"),))
    with pytest.raises(Conflict, match="volume is in use"):
        await bench.engine.volumes.remove("named")
    await bench.engine.instances.remove("first", volumes=True)
    assert len(bench.engine.volumes.all()) == 2  # the anonymous one is still lent to the second
    await bench.engine.instances.remove("second", volumes=True)
    assert [volume.name for volume in bench.engine.volumes.all()][-1:] == ["named"]


async def test_many_are_listed_quickly(bench: Bench) -> None:
    await asyncio.gather(*(bench.create(network_mode="none") for _ in range(300)))
    names = {record.name for record in bench.engine.instances.all()}
    assert len(names) == 300
    created = [record.created_at for record in bench.engine.instances.all()]
    assert created == sorted(created, reverse=True)


@pytest.mark.parametrize("auto_remove", [False, True])
async def test_a_fault_of_ours_in_a_start_leaves_no_client_waiting(bench: Bench, auto_remove: bool) -> None:
    record = await bench.create("web", auto_remove=auto_remove)
    bench.driver.start_fault = RuntimeError("a fault")
    ours, theirs = socket.socketpair()
    with ours:
        client = Connection(fd=theirs.detach(), stdin=True, stdout=True, stderr=True, framed=True)
        await bench.engine.instances.attach("web", client)
        conditions = ("removed", "next-exit") if auto_remove else ("next-exit",)
        waiters = [await bench.engine.instances.prepare_wait("web", condition) for condition in conditions]
        with pytest.raises(Internal, match="could not be started: a fault"):
            await bench.engine.instances.start("web")
        assert ours.recv(1) == b""
    assert [(await waiter).exit_code for waiter in waiters] == [128] * len(waiters)
    assert bench.networks.attached == {}
    bench.driver.start_fault = None
    if not auto_remove:
        await bench.engine.instances.start(record.id)


async def test_who_waits_for_a_removal_that_fails_is_told(bench: Bench) -> None:
    _record, running = await bench.run("web", auto_remove=True)
    waiter = await bench.engine.instances.prepare_wait("web", "removed")
    bench.driver.destroy_fault = OSError("the disk is gone")
    running.finish(0)
    with pytest.raises(Internal, match="the disk is gone"):
        await waiter
    assert (await bench.engine.instances.get("web")).state.status is Status.DEAD
    bench.driver.destroy_fault = None
    await bench.engine.instances.remove("web")


async def test_an_end_is_told_even_if_addresses_cannot_be_given_back(bench: Bench) -> None:
    _record, running = await bench.run("web")
    waiter = await bench.engine.instances.prepare_wait("web")
    bench.networks.attached.clear()  # to give back what is not there is a KeyError
    running.finish(5)
    assert (await waiter).exit_code == 5
