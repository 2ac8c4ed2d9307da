"""The VM wall's driver."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import ClassVar

from enisle.contracts import Files, Launch, Running
from enisle.drivers.base import KeeperDriver
from enisle.drivers.container.facts import HostFacts, read_facts
from enisle.drivers.files import KeeperFiles
from enisle.drivers.launcher import LauncherClient
from enisle.drivers.limits import limits_plan, read_limit_facts
from enisle.drivers.vm import check, disk, kvm, plan
from enisle.drivers.vm.helpers import Helpers
from enisle.errors import NotSupported
from enisle.guest import build
from enisle.linux import tsc
from enisle.model.instance import Endpoint, Instance, InstanceSpec
from enisle.model.process import ExecSpec
from enisle.wire.plans import LimitsPlan, NicPlan, ProcessPlan, VmPlan

_FILES_GRACE_S = 10.0
_QEMU = "/usr/bin/qemu-system-x86_64"
_VIRTIOFSD = ("/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd")


class VmDriver(KeeperDriver):
    """Instances behind virtual hardware: QEMU with a kernel of their own.

    ``accelerator``: "auto" proves KVM before it is used, "kvm" and "tcg" do as told.
    """

    wall: ClassVar[str] = "vm"

    def __init__(
        self,
        *,
        launcher: LauncherClient,
        run_root: Path,
        data_root: Path,
        cgroup_parent: str = "enisle",
        facts: HostFacts | None = None,
        accelerator: str = "auto",
    ) -> None:
        super().__init__(launcher=launcher, run_root=run_root, data_root=data_root, cgroup_parent=cgroup_parent)
        self._facts = facts or read_facts(read_limit_facts())
        self._guest_directory = data_root / "guest"
        self._accelerator = accelerator
        self._helpers = Helpers(self._stop_files_keeper)
        self._machine: plan.Machine | None = None
        self._making = asyncio.Lock()

    # --- what KeeperDriver asks for --------------------------------------------------------------------------------

    def plan(self, launch: Launch) -> VmPlan:
        if self._machine is None:
            raise NotSupported("The virtual machine's kernel is not ready.")
        return plan.vm_plan(launch, self._machine, self._facts, cgroup_parent=self._cgroup_parent)

    def exec_plan(self, instance: Instance, spec: ExecSpec) -> ProcessPlan:
        return plan.exec_plan(instance, spec, self._facts)

    def limits_plan(self, spec: InstanceSpec) -> LimitsPlan:
        return limits_plan(spec.resources)

    def nic_plan(self, endpoint: Endpoint) -> NicPlan:
        return plan.vm_nic_plan(endpoint)

    def check(self, spec: InstanceSpec) -> list[str]:
        if not os.access(_QEMU, os.X_OK):
            raise NotSupported("There is no QEMU on this host.", remedy="Install the package qemu-system-x86.")
        return check.check(spec, self._facts, cgroup_parent=self._cgroup_parent, virtiofsd=_virtiofsd())

    async def prepare(self, launch: Launch) -> None:
        size = disk.disk_bytes(launch.instance.spec.storage_options)
        await asyncio.to_thread(disk.make_disk, launch.directory / plan.DISK_FILE, self._guest_directory, size)

    async def before_start(self, launch: Launch) -> None:
        await self.warm_up()
        await self.prepare(launch)

    @asynccontextmanager
    async def files(self, launch: Launch, running: Running | None) -> AsyncIterator[Files]:
        if running is not None:
            async with super().files(launch, running) as files:
                yield files
            return
        async with self._helpers.use(launch.instance.id, lambda: self._open_files_keeper(launch)) as channel:
            session = KeeperFiles(channel)
            try:
                yield session
            finally:
                await session.close()

    async def _end_files_sessions(self, instance_id: str) -> None:
        await self._helpers.wait_idle(instance_id, _FILES_GRACE_S)
        await self._helpers.retire(instance_id)

    async def destroy(self, directory: Path) -> None:
        await self._helpers.retire(directory.name)
        await super().destroy(directory)

    async def disk_usage(self, directory: Path) -> int:
        return disk.used_bytes(directory / plan.DISK_FILE)

    # --- the machine -----------------------------------------------------------------------------------------------

    async def warm_up(self) -> None:
        """Have kernel and accelerator ready: at once when they are, after minutes at most the first time ever."""
        if self._machine is not None and self._machine.kernel.exists():
            return
        async with self._making:
            guest = await asyncio.to_thread(build.ensure, self._guest_directory)
            accelerator, _ = await self._choose_accelerator(guest)
            tsc_khz = await asyncio.to_thread(tsc.measure_khz) if accelerator == "tcg" else 0
            self._machine = plan.Machine(
                kernel=guest.kernel,
                initramfs=guest.initramfs,
                modules=guest.modules,
                accelerator=accelerator,
                tsc_khz=tsc_khz,
                qemu=_QEMU,
                virtiofsd=_virtiofsd(),
            )

    async def accelerator(self) -> tuple[str, str]:
        """("kvm" or "tcg", why), for ``enisle doctor`` and ``info``."""
        guest = await asyncio.to_thread(build.ensure, self._guest_directory)
        return await self._choose_accelerator(guest)

    async def _choose_accelerator(self, guest: build.Guest) -> tuple[str, str]:
        if self._accelerator in ("kvm", "tcg"):
            return self._accelerator, "chosen in the settings"
        works, why = await kvm.works(self._guest_directory, guest, _QEMU)
        return ("kvm" if works else "tcg"), why


def _virtiofsd() -> str:
    """The file server's program; "" when there is none."""
    for path in _VIRTIOFSD:
        if os.access(path, os.X_OK):
            return path
    return shutil.which("virtiofsd") or ""
