"""The process that becomes a container's first, where the program in C cannot be it (setup.py): everything between
clone3 and exec. Runs once, then is the program."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import NoReturn

from enisle.launcher.container import cgroupfs, devices, userns
from enisle.launcher.container.execute import (
    execute,
    lower_oom_priority,
    reset_signals,
    take_terminal,
    watch_for_imports,
)
from enisle.launcher.container.failure import PREFIX_CREATE, Channel, ChildFailure, describe
from enisle.launcher.container.options import Options
from enisle.launcher.container.rootfs import Rootfs
from enisle.launcher.descriptors import keep_only, place
from enisle.linux import mounts, terminals, user_namespace
from enisle.linux.cgroup.group import Group
from enisle.linux.cgroup.layout import Layout
from enisle.linux.namespaces import CLONE_NEWCGROUP, FLAGS, setns, unshare
from enisle.linux.route import Route
from enisle.linux.syscalls import (
    PR_SET_DUMPABLE,
    join_new_session_keyring,
    prctl,
    setdomainname,
    sethostname,
)
from enisle.wire.plans import ContainerPlan

_CHANNEL = 3


@dataclass(slots=True, kw_only=True)
class Birth:
    """What the child gets from its keeper besides the plan. ``joined``: namespace kind -> descriptor of it.

    ``stdio``: stdin, stdout and stderr, or nothing for a terminal. ``group``: to be joined; None where clone3 did that.
    """

    channel_fd: int
    stdio: list[int]
    joined: dict[str, int]
    layout: Layout
    cgroup_path: str
    group: Group | None


def become_first_process(plan: ContainerPlan, birth: Birth) -> NoReturn:
    """Set everything up and exec. Failures go to the keeper."""
    channel = _isolate(birth)
    try:
        _Setup(plan, birth, channel).run()
    except BaseException as error:
        channel.fail(error, PREFIX_CREATE)
    os._exit(1)


def _isolate(birth: Birth) -> Channel:
    """Let go of all that is the keeper's: descriptors, signals, session, keys; be looked into by nobody."""
    prctl(PR_SET_DUMPABLE, 0)
    null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    place([*(birth.stdio or [null, null, null]), birth.channel_fd])
    os.set_inheritable(_CHANNEL, False)
    keep_only(birth.joined.values(), first=_CHANNEL + 1)
    channel = Channel(_CHANNEL)
    reset_signals()
    os.setsid()
    os.umask(0)  # nodes and mount points get the modes that we name
    return channel


class _Setup:
    """The steps, in order."""

    def __init__(self, plan: ContainerPlan, birth: Birth, channel: Channel) -> None:
        self._plan = plan
        self._birth = birth
        self._channel = channel
        self._rootfs = Rootfs(plan.lower, plan.upper, plan.work)
        self._ready = False
        self._warnings: list[str] = []

    def run(self) -> NoReturn:
        """Ends in exec."""
        plan, rootfs, process = self._plan, self._rootfs, self._plan.process
        self._warnings += lower_oom_priority(process.oom_score_adj)
        join_new_session_keyring()
        self._join_namespaces()
        if userns.is_wanted(plan):
            self._become_root()
        else:
            rootfs.take_sources(plan.mounts)
            rootfs.mount_root()
        self._channel.send({"root": True}, [rootfs.root.fd])
        for mount in plan.mounts:
            rootfs.mount(mount, self._mount_cgroup)
        rootfs.ensure_private_mounts()
        if not userns.is_wanted(plan):
            devices.make_nodes(rootfs.root, plan.devices)
        slave = self._open_terminal() if process.terminal else -1
        self._wait_ready()
        self._set_names()
        rootfs.write_sysctls(plan.sysctls)
        rootfs.make_read_only(plan.read_only_paths)
        rootfs.mask(plan.masked_paths)
        self._make_working_directory()
        watch_for_imports(self._channel)
        if slave < 0:
            self._use_own_null()
        rootfs.enter(read_only=plan.read_only_root)
        if slave >= 0:
            take_terminal(slave, process.terminal_size)
        execute(process, self._channel, self._warnings)

    def _become_root(self) -> None:
        """Of our user namespace, which by the time the mounts arrive has its ids."""
        data, fds = self._channel.receive()
        if not data:
            raise ConnectionResetError("the keeper has ended")
        user_namespace.become_root()
        prctl(PR_SET_DUMPABLE, 0)
        self._rootfs.adopt(self._plan.mounts, fds)

    def _join_namespaces(self) -> None:
        for kind, fd in self._birth.joined.items():
            try:
                setns(fd, FLAGS[kind])
            except OSError as error:
                raise ChildFailure(f"cannot join the {kind} namespace: {describe(error)}") from error
            os.close(fd)

    def _wait_ready(self) -> None:
        """Until the keeper has made our cgroup and links; once we are in it our cgroup namespace can begin."""
        if self._ready:
            return
        self._ready = True
        self._channel.wait_go()
        if self._birth.group is not None:
            self._birth.group.add(0)
        if self._plan.namespaces.cgroup == "private":
            unshare(CLONE_NEWCGROUP)
        if self._plan.namespaces.net == "private":
            with Route() as route:
                route.link_up("lo")

    def _mount_cgroup(self, options: Options, attach: cgroupfs.Attach) -> None:
        self._wait_ready()
        private = self._plan.namespaces.cgroup == "private"
        cgroupfs.mount_tree(self._birth.layout, self._birth.cgroup_path, options, attach, private=private)

    def _set_names(self) -> None:
        if self._plan.namespaces.uts != "private":
            return
        if self._plan.hostname:
            sethostname(self._plan.hostname)
        if self._plan.domainname:
            setdomainname(self._plan.domainname)

    def _open_terminal(self) -> int:
        """A terminal of the container's own devpts; its master goes to the keeper, itself also to /dev/console."""
        flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
        master, slave = terminals.open_pair(os.open("ptmx", flags, dir_fd=self._rootfs.pts_fd))
        self._channel.send({"terminal": True}, [master])
        os.close(master)
        try:
            console = self._rootfs.root.target("/dev/console", directory=False, links=False)
            copy = mounts.clone_tree(slave)
            mounts.attach(copy, console)
            os.close(copy)
            os.close(console)
        except OSError as error:
            raise ChildFailure(f"/dev/console cannot be made: {describe(error)}") from error
        return slave

    def _make_working_directory(self) -> None:
        """While the root can still be written; what is wrong with it is told when it is entered."""
        try:
            os.close(self._rootfs.root.target(self._plan.process.cwd or "/", directory=True))
        except OSError:
            pass

    def _use_own_null(self) -> None:
        """A stdin that is not open is the container's null device, not the host's."""
        if self._birth.stdio and not self._plan.process.stdin:
            own = os.open(f"/proc/self/fd/{self._rootfs.null_fd}", os.O_RDWR | os.O_CLOEXEC)
            os.dup2(own, 0, inheritable=True)
            os.close(own)
