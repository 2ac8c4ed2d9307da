"""KeeperClient against a keeper played by the test."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from enisle.contracts import ExitReport
from enisle.drivers.base import nic_plan
from enisle.drivers.channel import Channel
from enisle.drivers.files import KeeperFiles
from enisle.drivers.keeper import KeeperClient, read_exit_file
from enisle.drivers.limits import limits_plan
from enisle.drivers.process import exec_process
from enisle.errors import Invalid, NotFound, StartFailed, Unavailable
from enisle.model.ids import ImageId, InstanceId
from enisle.model.instance import Endpoint, Instance, InstanceSpec
from enisle.model.process import ExecSpec
from enisle.wire.plans import LimitsPlan, NicPlan, ProcessPlan
from tests.unit.drivers.peer import Peer

INSTANCE = Instance(
    id=InstanceId("ab" * 32),
    name="calm_skye",
    created_at=1,
    spec=InstanceSpec(image="busybox", image_id=ImageId("sha256:" + "a" * 64)),
)


class Translator:
    """Plans as the walls make them, and a note of who was buried."""

    def __init__(self) -> None:
        self.buried: list[str] = []

    def exec_plan(self, instance: Instance, spec: ExecSpec) -> ProcessPlan:
        return exec_process(instance, "host", spec)

    def limits_plan(self, spec: InstanceSpec) -> LimitsPlan:
        return limits_plan(spec.resources)

    def nic_plan(self, endpoint: Endpoint) -> NicPlan:
        return nic_plan(endpoint)

    async def bury(self, instance: Instance) -> None:
        self.buried.append(instance.id)


class Scene:
    """A client and its keeper."""

    def __init__(self, directory: Path) -> None:
        self.peer = Peer()
        self.events: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        self.translator = Translator()
        self.exit_file = directory / "exit.json"

        async def on_event(name: str, fields: dict[str, Any]) -> None:
            self.events.put_nowait((name, fields))

        self.client = KeeperClient(
            instance=INSTANCE, exit_file=self.exit_file, translator=self.translator, on_event=on_event
        )
        self.channel = Channel(self.peer.ours, peer="The keeper", on_event=self.client.take_event)
        self.client.started_at = 77
        self.client.adopt(self.channel)


@pytest.fixture
async def scene(tmp_path: Path) -> Any:
    made = Scene(tmp_path)
    yield made
    made.client.abandon()
    made.peer.close()


async def test_the_exit_event_is_the_report(scene: Scene) -> None:
    event = {"event": "exit", "exit_code": 3, "oom_killed": True, "error": "", "finished_at": 99}
    await scene.peer.send(event)
    expected = ExitReport(exit_code=3, oom_killed=True, started_at=77, finished_at=99)
    assert await scene.client.wait() == expected
    scene.peer.close()
    await scene.channel.wait_closed()
    assert await scene.client.wait() == expected
    assert scene.translator.buried == []


async def test_a_keeper_that_goes_silently_left_its_report_in_the_file(scene: Scene) -> None:
    report = {"exit_code": 4, "oom_killed": False, "error": "", "started_at": 77, "finished_at": 78}
    scene.exit_file.write_text(json.dumps(report))
    scene.peer.close()
    assert await scene.client.wait() == ExitReport(exit_code=4, started_at=77, finished_at=78)


async def test_a_killed_keeper_gives_255_and_the_reason_and_is_buried(scene: Scene) -> None:
    stale = {"exit_code": 0, "oom_killed": False, "error": "", "started_at": 5, "finished_at": 6}
    scene.exit_file.write_text(json.dumps(stale))
    scene.peer.close()
    report = await scene.client.wait()
    assert (report.exit_code, report.started_at) == (255, 77)
    assert "killed" in report.error
    assert scene.translator.buried == [INSTANCE.id]
    with pytest.raises(Unavailable, match="is not running"):
        await scene.client.stats()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"exit_code": "x"}', '{"exit_code": null}'])
def test_damaged_exit_files_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "exit.json").write_text(content)
    assert read_exit_file(tmp_path / "exit.json") is None
    assert read_exit_file(tmp_path / "missing") is None


async def test_events_come_in_order(scene: Scene) -> None:
    for name in ("oom", "paused", "unpaused"):
        await scene.peer.send({"event": name})
    assert [(await scene.events.get())[0] for _ in range(3)] == ["oom", "paused", "unpaused"]


async def test_execs(scene: Scene) -> None:
    started = asyncio.create_task(scene.client.exec("e1", ExecSpec(command=("sh",)), INSTANCE, None))
    request = await scene.peer.expect("exec")
    assert request["process"]["args"] == ["sh"]
    assert "fds" not in request
    await scene.peer.answer(request, pid=5)
    assert await started == 5
    waiter = asyncio.create_task(scene.client.wait_exec("e1"))
    await scene.peer.send({"event": "exec_exit", "exec_id": "e1", "exit_code": 9})
    assert await waiter == 9
    assert await scene.client.wait_exec("e1") == 9
    with pytest.raises(NotFound):
        await scene.client.wait_exec("e2")


async def test_an_exec_that_cannot_start_is_forgotten(scene: Scene) -> None:
    started = asyncio.create_task(scene.client.exec("e1", ExecSpec(command=("nope",)), INSTANCE, None))
    await scene.peer.fail(await scene.peer.expect("exec"), "invalid", "executable file not found in $PATH", 127)
    with pytest.raises(StartFailed, match="not found") as caught:
        await started
    assert caught.value.exit_code == 127
    with pytest.raises(NotFound):
        await scene.client.wait_exec("e1")


async def test_execs_end_with_their_instance(scene: Scene) -> None:
    scene.client.learn({"pid": 3, "started_at": 77, "execs": [{"exec_id": "e1", "running": True}]})
    await scene.peer.send({"event": "exit", "exit_code": 0})
    assert await scene.client.wait_exec("e1") == 137


async def test_what_a_reconnect_learns(scene: Scene) -> None:
    execs = [{"exec_id": "old", "running": False, "exit_code": 6}, {"exec_id": "new", "running": True}]
    scene.client.learn({"pid": 3, "started_at": 80, "execs": execs})
    assert (scene.client.pid, scene.client.started_at) == (3, 80)
    assert await scene.client.wait_exec("old") == 6


# --- files ---------------------------------------------------------------------------------------------------------


async def chunks(*data: bytes) -> Any:
    for piece in data:
        yield piece


async def test_streams_of_files(scene: Scene) -> None:
    files = KeeperFiles(scene.channel)
    opening = asyncio.create_task(files.get("/etc"))
    request = await scene.peer.expect("files")
    assert (request["verb"], request["path"]) == ("get", "/etc")
    (pipe,) = scene.peer.fds
    content = bytes(range(256)) * 8192

    def write() -> None:
        with open(pipe, "wb", closefd=False, buffering=0) as file:
            view = memoryview(content)
            while view:
                view = view[file.write(view) :]

    writer = asyncio.create_task(asyncio.to_thread(write))
    stream = await opening
    received = b""
    async for piece in stream:
        received += piece
        if len(received) == len(content):
            await writer
            scene.peer.close_fds()
            await scene.peer.answer(request)
    assert received == content
    await files.close()


async def test_a_stream_that_cannot_begin_fails_at_once(scene: Scene) -> None:
    files = KeeperFiles(scene.channel)
    opening = asyncio.create_task(files.get("/nope"))
    request = await scene.peer.expect("files")
    await scene.peer.fail(request, "not_found", "Could not find the file /nope")
    scene.peer.close_fds()
    with pytest.raises(NotFound, match="/nope"):
        await opening


async def test_a_stream_that_breaks_off_fails_at_its_end(scene: Scene) -> None:
    files = KeeperFiles(scene.channel)
    opening = asyncio.create_task(files.export())
    await scene.peer.expect("files")
    with open(scene.peer.fds[0], "wb", closefd=False) as file:
        file.write(b"half")
    stream = await opening
    assert await anext(stream) == b"half"
    scene.peer.close()
    with pytest.raises(Unavailable):
        await anext(stream)


async def test_put_streams_plain_bytes(scene: Scene) -> None:
    import gzip

    files = KeeperFiles(scene.channel)
    content = b"tar" * 100_000
    packed = gzip.compress(content)
    source = chunks(packed[:3], packed[3:700], packed[700:])
    putting = asyncio.create_task(files.put("/x", source, no_overwrite_dir_non_dir=True, copy_uid_gid=False))
    request = await scene.peer.expect("files")
    assert (request["verb"], request["no_overwrite_dir_non_dir"], request["copy_uid_gid"]) == ("put", True, False)

    def read() -> bytes:
        with open(scene.peer.fds[0], "rb", closefd=False) as file:
            return file.read()

    assert await asyncio.to_thread(read) == content
    await scene.peer.answer(request)
    await putting


async def test_put_ends_when_it_is_refused(scene: Scene) -> None:
    files = KeeperFiles(scene.channel)
    asked = asyncio.Event()

    async def endless() -> Any:
        while True:
            asked.set()
            yield b"x" * 65536

    putting = asyncio.create_task(files.put("/x", endless(), no_overwrite_dir_non_dir=False, copy_uid_gid=False))
    request = await scene.peer.expect("files")
    await asked.wait()
    await scene.peer.fail(request, "invalid", "extraction point is not a directory")
    with pytest.raises(Invalid, match="extraction point"):
        await putting


async def test_put_of_a_damaged_archive(scene: Scene) -> None:
    files = KeeperFiles(scene.channel)
    source = chunks(b"\x1f\x8b\x08\0" + b"\xff" * 64)
    putting = asyncio.create_task(files.put("/x", source, no_overwrite_dir_non_dir=False, copy_uid_gid=False))
    await scene.peer.expect("files")
    with pytest.raises(Invalid, match="cannot be decompressed"):
        await putting
