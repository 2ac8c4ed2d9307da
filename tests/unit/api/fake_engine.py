"""An engine without processes: enough of the real one's surface to drive every handler of the API."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from enisle.contracts import Connection, ExitReport, HostCapability, Progress, RegistryAuth, Removed, StoreUse
from enisle.engine.logs import LogRecord
from enisle.engine.system import DiskUsage
from enisle.errors import Conflict, NotFound, NotModified, StartFailed, Unauthenticated
from enisle.model.event import Event
from enisle.model.ids import Digest, ExecId, ImageId, InstanceId, NetworkId
from enisle.model.image import Descriptor, HistoryEntry, Image, ImageConfig, ImageVariant, Platform
from enisle.model.instance import Instance, InstanceSpec, InstanceState, Status
from enisle.model.network import AddressPool, Network
from enisle.model.process import Exec, ExecSpec
from enisle.model.runtime import OciRuntime
from enisle.model.volume import Volume

IMAGE_ID = ImageId("sha256:" + "a" * 64)
START_NS = 1_700_000_000_000_000_000


def number(index: int) -> str:
    """A 64-digit id."""
    return f"{index:064x}"


class FakeInstances:
    """Instances as records; ``attached`` collects connections, which the fake answers with ``hello``."""

    def __init__(self) -> None:
        self.records: dict[str, Instance] = {}
        self.waiters: dict[str, asyncio.Future[ExitReport]] = {}
        self.calls: list[tuple[Any, ...]] = []
        self.attached: list[Connection] = []
        self.keepers: list[asyncio.Task[None]] = []
        self.records_of_log: list[LogRecord] = []
        self.hello = b"hello\n"
        self.archive = b"tar bytes"
        self.received = b""

    def add(self, name: str, status: Status = Status.RUNNING, **spec: Any) -> Instance:
        instance = Instance(
            id=InstanceId(number(len(self.records) + 1)),
            name=name,
            created_at=START_NS + len(self.records),
            spec=InstanceSpec(image="busybox", image_id=IMAGE_ID, command=("sh",), **spec),
            state=InstanceState(status=status, started_at=START_NS, pid=7 if status is Status.RUNNING else 0),
        )
        self.records[instance.id] = instance
        return instance

    def _find(self, ref: str) -> Instance:
        for record in self.records.values():
            if ref in (record.name, record.id) or record.id.startswith(ref):
                return record
        raise NotFound(f"No such container: {ref}")

    async def create(self, spec: InstanceSpec, *, name: str | None, warnings: list[str]) -> Instance:
        if any(record.name == name for record in self.records.values()):
            raise Conflict(f'Conflict. The container name "/{name}" is already in use')
        instance = self.add(name or f"made_{len(self.records)}", Status.CREATED)
        instance = replace(instance, spec=replace(spec, image_id=IMAGE_ID))
        self.records[instance.id] = instance
        return instance

    async def get(self, ref: str) -> Instance:
        return self._find(ref)

    def all(self) -> list[Instance]:
        return list(self.records.values())

    def directory(self, instance_id: str) -> str:
        return f"/data/instances/{instance_id}"

    def _change(self, ref: str, **state: Any) -> None:
        record = self._find(ref)
        self.records[record.id] = replace(record, state=replace(record.state, **state))

    async def start(self, ref: str, *, detach_keys: str = "") -> None:
        record = self._find(ref)
        if record.state.status is Status.RUNNING:
            raise NotModified("it runs")
        if record.spec.command == ("missing",):
            raise StartFailed('exec: "missing": executable file not found in $PATH: unknown', exit_code=127)
        self._change(ref, status=Status.RUNNING, started_at=START_NS)

    def end(self, ref: str, code: int = 0) -> None:
        """The instance's process ends."""
        record = self._find(ref)
        self._change(ref, status=Status.EXITED, exit_code=code, finished_at=START_NS + 1)
        if waiter := self.waiters.pop(record.id, None):
            waiter.set_result(ExitReport(exit_code=code))

    async def stop(self, ref: str, *, timeout_s: int | None = None, signal: str = "") -> None:
        self.calls.append(("stop", ref, timeout_s, signal))
        self.end(ref)

    async def restart(self, ref: str, *, timeout_s: int | None = None, signal: str = "") -> None:
        self.calls.append(("restart", ref, timeout_s, signal))

    async def kill(self, ref: str, signal: str = "") -> None:
        self.calls.append(("kill", ref, signal))
        self.end(ref, 137)

    async def pause(self, ref: str) -> None:
        self._change(ref, status=Status.PAUSED)

    async def unpause(self, ref: str) -> None:
        self._change(ref, status=Status.RUNNING)

    async def rename(self, ref: str, name: str) -> None:
        record = self._find(ref)
        self.records[record.id] = replace(record, name=name)

    async def remove(self, ref: str, *, force: bool = False, volumes: bool = False, link: bool = False) -> None:
        record = self._find(ref)
        if record.state.status is Status.RUNNING and not force:
            raise Conflict(f'cannot remove container "/{record.name}": container is running')
        del self.records[record.id]

    async def update(self, ref: str, *, resources: Any, restart: Any) -> list[str]:
        self.calls.append(("update", ref, resources, restart))
        return []

    async def prepare_wait(self, ref: str, condition: str = "not-running") -> Awaitable[ExitReport]:
        record = self._find(ref)
        return self.waiters.setdefault(record.id, asyncio.get_running_loop().create_future())

    async def resize(self, ref: str, rows: int, columns: int) -> None:
        self.calls.append(("resize", ref, rows, columns))

    async def top(self, ref: str, ps_args: str = "") -> tuple[list[str], list[list[str]]]:
        return ["PID", "CMD"], [["7", "sh"]]

    async def stats(self, ref: str) -> dict[str, Any]:
        return {
            "read_at": START_NS,
            "cpu_total_ns": 5_000_000,
            "memory_bytes": 1 << 20,
            "memory_limit_bytes": 0,
            "pids": 1,
            "nics": {"eth0": {"rx_bytes": 10, "tx_bytes": 20}},
            "block_io": [[8, 0, "read", 4096]],
        }

    async def check_attach(self, ref: str) -> Instance:
        record = self._find(ref)
        if record.state.status is Status.PAUSED:
            raise Conflict(f"container {ref} is paused, unpause the container before attach")
        return record

    async def attach(self, ref: str, connection: Connection, *, logs: bool = False) -> None:
        self.attached.append(connection)
        self.keepers.append(asyncio.create_task(asyncio.to_thread(answer_as_keeper, connection, self.hello)))

    def logs(self, ref: str, **options: Any) -> AsyncIterator[LogRecord]:
        self.calls.append(("logs", ref, options))
        return self._logs(ref)

    async def _logs(self, ref: str) -> AsyncIterator[LogRecord]:
        self._find(ref)
        for record in self.records_of_log:
            yield record

    @contextlib.asynccontextmanager
    async def files(self, ref: str) -> AsyncIterator[FakeFiles]:
        self._find(ref)
        yield FakeFiles(self)

    def tell(self, ref: str, action: str) -> None:
        self.calls.append(("tell", ref, {"action": action}))

    async def commit(self, ref: str, **options: Any) -> ImageId:
        self.calls.append(("commit", ref, options))
        return IMAGE_ID

    async def prune(self, match: Callable[[Instance], bool]) -> tuple[list[str], int]:
        gone = [record.id for record in self.records.values() if record.state.status is Status.EXITED and match(record)]
        for instance_id in gone:
            del self.records[instance_id]
        return gone, 10 * len(gone)

    async def size(self, ref: str) -> tuple[int, int]:
        return 1, 2


