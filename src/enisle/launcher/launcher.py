"""Serving launch requests: fork, hand over the connection, forget."""

from __future__ import annotations

import functools
import gc
import os
import signal
import socket
from dataclasses import dataclass

from enisle.launcher.connection import Connection, listen, peer_is_root
from enisle.launcher.container import setup
from enisle.launcher.container import wall as _container_wall  # noqa: F401 - all of it, before the first fork
from enisle.launcher.container.reserve import Newborn, make_reserve
from enisle.launcher.descriptors import keep_only
from enisle.launcher.keeper import Keeper, make_wall
from enisle.launcher.log import json_lines
from enisle.launcher.loop import EpollLoop, report_exception
from enisle.launcher.pages import SharedPages
from enisle.launcher.sealed import sealed_copy
from enisle.linux.cgroup.layout import host_layout
from enisle.linux.syscalls import PR_SET_DUMPABLE, prctl, set_process_name
from enisle.wire.frames import Decoder, Message, close_all, encode, receive
from enisle.wire.mounts import USUAL_SHM_BYTES, kernel_mounts, shared_memory
from enisle.wire.plans import GENERATION, ContainerPlan, NicPlan, ProcessPlan, from_json, to_json

SOCKET_NAME = "launcher.sock"
_REPLENISH_S = 0.012  # not at once: the start just asked for, and what follows it, need the processor more


@dataclass(frozen=True, slots=True)
class Job:
    """What a keeper is forked for. ``sock``: its first connection."""

    instance: str
    run_dir: str
    sock: socket.socket


class BecomeKeeper(BaseException):
    """Unwinds a process just forked out of the launcher's loop, whose other events are not its own.

    ``job``: the keeper's, or None for a spare, which is told over ``orders``.
    """

    def __init__(self, job: Job | None, orders: socket.socket | None = None) -> None:
        super().__init__()
        self.job = job
        self.orders = orders


@dataclass(frozen=True, slots=True)
class Spare:
    """A keeper forked ahead of need: forking and first use of its memory take longer than all the rest of a start."""

    pid: int
    orders: socket.socket

    def give(self, job: Job) -> bool:
        """Hand it its job; False when it is not there any more. Its own end is closed either way."""
        data = encode({"instance": job.instance, "run_dir": job.run_dir})
        try:
            with self.orders:
                return socket.send_fds(self.orders, [data], [job.sock.fileno()]) == len(data)
        except OSError:
            return False


class Launcher:
    """Listens on ``<run_root>/launcher.sock``. It keeps no state: it may be killed and started again at any time.

    ``library``: pages.c, compiled; without it keepers are larger. ``enter``: container/program; without it starts and
    execs take longer.
    """

    def __init__(self, run_root: str, library: str = "", enter: str = "") -> None:
        self._library = library
        self._entering = entering_program(enter)
        self._pages: SharedPages | None = None
        self._loop = EpollLoop()
        self._path = os.path.join(run_root, SOCKET_NAME)
        self._connections: list[Connection] = []
        self._running = True
        self._sample = b""
        self._spare: Spare | None = None
        self._listener = listen(self._path)
        self._inode = os.stat(self._path).st_ino
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def serve(self) -> None:
        """Fork a keeper per request; returns when told to quit, and in every keeper at its end."""
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # keepers are reaped by the kernel
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN if number != signal.SIGTERM else signal.SIG_DFL)
        prctl(PR_SET_DUMPABLE, 0)
        set_process_name("enisle-launcher")
        self._sample = sample()
        warm_up(self._sample)
        gc.collect()
        gc.freeze()
        self._pages = shared_pages(self._library)
        self._loop.call_later(0, self._make_spare)
        try:
            while self._running:
                self._loop.run_once()
        except BecomeKeeper as forked:
            live(forked.job, forked.orders, self._sample, self._pages, self._entering)

    def _accept(self) -> None:
        try:
            sock, _address = self._listener.accept()
        except OSError:
            return
        if peer_is_root(sock):
            self._connections.append(
                Connection(self._loop, sock, on_message=self._dispatch, on_closed=self._connections.remove)
            )
        else:
            sock.close()

    def _dispatch(self, connection: Connection, message: Message, fds: list[int]) -> None:
        operation = message.get("op")
        if operation == "launch" and len(fds) == 1:
            self._launch(connection, message, fds)
            return
        close_all(fds)
        if operation == "ping":
            connection.answer(message, {"pid": os.getpid(), "generation": GENERATION})
        elif operation == "quit":
            connection.answer(message, {})
            self._quit()
        else:
            connection.fail(message, "invalid", f"launcher: {operation!r} with {len(fds)} descriptors")

    def _launch(self, connection: Connection, message: Message, fds: list[int]) -> None:
        with socket.socket(fileno=fds[0]) as sock:
            job = Job(str(message.get("instance")), str(message.get("run_dir")), sock)
            spare, self._spare = self._spare, None
            if spare is not None and spare.give(job):
                pid = spare.pid
            else:
                try:
                    pid = os.fork()
                except OSError as error:
                    text = f"instance {job.instance}: no keeper could be forked: {error.strerror}"
                    connection.fail(message, "exhausted", text)
                    return
                if pid == 0:
                    job = Job(job.instance, job.run_dir, sock.dup())
                    raise BecomeKeeper(job)
        connection.answer(message, {"pid": pid})
        self._loop.call_later(_REPLENISH_S, self._make_spare)

    def _make_spare(self) -> None:
        if self._spare is not None:
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            theirs.close()
            return  # the next launch tries again, and says so if it cannot
        if pid == 0:
            raise BecomeKeeper(None, theirs)
        theirs.close()
        self._spare = Spare(pid, ours)

    def _quit(self) -> None:
        try:
            if os.stat(self._path).st_ino == self._inode:  # a successor may listen there already
                os.unlink(self._path)
        except FileNotFoundError:
            pass
        self._running = False


