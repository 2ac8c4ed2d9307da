"""One QEMU and all that belongs to it on the host: disks, taps, file servers, cgroup, sockets."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import signal
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from enisle.launcher.vm import qemu
from enisle.launcher.vm.confine import confine_qemu
from enisle.launcher.vm.identity import Identity
from enisle.launcher.vm.shares import FileServer, Share
from enisle.launcher.vm.spawn import Program, read_errors, spawn
from enisle.launcher.wall import WallError
from enisle.linux.cgroup.choose import group
from enisle.linux.cgroup.group import Group
from enisle.linux.route import Route
from enisle.linux.taps import open_macvtap, open_tap
from enisle.wire.plans import LimitsPlan, NicPlan, VmPlan

if TYPE_CHECKING:
    from enisle.launcher.wall import Loop

_AGENT_BUFFER_BYTES = 1 << 20


class Machine:
    """Runs from the constructor's end until :meth:`close`. WallError (kind internal, 128) when it cannot be started.

    ``on_end`` is called once with the wait status when QEMU has ended by itself; not after ``close``.
    """

    def __init__(
        self, loop: Loop, plan: VmPlan, shares: list[Share], run_dir: str, on_end: Callable[[int], None]
    ) -> None:
        self._loop = loop
        self._plan = plan
        self._on_end = on_end
        self._files: list[int] = []
        self._taps: dict[str, int] = {}
        self._macvtaps: dict[str, str] = {}  # NIC -> link on the host
        self._servers: list[FileServer] = []
        self._group: Group | None = None
        self._program: Program | None = None
        self._errors = ""
        self._oom_kills = 0
        try:
            self._start(shares, run_dir)
        except OSError as error:
            self.close()
            raise WallError("internal", f"the virtual machine cannot be started: {error}", 128) from error
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """QEMU's process id on the host."""
        return self._program.pid if self._program is not None else 0

    # --- starting --------------------------------------------------------------------------------------------------

    def _start(self, shares: list[Share], run_dir: str) -> None:
        plan = self._plan
        self._make_group()
        kernel, initramfs = self._open(plan.kernel, os.O_RDONLY), self._open(plan.initramfs, os.O_RDONLY)
        image = self._open(plan.image_disk, os.O_RDONLY)
        writable = self._open_disk(plan.writable_disk)
        modules = self._open(plan.modules_disk, os.O_RDONLY) if plan.modules_disk else -1
        taps = [self.add_tap(nic) for nic in plan.nics]
        self._start_servers(shares, run_dir)
        self.agent_socket, agent = _socketpair()
        self.qmp_socket, qmp = _socketpair()
        fds = qemu.Descriptors(
            kernel=kernel,
            initramfs=initramfs,
            image_disk=image,
            writable_disk=writable,
            modules_disk=modules,
            agent=agent.fileno(),
            qmp=qmp.fileno(),
            taps=taps,
            shares=[server.connection for server in self._servers],
        )
        kvm = plan.accelerator == "kvm"
        try:
            self._program = spawn(
                qemu.argv(plan, fds),
                inherit=fds.all(),
                prepare=lambda: confine_qemu(plan.uid, plan.gid, kvm=kvm, readable=[kernel, initramfs]),
                join=self._join,
            )
        finally:
            agent.close()
            qmp.close()
            for server in self._servers:
                server.release_connection()
        self._loop.add_reader(self._program.pidfd, self._ended)

    def _open(self, path: str, flags: int) -> int:
        try:
            fd = os.open(path, flags | os.O_CLOEXEC)
        except OSError as error:
            raise WallError("internal", f"the virtual machine needs {path}: {error.strerror}", 128) from error
        self._files.append(fd)
        return fd

    def _open_disk(self, path: str) -> int:
        """The writable disk, locked: two VMs on one disk would destroy it."""
        fd = self._open(path, os.O_RDWR)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise WallError("conflict", f"the disk {path} is in use by another virtual machine", 128) from error
        return fd

    def _make_group(self) -> None:
        made = group(f"{self._plan.cgroup_parent}/{self._plan.id}")
        made.create()
        self._group = made
        made.apply(host_limits(self._plan.limits))

    def _join(self, pid: int) -> None:
        if self._group is not None:
            self._group.add(pid)

    def _start_servers(self, shares: list[Share], run_dir: str) -> None:
        if not shares:
            return
        if len(shares) > qemu.MAX_SHARES:
            raise WallError("invalid", f"a virtual machine takes at most {qemu.MAX_SHARES} volumes and binds", 128)
        if not self._plan.virtiofsd:
            raise WallError(
                "not_supported",
                "volumes and binds of a virtual machine need virtiofsd: install the package virtiofsd "
                "(Debian 13) or qemu-system-common (Debian 12)",
                128,
            )
        identity = Identity(self._plan.uid)
        try:
            for number, share in enumerate(shares):
                place = os.path.join(run_dir, f"share{number}")
                self._servers.append(FileServer(self._plan.virtiofsd, share, place, identity, join=self._join))
        finally:
            identity.close()

    # --- NICs ------------------------------------------------------------------------------------------------------

    def add_tap(self, nic: NicPlan) -> int:
        """A tap on the NIC's bridge; it goes when we and QEMU have closed it. OSError."""
        if nic.parent:
            return self._add_macvtap(nic)
        fd = open_tap(nic.host_ifname)
        self._taps[nic.name] = fd
        with Route() as route:
            if nic.mtu != 1500:
                route.set_mtu(nic.host_ifname, nic.mtu)
            route.set_master(nic.host_ifname, nic.bridge)
            if nic.hairpin or nic.isolated:
                route.set_port(nic.host_ifname, hairpin=nic.hairpin, isolated=nic.isolated)
            route.link_up(nic.host_ifname)
        return fd

    def _add_macvtap(self, nic: NicPlan) -> int:
        """A macvtap on the NIC's parent. It does not go by itself: ``drop_tap``, or enisled, deletes it."""
        with Route() as route:
            route.create_macvlan(nic.host_ifname, nic.parent, mode=nic.mode, mac=nic.mac, mtu=nic.mtu, tap=True)
            self._macvtaps[nic.name] = nic.host_ifname
            fd = open_macvtap(route, nic.host_ifname)
            self._taps[nic.name] = fd
            route.link_up(nic.host_ifname)
        return fd

    def drop_tap(self, name: str) -> None:
        """Close our end of a NIC's tap."""
        fd = self._taps.pop(name, None)
        if fd is not None:
            os.close(fd)
        link = self._macvtaps.pop(name, None)
        if link is not None:
            with contextlib.suppress(OSError), Route() as route:
                route.delete_link(link)

    # --- while it runs ---------------------------------------------------------------------------------------------

    def update(self, limits: LimitsPlan) -> None:
        """Change the cgroup's limits. OSError names the file that refused."""
        if self._group is not None:
            self._group.apply(limits)

    def usage(self) -> Any:
        """The cgroup's figures: QEMU and its file servers."""
        return self._group.usage() if self._group is not None else None

    def oom_killed(self) -> bool:
        """Whether the host's kernel has killed a process of ours for want of memory."""
        if self._group is not None:
            self._oom_kills = self._group.oom_kills()
        return self._oom_kills > 0

    def complaints(self) -> str:
        """The last lines QEMU (or a file server) wrote to its standard error; "" when there are none."""
        found = [self._errors]
        if self._program is not None:
            found.append(read_errors(self._program.errors))
        found += [read_errors(server.program.errors) for server in self._servers]
        self._errors = " / ".join(text for text in found if text)[-1000:]
        return self._errors

    def _ended(self) -> None:
        program = self._program
        if program is None:
            return
        pid, status = os.waitpid(program.pid, os.WNOHANG)
        if pid == 0:
            return
        self.complaints()
        self._loop.remove_reader(program.pidfd)
        os.close(program.pidfd)
        os.close(program.errors)
        self._program = None
        self._on_end(status)

    def close(self) -> None:
        """Kill and remove everything. Idempotent."""
        program, self._program = self._program, None
        if program is not None:
            self._loop.remove_reader(program.pidfd)
            os.kill(program.pid, signal.SIGKILL)
            os.waitpid(program.pid, 0)
            os.close(program.pidfd)
            os.close(program.errors)
        servers, self._servers = self._servers, []
        for server in servers:
            server.close()
        for name in list(self._taps):
            self.drop_tap(name)
        for fd in self._files:
            os.close(fd)
        self._files.clear()
        removed, self._group = self._group, None
        if removed is not None:
            self._oom_kills = self._oom_kills or removed.oom_kills()
            removed.kill()
            removed.remove()


def _socketpair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    for end in pair:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _AGENT_BUFFER_BYTES)
    return pair


def host_limits(limits: LimitsPlan) -> LimitsPlan:
    """What of an instance's limits holds for QEMU: memory and processes are the guest's own."""
    return dataclasses.replace(
        limits,
        memory_bytes=0,
        memory_swap_bytes=0,
        memory_reservation_bytes=0,
        memory_swappiness=None,
        kernel_memory_tcp_bytes=0,
        oom_kill_disable=False,
        pids=0,
    )