class FakeFiles:
    """The files of every instance: one archive."""

    def __init__(self, instances: FakeInstances) -> None:
        self._instances = instances

    async def stat(self, path: str) -> dict[str, Any]:
        if path == "/missing":
            raise NotFound("Could not find the file /missing in container x")
        return {"name": path, "size": 3, "mode": 420, "mtime": "2023-11-14T22:13:20Z", "linkTarget": ""}

    async def get(self, path: str) -> AsyncIterator[bytes]:
        return pieces(self._instances.archive)

    async def put(self, path: str, source: AsyncIterator[bytes], **options: Any) -> None:
        self._instances.received = b"".join([chunk async for chunk in source])

    async def export(self) -> AsyncIterator[bytes]:
        return pieces(self._instances.archive)

    async def changes(self) -> list[tuple[str, int]]:
        return [("/etc", 0), ("/etc/new", 1)]


async def pieces(data: bytes) -> AsyncIterator[bytes]:
    """The data in small pieces."""
    for start in range(0, len(data), 4):
        yield data[start : start + 4]


def answer_as_keeper(connection: Connection, hello: bytes) -> None:
    """What a keeper does with a connection, once: say hello, echo what was read already, and end."""
    with socket.socket(fileno=connection.fd) as sock:
        sock.setblocking(True)
        sock.sendall(hello)
        if connection.stdin:
            sock.sendall(connection.initial)
            while data := sock.recv(65536):
                sock.sendall(data)


