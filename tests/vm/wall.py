"""A VM driven through the wall itself, without keeper and enisled, and what it needs: guest, image, disk."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from enisle.drivers.vm.disk import make_disk
from enisle.drivers.vm.driver import _virtiofsd
from enisle.guest import build
from enisle.launcher.loop import EpollLoop
from enisle.launcher.vm.wall import VmWall
from enisle.launcher.wall import Session, WallError
from enisle.linux.tsc import measure_khz
from enisle.wire.plans import MountPlan, ProcessPlan, VmPlan, to_json

CACHE = Path(os.environ.get("ENISLE_TEST_GUEST", "/var/cache/enisle-tests/guest"))
START_S = 240.0
CGROUP_PARENT = f"enisle-test-{os.getpid()}"
CAPABILITIES = (
    "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID "
    "SYS_CHROOT"
).split()
_UID = 1_899_990_000
_APPLETS = (
    "sh ls cat echo true false sleep id ps mount ip hostname env pwd stty dd seq kill head wc ping nc mkdir rm touch "
    "ln dmesg chmod chown sync free df date uname readlink sed grep find tee stat test tail tty cut sort"
).split()


def guest() -> build.Guest:
    """Kernel and initramfs, built once and kept."""
    return build.ensure(CACHE)


def busybox_image(directory: Path) -> Path:
    """A small image on one EROFS disk."""
    root = directory / "root"
    for name in ("bin", "etc", "tmp", "var/lib", "data"):
        (root / name).mkdir(parents=True)
    shutil.copy2("/bin/busybox", root / "bin" / "busybox")
    for name in _APPLETS:
        (root / "bin" / name).symlink_to("busybox")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nwww:x:33:33:www:/var/www:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nwww:x:33:\naudio:x:29:www\n")
    (root / "data/seed").write_text("from the image\n")
    (root / "etc/plain").write_text("no program\n")
    image = directory / "image.erofs"
    subprocess.run(["mkfs.erofs", "-T0", image, root], check=True, capture_output=True)
    return image


class Stdio:
    """What the keeper's core would take from one session."""

    def __init__(self) -> None:
        self.output = b""
        self.errors = b""
        self.closed = False
        self.exit_code: int | None = None
        self.result: Session | WallError | None = None
        self.drained = 0

    def on_output(self, stream: int, data: bytes) -> None:
        if stream == 1:
            self.output += data
        else:
            self.errors += data

    def on_output_closed(self) -> None:
        self.closed = True

    def on_exit(self, exit_code: int) -> None:
        self.exit_code = exit_code

    def on_stdin_drained(self) -> None:
        self.drained += 1

    def on_result(self, result: Session | WallError) -> None:
        self.result = result

    @property
    def session(self) -> Session:
        assert isinstance(self.result, Session), self.result
        return self.result

    @property
    def error(self) -> WallError:
        assert isinstance(self.result, WallError), self.result
        return self.result

    @property
    def ended(self) -> bool:
        return self.exit_code is not None and self.closed


