"""The VM wall: one QEMU with a guest agent inside, as the keeper's core sees it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from enisle.launcher.resolver import Resolver
from enisle.launcher.vm import files, protocol
from enisle.launcher.vm.agent import Agent
from enisle.launcher.vm.calls import GuestCall
from enisle.launcher.vm.figures import guest_stats, host_memory, process_list
from enisle.launcher.vm.last_resort import LastResort
from enisle.launcher.vm.machine import Machine, host_limits
from enisle.launcher.vm.messages import setup_error
from enisle.launcher.vm.nics import NicSlots
from enisle.launcher.vm.protocol import Call, Failure, GuestNames, Identity, Setup, SetupFlag, ToGuest, u32, u64
from enisle.launcher.vm.qmp import Qmp, failure
from enisle.launcher.vm.session import GuestSession
from enisle.launcher.vm.shares import plan_mounts
from enisle.launcher.vm.sockets import GuestSockets
from enisle.launcher.wall import Done, Session, Wall, WallError
from enisle.linux import capabilities, rlimits
from enisle.wire.keeper import Stats
from enisle.wire.plans import LimitsPlan, NicPlan, ProcessPlan, VmPlan, asks_inside, from_json

if TYPE_CHECKING:
    from enisle.launcher.loop import EpollLoop
    from enisle.launcher.wall import SessionEvents

_BOOT_TIMEOUT_S = {"kvm": 60.0, "tcg": 240.0}
_CALL_TIMEOUT_S = 10.0
_TELL_TIME_S = 60.0
_FIGURES_BYTES = 64 << 10
_PROCESSES_BYTES = 8 << 20
_SMALLEST_BALLOON_BYTES = 64 << 20
_KILLED, _GONE = 137, 255
_FIRST_PORT = 49152  # of those that nobody has for good (RFC 6335)


class VmWall(Wall):
    """One VM. It is made by ``start`` or ``open_files`` and gone after ``close``."""

    def __init__(self, loop: EpollLoop, run_dir: str) -> None:
        self._loop = loop
        self._run_dir = run_dir
        self._plan: VmPlan | None = None
        self._machine: Machine | None = None
        self._agent: Agent | None = None
        self._qmp: Qmp | None = None
        self._nics: NicSlots | None = None
        self._last_resort: LastResort | None = None
        self._boot_timer: Any = None
        self._clock_timer: Any = None
        self._booted: Callable[[WallError | None], None] | None = None
        self._session: GuestSession | None = None
        self._sockets: GuestSockets | None = None
        self._paused = False
        self._awake = 0  # what needs the CPUs to run although the instance is paused
        self._oom = False
        self._memory_bytes = 0  # what an update has left of the plan's; 0: all of it
        self._pids = 0
        self._fault = ""

    # --- starting --------------------------------------------------------------------------------------------------

    def start(self, plan: dict[str, Any], events: SessionEvents, done: Done, meanwhile: Callable[[], None]) -> None:
        meanwhile()
        vm = from_json(VmPlan, plan)
        body = protocol.run_body(vm.process, identity(vm.process), main=True)
        answered = False

        def answer(result: Session | WallError) -> None:
            nonlocal answered
            if not answered:
                answered = True
                self._cancel_timer()
                done(result)

        def booted(error: WallError | None) -> None:
            if error is not None:
                answer(error)

        agent = self._boot(vm, SetupFlag(0), booted)
        # Sent without waiting for the root to be ready: the agent does one after the other.
        self._session = GuestSession(agent, body, events, answer, on_signal=self._signalled)
        if self._machine is not None:
            self._session.pid = self._machine.pid

    def open_files(self, plan: dict[str, Any], done: Callable[[WallError | None], None]) -> None:
        vm = from_json(VmPlan, plan)
        vm.nics = []

        def booted(error: WallError | None) -> None:
            self._cancel_timer()
            done(error)

        self._boot(vm, SetupFlag.FILES_ONLY, booted)

    def _boot(self, plan: VmPlan, flags: SetupFlag, booted: Callable[[WallError | None], None]) -> Agent:
        self._plan = plan
        self._pids = max(plan.limits.pids, 0)
        self._booted = booted
        mounts = plan_mounts(plan.mounts)
        resolver = Resolver(plan.resolver, plan.id) if plan.resolver and asks_inside(plan.nics) else None
        names = guest_names() if resolver is not None else GuestNames()
        machine = self._machine = Machine(self._loop, plan, mounts.shares, self._run_dir, self._machine_ended)
        agent = self._agent = Agent(
            self._loop,
            machine.agent_socket,
            on_hello=self._hello,
            on_ready=self._ready,
            on_oom=self._out_of_memory,
            on_fault=self._broken,
        )
        self._qmp = Qmp(self._loop, machine.qmp_socket, self._qmp_event)
        self._last_resort = LastResort(self._loop, self._qmp, lambda reason: self._give_up(reason, _KILLED))
        self._nics = NicSlots(machine, self._qmp, agent, plan.nics)
        agent.send(ToGuest.SETUP, body=protocol.setup_body(guest_setup(plan, flags, names, mounts.guest)))
        self._sockets = GuestSockets(self._loop, agent, mounts.sockets, resolver)
        limit_s = _BOOT_TIMEOUT_S.get(plan.accelerator, 240.0)
        self._boot_timer = self._loop.call_later(limit_s, lambda: self._broken(f"it did not boot in {limit_s:g} s"))
        return agent

    def _hello(self, generation: int) -> None:
        if generation != protocol.GENERATION:
            self._broken(f"its agent is of generation {generation}, the keeper of {protocol.GENERATION}")
        # What SETUP says is as old as the boot has taken.
        self._tell_time()

    def _tell_time(self) -> None:
        """Now and every minute: the guest's clock is not disciplined by the host's NTP."""
        if self._agent is not None and (self._awake or not self._paused):
            self._agent.send(ToGuest.CLOCK, body=u64(time.time_ns()))
        self._clock_timer = self._loop.call_later(_TELL_TIME_S, self._tell_time)

    def _ready(self, problem: Failure | None) -> None:
        booted, self._booted = self._booted, None
        if booted is not None:
            booted(setup_error(problem) if problem is not None else None)

    def _cancel_timer(self) -> None:
        if self._boot_timer is not None:
            self._boot_timer.cancel()
            self._boot_timer = None

    def _cancel_all_timers(self) -> None:
        self._cancel_timer()
        if self._clock_timer is not None:
            self._clock_timer.cancel()
            self._clock_timer = None
        if self._last_resort is not None:
            self._last_resort.cancel()

    # --- ends ------------------------------------------------------------------------------------------------------

    def _machine_ended(self, status: int) -> None:
        """QEMU has ended by itself: killed, or its guest panicked or powered off."""
        killed = os.WIFSIGNALED(status)
        reason = self._machine.complaints() if self._machine is not None else ""
        if not reason:
            reason = f"QEMU ended by signal {os.WTERMSIG(status)}" if killed else "its kernel stopped"
        self._give_up(reason, _KILLED if killed else _GONE)

    def _broken(self, reason: str) -> None:
        """The guest cannot be worked with: end it."""
        self._give_up(reason, _GONE)

    def _give_up(self, reason: str, code: int) -> None:
        self._fault = self._fault or reason
        self._cancel_all_timers()
        booted, self._booted = self._booted, None
        if booted is not None:
            booted(WallError("internal", f"the virtual machine did not start: {reason}", 128))
        if self._agent is not None:
            self._agent.close(code)
        if self._machine is not None:
            self._machine.close()

    def failure(self) -> str:
        return f"the virtual machine failed: {self._fault}" if self._fault else ""

    def _out_of_memory(self) -> None:
        self._oom = True
        self.on_oom()

    def oom_killed(self) -> bool:
        return self._oom or (self._machine is not None and self._machine.oom_killed())

    def close(self) -> None:
        self._cancel_all_timers()
        self._booted = None
        for part in (self._sockets, self._agent, self._qmp, self._machine):
            if part is not None:
                part.close()

    # --- the workload ----------------------------------------------------------------------------------------------

    def start_exec(self, exec_id: str, process: ProcessPlan, events: SessionEvents, done: Done) -> None:
        del exec_id
        body = protocol.run_body(process, identity(process), main=False)
        GuestSession(self._guest(), body, events, done, main=False)

    def signal_all(self, number: int) -> None:
        self._signalled(number)
        self._guest().send(ToGuest.SIGNAL, 0, u32(number), stream=1)

    def files(
        self, request: dict[str, Any], fds: list[int], done: Callable[[dict[str, Any] | WallError], None]
    ) -> None:
        files.serve(self._loop, self._guest(), request, fds, self._waking(done))

    def top(self, ps_args: str, done: Callable[[dict[str, Any] | WallError], None]) -> None:
        def finish(result: bytes | WallError) -> None:
            if isinstance(result, WallError):
                done(result)
                return
            try:
                done(process_list(result, ps_args))
            except ValueError as error:
                done(WallError("invalid", str(error)))

        self._call(Call.TOP, b"", _PROCESSES_BYTES, finish)

    def stats(self, done: Callable[[Stats | WallError], None]) -> None:
        stats = Stats(read_at=time.time_ns())

        def finish(result: bytes | WallError) -> None:
            if isinstance(result, bytes):
                guest_stats(result, stats)
            self._add_host_figures(stats)
            done(stats)

        self._call(Call.STATS, b"", _FIGURES_BYTES, finish)

    def _add_host_figures(self, stats: Stats) -> None:
        if self._plan is None or self._machine is None:
            return
        stats.memory_limit_bytes = self._memory_bytes or self._plan.memory_bytes
        stats.pids_limit = self._pids
        usage = self._machine.usage()
        if usage is not None:
            stats.periods, stats.throttled_periods = usage.periods, usage.throttled_periods
            stats.throttled_ns = usage.throttled_ns
            stats.memory_stats["host_cpu_ns"] = usage.cpu_total_ns
            if not stats.cpu_total_ns:
                stats.cpu_total_ns = usage.cpu_total_ns
        stats.memory_stats |= host_memory(self._machine.pid)

    def _call(self, call: Call, body: bytes, limit: int, done: Callable[[bytes | WallError], None]) -> None:
        timer: Any = None

        def finish(result: bytes | WallError) -> None:
            if timer is not None:
                timer.cancel()
            done(result)

        asked = GuestCall(self._guest(), call, body, limit=limit, done=self._waking(finish))
        timer = self._loop.call_later(_CALL_TIMEOUT_S, lambda: asked.cancel("the guest's agent does not answer"))

    def _guest(self) -> Agent:
        if self._agent is None:
            raise WallError("conflict", "the virtual machine does not run")
        return self._agent

    # --- the machine -----------------------------------------------------------------------------------------------

    def pause(self, done: Callable[[WallError | None], None]) -> None:
        """The workload is frozen by the guest's kernel, and then the CPUs are stopped.

        So the CPUs can run for a moment, to copy files of an instance at rest, without the workload noticing.
        """

        def stopped(problem: WallError | None) -> None:
            self._paused = problem is None
            done(problem)

        self._guest().send(ToGuest.FREEZE, body=b"\x01")
        self._monitor("stop", stopped)

    def unpause(self, done: Callable[[WallError | None], None]) -> None:
        def running(problem: WallError | None) -> None:
            if problem is None:
                self._paused = False
                guest = self._guest()
                guest.send(ToGuest.CLOCK, body=u64(time.time_ns()))  # which stood still meanwhile
                guest.send(ToGuest.FREEZE, body=b"\x00")
            done(problem)

        self._monitor("cont", running)

    def _wake(self) -> None:
        self._awake += 1
        if self._paused and self._awake == 1:
            self._monitor("cont", _ignore)

    def _doze(self) -> None:
        self._awake -= 1
        if self._paused and self._awake == 0:
            self._monitor("stop", _ignore)

    def _waking(self, done: Callable[[Any], None]) -> Callable[[Any], None]:
        """``done``, after which a paused instance, woken now, has its CPUs stopped again."""

        def finish(result: Any) -> None:
            self._doze()
            done(result)

        self._wake()
        return finish

    def _signalled(self, number: int) -> None:
        """A paused workload cannot take a signal, but it can be killed; so can one whose guest does not do it."""
        if number == signal.SIGKILL:
            self._wake()
            if self._last_resort is not None:
                self._last_resort.begin()

    def update(self, limits: LimitsPlan, done: Callable[[WallError | None], None]) -> None:
        assert self._plan is not None and self._machine is not None
        wanted, given = limits.memory_bytes, self._plan.memory_bytes
        if wanted > given:
            reason = f"the memory of a running virtual machine cannot grow beyond the {given >> 20} MiB it started with"
            done(WallError("conflict", f"{reason}: stop it, update it, and start it again"))
            return
        try:
            self._machine.update(host_limits(limits))
        except OSError as error:
            done(WallError("internal", f"the limits cannot be set: {error}"))
            return
        self._pids = max(limits.pids, 0)
        self._memory_bytes = wanted
        taken = given - wanted if wanted else 0
        self._guest().send(ToGuest.LIMIT, body=u64(taken) + u32(self._pids))
        self._monitor("balloon", done, value=max(given - taken, _SMALLEST_BALLOON_BYTES))

    def add_nic(self, nic: NicPlan, done: Callable[[WallError | None], None]) -> None:
        self._guest()
        assert self._nics is not None
        self._nics.add(nic, done)

    def remove_nic(self, name: str, done: Callable[[WallError | None], None]) -> None:
        self._guest()
        assert self._nics is not None
        self._nics.remove(name, self._loop, done)

    def _monitor(self, command: str, done: Callable[[WallError | None], None], **arguments: Any) -> None:
        def answered(answer: dict[str, Any]) -> None:
            problem = failure(answer)
            done(WallError("internal", f"QEMU: {command}: {problem}") if problem else None)

        if self._qmp is None:
            raise WallError("conflict", "the virtual machine does not run")
        self._qmp.execute(command, answered, **arguments)

    def _qmp_event(self, name: str, details: dict[str, Any]) -> None:
        if name == "DEVICE_DELETED" and self._nics is not None:
            self._nics.device_deleted(str(details.get("device", "")))


def _ignore(_problem: WallError | None) -> None:
    """QEMU refuses only when it is about to end, which is heard of by other ways."""


def guest_names() -> GuestNames:
    """Where the agent listens for the workload's questions."""
    from enisle.launcher.names import redirection  # few need it, and all would have its pages
    from enisle.linux.nftables.connection import transaction

    port = _FIRST_PORT + int.from_bytes(os.urandom(2)) % (65536 - _FIRST_PORT)
    return GuestNames(port, transaction(redirection(port, port)))


def guest_setup(plan: VmPlan, flags: SetupFlag, names: GuestNames, mounts: list[protocol.GuestMount]) -> Setup:
    """What the agent is told of its machine."""
    if plan.read_only_root:
        flags |= SetupFlag.READ_ONLY
    if plan.process.privileged:
        flags |= SetupFlag.PRIVILEGED
    if plan.load_modules:
        flags |= SetupFlag.MODULES
    return Setup(
        flags=flags,
        time_ns=time.time_ns(),
        entropy=os.urandom(64),
        hostname=plan.hostname,
        domainname=plan.domainname,
        pids=max(plan.limits.pids, 0),
        nics=plan.nics,
        names=names,
        mounts=mounts,
        files=plan.files,
        sysctls=[(name if "/" in name else name.replace(".", "/"), value) for name, value in plan.sysctls.items()],
    )


def identity(process: ProcessPlan) -> Identity:
    """The numbers behind a process plan's names. WallError for a name that is none."""
    try:
        limits = [(rlimits.NUMBERS[name], soft, hard) for name, soft, hard in process.rlimits]
        return Identity(capabilities.mask(process.capabilities), limits)
    except KeyError as error:
        raise WallError("invalid", f"unknown capability or limit {error}", 128) from error
