"""A container driver with everything of its own, for tests that need no engine: instances made from a busybox layer."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from enisle.contracts import Connection, ExitReport, Launch, Running
from enisle.drivers.container.driver import ContainerDriver
from enisle.drivers.launcher import LauncherClient
from enisle.errors import EnisleError
from enisle.model.ids import ImageId, InstanceId, new_id
from enisle.model.instance import Instance, InstanceSpec
from enisle.model.process import ExecSpec
from tests.compiled import put_compiled

_APPLETS = (
    "cat dd echo env false grep head hostname id kill ls mount nc ps readlink seq sh sleep stat stty touch true tty"
)


def make_layer(root: Path) -> Path:
    """A root file system of busybox and little more."""
    for name in ("bin", "etc", "tmp", "root", "var", "home"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    for applet in _APPLETS.split():
        (root / "bin" / applet).symlink_to("busybox")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\nalice:x:1000:\nstaff:x:50:alice\n")
    (root / "etc" / "notes").write_text("not executable\n")
    (root / "tmp").chmod(0o1777)
    return root


async def until(condition: Callable[[], object], timeout_s: float = 20) -> None:
    """Return once the condition holds: for what happens in another process that tells nobody. TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while True:
            if condition():
                return
            await asyncio.sleep(0.001)


class Client:
    """The other end of an attached connection."""

    def __init__(self, *, stdin: bool = False, framed: bool = False, detach_keys: str = "") -> None:
        self._sock, self._theirs = socket.socketpair()
        self._sock.setblocking(False)
        self.connection = Connection(
            fd=self._theirs.fileno(),
            stdin=stdin,
            stdout=True,
            stderr=True,
            framed=framed,
            detach_keys=detach_keys,
        )

    def handed_over(self) -> None:
        """The keeper has its duplicate: close ours, so that the end of the session can be seen."""
        self._theirs.close()

    async def write(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._sock, data)

    def end_of_input(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    async def read_until(self, text: bytes, timeout_s: float = 20) -> bytes:
        """Output up to and with ``text``."""
        received = b""
        async with asyncio.timeout(timeout_s):
            while text not in received:
                data = await asyncio.get_running_loop().sock_recv(self._sock, 65536)
                assert data, f"the connection ended after {received!r}"
                received += data
        return received

    async def read_all(self, timeout_s: float = 20) -> bytes:
        """Output up to the end of the session."""
        received = b""
        async with asyncio.timeout(timeout_s):
            while data := await asyncio.get_running_loop().sock_recv(self._sock, 65536):
                received += data
        return received

    def close(self) -> None:
        self._theirs.close()
        self._sock.close()


class Walls:
    """Launcher, driver and directories; a context manager that ends everything and takes a census."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="enisle-w-", dir="/var/tmp"))
        self.run_root, self.data_root = self.root / "run", self.root / "data"
        self.name = f"w{os.getpid() % 100000}{os.urandom(2).hex()}"
        self.layer = make_layer(self.root / "layer")
        put_compiled(self.run_root)
        self.launcher = LauncherClient(self.run_root)
        self.driver = self.new_driver()
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.running: list[Running] = []
        self.instances: list[Instance] = []

    def new_driver(self) -> ContainerDriver:
        """Another driver on the same directories, as after a restart of enisled."""
        return ContainerDriver(
            launcher=self.launcher, run_root=self.run_root, data_root=self.data_root, cgroup_parent=self.name
        )

    async def on_event(self, name: str, fields: dict[str, Any]) -> None:
        self.events.append((name, fields))

    async def prepare(self, *command: str, connections: tuple[Connection, ...] = (), **fields: Any) -> Launch:
        """An instance that is ready to be started."""
        joins = fields.pop("joins", {})
        mounts = fields.pop("mounts", ())
        spec = InstanceSpec(
            image="busybox",
            image_id=ImageId("sha256:" + "a" * 64),
            command=command,
            **{"network_mode": "none", **fields},
        )
        instance = Instance(id=InstanceId(new_id()), name="calm_skye", created_at=time.time_ns(), spec=spec)
        self.instances.append(instance)
        self.driver.check(spec)
        directory = self.data_root / "instances" / instance.id
        directory.mkdir(parents=True)
        launch = Launch(
            instance=instance,
            layers=(self.layer,),
            directory=directory,
            joins=joins,
            mounts=mounts,
            log_path=directory / f"{instance.id}-json.log",
            connections=connections,
        )
        await self.driver.prepare(launch)
        return launch

    async def start(self, launch: Launch) -> Running:
        running = await self.driver.start(launch, self.on_event)
        self.running.append(running)
        return running

    async def run(self, *command: str, **fields: Any) -> tuple[ExitReport, bytes]:
        """Run a command to its end; how it ended and what it wrote."""
        client = Client()
        launch = await self.prepare(*command, connections=(client.connection,), **fields)
        try:
            running = await self.start(launch)
            client.handed_over()
            output = await client.read_all()
            return await asyncio.wait_for(running.wait(), 20), output
        finally:
            client.close()

    async def execute(self, running: Running, launch: Launch, *command: str, **fields: Any) -> tuple[int, bytes]:
        """Run a further command in it; exit code and output."""
        client = Client()
        try:
            exec_id = os.urandom(8).hex()
            await running.exec(exec_id, ExecSpec(command=command, **fields), launch.instance, client.connection)
            client.handed_over()
            output = await client.read_all()
            return await asyncio.wait_for(running.wait_exec(exec_id), 20), output
        finally:
            client.close()

    def cgroups(self) -> list[str]:
        """Directories of our instances in every hierarchy."""
        roots = [Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()]
        return [str(path) for root in roots for path in root.glob(f"{self.name}/*/")]

    def census(self) -> dict[str, list[str]]:
        """What is left of instances."""
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        found = {
            "cgroups": self.cgroups(),
            "run directories": [str(path) for path in self.run_root.glob("instances/*")],
            "files sessions": [str(path) for path in self.run_root.glob("files/*")],
            "mounts": [line for line in mounts if str(self.root) in line],
        }
        return {kind: things for kind, things in found.items() if things}

    async def settled(self, timeout_s: float = 20) -> dict[str, list[str]]:
        """The census, once it is empty or the time is over: keepers tell of the end before they are gone."""
        with suppress(TimeoutError):
            await until(lambda: not self.census(), timeout_s)
        return self.census()

    async def close(self) -> None:
        """Kill what runs, end the launcher; fail when something is left."""
        for running in self.running:
            try:
                await running.signal(9)
            except EnisleError:
                continue  # it is over, or was abandoned and is another's now
            with suppress(EnisleError):
                await running.unpause()
            with suppress(TimeoutError):
                await asyncio.wait_for(running.wait(), 20)
        left = await self.settled()
        for instance in self.instances if left else ():
            await self.driver.bury(instance)
        await self.launcher.close(quit=True)
        for root in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
            with suppress(OSError):
                (root / self.name).rmdir()
        log = self.run_root / "launcher.log"
        said = log.read_text(errors="replace") if log.exists() else ""
        shutil.rmtree(self.root, ignore_errors=True)
        assert not left, f"left behind: {left}\n{said}"


def with_connections(launch: Launch, *clients: Client) -> Launch:
    """The launch with clients that are attached before the start."""
    return replace(launch, connections=tuple(client.connection for client in clients))
