"""The engines that are compared, each started with directories, sockets and a network namespace of its own.

dockerd and podman change the packet filter of the network namespace they run in; so each engine gets a fresh one, and
the host's is left alone. All of them keep their data below one scratch directory.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

from benchmarks.http_unix import Api

IMAGE = "busybox:latest"
GUEST = Path("/var/cache/enisle-tests/guest")  # kernel and initramfs of VMs, made once per machine
_IN_NAMESPACE = ["unshare", "--net", "--"]


def command(*args: str, timeout_s: float = 300, check: bool = True, env: dict[str, str] | None = None) -> str:
    """Run a command; its output. RuntimeError with what it said when it fails."""
    done = subprocess.run(
        args, capture_output=True, text=True, timeout=timeout_s, check=False, env={**os.environ, **(env or {})}
    )
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(args)}: exit code {done.returncode}: {done.stderr.strip()[-2000:]}")
    return done.stdout


class Engine(ABC):
    """One engine. ``client`` is the command line that is timed; ``api_socket`` serves Docker's API."""

    name: str
    memory_of: str  # which process is there once per container
    client: list[str]
    client_env: dict[str, str]

    def __init__(self, root: Path) -> None:
        self.root = root / self.name
        self.root.mkdir()
        self.api_socket = str(self.root / "api.sock")
        self.client_env = {}
        self._process: subprocess.Popen[bytes] | None = None
        hierarchy = Path("/sys/fs/cgroup/cpuacct")
        self._account = (hierarchy if hierarchy.is_dir() else hierarchy.parent) / f"bench-{self.name}-{os.getpid()}"

    def cpu_ms(self) -> float:
        """CPU time that the engine and all its helpers have used, without what runs inside the containers."""
        with suppress(FileNotFoundError):
            return int((self._account / "cpuacct.usage").read_text()) / 1e6
        return int((self._account / "cpu.stat").read_text().split()[1]) / 1e3

    def leftovers(self) -> list[str]:
        """What is still on the host of containers that are gone; nothing where we do not know where to look."""
        return []

    @abstractmethod
    def daemon(self) -> list[str]:
        """The command of the long-running process, in its network namespace already."""

    @abstractmethod
    def version(self) -> str: ...

    def start(self, archive: Path) -> None:
        """Start it and load the image."""
        self._account.mkdir()
        script = f'echo $$ > {self._account}/cgroup.procs; ip link set lo up; exec "$@"'
        with open(self.root / "daemon.log", "wb") as log:
            self._process = subprocess.Popen(
                [*_IN_NAMESPACE, "sh", "-c", script, "sh", *self.daemon()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.client_env},
            )
        self._wait_for_answer()
        command(*self.client, "load", "-i", str(archive), env=self.client_env)

    def _wait_for_answer(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            with suppress(OSError, RuntimeError):
                Api(self.api_socket).call("GET", "/version")
                return
            assert self._process is not None
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = (self.root / "daemon.log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"{self.name} did not come up:\n{tail}")
            time.sleep(0.05)

    @property
    def pid(self) -> int:
        """Of the long-running process."""
        assert self._process is not None
        return self._process.pid

    def inside(self) -> tuple[str, ...]:
        """The beginning of a command that runs in its network namespace."""
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net", "--")

    def run(self, *args: str) -> str:
        """Its client with these arguments; the output."""
        return command(*self.client, *args, env=self.client_env)

    def tidy(self) -> None:
        """Remove all containers, and all images but the one that measures use: no measure works on another's debris."""
        containers = self.run("ps", "-aq").split()
        if containers:
            self.run("rm", "-f", "-v", *containers)
        names = self.run("images", "--format", "{{.Repository}}:{{.Tag}}").split()
        for name in names:
            if "<none>" not in name and not name.endswith(IMAGE):
                self.run("rmi", "-f", name)
        if len(names) > 1:
            self.run("image", "prune", "-f")

    def stop(self) -> None:
        """Remove all containers, end it, and remove its files."""
        if self._process is not None and self._process.poll() is None:
            with suppress(RuntimeError, subprocess.TimeoutExpired):
                ids = self.run("ps", "-aq").split()
                if ids:
                    self.run("rm", "-f", "-v", *ids)
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._clean()
        for pid in (self._account / "cgroup.procs").read_text().split() if self._account.is_dir() else ():
            with suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        remove_groups(self._account.name)
        shutil.rmtree(self.root, ignore_errors=True)

    def _helpers(self) -> list[int]:
        """Processes that work on its files, wherever they were moved: podman's monitors stay for minutes."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                if entry.name.isdigit() and f"{self.root}/".encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
        return found

    def _clean(self) -> None:
        """Undo what it leaves on the host besides files."""
        for pid in self._helpers():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for line in Path("/proc/self/mounts").read_text().splitlines()[::-1]:
            where = line.split()[1]
            if where.startswith(f"{self.root}/"):
                command("umount", "-l", where, check=False)


def remove_groups(name: str, *, timeout_s: float = 10) -> None:
    """Remove the cgroups of that name, and what is below, in every hierarchy; processes in them are about to end."""
    deadline = time.monotonic() + timeout_s
    for top in (Path("/sys/fs/cgroup"), *Path("/sys/fs/cgroup").iterdir()):
        while (top / name).is_dir() and time.monotonic() < deadline:
            for path, _directories, _files in os.walk(top / name, topdown=False):
                with suppress(OSError):
                    os.rmdir(path)
            time.sleep(0.01)


class Enisle(Engine):
    """This engine, from this work tree."""

    name = "enisle"
    memory_of = "keeper"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.client = ["docker"]
        self.client_env = {
            "DOCKER_HOST": f"unix://{self.api_socket}",
            "DOCKER_CONFIG": str(self.root / "docker"),
            "DOCKER_BUILDKIT": "0",
        }
        self.label = f"bench{os.getpid()}"
        self.profile: Path | None = None

    def daemon(self) -> list[str]:
        (self.root / "enisle.toml").write_text(f'name = "{self.label}"\n')
        if GUEST.is_dir():
            (self.root / "data").mkdir(mode=0o700)
            command("cp", "-a", "--sparse=always", str(GUEST), str(self.root / "data" / "guest"))
        profiled = ["-P", str(Path(__file__).with_name("profiled.py")), str(self.profile)]
        program = profiled if self.profile else ["-m", "enisle.daemon.main"]
        roots = ["--data-root", str(self.root / "data"), "--run-root", str(self.root / "run")]
        settings = ["--socket", self.api_socket, "--config", str(self.root / "enisle.toml")]
        return [sys.executable, *program, *roots, *settings]

    def start(self, archive: Path) -> None:
        super().start(archive)
        self._wait_for_trial()

    def _wait_for_trial(self) -> None:
        """Until the host's KVM has been tried, which takes a processor for some seconds, once in a host's life."""
        deadline = time.monotonic() + 30
        while GUEST.is_dir() and not (self.root / "data" / "guest" / "kvm.json").exists():
            if time.monotonic() > deadline:
                raise RuntimeError("enisle: the trial of KVM does not end")
            time.sleep(0.1)

    def version(self) -> str:
        return str(Api(self.api_socket).call("GET", "/version")["Version"])

    def leftovers(self) -> list[str]:
        left = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/{self.label}/*/")]
        left += [str(path) for path in Path("/sys/fs/cgroup").glob(f"{self.label}/*/")]
        left += [str(path) for path in (self.root / "run" / "instances").glob("*")]
        left += [str(path) for path in (self.root / "data" / "instances").glob("*")]
        left += [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(self.root) in line]
        left += command(*self.inside(), "ip", "-o", "link", "show", "type", "veth").splitlines()
        return left

    def _clean(self) -> None:
        super()._clean()
        remove_groups(self.label)


class Docker(Engine):
    """dockerd and containerd from Debian's packages."""

    name = "dockerd"
    memory_of = "containerd-shim"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.client = ["docker"]
        self.client_env = {
            "DOCKER_HOST": f"unix://{self.api_socket}",
            "DOCKER_CONFIG": str(self.root / "docker"),
            "DOCKER_BUILDKIT": "0",
        }
        self._cgroup = f"enisle-bench-{os.getpid()}"

    def daemon(self) -> list[str]:
        roots = ["--data-root", str(self.root / "data"), "--exec-root", str(self.root / "exec")]
        files = ["--pidfile", str(self.root / "pid"), "--config-file", str(self.root / "none.json")]
        (self.root / "none.json").write_text("{}")
        return ["dockerd", *roots, *files, "-H", f"unix://{self.api_socket}", "--cgroup-parent", f"/{self._cgroup}"]

    def version(self) -> str:
        return str(Api(self.api_socket).call("GET", "/version")["Version"])

    def _clean(self) -> None:
        super()._clean()
        remove_groups(self._cgroup)


class Podman(Engine):
    """podman from Debian's packages. Its command line does the work itself; the service is there for API figures."""

    name = "podman"
    memory_of = "conmon"

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        roots = ["--root", str(self.root / "data"), "--runroot", str(self.root / "run")]
        self._base = ["podman", *roots, "--tmpdir", str(self.root / "tmp"), "--cgroup-manager=cgroupfs"]
        self.client_env = {"CONTAINERS_CONF": str(self.root / "containers.conf")}
        # It would raise limits, which takes a capability that not every host's root has; and crun does not take hosts
        # with both versions of cgroups.
        (self.root / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]\n'
            f'[engine]\nruntime = "runc"\n[network]\nnetwork_config_dir = "{self.root}/networks"\n'
        )
        (self.root / "networks").mkdir()
        self.client = self._base

    def daemon(self) -> list[str]:
        return [*self._base, "system", "service", "--time=0", f"unix://{self.api_socket}"]

    def _wait_for_answer(self) -> None:
        super()._wait_for_answer()
        # The client makes networks itself, so it has to be in the same namespace as the service.
        self.client = [*self.inside(), *self._base]

    def _clean(self) -> None:
        super()._clean()
        remove_groups("libpod_parent", timeout_s=1)  # shared with other podmans: what they use is not removed

    def version(self) -> str:
        return command("podman", "version", "--format", "{{.Client.Version}}").strip()