class FakeExecs:
    def __init__(self, instances: FakeInstances) -> None:
        self._instances = instances
        self.sessions: dict[str, Exec] = {}

    async def create(self, ref: str, spec: ExecSpec) -> ExecId:
        instance = await self._instances.get(ref)
        exec_id = ExecId(number(1000 + len(self.sessions)))
        self.sessions[exec_id] = Exec(id=exec_id, instance=instance.id, spec=spec)
        return exec_id

    def get(self, exec_id: str) -> Exec:
        if exec_id not in self.sessions:
            raise NotFound(f"No such exec instance: {exec_id}")
        return self.sessions[exec_id]

    def of(self, instance_id: str) -> list[str]:
        return [exec_id for exec_id, session in self.sessions.items() if session.instance == instance_id]

    async def check_start(self, exec_id: str) -> Exec:
        return self.get(exec_id)

    async def start(
        self, exec_id: str, connection: Connection | None, *, console_size: tuple[int, int] = (0, 0)
    ) -> None:
        session = self.get(exec_id)
        if session.spec.command == ("missing",):
            if connection is not None:
                os.close(connection.fd)
            self.sessions[exec_id] = replace(session, exit_code=127)
            raise StartFailed('exec: "missing": executable file not found in $PATH', exit_code=127)
        self.sessions[exec_id] = replace(session, exit_code=0)
        if connection is not None:
            await asyncio.to_thread(answer_as_keeper, connection, b"")

    async def resize(self, exec_id: str, rows: int, columns: int) -> None:
        self.get(exec_id)


class FakeImages:
    def __init__(self) -> None:
        self.image = Image(
            id=IMAGE_ID,
            config=ImageConfig(command=("sh",), env=("PATH=/bin",)),
            created="2023-11-14T22:13:20Z",
            diff_ids=(Digest("sha256:" + "b" * 64),),
            size_bytes=1234,
            repo_tags=("busybox:latest",),
        )
        self.pulled: list[tuple[str, Platform | None, RegistryAuth | None]] = []
        self.loaded = b""

    async def get(self, reference: str, platform: Platform | None = None) -> Image:
        if reference not in ("busybox", "busybox:latest", IMAGE_ID, "aaaaaaaaaaaa"):
            raise NotFound(f"No such image: {reference}")
        return self.image

    async def all(self) -> list[Image]:
        return [self.image]

    async def pull(
        self, reference: str, *, platform: Platform | None, auth: RegistryAuth | None, progress: Progress
    ) -> Image:
        if reference.startswith("missing"):
            raise NotFound(f"manifest for {reference} not found: manifest unknown")
        self.pulled.append((reference, platform, auth))
        progress({"status": "Pulling from library/busybox", "id": "latest"})
        await asyncio.sleep(0)
        if reference.startswith("broken"):
            raise NotFound("layer not found")
        progress({"status": "Status: Downloaded newer image for busybox:latest"})
        return self.image

    async def login(self, auth: RegistryAuth) -> None:
        if auth.password != "right":
            raise Unauthenticated("login attempt failed")

    async def distribution(self, reference: str, *, auth: RegistryAuth | None) -> tuple[Descriptor, list[Platform]]:
        descriptor = Descriptor(media_type="application/json", digest=Digest("sha256:" + "e" * 64), size=5)
        return descriptor, [Platform(architecture="arm64", variant="v8")]

    async def tags(self, repository: str, *, auth: RegistryAuth | None) -> list[str]:
        return ["1", "2"]

    async def variants(self, image: ImageId) -> list[ImageVariant]:
        return []

    async def push(
        self, reference: str, *, platform: Platform | None = None, auth: RegistryAuth | None, progress: Progress
    ) -> None:
        progress({"status": f"The push refers to repository [{reference}]"})

    async def tag(self, source: str, reference: str) -> None:
        await self.get(source)

    async def remove(self, reference: str, *, force: bool = False, prune_parents: bool = True) -> list[Removed]:
        await self.get(reference)
        return [Removed(untagged="busybox:latest"), Removed(deleted=IMAGE_ID)]

    async def history(
        self, reference: str, platform: Platform | None = None
    ) -> list[tuple[HistoryEntry, str, int, tuple[str, ...]]]:
        await self.get(reference)
        return [(HistoryEntry(created="2023-11-14T22:13:20Z", created_by="CMD"), IMAGE_ID, 0, ("busybox:latest",))]

    async def load(self, source: AsyncIterator[bytes], *, progress: Progress) -> list[str]:
        self.loaded = b"".join([chunk async for chunk in source])
        return ["busybox:latest"]

    async def save(self, references: Sequence[str]) -> contextlib.AbstractAsyncContextManager[AsyncIterator[bytes]]:
        for reference in references:
            await self.get(reference)

        @contextlib.asynccontextmanager
        async def archive() -> AsyncIterator[AsyncIterator[bytes]]:
            yield pieces(b"archive of images")

        return archive()

    async def import_tar(self, source: AsyncIterator[bytes], **options: Any) -> ImageId:
        self.loaded = b"".join([chunk async for chunk in source])
        return IMAGE_ID

    async def bootstrap(self, name: str, *, progress: Progress) -> Image:
        progress({"status": f"making {name}"})
        return self.image

    async def prune(self, match: Callable[[Image], bool], *, dangling_only: bool = True) -> tuple[list[Removed], int]:
        return ([] if dangling_only else [Removed(deleted=IMAGE_ID)]), 0

    async def usage(self) -> StoreUse:
        return StoreUse(pieces={"blob": 1234})

    def layer_sizes(self) -> StoreUse:
        return StoreUse()


