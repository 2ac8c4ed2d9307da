"""What the walls' drivers share: start an instance in a keeper, find it again, read its files, remove what is left.

A driver of a wall subclasses :class:`KeeperDriver` and gives ``wall`` and the pure ``plan``, ``exec_plan`` and
``limits_plan``; ``check``, ``prepare`` and ``disk_usage`` where the defaults do not fit.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

from enisle.contracts import Files, Launch, Running
from enisle.drivers.channel import Channel, Message, connect
from enisle.drivers.files import KeeperFiles, retrieve
from enisle.drivers.keeper import CONTROL_TIMEOUT_S, KeeperClient, OnEvent, attach_fields
from enisle.drivers.launcher import LauncherClient
from enisle.errors import EnisleError, Internal, Unavailable
from enisle.linux.cgroup.choose import group
from enisle.linux.cgroup.strays import remove_strays
from enisle.model.instance import BoundPort, Endpoint, Instance, InstanceSpec, publisher
from enisle.model.process import ExecSpec
from enisle.wire.frames import MAX_FDS
from enisle.wire.keeper import SOCKET_NAME
from enisle.wire.names import SOCKET_NAME as RESOLVER_SOCKET_NAME
from enisle.wire.plans import ContainerPlan, LimitsPlan, NicPlan, ProcessPlan, VmPlan

EXIT_FILE = "exit.json"
_START_TIMEOUT_S = 300.0
_FILES_GRACE_S = 10.0


class KeeperDriver(ABC):
    """One wall, driven through keepers. Implements ``contracts.Driver``.

    ``cgroup_parent`` is the cgroup below which all instances of this enisled live. The launcher client is shared by
    the drivers of all walls.
    """

    wall: ClassVar[str]

    def __init__(
        self, *, launcher: LauncherClient, run_root: Path, data_root: Path, cgroup_parent: str = "enisle"
    ) -> None:
        self._launcher = launcher
        self._run_root = run_root
        self._instances_root = data_root / "instances"
        self._cgroup_parent = cgroup_parent
        self._files_sessions: dict[str, set[Channel]] = {}
        self._session_numbers = itertools.count()
        self._aborting: set[asyncio.Task[None]] = set()

    # --- what a wall gives -----------------------------------------------------------------------------------------

    @abstractmethod
    def plan(self, launch: Launch) -> ContainerPlan | VmPlan:
        """The whole plan of one start. Pure, but for looking up the host's devices."""

    @abstractmethod
    def exec_plan(self, instance: Instance, spec: ExecSpec) -> ProcessPlan: ...

    @abstractmethod
    def limits_plan(self, spec: InstanceSpec) -> LimitsPlan: ...

    @abstractmethod
    def check(self, spec: InstanceSpec) -> list[str]: ...

    @abstractmethod
    async def prepare(self, launch: Launch) -> None: ...

    async def before_start(self, launch: Launch) -> None:
        """What has to be awaited before a plan can be made and is no part of ``prepare``; nothing by default."""
        del launch

    def wall_of(self, instance: Instance) -> str:
        """The keeper's side that runs it: of a wall that can be built in several ways."""
        del instance
        return self.wall

    def nic_plan(self, endpoint: Endpoint) -> NicPlan:
        """One NIC, from its endpoint."""
        return nic_plan(endpoint)

    def relays(self, bound: Sequence[BoundPort], endpoint: Endpoint | None) -> Message:
        """What the keeper passes on itself, as the fields of ``start`` and ``relay``."""
        return {"relays": relays(bound, endpoint, "tcp"), "datagram_relays": relays(bound, endpoint, "udp")}

    # --- contracts.Driver ------------------------------------------------------------------------------------------

    async def start(self, launch: Launch, on_event: OnEvent) -> Running:
        wall = self.wall_of(launch.instance)
        await self.before_start(launch)
        plan = self.plan(launch)
        plan.resolver = str(self._run_root / RESOLVER_SOCKET_NAME)
        await self._end_files_sessions(launch.instance.id)
        with suppress(FileNotFoundError):
            os.unlink(launch.directory / EXIT_FILE)
        fields: Message = {"wall": wall, "plan": plan}
        if launch.port_sockets:
            fields |= self.relays(launch.instance.bound_ports, publisher(launch.endpoints))
        try:
            return await self._start(launch, fields, on_event)
        except _NotForked:
            # The launcher died before it forked the keeper: nothing was started, so once more, with a new launcher.
            try:
                return await self._start(launch, fields, on_event)
            except _NotForked as error:
                raise Unavailable("The launcher could not start a keeper for the instance.") from error

    async def reconnect(self, instance: Instance, on_event: OnEvent) -> Running | None:
        sock = connect(str(self.run_dir(instance.id) / SOCKET_NAME))
        if sock is None:
            await self.bury(instance)
            return None
        client = self._client(instance, self._instances_root / instance.id / EXIT_FILE, on_event)
        channel = Channel(sock, peer=f"The keeper of container {instance.id[:12]}", on_event=client.take_event)
        try:
            answer = await channel.request("watch", timeout_s=CONTROL_TIMEOUT_S)
        except Unavailable:
            channel.close()
            return None
        status = answer.get("state")
        client.learn(status if isinstance(status, dict) else answer)
        client.adopt(channel)
        return client

    @asynccontextmanager
    async def files(self, launch: Launch, running: Running | None) -> AsyncIterator[Files]:
        if isinstance(running, KeeperClient):
            session = KeeperFiles(running.channel)
            try:
                yield session
            finally:
                await session.close()
            return
        channel = await self._open_files_keeper(launch)
        session = KeeperFiles(channel)
        open_channels = self._files_sessions.setdefault(launch.instance.id, set())
        open_channels.add(channel)
        try:
            yield session
        finally:
            await session.close()
            await self._stop_files_keeper(channel)
            open_channels.discard(channel)
            if not open_channels:
                self._files_sessions.pop(launch.instance.id, None)

    async def disk_usage(self, directory: Path) -> int:
        return await asyncio.to_thread(tree_bytes, directory / "upper")

    async def destroy(self, directory: Path) -> None:
        await asyncio.to_thread(_remove, [directory / name for name in ("upper", "work", "disk.raw", EXIT_FILE)])

    async def bury(self, instance: Instance) -> None:
        """Kill and remove what a keeper that was killed left behind; a wall that knows of more extends this."""
        await asyncio.to_thread(self._bury, instance)

    def _bury(self, instance: Instance) -> None:
        parent = instance.spec.cgroup_parent.strip("/") or self._cgroup_parent
        try:
            left = group(f"{parent}/{instance.id}")
            left.kill()
            left.remove()
            remove_strays(f"{parent}/{instance.id}")
        except OSError as error:
            raise Internal(f"cgroups of container {instance.id} stay behind: {error}.") from error
        shutil.rmtree(self.run_dir(instance.id), ignore_errors=True)

    def run_dir(self, instance_id: str) -> Path:
        """Where the keeper of the instance has its socket."""
        return self._run_root / "instances" / instance_id[:16]

    # --- starting --------------------------------------------------------------------------------------------------

    def _client(self, instance: Instance, exit_file: Path, on_event: OnEvent) -> KeeperClient:
        return KeeperClient(instance=instance, exit_file=exit_file, translator=self, on_event=on_event)

    async def _start(self, launch: Launch, fields: Message, on_event: OnEvent) -> KeeperClient:
        instance = launch.instance
        client = self._client(instance, launch.directory / EXIT_FILE, on_event)
        channel = await self._channel(instance.id, self.run_dir(instance.id), client)
        # All in one go: the keeper reads in order, so clients are attached before the first byte of output.
        watch = channel.post("watch")
        attached = [channel.post("attach", attach_fields(each), [each.fd]) for each in launch.connections]
        ports = list(launch.port_sockets)
        held = [
            channel.post("hold", {}, ports[first : first + MAX_FDS])
            for first in range(0, len(ports) - MAX_FDS, MAX_FDS)
        ]
        started = channel.post("start", fields, ports[len(held) * MAX_FDS :])
        started.add_done_callback(client.take_start)
        for future in (watch, *attached, *held):
            future.add_done_callback(retrieve)
        try:
            await asyncio.wait_for(asyncio.shield(started), _START_TIMEOUT_S)
        except EnisleError:
            channel.close()
            if watch.done() and isinstance(watch.exception(), Unavailable):
                raise _NotForked from None
            raise
        except BaseException as error:
            self._abort_later(channel, started)
            if isinstance(error, asyncio.TimeoutError):
                raise Unavailable(f"The instance did not start within {_START_TIMEOUT_S:g} s.") from error
            raise
        client.adopt(channel)
        return client

    def _abort_later(self, channel: Channel, started: asyncio.Future[Message]) -> None:
        """Nobody wants the instance any more whose start is under way: kill it as soon as it runs."""

        async def abort() -> None:
            with suppress(EnisleError):
                await started
                await channel.request("signal", {"signal": 9}, timeout_s=CONTROL_TIMEOUT_S)
                await asyncio.wait_for(channel.wait_closed(), CONTROL_TIMEOUT_S)
            channel.close()

        task = asyncio.create_task(abort())
        self._aborting.add(task)
        task.add_done_callback(self._aborting.discard)

    async def _channel(self, instance_id: str, run_dir: Path, client: KeeperClient | None = None) -> Channel:
        sock = await self._launcher.launch(instance_id, run_dir)
        peer = f"The keeper of container {instance_id[:12]}"
        return Channel(sock, peer=peer, on_event=client.take_event if client else None)

    # --- files of what does not run --------------------------------------------------------------------------------

    async def _open_files_keeper(self, launch: Launch) -> Channel:
        await self.before_start(launch)
        plan = self.plan(launch)
        name = f"{launch.instance.id[:16]}-{next(self._session_numbers)}-{os.getpid()}"
        run_dir = self._run_root / "files" / name
        channel = await self._channel(launch.instance.id, run_dir)
        try:
            fields = {"wall": self.wall, "plan": plan, "files_only": True}
            await channel.request("start", fields, timeout_s=_START_TIMEOUT_S)
        except BaseException:
            channel.close()
            raise
        return channel

    async def _stop_files_keeper(self, channel: Channel) -> None:
        try:
            await channel.request("stop", timeout_s=_FILES_GRACE_S)
            await asyncio.wait_for(channel.wait_closed(), _FILES_GRACE_S)
        except (TimeoutError, EnisleError):
            pass  # closing our end makes it stop as well
        finally:
            channel.close()

    async def _end_files_sessions(self, instance_id: str) -> None:
        """Two mounts must not share one upper directory: wait for open copies, end those that take too long."""
        channels = self._files_sessions.get(instance_id)
        if not channels:
            return
        waiters = [asyncio.ensure_future(channel.wait_closed()) for channel in channels]
        await asyncio.wait(waiters, timeout=_FILES_GRACE_S)
        for channel in list(channels):
            await self._stop_files_keeper(channel)


