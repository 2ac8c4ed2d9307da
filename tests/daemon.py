"""A private enisled for tests: own roots, own names, and a census that shows what it left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.api.contract.recorder import Recorder
from tests.api.contract.relay import Relay
from tests.compiled import put_compiled

REPOSITORY = Path(__file__).resolve().parents[1]
CACHE = Path("/var/cache/enisle-tests")
RECORDER = Recorder()
"""Sees every answer of every daemon that this process has started; tests/conftest.py asks it for faults."""

RUNTIMES = '[runtimes.debian-runc]\npath = "/usr/sbin/runc"\n'
"""Settings with an OCI runtime besides our own walls."""


def run(*args: str, timeout_s: float = 60, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a command, give its output as text; a failure shows what it said."""
    done = subprocess.run(args, capture_output=True, text=True, timeout=timeout_s, check=False, **options)  # type: ignore[call-overload]
    if check and done.returncode != 0:
        raise AssertionError(f"{' '.join(args)}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done


@dataclass
class Daemon:
    """One enisled with everything of its own. ``name`` is part of every name it makes on the host; ``prefix`` is a
    command that runs it."""

    name: str
    root: Path
    process: subprocess.Popen[bytes] | None = None
    extra_config: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    relay: Relay | None = None

    @property
    def socket(self) -> Path:
        """Where clients connect: the relay that checks answers."""
        return self.root / "relay.sock"

    @property
    def engine_socket(self) -> Path:
        """Where enisled listens."""
        return self.root / "run" / "enisle.sock"

    @property
    def data_root(self) -> Path:
        return self.root / "data"

    @property
    def run_root(self) -> Path:
        return self.root / "run"

    @property
    def command(self) -> list[str]:
        """How enisled is called, without the settings file."""
        roots = [
            "--data-root",
            str(self.data_root),
            "--run-root",
            str(self.run_root),
            "--socket",
            str(self.engine_socket),
        ]
        return [*self.prefix, sys.executable, "-m", "enisle.daemon.main", *roots]

    @property
    def log(self) -> str:
        path = self.root / "enisled.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def launch(self) -> None:
        """Start enisled."""
        if not self.run_root.exists():
            put_compiled(self.run_root)
        self.relay = self.relay or Relay(self.socket, self.engine_socket, RECORDER)
        config = self.root / "enisle.toml"
        config.write_text(f'name = "{self.name}"\n{self.extra_config}')
        with (self.root / "enisled.log").open("ab") as log:
            self.process = subprocess.Popen(
                [*self.command, "--config", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                env={**os.environ, **self.environment},
            )

    def start(self, *, timeout_s: float = 30) -> None:
        """Start enisled and wait until its socket answers."""
        self.launch()
        assert self.process is not None
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.docker("version", check=False).returncode == 0:
                return
            assert self.process.poll() is None, f"enisled ended with {self.process.returncode}:\n{self.log}"
            time.sleep(0.05)
        raise AssertionError(f"enisled did not answer within {timeout_s} s:\n{self.log}")

    def stop(self, *, timeout_s: float = 20) -> int:
        """SIGTERM; the exit code."""
        assert self.process is not None
        self.process.terminate()
        code = self.process.wait(timeout_s)
        self.process = None
        return code

    def kill(self) -> None:
        """SIGKILL, as a crash."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self.process = None

    def docker(
        self, *args: str, timeout_s: float = 60, check: bool = True, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """The real docker client against this daemon."""
        environment = {**os.environ, "DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.root / "docker")}
        return run("docker", *args, timeout_s=timeout_s, check=check, env=environment, **options)

    def enisle(
        self, *args: str, timeout_s: float = 60, check: bool = True, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Our own client against this daemon."""
        environment = {**os.environ, "ENISLE_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": str(self.root / "docker")}
        command = [sys.executable, "-m", "enisle.cli.main", *args]
        return run(*command, timeout_s=timeout_s, check=check, env=environment, **options)

    def remove_everything(self) -> None:
        """Remove all instances and end the daemon, so that the census can be taken."""
        if self.process is None or self.process.poll() is not None:
            self.start()
        ids = self.docker("ps", "-aq").stdout.split()
        if ids:
            self.docker("rm", "-f", "-v", *ids, timeout_s=120)
        self.stop()

    def census(self) -> dict[str, list[str]]:
        """What is on the host under this daemon's names, by kind; all empty when nothing was left."""
        name = self.name
        links = run("ip", "-o", "link").stdout.splitlines()
        tables = run("nft", "list", "tables").stdout.splitlines()
        roots = ("/sys/fs/cgroup", *(str(path) for path in Path("/sys/fs/cgroup").glob("*/")))
        found = {
            "mounts": [
                line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.root) in line
            ],
            "cgroups": sorted({str(Path(root, name)) for root in roots if Path(root, name).exists()}),
            "links": [line for line in links if name in line],
            "nftables": [table for table in tables if name in table],
            "processes": self._processes(),
            "run files": [str(path) for path in self.run_root.rglob("*") if "instances/" in str(path)],
        }
        return {kind: things for kind, things in found.items() if things}

    def _processes(self) -> list[str]:
        found = []
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or entry.name == str(os.getpid()):
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if str(self.root) in command:
                found.append(f"{entry.name} {command}")
        return found


def new_daemon(*, prefix: str = "t", extra_config: str = "") -> Daemon:
    """A daemon with fresh roots, not started. Short paths: a socket's path has 107 bytes at most."""
    root = Path(tempfile.mkdtemp(prefix="enisle-", dir="/var/tmp"))
    return Daemon(name=f"{prefix}{os.getpid() % 100000}{os.urandom(1).hex()}", root=root, extra_config=extra_config)


def dispose(daemon: Daemon) -> None:
    """Remove everything; fail when something is left on the host."""
    try:
        daemon.remove_everything()
        deadline = time.monotonic() + 5  # the kernel takes network namespaces down in the background
        while (left := daemon.census()) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not left, f"left behind: {left}\n{daemon.log[-4000:]}"
    finally:
        if daemon.process is not None:
            daemon.process.send_signal(signal.SIGKILL)
            daemon.process.wait()
        if daemon.relay is not None:
            daemon.relay.close()
        shutil.rmtree(daemon.root, ignore_errors=True)


def image_archive(name: str) -> Path:
    """A docker-archive of a bootstrapped image (``busybox``, ``debian:12``), made once per machine."""
    CACHE.mkdir(parents=True, exist_ok=True)
    archive = CACHE / f"{name.replace(':', '-')}.tar"
    lock = CACHE / f"{archive.name}.lock"
    with lock.open("w") as handle:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX)
        if archive.exists():
            return archive
        daemon = new_daemon(prefix="b")
        try:
            daemon.start()
            daemon.enisle("image", "bootstrap", name, timeout_s=600)
            partial = archive.with_suffix(".partial")
            daemon.docker("save", "-o", str(partial), name, timeout_s=300)
            partial.rename(archive)
        finally:
            dispose(daemon)
    return archive


def use_guest_cache(daemon: Daemon) -> None:
    """Give the daemon the guest kernel that run-tests has built, instead of building it again."""
    guest = Path(os.environ.get("ENISLE_TEST_GUEST", str(CACHE / "guest")))
    daemon.data_root.mkdir(mode=0o700, parents=True, exist_ok=True)
    if guest.is_dir() and not (daemon.data_root / "guest").exists():
        ignored = shutil.ignore_patterns("disk-*")  # sparse: a plain copy would take its whole size
        shutil.copytree(guest, daemon.data_root / "guest", symlinks=True, ignore=ignored)
