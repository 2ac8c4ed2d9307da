"""A launcher of one's own, and keepers spoken to over their protocol with plain blocking sockets."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enisle.drivers import native
from enisle.wire import frames
from enisle.wire.mounts import USUAL_SHM_BYTES, kernel_mounts, shared_memory
from enisle.wire.plans import ContainerPlan, LogPlan, MountPlan, ProcessPlan, to_json
from tests.compiled import put_compiled

SOURCE = Path(__file__).resolve().parents[2] / "src"
BUSYBOX = "/bin/busybox"
CAPABILITIES = "CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD SETGID SETUID SETPCAP SYS_CHROOT".split()
_numbers = itertools.count()


class Failed(Exception):
    """A request was answered with an error."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.kind = error["kind"]
        self.exit_code = error["exit_code"]


class Peer:
    """One connection to a launcher or keeper."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(30)
        self.sock = sock
        self.pid = 0
        self._decoder = frames.Decoder()
        self._ids = itertools.count(1)
        self._answers: dict[int, dict[str, Any]] = {}
        self.events: list[dict[str, Any]] = []

    def post(self, op: str, fds: tuple[int, ...] = (), **fields: Any) -> int:
        """Send; the request's id."""
        number = next(self._ids)
        frames.send(self.sock, {"id": number, "op": op, "fds": len(fds), **fields}, fds)
        return number

    def answer(self, number: int) -> dict[str, Any]:
        """Wait for the answer. Failed when it is an error; ConnectionError when the peer ends first."""
        while number not in self._answers:
            self._receive()
        message = self._answers.pop(number)
        if "error" in message:
            raise Failed(message["error"])
        return dict(message["ok"])

    def ask(self, op: str, fds: tuple[int, ...] = (), **fields: Any) -> dict[str, Any]:
        """Send and wait."""
        return self.answer(self.post(op, fds, **fields))

    def event(self, name: str) -> dict[str, Any]:
        """The next event of that name; earlier ones are passed over."""
        while True:
            while self.events:
                event = self.events.pop(0)
                if event["event"] == name:
                    return event
            self._receive()

    def _receive(self) -> None:
        data, _fds = frames.receive(self.sock)
        if not data:
            raise ConnectionError("the peer has ended")
        for message in self._decoder.feed(data):
            if "event" in message:
                self.events.append(message)
            else:
                self._answers[message["id"]] = message

    def close(self) -> None:
        self.sock.close()