def wait_for_job(orders: socket.socket) -> Job | None:
    """What the launcher has for a spare keeper; None when it has ended."""
    decoder = Decoder()
    received: list[int] = []
    with orders:
        while True:
            data, fds = receive(orders)
            received += fds
            if not data:
                return None
            for message in decoder.feed(data):
                return Job(message["instance"], message["run_dir"], socket.socket(fileno=received[0]))


def sample() -> bytes:
    """A plan as it comes over the wire; making it fills the caches that every keeper would fill anew."""
    plan = ContainerPlan(id="", hostname="", lower=[], upper="", work="", process=ProcessPlan(args=[]))
    plan.mounts, plan.devices = [*kernel_mounts(read_only=True), shared_memory(USUAL_SHM_BYTES)], []
    plan.nics = [NicPlan(name="", host_ifname="", bridge="", mac="")]
    setup.steps_of(plan, host_layout())
    json_lines(1, b"\n", "", 0)
    return encode(to_json(plan))


def warm_up(packed: bytes) -> None:
    """Touch the memory that reading a plan touches, and no more: each page touched is a page that is ours alone."""
    from_json(ContainerPlan, Decoder().feed(packed)[0])


def shared_pages(library: str) -> SharedPages | None:
    """Put our memory where keepers can share it again; None, and a line in the log, where that cannot be."""
    if not library:
        return None
    try:
        return SharedPages(library)
    except OSError:
        report_exception()
        return None


def entering_program(path: str) -> int:
    """A descriptor of container/program, compiled, that nobody can write; -1 without it, or, with a line in the log,
    where that cannot be had."""
    try:
        return sealed_copy(path, "enisle-enter") if path else -1
    except OSError:
        report_exception()
        return -1


def live(
    job: Job | None, orders: socket.socket | None, packed: bytes, pages: SharedPages | None, entering: int
) -> None:
    """The whole life of a keeper, or spare keeper, in the process forked for it. Does not return.

    ``packed``: a plan for practice. ``entering``: as of :func:`entering_program`.
    """
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setsid()
        kept = [sock.fileno() for sock in (job and job.sock, orders) if sock]
        kept += [fd for fd in (pages.fd if pages is not None else -1, entering) if fd >= 0]
        keep_only(kept)
        loop = EpollLoop()
        reserve: Newborn | None = None
        if job is None and orders is not None:
            set_process_name("enisle-spare")
            if entering >= 0 and host_layout().version == 1:  # on v2 it is born in its cgroup, once that is known
                reserve = make_reserve(entering)
            if pages is None or pages.learns():
                warm_up(packed)
            else:
                pages.touch()
            job = wait_for_job(orders)
        if job is not None:
            set_process_name(f"keeper:{job.instance[:8]}")
            walls = functools.partial(make_wall, reserve=reserve, entering=entering)
            keeper = Keeper(loop, job.instance, job.run_dir, walls=walls, pages=pages)
            keeper.adopt(job.sock)
            loop.run()
        status = 0
    except BaseException:
        report_exception()
    finally:
        os._exit(status)
