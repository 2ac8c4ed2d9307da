"""What every container on the host's kernel has, whoever has made it: a cgroup, NICs, processes to look at, files."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from enisle.launcher.container import files, nics, processes, userns
from enisle.launcher.container.oom import OomWatch
from enisle.launcher.container.session import ContainerSession
from enisle.launcher.container.task import Task
from enisle.launcher.resolver import Resolver
from enisle.launcher.wall import Wall, WallError
from enisle.linux.cgroup.group import Group
from enisle.linux.cgroup.layout import Layout
from enisle.linux.namespaces import open_namespace
from enisle.linux.nics import restore_default_routes, set_up
from enisle.linux.route import Route
from enisle.wire.frames import close_all
from enisle.wire.keeper import Stats
from enisle.wire.plans import ContainerPlan, LimitsPlan, NicPlan, from_json

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop
    from enisle.launcher.names import Names


class HostContainer(Wall):
    """A wall subclasses it, sets ``_plan`` and ``_group`` when it starts, and calls ``_adopt`` once it runs."""

    def __init__(self, loop: EpollLoop, run_dir: str) -> None:
        self._loop = loop
        self._run_dir = run_dir
        self._plan: ContainerPlan | None = None
        self._group: Group | None = None
        self._layout = Layout()
        self._session: ContainerSession | None = None
        self._nics: dict[str, NicPlan] = {}
        self._root_fd = -1
        self._tasks: list[Task] = []
        self._oom: OomWatch | None = None
        self._oom_killed: bool | None = None
        self._names: Names | None = None

    def _adopt(self, session: ContainerSession) -> None:
        """The first process runs."""
        self._session = session
        if self._plan is not None and self._plan.namespaces.pid != "private":
            session.on_ended = self._kill_rest
        if self._plan is not None:
            self._watch_oom(self._plan.limits)

    def _kill_rest(self) -> None:
        """A first process takes its pid namespace with it; where that is shared, the others hold its output open."""
        if self._group is not None:
            self._group.kill()

    def _watch_oom(self, limits: LimitsPlan) -> None:
        if self._group is not None and limits.memory_bytes:
            self._oom = self._oom or OomWatch(self._loop, self._group, lambda: self.on_oom())
            self._oom.start()

    def _running(self) -> tuple[ContainerPlan, Group]:
        if self._plan is None or self._group is None or self._session is None:
            raise WallError("conflict", "the container is not running")
        return self._plan, self._group

    def _pid(self) -> int:
        self._running()
        assert self._session is not None
        return self._session.pid

    def _keep(self, task: Task) -> None:
        """For ``close``; those that have ended are forgotten."""
        self._tasks = [*(kept for kept in self._tasks if kept.pid), task]

    # --- looking ---------------------------------------------------------------------------------------------------

    def signal_all(self, number: int) -> None:
        for pid in self._running()[1].pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def stats(self, done: Callable[[Stats | WallError], None]) -> None:
        group = self._running()[1]
        usage = group.usage()
        pid = self._session.pid if self._session is not None else 0
        done(Stats(read_at=time.time_ns(), nics=nics.counters(pid), **dataclasses.asdict(usage)))

    def top(self, ps_args: str, done: Callable[[dict[str, Any] | WallError], None]) -> None:
        pids = self._running()[1].pids()
        if ps_args in processes.USUAL_ARGUMENTS:
            done(processes.full_list(pids))
            return

        def work() -> dict[str, Any]:
            try:
                return processes.filter_ps(processes.run_ps(ps_args.split()), set(pids))
            except ValueError as error:
                raise WallError("invalid", str(error)) from error

        self._keep(Task(self._loop, work, [], done))

    def oom_killed(self) -> bool:
        if self._oom_killed is None and self._group is not None:
            return self._group.oom_kills() > 0
        return bool(self._oom_killed)

    # --- files -----------------------------------------------------------------------------------------------------

    def open_files(self, plan: dict[str, Any], done: Callable[[WallError | None], None]) -> None:
        self._plan = from_json(ContainerPlan, plan)

        def opened(result: int | WallError) -> None:
            if isinstance(result, int):
                self._root_fd = result
            done(None if isinstance(result, int) else result)

        self._keep(files.open_stopped(self._loop, self._plan, opened))

    def files(
        self, request: dict[str, Any], fds: list[int], done: Callable[[dict[str, Any] | WallError], None]
    ) -> None:
        if self._plan is None:
            close_all(fds)
            raise WallError("conflict", "the container's files are not open")
        try:
            root_fd = os.dup(self._root_fd) if self._session is None else self._open_root(self._session.pid)
        except OSError as error:
            close_all(fds)
            raise WallError("conflict", f"container {self._plan.id} is not running") from error
        users = -1
        if self._session is not None and userns.is_wanted(self._plan):
            users = open_namespace(self._session.pid, "user")
        self._keep(files.request(self._loop, self._plan, root_fd, request, fds, done, userns_fd=users))

    def _open_root(self, pid: int) -> int:
        """The root of the running container, as its first process sees it. OSError."""
        return os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)

    # --- network ---------------------------------------------------------------------------------------------------

    def _plug(self, planned: list[NicPlan], pid: int) -> None:
        with Route() as route:
            for nic in planned:
                nics.make(route, nic, pid)
                self._nics[nic.name] = nic
        set_up(planned, pid)  # from here, because it ends with a look at the host's end
        self._serve_names(planned, pid)

    def _serve_names(self, planned: list[NicPlan], pid: int) -> None:
        """Have names answered inside, if one of the NICs is on no bridge: its bridges may go. OSError."""
        if (
            self._names is None
            and self._plan is not None
            and self._plan.resolver
            and any(nic.parent for nic in planned)
        ):
            from enisle.launcher.names import Names  # few need it, and all would have its pages

            self._names = Names(self._loop, Resolver(self._plan.resolver, self._plan.id), pid)

    def add_nic(self, nic: NicPlan, done: Callable[[WallError | None], None]) -> None:
        pid = self._pid()
        with Route() as route:
            nics.make(route, nic, pid)
        self._nics[nic.name] = nic
        try:
            set_up([nic], pid)
            self._serve_names([nic], pid)
        except OSError as error:
            self._drop_nic(nic.name)
            raise WallError("internal", f"network interface {nic.name}: {error.strerror}") from error
        done(None)

    def remove_nic(self, name: str, done: Callable[[WallError | None], None]) -> None:
        if name not in self._nics:
            raise WallError("not_found", f"no network interface {name}")
        self._drop_nic(name)
        try:
            restore_default_routes(list(self._nics.values()), self._pid())
        except OSError as error:
            raise WallError("internal", f"default route after {name} went: {error.strerror}") from error
        done(None)

    def _drop_nic(self, name: str) -> None:
        nic = self._nics.pop(name)
        with Route() as route:
            nics.remove(route, nic, self._pid())

    # --- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Links go with their network namespace; the overlay with its mount namespace."""
        for task in self._tasks:
            task.kill()
        self._tasks.clear()
        for part in (self._oom, self._names):
            if part is not None:
                part.close()
        if self._root_fd >= 0:
            os.close(self._root_fd)
            self._root_fd = -1
        if self._group is not None:
            self._oom_killed = self.oom_killed()
            group, self._group = self._group, None
            group.kill()
            group.remove()
