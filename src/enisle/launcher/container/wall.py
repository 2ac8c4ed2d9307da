"""The container wall: namespaces, a cgroup and a root of its own, on the host's kernel."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from enisle.launcher.container import devices, files, nics, processes, userns
from enisle.launcher.container.child import Birth, become_first_process
from enisle.launcher.container.failure import PREFIX_CREATE
from enisle.launcher.container.join import Entry, become_further_process
from enisle.launcher.container.reserve import Reserve, suits
from enisle.launcher.container.session import ContainerSession
from enisle.launcher.container.spawn import Spawn
from enisle.launcher.container.task import Task
from enisle.launcher.wall import Session, SessionEvents, Wall, WallError
from enisle.linux import user_namespace
from enisle.linux.cgroup.choose import group as cgroup_of
from enisle.linux.cgroup.group import Group
from enisle.linux.cgroup.layout import Layout, host_layout
from enisle.linux.namespaces import (
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    FLAGS,
    Child,
    clone,
    open_namespace,
    setns,
)
from enisle.linux.nics import restore_default_routes, set_up
from enisle.linux.route import Route
from enisle.wire.frames import close_all
from enisle.wire.keeper import Stats
from enisle.wire.plans import ContainerPlan, LimitsPlan, NicPlan, ProcessPlan, from_json

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop

_GIVE_UP_S = 1.0  # from a child's loss of its namespaces to its end; mostly well under a millisecond


class ContainerWall(Wall):
    """One container. Its pidfd, cgroup and links are owned here; processes are the kernel's."""

    def __init__(self, loop: EpollLoop, run_dir: str, reserve: Reserve | None = None) -> None:
        """``reserve`` becomes ours."""
        self._reserve = reserve
        self._loop = loop
        self._run_dir = run_dir
        self._plan: ContainerPlan | None = None
        self._group: Group | None = None
        self._layout = Layout()
        self._session: ContainerSession | None = None
        self._init_pidfd = -1
        # Its root_fd is never closed: the last reference to an overlay writes out the whole file system below it. So
        # that goes with this keeper, and neither the program's end nor the report of it wait for the disk.
        self._first: Spawn | None = None
        self._own_pidns = -1
        self._nics: dict[str, NicPlan] = {}
        self._root_fd = -1
        self._tasks: list[Task] = []
        self._oom_fd = -1
        self._oom_killed: bool | None = None

    # --- start -----------------------------------------------------------------------------------------------------

    def start(self, plan: dict[str, Any], events: SessionEvents, done: Callable[[Session | WallError], None]) -> None:
        self._plan = parsed = from_json(ContainerPlan, plan)
        process = parsed.process
        spawn = Spawn(self._loop, events, terminal=process.terminal, stdin=process.stdin, done=self._started(done))
        self._first = spawn
        try:
            self._spawn_first(plan, parsed, spawn)
        except WallError as error:
            spawn.abandon(error)
        except OSError as error:
            name = f"{os.fsdecode(error.filename)}: " if error.filename else ""
            spawn.abandon(WallError("internal", f"{name}{error.strerror or error}", 128))
        self.warnings = spawn.warnings

    def _started(self, done: Callable[[Session | WallError], None]) -> Callable[[ContainerSession | WallError], None]:
        def started(result: ContainerSession | WallError) -> None:
            if isinstance(result, ContainerSession):
                self._session = result
                self._init_pidfd = os.dup(result.pidfd)
                if self._plan is not None and self._plan.namespaces.pid != "private":
                    result.on_ended = self._kill_rest
                self._watch_oom()
            done(result)

        return started

    def _spawn_first(self, values: dict[str, Any], plan: ContainerPlan, spawn: Spawn) -> None:
        """On v2 the group is made before, so that the child is born in it; on v1 while the child sets itself up."""
        self._layout = host_layout()
        self._group = cgroup_of(f"{plan.cgroup_parent}/{plan.id}", self._layout)
        if self._layout.version == 2:
            self._make_group(self._group, plan, spawn)
        child = self._take_reserve(values, plan, spawn) or self._clone_first(plan, spawn, self._group)
        spawn.forked(child)
        if self._layout.version == 1:
            self._make_group(self._group, plan, spawn)
        if userns.is_wanted(plan):
            user_namespace.write_maps(child.pid, plan.namespaces.uid_map, plan.namespaces.gid_map)
            if self._layout.version == 1:
                self._group.add(child.pid)  # it has no right to do that itself
        if plan.nics and plan.namespaces.net == "private":
            try:
                self._plug(plan.nics, child.pid)
            except (OSError, WallError) as error:
                # One that has given up lost its namespaces before it has ended, and tells why itself.
                reason = error.__cause__ if isinstance(error, WallError) else error
                lost = isinstance(reason, OSError) and reason.errno in (errno.ESRCH, errno.ENOENT)
                if not lost or not child.ends_within(_GIVE_UP_S):
                    raise
        if userns.is_wanted(plan):
            self._keep(userns.prepare(self._loop, plan, child.pid, lambda made: _mounts_made(spawn, made)))
        else:
            spawn.go()

    def _plug(self, planned: list[NicPlan], pid: int) -> None:
        with Route() as route:
            for nic in planned:
                nics.make(route, nic, pid)
                self._nics[nic.name] = nic
        set_up(planned, pid)  # from here, because it ends with a look at the host's end

    def _take_reserve(self, values: dict[str, Any], plan: ContainerPlan, spawn: Spawn) -> Child | None:
        """The child that was born for this before, told its plan; None where there is none, or it cannot be used."""
        reserve, self._reserve = self._reserve, None
        if reserve is None:
            return None
        if suits(plan.namespaces) and reserve.give(json.dumps(values).encode(), spawn.stdio):
            spawn.adopt(reserve.channel)
            return reserve.child
        reserve.discard()
        return None

    def _clone_first(self, plan: ContainerPlan, spawn: Spawn, group: Group) -> Child:
        cgroup_fd = group.directory_fd()
        joined, flags = self._namespaces(plan)
        if userns.is_wanted(plan):
            userns.own_stdio(spawn.stdio, plan.namespaces)
        try:
            if "pid" in joined:
                self._enter_pid_namespace(joined["pid"])
            child = clone(flags, cgroup_fd=cgroup_fd)
            if child is None:
                joined.pop("pid", None)
                become_first_process(
                    plan,
                    Birth(
                        channel_fd=spawn.channel_fd,
                        stdio=spawn.stdio,
                        joined=joined,
                        layout=self._layout,
                        cgroup_path=group.path,
                        group=group if cgroup_fd < 0 and not userns.is_wanted(plan) else None,
                    ),
                )
        finally:
            if "pid" in joined:
                self._leave_pid_namespace()
            close_all([*joined.values(), *([cgroup_fd] if cgroup_fd >= 0 else [])])
        return child

    def _make_group(self, group: Group, plan: ContainerPlan, spawn: Spawn) -> None:
        try:
            group.create()
        except FileExistsError:  # what a keeper that was killed has left
            group.kill()
            group.remove()
            group.create()
        group.restrict_devices(devices.rules(plan.devices, plan.device_rules))
        spawn.warnings += group.apply(plan.limits)

    def _namespaces(self, plan: ContainerPlan) -> tuple[dict[str, int], int]:
        """(descriptors of the namespaces to join, flags of the new ones).

        The cgroup namespace is the child's to make, once it is in its cgroup: one made by clone3 has the root of the
        caller's cgroup, also with CLONE_INTO_CGROUP.
        """
        joined: dict[str, int] = {}
        flags = CLONE_NEWNS | (CLONE_NEWUSER if userns.is_wanted(plan) else 0)
        for kind in ("net", "pid", "ipc", "uts"):
            origin = getattr(plan.namespaces, kind)
            if origin == "private":
                flags |= FLAGS[kind]
            elif origin != "host":
                try:
                    joined[kind] = open_namespace(int(origin), kind)
                except OSError as error:
                    close_all(list(joined.values()))
                    text = f"cannot join the {kind} namespace of process {origin}: it has ended"
                    raise WallError("conflict", text, 128) from error
        return joined, flags

    def _enter_pid_namespace(self, fd: int) -> None:
        """What we fork from now on is born there; we ourselves stay where we are."""
        if self._own_pidns < 0:
            self._own_pidns = open_namespace(os.getpid(), "pid")
        setns(fd, CLONE_NEWPID)

    def _leave_pid_namespace(self) -> None:
        setns(self._own_pidns, CLONE_NEWPID)

    def _kill_rest(self) -> None:
        """A first process takes its pid namespace with it; where that is shared, the others hold its output open."""
        if self._group is not None:
            self._group.kill()

    def _watch_oom(self) -> None:
        if self._group is not None and self._plan is not None and self._plan.limits.memory_bytes:
            self._oom_fd = self._group.oom_event_fd()
        if self._oom_fd >= 0:
            self._loop.add_reader(self._oom_fd, self._oom_event)

    def _oom_event(self) -> None:
        os.read(self._oom_fd, 4096)
        if self.oom_killed():
            self.on_oom()

    # --- exec ------------------------------------------------------------------------------------------------------

    def start_exec(
        self, exec_id: str, process: ProcessPlan, events: SessionEvents, done: Callable[[Session | WallError], None]
    ) -> None:
        plan, group = self._running()
        spawn = Spawn(self._loop, events, terminal=process.terminal, stdin=process.stdin, done=done)
        cgroup_fd = group.directory_fd()
        if userns.is_wanted(plan):
            userns.own_stdio(spawn.stdio, plan.namespaces)
        inside = plan.namespaces.pid != "host"
        hidden = inside and "SYS_PTRACE" in plan.process.capabilities and not userns.is_wanted(plan)
        try:
            if inside and not hidden:
                self._enter_pid_namespace(self._init_pidfd)
            try:
                child = clone(0, cgroup_fd=cgroup_fd)
                if child is None:
                    entry = Entry(
                        channel_fd=spawn.channel_fd,
                        stdio=spawn.stdio,
                        init_pidfd=self._init_pidfd,
                        group=group if cgroup_fd < 0 else None,
                        has_own_users=userns.is_wanted(plan),
                        hidden=hidden,
                    )
                    become_further_process(process, entry)
            finally:
                if inside and not hidden:
                    self._leave_pid_namespace()
                if cgroup_fd >= 0:
                    os.close(cgroup_fd)
        except OSError as error:
            spawn.abandon(WallError("conflict", f"container {plan.id} is not running: {error.strerror}", 128))
            return
        spawn.forked(child)

    def _running(self) -> tuple[ContainerPlan, Group]:
        if self._plan is None or self._group is None or self._session is None:
            raise WallError("conflict", "the container is not running")
        return self._plan, self._group

    # --- looking and acting ----------------------------------------------------------------------------------------

    def signal_all(self, number: int) -> None:
        for pid in self._running()[1].pids():
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                pass

    def pause(self, done: Callable[[WallError | None], None]) -> None:
        self._freeze(frozen=True, done=done)

    def unpause(self, done: Callable[[WallError | None], None]) -> None:
        self._freeze(frozen=False, done=done)

    def _freeze(self, *, frozen: bool, done: Callable[[WallError | None], None]) -> None:
        try:
            self._running()[1].freeze(frozen=frozen)
        except (OSError, KeyError) as error:
            done(WallError("internal", f"the cgroup's freezer: {error}"))
            return
        done(None)

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

    def update(self, limits: LimitsPlan, done: Callable[[WallError | None], None]) -> None:
        plan, group = self._running()
        try:
            group.apply(limits)
        except OSError as error:
            done(WallError("invalid", f"Cannot update container {plan.id}: {error.filename}: {error.strerror}"))
            return
        done(None)

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
            if self._session is not None:
                root_fd = os.open(f"/proc/{self._session.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            else:
                root_fd = os.dup(self._root_fd)
        except OSError as error:
            close_all(fds)
            raise WallError("conflict", f"container {self._plan.id} is not running") from error
        users = -1
        if self._session is not None and userns.is_wanted(self._plan):
            users = open_namespace(self._session.pid, "user")
        self._keep(files.request(self._loop, self._plan, root_fd, request, fds, done, userns_fd=users))

    # --- network ---------------------------------------------------------------------------------------------------

    def add_nic(self, nic: NicPlan, done: Callable[[WallError | None], None]) -> None:
        pid = self._pid()
        with Route() as route:
            nics.make(route, nic, pid)
        self._nics[nic.name] = nic
        try:
            set_up([nic], pid)
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

    def _keep(self, task: Task) -> None:
        """For ``close``; those that have ended are forgotten."""
        self._tasks = [*(kept for kept in self._tasks if kept.pid), task]

    def _pid(self) -> int:
        self._running()
        assert self._session is not None
        return self._session.pid

    # --- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Links go with their network namespace; the overlay with its mount namespace."""
        if self._reserve is not None:
            self._reserve.discard()
            self._reserve = None
        for task in self._tasks:
            task.kill()
        self._tasks.clear()
        if self._oom_fd >= 0:
            self._loop.remove(self._oom_fd)
        close_all([fd for fd in (self._oom_fd, self._init_pidfd, self._own_pidns, self._root_fd) if fd >= 0])
        self._oom_fd = self._init_pidfd = self._own_pidns = self._root_fd = -1
        if self._group is not None:
            self._oom_killed = self.oom_killed()
            group, self._group = self._group, None
            group.kill()
            group.remove()


def _mounts_made(spawn: Spawn, made: list[int] | WallError) -> None:
    """The mounts of a container in its own user namespace have been made outside, or could not be."""
    if spawn.is_over:
        close_all([] if isinstance(made, WallError) else made)
    elif isinstance(made, WallError):
        spawn.abandon(WallError(made.kind, f"{PREFIX_CREATE}{made.message}", 128))
    else:
        spawn.hand_over(made)
        spawn.go()
