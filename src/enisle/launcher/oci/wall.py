"""Containers that another OCI runtime makes (runc, crun, runsc): we prepare, it builds the wall, we keep the process.

What stays ours: root file system, network, stdio and log, exit code, figures. The runtime is called for what the
runtime specification calls its operations; its container's first process becomes our child when it has left
(PR_SET_CHILD_SUBREAPER).
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from enisle.launcher.container.host import HostContainer
from enisle.launcher.container.session import ContainerSession
from enisle.launcher.container.task import Answer, Task
from enisle.launcher.oci import bundle
from enisle.launcher.oci.command import Runtime, RuntimeFailure
from enisle.launcher.oci.network import NetworkHolder
from enisle.launcher.oci.stdio import RuntimeStdio
from enisle.launcher.wall import Done, SessionEvents, WallError
from enisle.linux.cgroup.choose import group as cgroup_of
from enisle.linux.cgroup.layout import host_layout
from enisle.linux.cgroup.strays import remove_strays
from enisle.linux.syscalls import PR_SET_CHILD_SUBREAPER, prctl
from enisle.wire.frames import close_all
from enisle.wire.plans import ContainerPlan, LimitsPlan, ProcessPlan, RuntimePlan, from_json

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop


class OciWall(HostContainer):
    """One container of another runtime."""

    def __init__(self, loop: EpollLoop, run_dir: str) -> None:
        super().__init__(loop, run_dir)
        self._directory = f"{run_dir}/oci"
        self._runtime = Runtime(RuntimePlan(), "", self._directory)
        self._network: NetworkHolder | None = None
        self._staged_root = -1  # never closed, as ContainerWall's: see there
        self._execs = 0
        self._starting = 0  # tasks that may bring us children we do not know yet
        self._children: set[int] = set()
        self._wake_fd = -1

    # --- start -----------------------------------------------------------------------------------------------------

    def start(self, plan: dict[str, Any], events: SessionEvents, done: Done, meanwhile: Callable[[], None]) -> None:
        meanwhile()
        self._plan = parsed = from_json(ContainerPlan, plan)
        self._runtime = Runtime(parsed.runtime, parsed.id, self._directory)
        self._layout = host_layout()
        self._group = cgroup_of(f"{parsed.cgroup_parent}/{parsed.id}", self._layout)
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        self._watch_strays()
        stdio = RuntimeStdio(terminal=parsed.process.terminal, stdin=parsed.process.stdin)
        try:
            self._group.kill()  # what a keeper that was killed has left
            self._group.remove()
            for name in ("", "/state", "/sources"):
                os.mkdir(f"{self._directory}{name}", 0o700)
            network = self._make_network(parsed)
        except (WallError, OSError) as error:
            stdio.close()
            reason = error if isinstance(error, WallError) else WallError("internal", str(error), 128)
            done(reason)
            return

        def created(answer: Answer | WallError) -> None:
            self._drop_network()
            if not isinstance(answer, WallError):
                self._staged_root = answer["fds"].pop(0)
                self.warnings = answer["warnings"]
            session = self._session_of(answer, stdio, events)
            if isinstance(session, ContainerSession):
                self._adopt(session)
            done(session)
            if isinstance(session, ContainerSession):
                session.resume_output()

        self._begin(lambda: bundle.create(self._runtime, parsed, stdio.theirs, network), stdio.theirs, created)
        stdio.close_theirs()

    def _make_network(self, plan: ContainerPlan) -> str:
        """A network namespace with the NICs in it, as the path that the runtime is told; "" where it gets none."""
        if plan.namespaces.net != "private":
            return ""
        self._network = holder = NetworkHolder()
        self._plug(plan.nics, holder.pid)
        return f"/proc/{holder.pid}/ns/net"

    def _drop_network(self) -> None:
        """The container has it now."""
        if self._network is not None:
            self._network.end()
            self._network = None

    def _begin(self, work: Callable[[], Answer], kept: list[int], done: Callable[[Answer | WallError], None]) -> None:
        """Carry out a task that makes a process."""
        self._starting += 1

        def ended(answer: Answer | WallError) -> None:
            self._starting -= 1
            done(answer)
            self._reap_strays()

        self._keep(Task(self._loop, work, kept, ended))

    def _session_of(
        self, answer: Answer | WallError, stdio: RuntimeStdio, events: SessionEvents
    ) -> ContainerSession | WallError:
        if isinstance(answer, WallError):
            stdio.close()
            return answer
        pid = answer["pid"]
        try:
            pidfd = os.pidfd_open(pid)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # fails for what is no child of ours
        except OSError as error:
            stdio.close()
            close_all(answer.get("fds", []))
            text = f"runtime {self._runtime.plan.name}: its process {pid} is no child of ours: {error.strerror}"
            return WallError("internal", text, 128)
        session = stdio.session(self._loop, events, pid=pid, pidfd=pidfd, master=answer.get("fds", []))
        session.forward = self._forwarder(pid)
        self._children.add(pid)

        def ended(status: int) -> None:
            self._children.discard(pid)
            session.ended(status)

        self._loop.watch_pidfd(pid, pidfd, ended)
        return session

    # --- exec ------------------------------------------------------------------------------------------------------

    def start_exec(self, exec_id: str, process: ProcessPlan, events: SessionEvents, done: Done) -> None:
        plan, _group = self._running()
        self._execs += 1
        number = self._execs
        try:
            root = self._open_root(self._pid())
        except OSError as error:
            raise WallError("conflict", f"container {plan.id} is not running", 128) from error
        stdio = RuntimeStdio(terminal=process.terminal, stdin=process.stdin)

        def started(answer: Answer | WallError) -> None:
            session = self._session_of(answer, stdio, events)
            done(session)
            if isinstance(session, ContainerSession):
                session.resume_output()

        def work() -> Answer:
            return bundle.execute(self._runtime, process, root, number, stdio.theirs)

        self._begin(work, [root, *stdio.theirs], started)
        os.close(root)
        stdio.close_theirs()

    # --- acting ----------------------------------------------------------------------------------------------------

    def pause(self, done: Callable[[WallError | None], None]) -> None:
        self._tell("pause", done)

    def unpause(self, done: Callable[[WallError | None], None]) -> None:
        self._tell("resume", done)

    def _tell(self, verb: str, done: Callable[[WallError | None], None]) -> None:
        self._running()

        def work() -> Answer:
            try:
                self._runtime.run(verb)
            except RuntimeFailure as error:
                raise WallError("internal", f"OCI runtime {verb} failed: {error}: unknown") from error
            return {}

        self._keep(Task(self._loop, work, [], lambda answer: done(answer if isinstance(answer, WallError) else None)))

    def update(self, limits: LimitsPlan, done: Callable[[WallError | None], None]) -> None:
        self._running()

        def work() -> Answer:
            return bundle.update(self._runtime, limits)

        self._keep(Task(self._loop, work, [], lambda answer: done(answer if isinstance(answer, WallError) else None)))

    # --- runtimes whose container is no process of the host --------------------------------------------------------

    def _is_own_root(self, pid: int) -> bool:
        """Whether that process is in the root that we made; those of a sandbox (runsc) are not."""
        theirs, ours = os.stat(f"/proc/{pid}/root"), os.fstat(self._staged_root)
        return (theirs.st_dev, theirs.st_ino) == (ours.st_dev, ours.st_ino)

    def _open_root(self, pid: int) -> int:
        return super()._open_root(pid) if self._is_own_root(pid) else os.dup(self._staged_root)

    def _forwarder(self, pid: int) -> Callable[[int], None] | None:
        """What passes a signal on to a container whose first process cannot be signalled from here."""
        try:
            if self._session is not None or self._is_own_root(pid):
                return None
        except OSError:
            return None

        def forward(number: int) -> None:
            def work() -> Answer:
                self._runtime.run("kill", last=[str(number)])
                return {}

            self._keep(Task(self._loop, work, [], lambda _answer: None))

        return forward

    # --- children that nobody waits for ----------------------------------------------------------------------------

    def _watch_strays(self) -> None:
        """Without a pid namespace of its own the container leaves its orphans to us."""
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        self._wake_fd = reading

        def woken() -> None:
            os.read(reading, 4096)
            self._reap_strays()

        self._loop.add_reader(reading, woken)

    def _reap_strays(self) -> None:
        if self._starting:
            return  # a child that we have not been told of yet may be a session's
        owned = self._children | {task.pid for task in self._tasks}
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in owned:
                return  # whose end is seen by its owner, and brings us here again
            os.waitpid(found.si_pid, 0)

    # --- the end ---------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """The runtime forgets the container first, then goes all that it may have left."""
        for task in self._tasks:
            task.kill()
        self._drop_network()
        problem = bundle.remove(self._runtime)
        super().close()
        if self._plan is not None and self._runtime.container:
            remove_strays(f"{self._plan.cgroup_parent}/{self._plan.id}")
        shutil.rmtree(self._directory, ignore_errors=True)
        if problem:
            self.warnings = [*self.warnings, problem]