class _NotForked(Internal):
    """The keeper's connection ended before the keeper said anything."""

    def __init__(self) -> None:
        super().__init__("The keeper did not come up.")


def nic_plan(endpoint: Endpoint, *, published: bool = False) -> NicPlan:
    """One NIC, from its endpoint. ``published``: with ports published, which the instance itself may use as well."""
    return NicPlan(
        name=endpoint.name,
        host_ifname=endpoint.host_ifname,
        bridge=endpoint.bridge,
        mac=endpoint.mac,
        addresses=[address for address in (endpoint.ipv4, endpoint.ipv6) if address],
        gateway4="0.0.0.0" if endpoint.on_link else endpoint.gateway4,
        gateway6="::" if endpoint.on_link and endpoint.ipv6 else endpoint.gateway6,
        mtu=endpoint.mtu,
        hairpin=published,
        isolated=endpoint.isolated,
        parent=endpoint.parent,
        mode=endpoint.mode,
    )


def relays(bound: Sequence[BoundPort], endpoint: Endpoint | None, protocol: str) -> list[list[str | int]]:
    """What a keeper passes on itself of TCP or UDP: (host's address, port, target's address, port) each.

    The kernel lets nobody send on what is for [::1], and does not translate between IPv6 and IPv4.
    """
    if endpoint is None:
        return []
    target = (endpoint.ipv6 or endpoint.ipv4).partition("/")[0]
    return [
        [port.host_ip, port.host_port, target, port.container_port]
        for port in bound
        if port.protocol == protocol and ":" in port.host_ip and (not endpoint.ipv6 or port.host_ip in ("::", "::1"))
    ]


def tree_bytes(path: Path) -> int:
    """Bytes that the files below ``path`` take, hard links counted once; 0 when it is not there."""
    total = 0
    seen: set[tuple[int, int]] = set()
    pending: list[Any] = [path]
    while pending:
        with suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if status.st_nlink > 1 and not entry.is_dir(follow_symlinks=False):
                        if (status.st_dev, status.st_ino) in seen:
                            continue
                        seen.add((status.st_dev, status.st_ino))
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        total += status.st_size
    return total


def _remove(paths: list[Path]) -> None:
    for path in paths:
        try:
            path.unlink()
        except IsADirectoryError:
            shutil.rmtree(path, ignore_errors=True)
        except FileNotFoundError:
            pass
        except PermissionError:  # unlink of a directory on some file systems
            shutil.rmtree(path, ignore_errors=True)
