"""Serving enisled's requests about volumes, in a mount namespace of our own.

What is mounted here is seen by nobody on the host, and goes when this process goes, unless an instance has taken a
copy of the mount. Whatever may take long is done by a forked child, which is in the same namespace. A connection's
children are killed with it: half a copy is worth nothing, and whoever comes next removes it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

from enisle.launcher.connection import Connection, listen, peer_is_root
from enisle.launcher.container.task import Answer, Task
from enisle.launcher.loop import EpollLoop
from enisle.launcher.volumes import content, filesystems
from enisle.launcher.wall import WallError
from enisle.linux import mounts
from enisle.linux.namespaces import CLONE_NEWNS, unshare
from enisle.linux.syscalls import PR_SET_DUMPABLE, prctl, set_process_name
from enisle.wire.frames import Message, close_all
from enisle.wire.volumes import GENERATION, PLACE, SOCKET_NAME

Done = Callable[[Answer | WallError], None]


class VolumeKeeper:
    """Listens on ``<run_root>/volumes.sock``."""

    def __init__(self, run_root: str) -> None:
        self._loop = EpollLoop()
        self._path = os.path.join(run_root, SOCKET_NAME)
        self._place = os.path.join(run_root, PLACE)
        self._mounted: dict[str, str] = {}
        self._next = 0
        self._tasks: dict[Connection, set[Task]] = {}
        self._enter_own_namespace()
        self._listener = listen(self._path)
        self._loop.add_reader(self._listener.fileno(), self._accept)

    def serve(self) -> None:
        """Until told to quit."""
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        prctl(PR_SET_DUMPABLE, 0)
        set_process_name("enisle-volumes")
        self._loop.run()

    def _enter_own_namespace(self) -> None:
        """What the host mounts and unmounts is seen here (a data root on a disk of its own), but not the reverse."""
        os.makedirs(self._place, mode=0o700, exist_ok=True)
        unshare(CLONE_NEWNS)
        mounts.set_tree_propagation("/", mounts.MS_SLAVE)
        places = mounts.new("tmpfs", {"size": "1m", "mode": "0700"}, attributes=mounts.ATTR_NODEV)
        target = os.open(self._place, os.O_PATH | os.O_DIRECTORY)
        mounts.attach(places, target)
        mounts.set_attributes(places, propagation=mounts.MS_PRIVATE)
        os.close(target)
        os.close(places)

    # --- requests --------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            sock, _address = self._listener.accept()
        except OSError:
            return
        if not peer_is_root(sock):
            sock.close()
            return
        for tasks in self._tasks.values():  # of an enisled that is gone: there is one at a time
            _end(tasks)
        self._tasks[Connection(self._loop, sock, on_message=self._dispatch, on_closed=self._closed)] = set()

    def _closed(self, connection: Connection) -> None:
        _end(self._tasks.pop(connection, set()))

    def _dispatch(self, connection: Connection, message: Message, fds: list[int]) -> None:
        operation = message.get("op")
        try:
            if operation == "hello":
                answer = {"pid": os.getpid(), "generation": GENERATION, "mounted": sorted(self._mounted)}
                connection.answer(message, answer)
            elif operation == "quit":
                connection.answer(message, {})
                os.unlink(self._path)
                self._loop.stop()
            elif operation == "mount":
                self._mount(connection, message)
            elif operation == "unmount":
                self._unmount(connection, message)
            elif operation in content.VERBS:
                work = content.VERBS[operation]
                self._run(connection, message, lambda: work(message, fds), list(fds))
            else:
                connection.fail(message, "invalid", f"volume keeper: {operation!r} is unknown")
        except OSError as error:
            connection.fail(message, "internal", f"volume keeper: {error}")
        finally:
            close_all(fds)

    def _run(
        self,
        connection: Connection,
        message: Message,
        work: Callable[[], Answer],
        kept: list[int],
        done: Done | None = None,
    ) -> None:
        """Have a child do it, and answer with what it says; ``done`` instead of answering."""
        tasks = self._tasks.setdefault(connection, set())

        def finished(answer: Answer | WallError) -> None:
            tasks.discard(task)
            if done is not None:
                done(answer)
            else:
                _reply(connection, message, answer)

        task = Task(self._loop, work, kept, finished)
        tasks.add(task)

    # --- mounts ----------------------------------------------------------------------------------------------------

    def _mount(self, connection: Connection, message: Message) -> None:
        """Mount a file system under a key, unless it is; the answer names the place."""
        key = str(message["key"])
        if key in self._mounted:
            there = {"place": self._mounted[key], "pid": os.getpid()}
            if message["filesystem"] == "image":
                self._run(connection, message, lambda: filesystems.grow(message, there), [])
            else:
                connection.answer(message, there)
            return

        def mounted(answer: Answer | WallError) -> None:
            if isinstance(answer, WallError):
                _reply(connection, message, answer)
                return
            place = self._attach(key, answer["fds"])
            connection.answer(message, {"place": place, "pid": os.getpid()})

        self._run(connection, message, lambda: filesystems.make(message), [], mounted)

    def _attach(self, key: str, fds: list[int]) -> str:
        self._next += 1
        place = f"{self._place}/{self._next}"
        os.mkdir(place, 0o700)
        target = os.open(place, os.O_PATH | os.O_DIRECTORY)
        mounts.attach(fds[0], target)
        close_all([target, *fds])
        self._mounted[key] = place
        return place

    def _unmount(self, connection: Connection, message: Message) -> None:
        """Let go of it. What instances have taken of it stays with them. Not mounted is fine."""
        place = self._mounted.pop(str(message["key"]), None)
        if place is None:
            connection.answer(message, {})
            return

        def work() -> Answer:  # in a child: the last one who lets go of a file system writes it back
            mounts.unmount(place, mounts.MNT_DETACH)
            os.rmdir(place)
            return {}

        self._run(connection, message, work, [])


def _reply(connection: Connection, message: Message, answer: Answer | WallError) -> None:
    if isinstance(answer, WallError):
        connection.fail(message, answer.kind, answer.message)
    else:
        connection.answer(message, answer)


def _end(tasks: set[Task]) -> None:
    for task in list(tasks):
        task.kill()
    tasks.clear()
