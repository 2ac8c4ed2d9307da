"""The keeper's core: one running instance, its protocol (wire.keeper), stdio, execs and exit, behind either wall."""

from __future__ import annotations

import binascii
import json
import os
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from enisle.launcher.client import Client, ClientOptions
from enisle.launcher.connection import Connection
from enisle.launcher.execs import Execs
from enisle.launcher.log import JsonFileLog, LocalLog, Log
from enisle.launcher.loop import EpollLoop, complain, report_exception
from enisle.launcher.pages import SharedPages
from enisle.launcher.presence import Presence
from enisle.launcher.relay import Relays
from enisle.launcher.stdio import Stdio
from enisle.launcher.wall import Session, Wall, WallError
from enisle.linux.syscalls import give_back_freed_memory
from enisle.wire.frames import Message, close_all
from enisle.wire.plans import GENERATION, LimitsPlan, LogPlan, NicPlan, ProcessPlan, from_json, to_json

if TYPE_CHECKING:
    from enisle.launcher.container.reserve import Newborn

_LINGER_S = 300.0
_SETTLE_S = 0.5  # what does not live as long need not be tidied
_SETTLE_AGAIN_S = 30.0  # it takes 2 ms, and health checks may come every second
_NOT_RUNNING = "the instance is not running"

Request = tuple[Connection, Message]
MakeWall = Callable[[str, EpollLoop, str], Wall]


def make_wall(kind: str, loop: EpollLoop, run_dir: str, reserve: Newborn | None = None, entering: int = -1) -> Wall:
    """The wall of that name; all modules but our own container's are loaded where they are wanted. ``reserve`` and
    ``entering`` go to it."""
    if kind == "container":
        from enisle.launcher.container.wall import ContainerWall  # loaded by the launcher already

        return ContainerWall(loop, run_dir, reserve, entering)
    if reserve is not None:
        reserve.discard()
    if kind == "oci":
        from enisle.launcher.oci.wall import OciWall

        return OciWall(loop, run_dir)
    if kind == "vm":
        from enisle.launcher.vm.wall import VmWall

        return VmWall(loop, run_dir)
    raise WallError("not_supported", f"there is no wall called {kind!r}")


