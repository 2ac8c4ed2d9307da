"""The engine: the use cases, each a facet."""

from __future__ import annotations

import asyncio
import logging

from enisle.contracts import Driver, ImageStore, NetworkProvider, StateStore, VolumeFiles
from enisle.engine import launch, stopping
from enisle.engine.core import Core, Settings, WatchDirectory
from enisle.engine.events import Events
from enisle.engine.execs import Execs
from enisle.engine.images import Images
from enisle.engine.instances import Instances
from enisle.engine.journal import Journal
from enisle.engine.networks import Networks
from enisle.engine.reconcile import reconcile
from enisle.engine.slots import Slots
from enisle.engine.system import System
from enisle.engine.volume_copies import VolumeCopies
from enisle.engine.volumes import Volumes
from enisle.model.instance import Isolation

CLOSE_TIMEOUT_S = 5.0

log = logging.getLogger("enisle.engine")


class Engine:
    """What the API serves. ``open`` reconciles what an earlier enisled left; ``close`` leaves the workloads running."""

    def __init__(
        self,
        settings: Settings,
        *,
        store: StateStore,
        images: ImageStore,
        networks: NetworkProvider,
        drivers: dict[Isolation, Driver],
        volume_files: VolumeFiles,
        watch_directory: WatchDirectory,
    ) -> None:
        self._journal = Journal(store)
        self.events = Events(settings.data_root / "events.jsonl")
        self.volumes = Volumes(settings.data_root / "volumes", store, self.events, volume_files)
        self.volume_copies = VolumeCopies(self.volumes)
        self._core = Core(
            settings=settings,
            store=store,
            image_store=images,
            network_provider=networks,
            drivers=drivers,
            watch_directory=watch_directory,
            events=self.events,
            volumes=self.volumes,
            slots=Slots(self._journal),
            start_again=launch.start_locked,
            end_sick=stopping.end_sick,
        )
        self.instances = Instances(self._core)
        self.execs = Execs(self._core)
        self.images = Images(self._core)
        self.networks = Networks(self._core)
        self.system = System(self._core)

    @property
    def has_running(self) -> bool:
        """Whether anything runs, which needs networks and launcher."""
        return any(slot.running is not None for slot in self._core.slots)

    async def open(self, *, store_was_lost: bool = False) -> None:
        """Make the records true. ``store_was_lost``: the store is an old backup, so orphans are taken back."""
        (self._core.settings.data_root / "instances").mkdir(parents=True, exist_ok=True, mode=0o711)
        await self.volumes.open()
        await self._core.network_provider.open()
        await reconcile(self._core, self.execs, store_was_lost=store_was_lost)
        await self._journal.flush()

    async def close(self) -> None:
        """Let go of everything that runs, store what is pending. The adapters are closed by who made them."""
        core = self._core
        core.closing = True
        for task in list(core.tasks):
            task.cancel()
        if core.tasks:
            await asyncio.wait(core.tasks, timeout=CLOSE_TIMEOUT_S)
        for slot in core.slots:
            slot.early.close()
            if slot.running is not None:
                slot.running.abandon()
        await self._journal.flush()
        self.events.close()
