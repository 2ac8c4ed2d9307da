"""The container wall: namespaces, a cgroup and a root of its own, on the host's kernel."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from enisle.launcher.container import devices, program, setup, userns
from enisle.launcher.container.child import Birth, become_first_process
from enisle.launcher.container.enter import Entrance
from enisle.launcher.container.failure import PREFIX_CREATE, PREFIX_EXEC, ChildFailure
from enisle.launcher.container.host import HostContainer
from enisle.launcher.container.join import ALL, Entry, become_further_process
from enisle.launcher.container.reserve import Newborn, bear, suits
from enisle.launcher.container.session import ContainerSession
from enisle.launcher.container.spawn import Spawn
from enisle.launcher.wall import Done, SessionEvents, WallError
from enisle.linux import user_namespace
from enisle.linux.cgroup.choose import group as cgroup_of
from enisle.linux.cgroup.group import Group
from enisle.linux.cgroup.layout import host_layout
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
from enisle.wire.frames import close_all
from enisle.wire.plans import ContainerPlan, LimitsPlan, ProcessPlan, from_json

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop

_GIVE_UP_S = 1.0  # from a child's loss of its namespaces to its end; mostly well under a millisecond


class ContainerWall(HostContainer):
    """One container, made by ourselves. Its pidfd, cgroup and links are owned here; processes are the kernel's."""

    def __init__(self, loop: EpollLoop, run_dir: str, reserve: Newborn | None = None, entering: int = -1) -> None:
        """``reserve`` becomes ours. ``entering``: a descriptor of the program in C; -1 where there is none."""
        super().__init__(loop, run_dir)
        self._reserve = reserve
        self._entering = entering
        self._init_pidfd = -1
        # Its root_fd is never closed: the last reference to an overlay writes out the whole file system below it. So
        # that goes with this keeper, and neither the program's end nor the report of it wait for the disk.
        self._first: Spawn | None = None
        self._own_pidns = -1

    # --- start -----------------------------------------------------------------------------------------------------

    def start(self, plan: dict[str, Any], events: SessionEvents, done: Done, meanwhile: Callable[[], None]) -> None:
        self._plan = parsed = from_json(ContainerPlan, plan)
        process = parsed.process
        spawn = Spawn(self._loop, events, terminal=process.terminal, stdin=process.stdin, done=self._started(done))
        self._first = spawn
        try:
            self._spawn_first(parsed, spawn)
            meanwhile()
        except WallError as error:
            spawn.abandon(error)
        except OSError as error:
            name = f"{os.fsdecode(error.filename)}: " if error.filename else ""
            spawn.abandon(WallError("internal", f"{name}{error.strerror or error}", 128))
        self.warnings = spawn.warnings

    def _started(self, done: Done) -> Callable[[ContainerSession | WallError], None]:
        def started(result: ContainerSession | WallError) -> None:
            if isinstance(result, ContainerSession):
                self._init_pidfd = os.dup(result.pidfd)
                self._adopt(result)
            done(result)

        return started

    def _spawn_first(self, plan: ContainerPlan, spawn: Spawn) -> None:
        """On v2 the group is made before, so that the child is born in it; on v1 while the child sets itself up."""
        self._layout = host_layout()
        self._group = cgroup_of(f"{plan.cgroup_parent}/{plan.id}", self._layout)
        if self._layout.version == 2:
            self._make_group(self._group, plan, spawn)
        request = self._steps(plan, spawn)
        child = self._bear_first(plan, spawn) if request is not None else self._clone_first(plan, spawn, self._group)
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
        elif request is not None:
            spawn.say(request)
        else:
            spawn.go()

    def _steps(self, plan: ContainerPlan, spawn: Spawn) -> bytes | None:
        """Have the program in C make the container, and return what that is told at the end; None where it cannot."""
        assert self._group is not None
        if self._entering < 0 or not setup.suits(plan):
            return None
        try:
            steps = setup.steps_of(plan, self._layout)
            doors = self._group.doors() if self._layout.version == 1 else []
            entrance = Entrance(plan.process, doors, steps=steps or [])
            request = entrance.request()
        except ChildFailure as error:
            raise _could_not_create(error) from error
        if steps is None or request is None:
            return None
        spawn.entrance = entrance
        return request

    def _bear_first(self, plan: ContainerPlan, spawn: Spawn) -> Child:
        """The one that was born for this before, or a new one, with its steps."""
        reserve, self._reserve = self._reserve, None
        if reserve is not None and (not suits(plan.namespaces) or reserve.child.ends_within(0)):
            reserve.discard()
            reserve = None
        newborn = reserve or self._bear(plan)
        spawn.adopt(newborn.channel)
        assert spawn.entrance is not None
        spawn.say(setup.packed(spawn.entrance.steps), spawn.stdio)
        return newborn.child

    def _bear(self, plan: ContainerPlan) -> Newborn:
        assert self._group is not None
        cgroup_fd = self._group.directory_fd()
        joined, flags = self._namespaces(plan)
        try:
            return bear(self._entering, flags & ~CLONE_NEWNS, joined, cgroup_fd)
        except ChildFailure as error:
            raise _could_not_create(error) from error
        finally:
            close_all([*joined.values(), *([cgroup_fd] if cgroup_fd >= 0 else [])])

    def _clone_first(self, plan: ContainerPlan, spawn: Spawn, group: Group) -> Child:
        """Where the program in C is not there or cannot do it: a child of our own memory."""
        if self._reserve is not None:
            self._reserve.discard()
            self._reserve = None
        cgroup_fd = group.directory_fd()
        joined, flags = self._namespaces(plan)
        if userns.is_wanted(plan):
            userns.own_stdio(spawn.stdio, plan.namespaces)
        try:
            with self._bearing(joined.get("pid", -1)):
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

    @contextmanager
    def _bearing(self, fd: int) -> Iterator[None]:
        """What we fork meanwhile is born in that pid namespace, in ours for -1; we ourselves stay where we are."""
        if fd < 0:
            yield
            return
        if self._own_pidns < 0:
            self._own_pidns = open_namespace(os.getpid(), "pid")
        setns(fd, CLONE_NEWPID)
        try:
            yield
        finally:
            setns(self._own_pidns, CLONE_NEWPID)

    # --- exec ------------------------------------------------------------------------------------------------------

    def start_exec(self, exec_id: str, process: ProcessPlan, events: SessionEvents, done: Done) -> None:
        plan, group = self._running()
        spawn = Spawn(self._loop, events, terminal=process.terminal, stdin=process.stdin, done=done)
        inside = plan.namespaces.pid != "host"
        hidden = inside and "SYS_PTRACE" in plan.process.capabilities and not userns.is_wanted(plan)
        if self._entering >= 0 and not hidden and not userns.is_wanted(plan):
            spawn.entrance = Entrance(process, group.doors(), ALL)
        try:
            request = spawn.entrance.request() if spawn.entrance is not None else None
            with self._bearing(self._init_pidfd if inside and not hidden else -1):
                if request is not None:
                    spawn.say(request)
                    fds = [spawn.channel_fd, self._init_pidfd]
                    pid = program.start(self._entering, program.FURTHER, fds, spawn.stdio)
                    child = Child(pid, os.pidfd_open(pid))
                else:
                    child = self._clone_further(plan, group, process, spawn, hidden=hidden)
        except ChildFailure as error:
            spawn.abandon(WallError(error.kind, error.sentence(PREFIX_EXEC), error.exit_code))
        except OSError as error:
            spawn.abandon(WallError("conflict", f"container {plan.id} is not running: {error.strerror}", 128))
        else:
            spawn.forked(child)

    def _clone_further(
        self, plan: ContainerPlan, group: Group, process: ProcessPlan, spawn: Spawn, *, hidden: bool
    ) -> Child:
        """As ``_clone_first``."""
        cgroup_fd = group.directory_fd()
        if userns.is_wanted(plan):
            userns.own_stdio(spawn.stdio, plan.namespaces)
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
            if cgroup_fd >= 0:
                os.close(cgroup_fd)
        return child

    # --- acting ----------------------------------------------------------------------------------------------------

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

    def update(self, limits: LimitsPlan, done: Callable[[WallError | None], None]) -> None:
        plan, group = self._running()
        try:
            group.apply(limits)
        except OSError as error:
            done(WallError("invalid", f"Cannot update container {plan.id}: {error.filename}: {error.strerror}"))
            return
        self._watch_oom(limits)
        done(None)

    def close(self) -> None:
        """Idempotent."""
        if self._reserve is not None:
            self._reserve.discard()
            self._reserve = None
        close_all([fd for fd in (self._init_pidfd, self._own_pidns) if fd >= 0])
        self._init_pidfd = self._own_pidns = -1
        super().close()


def _could_not_create(error: ChildFailure) -> WallError:
    return WallError(error.kind, error.sentence(PREFIX_CREATE), error.exit_code)


def _mounts_made(spawn: Spawn, made: list[int] | WallError) -> None:
    """The mounts of a container in its own user namespace have been made outside, or could not be."""
    if spawn.is_over:
        close_all([] if isinstance(made, WallError) else made)
    elif isinstance(made, WallError):
        spawn.abandon(WallError(made.kind, f"{PREFIX_CREATE}{made.message}", 128))
    else:
        spawn.hand_over(made)
        spawn.go()