class Keeper:
    """Serves one instance until it has ended and everybody has been told."""

    def __init__(
        self,
        loop: EpollLoop,
        instance_id: str,
        run_dir: str,
        *,
        walls: MakeWall = make_wall,
        pages: SharedPages | None = None,
    ) -> None:
        self._loop = loop
        self._pages = pages
        self._settling = False
        self._instance_id = instance_id
        self._run_dir = run_dir
        self._make_wall = walls
        self._connections: list[Connection] = []
        self._wall: Wall | None = None
        self._session: Session | None = None
        self._log: Log | None = None
        self._held_fds: list[int] = []
        self._relays = Relays(loop)
        self._oom_told = False
        self._exit_file = ""
        self._status: dict[str, Any] = {
            "state": "created",
            "pid": 0,
            "started_at": 0,
            "finished_at": 0,
            "exit_code": 0,
            "oom_killed": False,
            "error": "",
            "warnings": [],
            "generation": GENERATION,
        }
        self._stdio = Stdio(
            loop,
            on_finished=self._finished,
            on_detached=lambda: self._publish({"event": "terminal_detached", "exec_id": ""}),
        )
        self._execs = Execs(loop, self._publish)
        self._presence = Presence(loop, instance_id, run_dir, self.adopt)

    # --- connections -----------------------------------------------------------------------------------------------

    def adopt(self, sock: socket.socket) -> None:
        """Serve that connection."""
        self._connections.append(
            Connection(self._loop, sock, on_message=self._dispatch, on_closed=self._connection_closed)
        )

    def _connection_closed(self, connection: Connection) -> None:
        self._connections.remove(connection)
        if not self._connections and self._status["state"] in ("created", "files"):
            self._end()  # nobody is left who could start it or use its files

    def _publish(self, event: Message) -> None:
        for connection in list(self._connections):
            if connection.watching:
                connection.send(event)

    def _dispatch(self, connection: Connection, message: Message, fds: list[int]) -> None:
        operation = getattr(self, f"_op_{message.get('op')}", None)
        try:
            if operation is None:
                raise WallError("not_supported", f"keeper: no operation {message.get('op')!r}")
            operation((connection, message), fds)
        except WallError as error:
            close_all(fds)
            connection.fail(message, error.kind, error.message, error.exit_code)
        except (KeyError, TypeError, ValueError) as error:
            close_all(fds)
            report_exception()
            connection.fail(message, "invalid", f"keeper: {message.get('op')}: {error!r}")
        except Exception as error:
            close_all(fds)
            report_exception()
            connection.fail(message, "internal", f"keeper: {message.get('op')}: {error!r}")

    # --- start and end ---------------------------------------------------------------------------------------------

    def _op_start(self, request: Request, fds: list[int]) -> None:
        message = request[1]
        if self._status["state"] != "created":
            raise WallError("conflict", "the keeper has been started already")
        plan = message["plan"]
        if plan.get("generation", GENERATION) != GENERATION:
            raise WallError(
                "not_supported", f"the plan is of generation {plan['generation']}, the keeper of {GENERATION}"
            )
        self._held_fds += fds
        del fds[:]
        self._relays.take(self._held_fds, message.get("relays") or (), message.get("datagram_relays") or ())
        self._wall = self._make_wall(message["wall"], self._loop, self._run_dir)
        self._wall.on_oom = self._out_of_memory
        if message.get("files_only"):
            self._presence.begin()
            self._wall.open_files(plan, lambda error: self._files_open(request, error))
            return
        self._exit_file = plan.get("exit_file", "")
        self._status["state"] = "starting"
        try:
            self._wall.start(
                plan, self._stdio, lambda result: self._start_done(request, result), lambda: self._get_ready(plan)
            )
        except WallError as error:
            self._start_done(request, error)
        except Exception as error:
            report_exception()
            self._start_done(request, WallError("internal", f"keeper: start: {error!r}", 128))

    def _get_ready(self, plan: dict[str, Any]) -> None:
        """For what the instance will say, and for whoever looks for it."""
        self._presence.begin()
        self._log = self._open_log(from_json(LogPlan, plan.get("log") or {}))
        self._stdio.configure(from_json(ProcessPlan, plan["process"]), self._log)

    def _op_hold(self, request: Request, fds: list[int]) -> None:
        if self._status["state"] != "created":
            raise WallError("conflict", "the keeper has been started already")
        self._held_fds += fds
        del fds[:]
        request[0].answer(request[1], {})

    def _out_of_memory(self) -> None:
        self._oom_told = True
        self._publish({"event": "oom"})

    def _open_log(self, plan: LogPlan) -> Log | None:
        if plan.driver == "none" or not plan.path:
            return None
        try:
            if plan.driver == "journald":
                from enisle.launcher.journal import JournalLog  # few hosts have one

                return JournalLog(plan)
            return LocalLog(plan) if plan.driver == "local" else JsonFileLog(plan)
        except OSError as error:
            reason = f"the log {plan.path} cannot be opened: {error.strerror}"
            raise WallError("internal", reason, 128) from error

    def _start_done(self, request: Request, result: Session | WallError) -> None:
        connection, message = request
        if isinstance(result, WallError):
            self._status.update(state="exited", exit_code=result.exit_code, error=result.message)
            self._status["finished_at"] = time.time_ns()
            self._close_wall()
            self._write_exit_file()
            self._presence.end()
            connection.fail(message, result.kind, result.message, result.exit_code)
            self._end()
            return
        self._session = result
        warnings = self._wall.warnings if self._wall is not None else []
        self._status.update(state="running", pid=result.pid, started_at=time.time_ns(), warnings=warnings)
        connection.answer(message, {name: self._status[name] for name in ("pid", "started_at", "warnings")})
        self._stdio.started(result)
        if self._pages is not None and self._pages.learns():
            self._loop.call_later(0, self._learn)
        self._settle_in(_SETTLE_S)

    def _learn(self) -> None:
        assert self._pages is not None
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:
            self._pages.learn(pagemap.fileno())

    def _settle_in(self, seconds: float) -> None:
        """Give memory back once there is nothing to do; what an exec session has touched as well."""
        if not self._settling:
            self._settling = True
            self._loop.call_later(seconds, self._settle)

    def _settle(self) -> None:
        self._settling = False
        give_back_freed_memory()
        if self._pages is not None:
            self._pages.drop_equal()

    def _files_open(self, request: Request, error: WallError | None) -> None:
        connection, message = request
        if error is not None:
            self._close_wall()
            self._presence.end()
            connection.fail(message, error.kind, error.message, error.exit_code)
            self._end()
            return
        self._status.update(state="files", started_at=time.time_ns())
        connection.answer(message, {"pid": 0, "started_at": self._status["started_at"]})

    def _finished(self, exit_code: int) -> None:
        """The main process has ended, and all its output was taken."""
        oom_killed = self._wall.oom_killed() if self._wall is not None else False
        if oom_killed and not self._oom_told:
            self._out_of_memory()  # the end was seen before its cause
        self._status.update(state="exited", exit_code=exit_code, oom_killed=oom_killed, finished_at=time.time_ns())
        if self._log is not None and self._log.error:
            self._status["error"] = self._log.error
        elif self._wall is not None:
            self._status["error"] = self._wall.failure()
        self._write_exit_file()
        self._close_wall()
        self._presence.end()
        names = ("exit_code", "oom_killed", "error", "finished_at")
        self._publish({"event": "exit", **{name: self._status[name] for name in names}})
        self._end()

    def _write_exit_file(self) -> None:
        if not self._exit_file:
            return
        names = ("exit_code", "oom_killed", "error", "started_at", "finished_at")
        try:
            with open(f"{self._exit_file}.tmp", "wb", buffering=0) as target:
                target.write(json.dumps({name: self._status[name] for name in names}).encode())
            os.rename(f"{self._exit_file}.tmp", self._exit_file)
        except OSError as error:
            complain(f"{self._exit_file}: {error.strerror}; the exit code is lost if enisled is down")

    def _close_wall(self) -> None:
        self._relays.close()
        close_all(self._held_fds)
        self._held_fds = []
        if self._wall is not None:
            try:
                self._wall.close()
            except Exception as error:
                report_exception()
                self._status["error"] = self._status["error"] or f"not all of it could be removed: {error}"

    def _end(self) -> None:
        """Stop serving; clients that still have output to get are waited for, as long as they take any."""
        if self._status["state"] in ("created", "files"):
            self._close_wall()
            self._presence.end()
            self._status["state"] = "exited"
        for connection in list(self._connections):
            connection.end()
        self._execs.end_clients()
        if self._status["started_at"] == 0:
            self._stdio.drop_clients()
        self._loop.call_later(_LINGER_S, self._loop.stop)
        self._stop_when_idle()

    def _stop_when_idle(self) -> None:
        if self._connections or self._stdio.busy or self._execs.busy:
            self._loop.call_later(0.002, self._stop_when_idle)
        else:
            self._loop.stop()

    def _op_stop(self, request: Request, _fds: list[int]) -> None:
        connection, message = request
        if self._status["state"] not in ("created", "files"):
            raise WallError("conflict", "the instance runs: signal it instead")
        connection.answer(message, {})
        self._end()

    # --- looking ---------------------------------------------------------------------------------------------------

    def _report(self) -> Message:
        return {**self._status, "execs": self._execs.report()}

    def _op_status(self, request: Request, _fds: list[int]) -> None:
        request[0].answer(request[1], self._report())

    def _op_watch(self, request: Request, _fds: list[int]) -> None:
        request[0].watching = True
        request[0].answer(request[1], {"state": self._report()})

    def _op_stats(self, request: Request, _fds: list[int]) -> None:
        self._running_wall().stats(
            lambda result: self._reply(request, result if isinstance(result, WallError) else to_json(result))
        )

    def _op_top(self, request: Request, _fds: list[int]) -> None:
        self._running_wall().top(request[1].get("ps_args", ""), lambda result: self._reply(request, result))

    def _op_files(self, request: Request, fds: list[int]) -> None:
        wall = self._wall
        if wall is None or self._status["state"] not in ("running", "paused", "files"):
            raise WallError("conflict", _NOT_RUNNING)
        owned = list(fds)
        del fds[:]
        wall.files(request[1], owned, lambda result: self._reply(request, result))

    # --- acting ----------------------------------------------------------------------------------------------------

    def _op_attach(self, request: Request, fds: list[int]) -> None:
        connection, message = request
        if len(fds) != 1:
            raise WallError("invalid", "attach needs one connection")
        client = Client(self._loop, fds.pop(), client_options(message))
        connection.answer(message, {})
        self._stdio.attach(client)

    def _op_exec(self, request: Request, fds: list[int]) -> None:
        message = request[1]
        wall = self._running_wall()
        if self._status["state"] == "paused":
            raise WallError("conflict", f"Container {self._instance_id} is paused, unpause the container before exec")
        client = Client(self._loop, fds.pop(0), client_options(message)) if fds else None
        process = from_json(ProcessPlan, message["process"])

        def done(result: int | WallError) -> None:
            self._reply(request, result if isinstance(result, WallError) else {"pid": result})
            self._settle_in(_SETTLE_AGAIN_S)

        self._execs.start(wall, message["exec_id"], process, client, done)

    def _session_of(self, message: Message) -> Session:
        exec_id = message.get("exec_id", "")
        session = self._execs.session(exec_id) if exec_id else self._session
        if session is None or self._status["state"] not in ("running", "paused"):
            raise WallError("conflict", _NOT_RUNNING)
        return session

    def _op_resize(self, request: Request, _fds: list[int]) -> None:
        self._session_of(request[1]).resize(int(request[1]["rows"]), int(request[1]["columns"]))
        request[0].answer(request[1], {})

    def _op_signal(self, request: Request, _fds: list[int]) -> None:
        number = int(request[1]["signal"])
        session = self._session_of(request[1])
        if request[1].get("all"):
            self._running_wall().signal_all(number)
        else:
            session.signal(number)
        request[0].answer(request[1], {})

    def _op_pause(self, request: Request, _fds: list[int]) -> None:
        if self._status["state"] == "paused":
            raise WallError("conflict", f"Container {self._instance_id} is already paused")
        self._running_wall().pause(lambda error: self._paused(request, error, "paused"))

    def _op_unpause(self, request: Request, _fds: list[int]) -> None:
        if self._status["state"] != "paused":
            raise WallError("conflict", f"Container {self._instance_id} is not paused")
        self._running_wall().unpause(lambda error: self._paused(request, error, "unpaused"))

    def _paused(self, request: Request, error: WallError | None, event: str) -> None:
        if error is None and self._status["state"] in ("running", "paused"):
            self._status["state"] = "paused" if event == "paused" else "running"
            self._publish({"event": event})
        self._reply(request, error or {})

    def _op_update(self, request: Request, _fds: list[int]) -> None:
        limits = from_json(LimitsPlan, request[1]["limits"])
        self._running_wall().update(limits, lambda error: self._reply(request, error or {}))

    def _op_nic_add(self, request: Request, _fds: list[int]) -> None:
        nic = from_json(NicPlan, request[1]["nic"])
        self._running_wall().add_nic(nic, lambda error: self._reply(request, error or {}))

    def _op_nic_remove(self, request: Request, _fds: list[int]) -> None:
        self._running_wall().remove_nic(request[1]["name"], lambda error: self._reply(request, error or {}))

    def _op_relay(self, request: Request, _fds: list[int]) -> None:
        self._relays.point(request[1]["relays"], request[1].get("datagram_relays") or ())
        request[0].answer(request[1], {})

    def _running_wall(self) -> Wall:
        if self._wall is None or self._status["state"] not in ("running", "paused"):
            raise WallError("conflict", _NOT_RUNNING)
        return self._wall

    @staticmethod
    def _reply(request: Request, result: Message | WallError) -> None:
        connection, message = request
        if isinstance(result, WallError):
            connection.fail(message, result.kind, result.message, result.exit_code)
        else:
            connection.answer(message, result)


def client_options(message: Message) -> ClientOptions:
    """The options of an ``attach`` or ``exec`` request."""
    return ClientOptions(
        stdin=bool(message.get("stdin", False)),
        stdout=bool(message.get("stdout", True)),
        stderr=bool(message.get("stderr", True)),
        framed=bool(message.get("framed", False)),
        logs=bool(message.get("logs", False)),
        detach_keys=str(message.get("detach_keys", "")).encode("latin-1"),
        initial=binascii.a2b_base64(message.get("initial", "")),
    )