@dataclass
class Vm:
    """One VM. Everything waits by running the keeper's loop."""

    image: Path
    directory: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="enisle-vm-")))
    main: Stdio = field(default_factory=Stdio)

    def __post_init__(self) -> None:
        self.loop = EpollLoop()
        self.wall = VmWall(self.loop, str(self.directory))
        self.plan: VmPlan | None = None

    def make_plan(self, *args: str, **changes: Any) -> VmPlan:
        made = guest()
        disk = self.directory / "disk.raw"
        make_disk(disk, self.directory, 1 << 30)
        process = {"args": list(args), "env": ["PATH=/bin"], "capabilities": CAPABILITIES}
        process |= changes.pop("process", {})
        values: dict[str, Any] = {
            "id": os.urandom(32).hex(),
            "hostname": "island",
            "accelerator": "tcg",
            "tsc_khz": measure_khz(),
            "kernel": str(made.kernel),
            "initramfs": str(made.initramfs),
            "image_disk": str(self.image),
            "writable_disk": str(disk),
            "process": ProcessPlan(**process),
            "memory_bytes": 256 << 20,
            "vcpus": 1,
            "mounts": [MountPlan(kind="tmpfs", target="/dev/shm", options=["nosuid", "mode=1777", "size=8m"])],
            "files": {"/etc/hosts": "127.0.0.1 localhost\n"},
            "cgroup_parent": CGROUP_PARENT,
            "virtiofsd": _virtiofsd(),
            "uid": _UID,
            "gid": _UID,
        }
        return VmPlan(**{**values, **changes})

    def start(self, *args: str, **changes: Any) -> Stdio:
        """Start it and wait until the program runs, or could not be started."""
        self.plan = self.make_plan(*args, **changes)
        self.wall.start(to_json(self.plan), self.main, self.main.on_result, lambda: None)
        self.wait(lambda: self.main.result is not None, START_S)
        return self.main

    def run(self, *args: str, **changes: Any) -> Stdio:
        """Start it and wait for its end."""
        self.start(*args, **changes)
        assert isinstance(self.main.result, Session), self.main.result
        self.wait(lambda: self.main.ended, START_S)
        return self.main

    def open_files(self, **changes: Any) -> None:
        opened: list[WallError | None] = []
        self.wall.open_files(to_json(self.make_plan("none", **changes)), opened.append)
        self.wait(lambda: bool(opened), START_S)
        assert opened == [None]

    def exec(self, *args: str, stdin: bytes | None = None, **changes: Any) -> Stdio:
        """Run a further process to its end."""
        stdio = self.begin(*args, stdin=stdin is not None, **changes)
        if stdin is not None and isinstance(stdio.result, Session):
            stdio.session.write_stdin(stdin)
            stdio.session.close_stdin()
        if isinstance(stdio.result, Session):
            self.wait(lambda: stdio.ended, 60)
        return stdio

    def begin(self, *args: str, **changes: Any) -> Stdio:
        stdio = Stdio()
        values = {"args": list(args), "env": ["PATH=/bin"], "capabilities": CAPABILITIES, **changes}
        self.wall.start_exec("x", ProcessPlan(**values), stdio, stdio.on_result)
        self.wait(lambda: stdio.result is not None, 60)
        return stdio

    def ask(self, verb: Callable[..., None], *arguments: Any, timeout_s: float = 60) -> Any:
        """Call one of the wall's verbs and wait for its answer."""
        answers: list[Any] = []
        verb(*arguments, answers.append)
        self.wait(lambda: bool(answers), timeout_s)
        return answers[0]

    def read_files(self, verb: str, path: str = "/") -> bytes:
        """The stream of a file request."""
        reading, writing = os.pipe()
        os.set_blocking(reading, False)
        data = b""

        def take() -> None:
            nonlocal data
            piece = os.read(reading, 1 << 20)
            data += piece
            if not piece:
                self.loop.remove_reader(reading)

        self.loop.add_reader(reading, take)
        answer = self.ask(lambda done: self.wall.files({"verb": verb, "path": path}, [writing], done))
        self.wait(lambda: reading not in self.loop._readers, 10)
        os.close(reading)
        assert answer == {}, answer
        return data

    def put_files(self, path: str, data: bytes, **fields: Any) -> Any:
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(reading)
            try:
                while data:
                    data = data[os.write(writing, data) :]
            finally:
                os._exit(0)
        os.close(writing)
        answer = self.ask(lambda done: self.wall.files({"verb": "put", "path": path, **fields}, [reading], done))
        os.waitpid(pid, 0)
        return answer

    def wait(self, condition: Callable[[], bool], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.loop.call_later(0.2, lambda: None)
            self.loop.run_once()
            assert time.monotonic() < deadline, f"waited {timeout_s} s; {self.wall.failure()}"

    def close(self) -> None:
        self.wall.close()
        shutil.rmtree(self.directory)
