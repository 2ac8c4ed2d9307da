"""NICs that come and go while the VM runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from enisle.launcher.vm.calls import GuestCall
from enisle.launcher.vm.protocol import Call, nic_body, text
from enisle.launcher.vm.qemu import nic_device
from enisle.launcher.vm.qmp import Qmp, failure
from enisle.launcher.wall import WallError
from enisle.wire.plans import NicPlan

if TYPE_CHECKING:
    from enisle.launcher.vm.agent import Agent
    from enisle.launcher.vm.machine import Machine
    from enisle.launcher.wall import Loop

_SLOTS = 30
_UNPLUG_TIMEOUT_S = 15.0

Done = Callable[[WallError | None], None]


class NicSlots:
    """Which NIC is in which slot of the hot-plug bridge."""

    def __init__(self, machine: Machine, qmp: Qmp, agent: Agent, nics: list[NicPlan]) -> None:
        self._machine = machine
        self._qmp = qmp
        self._agent = agent
        self._slots: dict[str, int] = {nic.name: number for number, nic in enumerate(nics)}
        self._plans: dict[str, NicPlan] = {nic.name: nic for nic in nics}
        self._leaving: dict[str, Callable[[], None]] = {}

    def add(self, nic: NicPlan, done: Done) -> None:
        """Plug in a NIC and have the guest set it up. What was made is undone when a step fails."""
        free = [number for number in range(_SLOTS) if number not in self._slots.values()]
        if nic.name in self._slots or not free:
            done(WallError("conflict", f"the virtual machine has a NIC {nic.name} already, or no slot left for one"))
            return
        number = free[0]
        try:
            fd = self._machine.add_tap(nic)
        except OSError as error:
            self._machine.drop_tap(nic.name)
            done(WallError("internal", f"NIC {nic.name}: {error}"))
            return
        self._slots[nic.name] = number
        self._plans[nic.name] = nic

        def plugged(problem: str) -> None:
            if problem:
                self._undo(nic.name, number)
                done(WallError("internal", f"NIC {nic.name}: QEMU: {problem}"))
            else:
                GuestCall(self._agent, Call.NIC_ADD, nic_body(nic), limit=4096, done=finished)

        def finished(result: bytes | WallError) -> None:
            if isinstance(result, WallError):
                self._undo(nic.name, number)
                done(WallError("internal", f"NIC {nic.name}: {result.message}"))
            else:
                done(None)

        self._plug(nic, number, fd, plugged)

    def _plug(self, nic: NicPlan, number: int, fd: int, done: Callable[[str], None]) -> None:
        """Three commands in a row; ``done`` gets the first failure or ""."""

        def device(answer: dict[str, Any]) -> None:
            if problem := failure(answer):
                done(problem)
            else:
                self._qmp.execute("device_add", lambda last: done(failure(last)), **nic_device(nic, number))

        def netdev(answer: dict[str, Any]) -> None:
            if problem := failure(answer):
                done(problem)
            else:
                self._qmp.execute("netdev_add", device, type="tap", id=f"net{number}", fd=f"tap{number}")

        self._qmp.execute("getfd", netdev, fds=[fd], fdname=f"tap{number}")

    def _undo(self, name: str, number: int) -> None:
        self._slots.pop(name, None)
        self._plans.pop(name, None)
        self._qmp.execute("device_del", lambda _answer: None, id=f"nic{number}")
        self._qmp.execute("netdev_del", lambda _answer: None, id=f"net{number}")
        self._machine.drop_tap(name)

    def remove(self, name: str, loop: Loop, done: Done) -> None:
        """Take a NIC out; the guest is asked first, and has some seconds to let go of it."""
        number = self._slots.get(name)
        if number is None:
            done(WallError("not_found", f"the virtual machine has no NIC {name}"))
            return
        timer: Any = None

        def deleted() -> None:
            if timer is not None:
                timer.cancel()
            self._qmp.execute("netdev_del", lambda _answer: None, id=f"net{number}")
            self._slots.pop(name, None)
            self._plans.pop(name, None)
            self._machine.drop_tap(name)
            self._restore_default_route()
            done(None)

        def asked(answer: dict[str, Any]) -> None:
            nonlocal timer
            if problem := failure(answer):
                self._leaving.pop(f"nic{number}", None)
                done(WallError("internal", f"NIC {name}: QEMU: {problem}"))
            elif f"nic{number}" in self._leaving:
                timer = loop.call_later(_UNPLUG_TIMEOUT_S, late)

        def late() -> None:
            if self._leaving.pop(f"nic{number}", None) is not None:
                done(WallError("unavailable", f"the guest does not let go of NIC {name}"))

        def down(_result: bytes | WallError) -> None:
            self._leaving[f"nic{number}"] = deleted
            self._qmp.execute("device_del", asked, id=f"nic{number}")

        GuestCall(self._agent, Call.NIC_REMOVE, text(name), limit=4096, done=down)

    def _restore_default_route(self) -> None:
        """Tell the guest of those that are left once more: the first that leads anywhere takes the route over."""
        for nic in self._plans.values():
            if nic.gateway4 or nic.gateway6:
                GuestCall(self._agent, Call.NIC_ADD, nic_body(nic), limit=4096, done=lambda _result: None)

    def device_deleted(self, device: str) -> None:
        """QEMU's event of that name."""
        finish = self._leaving.pop(device, None)
        if finish is not None:
            finish()