class FakeNetworks:
    def __init__(self) -> None:
        self.records = [
            Network(
                id=NetworkId(number(50)),
                name="bridge",
                builtin=True,
                pools=(AddressPool(subnet="10.0.0.0/24", gateway="10.0.0.1"),),
            )
        ]
        self.calls: list[tuple[Any, ...]] = []

    async def get(self, ref: str) -> Network:
        for record in self.records:
            if ref in (record.name, record.id):
                return record
        raise NotFound(f"network {ref} not found")

    async def all(self) -> list[Network]:
        return self.records

    async def create(self, network: Network) -> Network:
        made = replace(network, id=NetworkId(number(51 + len(self.records))))
        self.records.append(made)
        return made

    async def remove(self, ref: str) -> None:
        self.records.remove(await self.get(ref))

    async def connect(self, *arguments: Any) -> None:
        self.calls.append(("connect", *arguments))

    async def disconnect(self, *arguments: Any, force: bool = False) -> None:
        self.calls.append(("disconnect", *arguments, force))

    async def prune(self, match: Callable[[Network], bool]) -> list[str]:
        return []

    def members(self, network_id: str) -> list[Any]:
        return []


class FakeVolumes:
    def __init__(self) -> None:
        self.records: dict[str, Volume] = {}

    async def get(self, name: str) -> Volume:
        if name not in self.records:
            raise NotFound(f"get {name}: no such volume")
        return self.records[name]

    def all(self) -> list[Volume]:
        return list(self.records.values())

    async def create(self, name: str, *, driver: str, options: dict[str, str], labels: dict[str, str]) -> Volume:
        volume = Volume(
            name=name or number(9),
            mountpoint=f"/data/volumes/{name}/_data",
            labels=labels,
            options=options,
            anonymous=not name,
            created_at=START_NS,
        )
        self.records[volume.name] = volume
        return volume

    async def remove(self, name: str, *, force: bool = False) -> None:
        await self.get(name)
        del self.records[name]

    async def prune(self, match: Callable[[Volume], bool]) -> tuple[list[str], int]:
        gone = [volume.name for volume in self.records.values() if match(volume)]
        return gone, 0

    def in_use_by(self, name: str) -> list[str]:
        return []


class FakeEvents:
    def __init__(self) -> None:
        self.events: list[Event] = []
        self.closed = 0

    async def subscribe(
        self, *, since_ns: int = 0, until_ns: int = 0, match: Callable[[Event], bool] = lambda _event: True
    ) -> AsyncIterator[Event]:
        try:
            for event in self.events:
                if match(event):
                    yield event
            if not until_ns:
                await asyncio.Event().wait()
        finally:
            self.closed += 1


class FakeSystem:
    def version(self) -> dict[str, Any]:
        return {"version": "0.1.0", "os": "linux", "arch": "amd64", "python": "3.11.2", "kernel_version": "6.1"}

    async def info(self) -> dict[str, Any]:
        return {
            "id": "x",
            "name": "host",
            "cpus": 2,
            "memory_bytes": 1 << 30,
            "runtimes": {name: OciRuntime(name=name, path=name) for name in ("enisle", "vm")},
            "default_runtime": "enisle",
            "walls": {"container": {}, "vm": {"accelerator": "tcg"}},
            "cgroup_version": "2",
        }

    async def disk_usage(self, wanted: frozenset[str] = frozenset()) -> DiskUsage:
        return DiskUsage(store=StoreUse(pieces={"blob": 5}))

    async def doctor(self) -> list[HostCapability]:
        return [HostCapability(name="kvm", ok=False, detail="no /dev/kvm", remedy="load kvm")]


class FakeEngine:
    def __init__(self) -> None:
        self.instances = FakeInstances()
        self.execs = FakeExecs(self.instances)
        self.images = FakeImages()
        self.networks = FakeNetworks()
        self.volumes = FakeVolumes()
        self.events = FakeEvents()
        self.system = FakeSystem()