class Host:
    """A launcher, a busybox image, and a directory for everything."""

    def __init__(self, directory: Path, *, with_compiled: bool = True) -> None:
        self.directory = directory
        self.with_compiled = with_compiled
        self.run_root = directory / "run"
        put_compiled(self.run_root)
        self.layer = directory / "layer"
        make_layer(self.layer)
        self.cgroup_parent = f"enisle-test-{os.getpid()}-{next(_numbers)}"
        self.log = directory / "launcher.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.start_launcher()

    def start_launcher(self) -> None:
        compiled = native.ensure(self.run_root)
        assert compiled.pages is not None and compiled.enter is not None
        program = [sys.executable, "-I", "-S", str(SOURCE / "enisle/launcher/main.py")]
        command = [*program, str(self.run_root), *(compiled.words() if self.with_compiled else [])]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.launcher = connect(self.run_root / "launcher.sock", self._process)

    @property
    def launcher_pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop_launcher(self) -> None:
        assert self._process is not None
        self.launcher.ask("quit")
        self.launcher.close()
        assert self._process.wait(10) == 0

    def keeper(self, plan: ContainerPlan) -> Peer:
        """A new keeper, watched, not started."""
        ours, theirs = socket.socketpair()
        run_dir = self.run_root / "instances" / plan.id[:16]
        answer = self.launcher.ask("launch", (theirs.fileno(),), instance=plan.id, run_dir=str(run_dir))
        theirs.close()
        peer = Peer(ours)
        peer.pid = answer["pid"]
        peer.ask("watch")
        return peer

    def plan(self, *args: str, log: bool = True, **process: Any) -> ContainerPlan:
        """A plan much as the container driver makes it."""
        name = f"{os.getpid():08x}{next(_numbers):08x}" + "0" * 48
        directory = self.directory / "instances" / name
        for part in ("upper", "work"):
            (directory / part).mkdir(parents=True)
        process.setdefault("env", ["PATH=/bin:/usr/bin"])
        process.setdefault("capabilities", list(CAPABILITIES))
        return ContainerPlan(
            id=name,
            hostname="box",
            lower=[str(self.layer)],
            upper=str(directory / "upper"),
            work=str(directory / "work"),
            process=ProcessPlan(args=list(args), **process),
            mounts=standard_mounts(),
            masked_paths=["/proc/kcore", "/proc/keys", "/proc/interrupts", "/sys/firmware", "/proc/acpi"],
            read_only_paths=["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
            cgroup_parent=self.cgroup_parent,
            log=LogPlan(path=str(directory / "log.json")) if log else LogPlan(driver="none"),
            exit_file=str(directory / "exit.json"),
        )

    def run(self, plan: ContainerPlan) -> tuple[int, bytes]:
        """Start, wait, and give exit code and everything written to stdout and stderr."""
        keeper = self.keeper(plan)
        ours, theirs = socket.socketpair()
        attached = keeper.post("attach", (theirs.fileno(),), stdin=False, stdout=True, stderr=True)
        theirs.close()
        keeper.answer(attached)
        try:
            keeper.ask("start", wall="container", plan=to_json(plan))
            output = read_all(ours)
            return int(keeper.event("exit")["exit_code"]), output
        finally:
            ours.close()
            keeper.close()

    def shell(self, script: str, **process: Any) -> tuple[int, bytes]:
        """Run a shell script in a container."""
        return self.run(self.plan("sh", "-c", script, **process))

    def close(self) -> None:
        """Whatever a failed test has left is killed."""
        instances = self.run_root / "instances"
        for name in os.listdir(instances) if instances.exists() else []:
            keeper = connect(instances / name / "keeper.sock")
            keeper.ask("watch")
            keeper.ask("signal", signal=9)
            keeper.event("exit")
            keeper.close()
        self.stop_launcher()
        for directory in cgroup_directories(self.cgroup_parent):
            os.rmdir(directory)


def standard_mounts() -> list[MountPlan]:
    return [*kernel_mounts(read_only=True), shared_memory(USUAL_SHM_BYTES)]


def make_layer(directory: Path) -> None:
    """An image of busybox alone."""
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "root", "var"):
        (directory / name).mkdir(parents=True)
    (directory / "tmp").chmod(0o1777)
    shutil.copy(BUSYBOX, directory / "bin/busybox")
    applets = subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (directory / "bin" / applet).symlink_to("busybox")
    (directory / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    (directory / "etc/group").write_text("root:x:0:\nuser:x:1000:\nextra:x:2000:user,other\n")


def connect(path: Path, process: subprocess.Popen[bytes] | None = None) -> Peer:
    """Connect as soon as somebody listens there."""
    for _ in iter(lambda: process is None or process.poll() is None, False):
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.connect(str(path))
            return Peer(sock)
        except (FileNotFoundError, ConnectionRefusedError):
            sock.close()
            if process is None:
                raise
    raise ConnectionError(f"nobody listens at {path}")


def read_all(sock: socket.socket) -> bytes:
    """Up to the end."""
    sock.settimeout(60)
    blocks = []
    while block := sock.recv(1 << 16):
        blocks.append(block)
    return b"".join(blocks)


def cgroup_directories(path: str) -> Iterator[str]:
    for base in Path("/sys/fs/cgroup").iterdir():
        if (base / path).is_dir():
            yield str(base / path)


@contextmanager
def host(directory: Path, *, with_compiled: bool = True) -> Iterator[Host]:
    """A Host that cleans up after itself."""
    made = Host(directory, with_compiled=with_compiled)
    try:
        yield made
    finally:
        made.close()
