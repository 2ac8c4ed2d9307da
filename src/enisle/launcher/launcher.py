"""Serving launch requests: fork, hand over the connection, forget."""

from __future__ import annotations

import gc
import os
import signal
import socket

from enisle.launcher.connection import Connection, listen, peer_is_root
from enisle.launcher.container.wall import host_layout  # and all of that wall, before the first fork
from enisle.launcher.descriptors import keep_only
from enisle.launcher.keeper import Keeper
from enisle.launcher.log import json_lines
from enisle.launcher.loop import EpollLoop, report_exception
from enisle.linux.syscalls import PR_SET_DUMPABLE, prctl, set_process_name
from enisle.wire.frames import Decoder, Message, close_all, encode
from enisle.wire.plans import GENERATION, ContainerPlan, MountPlan, NicPlan, ProcessPlan, from_json, to_json

SOCKET_NAME = "launcher.sock"


class BecomeKeeper(BaseException):
    """Unwinds a process just forked out of the launcher's loop, whose other events are not its own."""

    def __init__(self, instance: str, run_dir: str, sock: socket.socket) -> None:
        super().__init__(instance)
        self.instance = instance
        self.run_dir = run_dir
        self.sock = sock


class Launcher:
    """Listens on ``<run_root>/launcher.sock``. It keeps no state: it may be killed and started again at any time."""

    def __init__(self, run_root: str) -> None:
        self._loop = EpollLoop()
        self._path = os.path.join(run_root, SOCKET_NAME)
        self._connections: list[Connection] = []
        self._running = True
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
        warm_up()
        gc.collect()
        gc.freeze()
        try:
            while self._running:
                self._loop.run_once()
        except BecomeKeeper as job:
            run_keeper(job.instance, job.run_dir, job.sock)

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
        instance, run_dir = str(message["instance"]), str(message["run_dir"])
        try:
            pid = os.fork()
        except OSError as error:
            close_all(fds)
            connection.fail(message, "exhausted", f"instance {instance}: no keeper could be forked: {error.strerror}")
            return
        if pid == 0:
            raise BecomeKeeper(instance, run_dir, socket.socket(fileno=fds[0]))
        close_all(fds)
        connection.answer(message, {"pid": pid})

    def _quit(self) -> None:
        try:
            if os.stat(self._path).st_ino == self._inode:  # a successor may listen there already
                os.unlink(self._path)
        except FileNotFoundError:
            pass
        self._running = False


def warm_up() -> None:
    """Do once what every keeper would do anew: look up the types of plans, and the caches below json and typing."""
    plan = ContainerPlan(id="", hostname="", lower=[], upper="", work="", process=ProcessPlan(args=[]))
    plan.mounts, plan.devices = [MountPlan(kind="", target="")], []
    plan.nics = [NicPlan(name="", host_ifname="", bridge="", mac="")]
    values = Decoder().feed(encode(to_json(plan)))[0]
    from_json(ContainerPlan, values)
    host_layout()
    json_lines(1, b"\n", "", 0)


def run_keeper(instance: str, run_dir: str, sock: socket.socket) -> None:
    """The whole life of a keeper, in the process forked for it. Does not return."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.setsid()
        set_process_name(f"keeper:{instance[:8]}")
        keep_only([sock.fileno()])
        loop = EpollLoop()
        keeper = Keeper(loop, instance, run_dir)
        keeper.adopt(sock)
        loop.run()
        status = 0
    except BaseException:
        report_exception()
    finally:
        os._exit(status)
