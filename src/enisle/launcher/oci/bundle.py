"""The work that has to be done for an OCI runtime, in a child of the keeper: mounts, files to read, its verbs.

The child makes the root file system, and every source of a bind, in a mount namespace of its own, which the runtime
copies for the container: on the host nothing is ever mounted, and what a bind shows is decided before the runtime
looks at a path.
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager

from enisle.launcher.container import identity
from enisle.launcher.container.failure import PREFIX_CREATE, PREFIX_EXEC, ChildFailure
from enisle.launcher.container.options import parse
from enisle.launcher.container.root import Root
from enisle.launcher.container.rootfs import BINDS, Rootfs
from enisle.launcher.container.task import Answer
from enisle.launcher.oci import spec
from enisle.launcher.oci.command import Runtime, RuntimeFailure, failure
from enisle.launcher.wall import WallError
from enisle.linux import capabilities, mounts, rlimits
from enisle.linux.namespaces import CLONE_NEWNS, unshare
from enisle.wire.plans import ContainerPlan, LimitsPlan, ProcessPlan

_CONSOLE_TIMEOUT_S = 10.0


def create(runtime: Runtime, plan: ContainerPlan, stdio: list[int], network: str) -> Answer:
    """Make the container and let its program go. The answer: "pid", and descriptors of the root and a terminal.

    ``network``: path of its network namespace.
    """
    unshare(CLONE_NEWNS)
    try:
        rootfs = Rootfs(plan.lower, plan.upper, plan.work)
        rootfs.take_sources(plan.mounts)
        rootfs.mount_root()
        sources = _show_sources(rootfs, plan, f"{runtime.directory}/sources")
        _make_working_directory(rootfs.root, plan.process.cwd)
        who = identity.resolve(plan.process.user, plan.process.groups, rootfs.root.read)
    except ChildFailure as error:
        raise WallError(error.kind, error.sentence(PREFIX_CREATE), error.exit_code) from error
    process, warnings = _possible(plan.process)
    plan = dataclasses.replace(plan, process=process)
    config = spec.config(plan, who, spec.Place(root=plan.upper, sources=sources, network=network))
    _write(f"{runtime.directory}/config.json", config)
    pid_file = f"{runtime.directory}/pid"
    words = ["--bundle", runtime.directory, "--pid-file", pid_file]
    try:
        with _console(runtime, wanted=plan.process.terminal) as console:
            runtime.run("create", *words, *console.words, stdio=stdio)
            fds = [rootfs.root.fd, *console.receive()]
        pid = _read_pid(pid_file)
        runtime.run("start")
    except RuntimeFailure as error:
        remove(runtime)
        raise failure("create", str(error)) from error
    return {"pid": pid, "fds": fds, "warnings": warnings}


def execute(runtime: Runtime, process: ProcessPlan, root: int, number: int, stdio: list[int]) -> Answer:
    """Start a further process; ``root`` is a descriptor of the container's, ``number`` makes its files' names."""
    try:
        who = identity.resolve(process.user, process.groups, Root(root).read)
    except ChildFailure as error:
        raise WallError(error.kind, error.sentence(PREFIX_EXEC), error.exit_code) from error
    description, pid_file = (f"{runtime.directory}/{name}-{number}" for name in ("process", "pid"))
    _write(description, spec.process(_possible(process)[0], who))
    words = ["--process", description, "--pid-file", pid_file, "--detach"]
    try:
        with _console(runtime, wanted=process.terminal, number=number) as console:
            runtime.run("exec", *words, *console.words, stdio=stdio)
            return {"pid": _read_pid(pid_file), "fds": console.receive()}
    except RuntimeFailure as error:
        raise failure("exec", str(error)) from error
    finally:
        for path in (description, pid_file):
            _unlink(path)


def update(runtime: Runtime, limits: LimitsPlan) -> Answer:
    """Change the limits of the running container."""
    path = f"{runtime.directory}/resources.json"
    _write(path, spec.resources(limits))
    try:
        runtime.run("update", "--resources", path)
    except RuntimeFailure as error:
        raise WallError("invalid", f"Cannot update container {runtime.container}: {error}") from error
    finally:
        _unlink(path)
    return {}


def remove(runtime: Runtime, *, timeout_s: float = 30.0) -> str:
    """Have the runtime kill what is left of the container and forget it; why it could not, "" if it could."""
    if not runtime.is_known:
        return ""
    try:
        runtime.run("delete", "--force", timeout_s=timeout_s)
    except RuntimeFailure as error:
        return str(error)
    return ""


def _possible(process: ProcessPlan) -> tuple[ProcessPlan, list[str]]:
    """With what we have the right to set (a runtime would fail), and warnings about the rest."""
    if capabilities.effective() & capabilities.mask(["SYS_RESOURCE"]):
        return process, []
    limits, warnings = rlimits.settable(process.rlimits)
    with open("/proc/self/oom_score_adj", encoding="ascii") as file:
        lowest = int(file.read())
    if process.oom_score_adj < lowest:
        warnings.append(f"oom_score_adj {process.oom_score_adj} is not set: permission denied")
    adjustment = max(process.oom_score_adj, lowest)
    return dataclasses.replace(process, rlimits=limits, oom_score_adj=adjustment), warnings


def _show_sources(rootfs: Rootfs, plan: ContainerPlan, place: str) -> dict[str, str]:
    """Attach the sources of all binds below ``place``; target -> where its source is."""
    wanted = [mount for mount in plan.mounts if mount.kind in BINDS]
    target = os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    site = mounts.new("tmpfs", {"size": "4m", "mode": "0700"})
    mounts.attach(site, target)
    os.close(target)
    shown = {}
    for number, mount in enumerate(wanted):
        fd = rootfs.take_source(mount, parse(mount.options))
        name = str(number)
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            os.mkdir(name, dir_fd=site)
        else:
            os.close(os.open(name, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600, dir_fd=site))
        target = os.open(name, os.O_PATH | os.O_CLOEXEC, dir_fd=site)
        mounts.attach(fd, target)
        os.close(target)
        os.close(fd)
        shown[mount.target] = f"{place}/{name}"
    os.close(site)
    return shown


def _make_working_directory(root: Root, path: str) -> None:
    """What is wrong with it is told by the runtime, when it is entered."""
    try:
        os.close(root.target(path or "/", directory=True))
    except OSError:
        pass


class _Console:
    """The socket over which a runtime sends the terminal that it has made."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.words: list[str] = []
        if path:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            self._socket.bind(path)
            self._socket.listen(1)
            self._socket.settimeout(_CONSOLE_TIMEOUT_S)
            self.words = ["--console-socket", path]

    def receive(self) -> list[int]:
        """The terminal's master; nothing where none was wanted. RuntimeFailure when none comes."""
        if not self._path:
            return []
        try:
            connection, _address = self._socket.accept()
            with connection:
                connection.settimeout(_CONSOLE_TIMEOUT_S)
                _data, fds, _flags, _sender = socket.recv_fds(connection, 4096, 1)
        except TimeoutError as error:
            raise RuntimeFailure("the runtime has sent no terminal") from error
        if not fds:
            raise RuntimeFailure("the runtime has sent no terminal")
        return fds

    def close(self) -> None:
        if self._path:
            self._socket.close()
            _unlink(self._path)


@contextmanager
def _console(runtime: Runtime, *, wanted: bool, number: int = 0) -> Iterator[_Console]:
    console = _Console(f"{runtime.directory}/tty{number}" if wanted else "")
    try:
        yield console
    finally:
        console.close()


def _write(path: str, value: spec.Json) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        # Text that is no UTF-8 has come as lone surrogates; JSON has no other way to say such bytes.
        file.write(json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogateescape"))


def _read_pid(path: str) -> int:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError) as error:
        raise RuntimeFailure("the runtime has written no process id") from error


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
