"""Execs, images, networks, volumes, events, health, commit, prune."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from enisle.contracts import Connection
from enisle.engine import committing
from enisle.engine.events import Events
from enisle.errors import Conflict, Denied, Internal, Invalid, NotFound, NotSupported, StartFailed, Unavailable
from enisle.linux.disk_usage import allocated_bytes
from enisle.model.event import Event
from enisle.model.ids import NetworkId
from enisle.model.instance import EndpointRequest, Healthcheck, HealthStatus, LogConfig, Mount, MountKind, Status
from enisle.model.network import Network
from enisle.model.process import ExecSpec
from enisle.model.resources import Resources
from tests.unit.engine.conftest import Bench, until
from tests.unit.engine.fakes import BUSYBOX


def connection() -> tuple[socket.socket, Connection]:
    ours, theirs = socket.socketpair()
    return ours, Connection(fd=theirs.detach(), stdin=True, stdout=True, stderr=True, framed=True)


async def test_an_exec_from_create_to_exit(bench: Bench) -> None:
    record, running = await bench.run("web")
    execs = bench.engine.execs
    exec_id = await execs.create("web", ExecSpec(command=("echo", "hi")))
    ours, theirs = connection()
    await execs.start(exec_id, theirs)
    with ours:
        assert ours.recv(100) == b"echo hi"
        assert ours.recv(100) == b""
    assert execs.get(exec_id).running and execs.of(record.id) == [exec_id]
    await execs.check_start(exec_id)  # dockerd tells it only when the response has begun
    with pytest.raises(Conflict, match="already running"):
        await execs.start(exec_id, None)
    await running.finish_exec(exec_id, 3)
    assert await execs.wait(exec_id) == 3
    assert [action for action in bench.actions() if "exec" in action] == [
        "exec_create: echo hi",
        "exec_start: echo hi",
        "exec_die",
    ]


async def test_an_exec_that_cannot_start_keeps_its_exit_code_and_closes_the_client(bench: Bench) -> None:
    await bench.run("web")
    exec_id = await bench.engine.execs.create("web", ExecSpec(command=("missing",)))
    ours, theirs = connection()
    with pytest.raises(StartFailed):
        await bench.engine.execs.start(exec_id, theirs)
    with ours:
        assert ours.recv(10) == b""
    assert bench.engine.execs.get(exec_id).exit_code == 127


async def test_a_fault_of_ours_in_an_exec_is_told_and_closes_the_client(bench: Bench) -> None:
    _, running = await bench.run("web")
    running.exec_fault = RuntimeError("a fault")
    exec_id = await bench.engine.execs.create("web", ExecSpec(command=("sh",)))
    ours, theirs = connection()
    with pytest.raises(Internal, match="a fault"):
        await bench.engine.execs.start(exec_id, theirs)
    with ours:
        assert ours.recv(10) == b""
    assert bench.engine.execs.get(exec_id).exit_code == 126


async def test_execs_end_with_their_instance(bench: Bench) -> None:
    _, running = await bench.run("web")
    exec_id = await bench.engine.execs.create("web", ExecSpec(command=("sh",)))
    await bench.engine.execs.start(exec_id, None)
    ended = await bench.engine.instances.prepare_wait("web")
    running.finish(0)
    await ended
    assert bench.engine.execs.get(exec_id).exit_code == 137
    with pytest.raises(Conflict, match="is not running"):
        await bench.engine.execs.create("web", ExecSpec(command=("sh",)))
    await bench.engine.instances.remove("web")
    with pytest.raises(NotFound, match="No such exec instance"):
        bench.engine.execs.get(exec_id)


async def test_image_removal_minds_its_users(bench: Bench) -> None:
    images = bench.engine.images
    await bench.create("web")
    with pytest.raises(Conflict, match=r"\(must force\) - container .* is using its referenced image bbbbbbbbbbbb"):
        await images.remove("busybox")
    with pytest.raises(Conflict, match="image is being used by stopped container"):
        await images.remove(BUSYBOX)
    assert [step.untagged for step in await images.remove("busybox", force=True)] == ["busybox:latest"]
    assert images.used_by(BUSYBOX)  # its layers stay as long as the container
    await bench.engine.instances.remove("web")
    assert [step.deleted for step in await images.remove(BUSYBOX)] == [BUSYBOX]


async def test_a_name_among_several_is_only_untagged(bench: Bench) -> None:
    await bench.engine.images.tag("busybox", "other:1")
    await bench.create("web")
    removed = await bench.engine.images.remove("other:1")
    assert [(step.untagged, step.deleted) for step in removed] == [("other:1", "")]
    await bench.engine.images.tag("busybox", "other:1")
    with pytest.raises(Conflict, match="referenced in multiple repositories"):
        await bench.engine.images.remove(BUSYBOX)


async def test_image_prune_keeps_what_is_used(bench: Bench) -> None:
    await bench.create("web")
    assert await bench.engine.images.prune(lambda _image: True, dangling_only=False) == ([], 0)
    await bench.engine.instances.remove("web")
    removed, freed = await bench.engine.images.prune(lambda _image: True, dangling_only=False)
    assert [step.deleted for step in removed] == [BUSYBOX] and freed == 1000


async def test_networks(bench: Bench) -> None:
    networks = bench.engine.networks
    made = await networks.create(Network(id=NetworkId(""), name="back"))
    with pytest.raises(Conflict, match="network with name back already exists"):
        await networks.create(Network(id=NetworkId(""), name="back"))
    record, running = await bench.run("web")
    await networks.connect("back", "web", EndpointRequest(network="", aliases=("db",)))
    assert running.nics == ["eth1"] and "db" in bench.networks.names[record.id]
    assert [each.name for each, _ in networks.members(made.id)] == ["web"]
    with pytest.raises(Denied, match="already exists in network back"):
        await networks.connect("back", "web", EndpointRequest(network=""))
    with pytest.raises(Denied, match="has active endpoints"):
        await networks.remove(made.id[:12])
    with pytest.raises(Denied, match="pre-defined"):
        await networks.remove("bridge")
    assert await networks.prune(lambda _network: True) == []
    await networks.disconnect("back", "web")
    assert running.nics == [] and len(bench.networks.attached) == 1
    assert await networks.prune(lambda _network: True) == ["back"]
    with pytest.raises(NotFound, match="network back not found"):
        await networks.get("back")


async def test_connecting_what_does_not_run_counts_from_the_next_start(bench: Bench) -> None:
    await bench.engine.networks.create(Network(id=NetworkId(""), name="back"))
    record = await bench.create("web")
    await bench.engine.networks.connect("back", "web", EndpointRequest(network=""))
    await bench.engine.instances.start("web")
    assert [endpoint.name for endpoint in bench.driver.launches[-1].endpoints] == ["eth0", "eth1"]
    await bench.engine.instances.stop(record.id)
    assert bench.networks.attached == {}


async def test_connecting_again_what_does_not_run_changes_what_it_asks_for(bench: Bench) -> None:
    await bench.engine.networks.create(Network(id=NetworkId(""), name="back"))
    await bench.create("web")
    await bench.engine.networks.connect("back", "web", EndpointRequest(network=""))
    await bench.engine.networks.connect("back", "web", EndpointRequest(network="", aliases=("db",)))
    spec = (await bench.engine.instances.get("web")).spec
    assert [(each.network, each.aliases) for each in spec.endpoints] == [("bridge", ()), ("back", ("db",))]


async def test_volumes(bench: Bench) -> None:
    volumes = bench.engine.volumes
    volume = await volumes.create("data", labels={"a": "b"})
    assert await volumes.create("data") == volume
    (Path(volume.mountpoint) / "file").write_bytes(b"x" * 8192)
    assert await volumes.size("data") >= 8192
    with pytest.raises(NotFound, match='plugin "nfs" not found'):
        await volumes.create("other", driver="nfs")
    with pytest.raises(Invalid, match='missing required option: "device"'):
        await volumes.create("other", options={"type": "nfs"})
    with pytest.raises(Invalid, match='invalid option: "x"'):
        await volumes.create("other", options={"x": "y"})
    bound = await volumes.create("bound", options={"type": "none", "o": "bind", "device": str(bench.root)})
    assert bound.mountpoint == str(bench.root)
    await volumes.remove("bound")
    assert bench.root.exists()
    names, freed = await volumes.prune(lambda _volume: True)
    assert names == ["data"] and freed >= 8192 and not Path(volume.mountpoint).exists()
    with pytest.raises(NotFound, match="get data: no such volume"):
        await volumes.remove("data")
    await volumes.remove("data", force=True)


async def test_events_from_the_past_and_the_future(bench: Bench) -> None:
    await bench.create("web")
    listener = bench.engine.events.subscribe(since_ns=1, match=lambda event: event.kind == "container")
    assert (await anext(listener)).action == "create"
    waiting = asyncio.ensure_future(anext(listener))
    await asyncio.sleep(0)
    bench.engine.events.publish(Event(kind="image", action="pull", actor="x"))
    bench.engine.events.publish(Event(kind="container", action="start", actor="y"))
    assert (await waiting).action == "start"
    assert isinstance(listener, AsyncIterator)


async def test_events_are_kept_over_a_restart_and_read_from_rotated_files(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    events = Events(path)
    for number in range(40_000):
        events.publish(Event(kind="container", action=f"a{number}", actor="x" * 64))
    events.close()
    with path.open("ab") as file:
        file.write(b'{"kind":"cut o')
    assert (tmp_path / "events.jsonl.1").exists()
    again = Events(path)
    first = again.recent[0].time
    past = [event.action async for event in again.subscribe(since_ns=1, until_ns=2**62 if first == 0 else first)]
    again.close()
    assert past[0] == "a0" and past == [f"a{number}" for number in range(len(past))] and len(past) > 30_000


async def test_health_checks(bench: Bench) -> None:
    check = Healthcheck(test=("CMD", "probe"), interval_ns=10**7, retries=1, timeout_ns=5 * 10**9)
    _, running = await bench.run("web", healthcheck=check)

    async def health() -> HealthStatus:
        state = (await bench.engine.instances.get("web")).state
        assert state.health is not None
        return state.health.status

    assert await health() is HealthStatus.STARTING
    slot = bench.engine._core.slots.find("web")
    for exit_code, expected in ((0, HealthStatus.HEALTHY), (1, HealthStatus.UNHEALTHY)):
        known = set(running.execs)
        await until(lambda known=known: bool(set(running.execs) - known))  # type: ignore[misc]
        (exec_id,) = set(running.execs) - known
        running.execs[exec_id].set_result(exit_code)
        await until(lambda expected=expected: slot.record.state.health.status is expected)  # type: ignore[misc, union-attr]
    state = (await bench.engine.instances.get("web")).state
    assert state.health is not None and [entry.output for entry in state.health.log] == ["probe", "probe"]
    assert [action for action in bench.actions() if "health" in action] == [
        "health_status: healthy",
        "health_status: unhealthy",
    ]


async def test_commit_takes_config_and_changes(bench: Bench) -> None:
    _, running = await bench.run("web", env=("A=1",))
    await bench.engine.instances.commit("web", reference="new:1", changes=["ENV B=2", "CMD run"])
    (config,) = bench.images.committed
    assert config.env == ("PATH=/bin", "A=1", "B=2") and config.command == ("/bin/sh", "-c", "run")
    assert not running.paused


async def test_update(bench: Bench) -> None:
    _, running = await bench.run("web")
    await bench.engine.instances.update("web", resources=Resources(memory_bytes=1 << 25), restart=None)
    assert running.spec.resources.memory_bytes == 1 << 25
    assert (await bench.engine.instances.get("web")).spec.resources.memory_bytes == 1 << 25


async def test_prune_and_size(bench: Bench) -> None:
    record = await bench.create("idle")
    await bench.run("busy")
    (bench.directory(record) / "upper" / "file").write_bytes(b"12345")
    assert await bench.engine.instances.size("idle") == (5, 1005)
    freed = allocated_bytes(bench.directory(record))
    assert await bench.engine.instances.prune(lambda _record: True) == ([record.id], freed)


async def test_stats_top_resize_of_what_does_not_run(bench: Bench) -> None:
    await bench.create("web")
    stats = await bench.engine.instances.stats("web")
    assert stats["memory_bytes"] == 0 and stats["nics"] == {}
    for refused in (bench.engine.instances.top("web"), bench.engine.instances.resize("web", 1, 2)):
        with pytest.raises(Conflict, match="is not running"):
            await refused


async def test_a_log_that_is_not_kept_cannot_be_read(bench: Bench) -> None:
    await bench.create("web", log=LogConfig(driver="none"))
    with pytest.raises(NotSupported, match="does not support reading"):
        await anext(bench.engine.instances.logs("web"))


async def test_wait_conditions(bench: Bench) -> None:
    record = await bench.create("web")
    assert (await bench.engine.instances.wait("web")).exit_code == 0
    with pytest.raises(Invalid, match="invalid condition"):
        await bench.engine.instances.prepare_wait("web", "never")
    removed = await bench.engine.instances.prepare_wait("web", "removed")
    await bench.engine.instances.remove(record.id)
    await removed


async def test_a_waiter_that_gives_up_is_forgotten(bench: Bench) -> None:
    await bench.run("web")
    waiter = asyncio.ensure_future(bench.engine.instances.wait("web", "next-exit"))
    await asyncio.sleep(0)
    waiter.cancel()
    await asyncio.sleep(0.01)
    assert bench.engine._core.slots.find("web").waiters == []


async def test_attach_to_what_runs_and_to_what_is_paused(bench: Bench) -> None:
    await bench.run("web")
    ours, theirs = connection()
    await bench.engine.instances.attach("web", theirs)
    with ours:
        assert ours.recv(100) == b"attached\n" and ours.recv(100) == b""
    await bench.engine.instances.pause("web")
    ours, theirs = connection()
    with ours, pytest.raises(Conflict, match="is paused"):
        await bench.engine.instances.attach("web", theirs)
    with pytest.raises(OSError):
        os.fstat(theirs.fd)


async def test_bind_mounts(bench: Bench) -> None:
    source = bench.root / "made" / "here"
    mounts = (Mount(kind=MountKind.BIND, target="/a/b", source=str(source), create_source=True, read_only=True),)
    await bench.run("web", mounts=mounts)
    (mount,) = bench.driver.launches[-1].mounts
    assert source.is_dir() and mount.options == ("rbind", "rprivate", "ro")
    for target in ("/", "relative", "/.."):
        with pytest.raises(Invalid):
            await bench.create(mounts=(Mount(kind=MountKind.TMPFS, target=target),))
    with pytest.raises(Invalid, match="Duplicate mount point: /a"):
        await bench.create(
            mounts=(Mount(kind=MountKind.TMPFS, target="/a"), Mount(kind=MountKind.TMPFS, target="/b/../a"))
        )


async def test_volume_is_copied_up_only_while_it_is_empty(bench: Bench) -> None:
    mounts = (Mount(kind=MountKind.VOLUME, target="/d", source="data"),)
    await bench.run("one", mounts=mounts)
    assert bench.driver.launches[-1].mounts[0].copy_up
    (Path((await bench.engine.volumes.get("data")).mountpoint) / "x").touch()
    await bench.run("two", mounts=mounts)
    assert not bench.driver.launches[-1].mounts[0].copy_up


async def test_system_counts(bench: Bench) -> None:
    await bench.run("web")
    await bench.create("idle")
    info = await bench.engine.system.info()
    assert (info["containers"], info["running"], info["stopped"]) == (2, 1, 1)
    usage = await bench.engine.system.disk_usage()
    assert len(usage.instances) == 2 and usage.images[0][1] == 2
    assert bench.engine.system.host_id() == bench.engine.system.host_id()
    assert (await bench.engine.instances.get("web")).state.status is Status.RUNNING


async def test_a_link_is_removed_alone(bench: Bench) -> None:
    await bench.run("db")
    record, _ = await bench.run("web", links=("db:store",))
    assert "store" in (bench.directory(record) / "hosts").read_text()
    with pytest.raises(Conflict, match="cannot remove the default link name"):
        await bench.engine.instances.remove("web", link=True)
    with pytest.raises(NotFound, match="No such link: /web/other"):
        await bench.engine.instances.remove("/web/other", link=True)
    await bench.engine.instances.remove("web/store", link=True)
    assert (await bench.engine.instances.get("web")).spec.links == ()


async def test_files_follow_the_networks_unless_they_were_changed(bench: Bench) -> None:
    await bench.engine.networks.create(Network(id=NetworkId(""), name="back"))
    record, _ = await bench.run("web")
    sharing, _ = await bench.run("beside", network_mode=f"container:{record.id}")
    await bench.engine.networks.connect("back", "web", EndpointRequest(network=""))
    addresses = [endpoint.ipv4.partition("/")[0] for endpoint in (await bench.engine.instances.get("web")).endpoints]
    assert len(addresses) == 2
    for each in (record, sharing):
        hosts = (bench.directory(each) / "hosts").read_text()
        assert all(f"{address}\t" in hosts for address in addresses)
    (bench.directory(record) / "hosts").write_text("mine\n")
    await bench.engine.networks.disconnect("back", "web")
    assert (bench.directory(record) / "hosts").read_text() == "mine\n"
    assert addresses[1] not in (bench.directory(sharing) / "hosts").read_text()


async def test_commit_of_an_instance_that_ends_meanwhile(bench: Bench) -> None:
    _, running = await bench.run("web")

    async def pause_too_late() -> None:
        running.finish(0)
        raise Unavailable("The keeper has ended.")

    running.pause = pause_too_late  # type: ignore[method-assign]
    await bench.engine.instances.commit("web", reference="new:1")
    assert len(bench.images.committed) == 1
    assert (await bench.engine.instances.get("web")).state.status == "exited"


async def test_commit_of_an_instance_that_cannot_be_paused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(committing, "SETTLE_TIMEOUT_S", 0.01)
    _, running = await bench.run("web")

    async def pause_in_vain() -> None:
        raise Unavailable("The keeper does not answer.")

    running.pause = pause_in_vain  # type: ignore[method-assign]
    with pytest.raises(Unavailable, match="does not answer"):
        await bench.engine.instances.commit("web")
    assert bench.images.committed == []
