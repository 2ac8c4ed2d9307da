from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from enisle.drivers.fake import FakeDriver, FakeRunning
from enisle.engine.core import Settings
from enisle.engine.engine import Engine
from enisle.model.ids import ImageId
from enisle.model.instance import Instance, InstanceSpec, Isolation
from enisle.state.memory import MemoryStore
from tests.unit.engine.fakes import FakeImages, FakeNetworks, FakeVolumeFiles, watch_by_polling


async def until(condition: Callable[[], bool]) -> None:
    """Let others run until the condition holds; the test's time limit ends a wait in vain."""
    while not condition():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.005)


@dataclass
class Bench:
    """An engine on fakes, which can be killed and started again on the same state."""

    root: Path
    store: MemoryStore = field(default_factory=MemoryStore)
    images: FakeImages = field(default_factory=FakeImages)
    networks: FakeNetworks = field(default_factory=FakeNetworks)
    volume_files: FakeVolumeFiles = field(init=False)
    engine: Engine = field(init=False)
    driver: FakeDriver = field(init=False)

    def __post_init__(self) -> None:
        self.driver = FakeDriver(self.root / "run")
        self.volume_files = FakeVolumeFiles(self.root / "mounted")
        (self.root / "data").mkdir()

    async def open(self, *, store_was_lost: bool = False) -> None:
        self.engine = Engine(
            Settings(data_root=self.root / "data", run_root=self.root / "run"),
            store=self.store,
            images=self.images,
            networks=self.networks,
            drivers={Isolation.CONTAINER: self.driver, Isolation.VM: self.driver},
            volume_files=self.volume_files,
            watch_directory=watch_by_polling,
        )
        await self.engine.open(store_was_lost=store_was_lost)

    async def reopen(self, *, store_was_lost: bool = False) -> None:
        """As after a restart of enisled: what was in memory is gone, what ran runs on."""
        await self.engine.close()
        await self.open(store_was_lost=store_was_lost)

    async def create(self, name: str | None = None, **fields: Any) -> Instance:
        fields.setdefault("command", ("sleep", "1"))
        spec = InstanceSpec(image="busybox", image_id=ImageId(""), **fields)
        return await self.engine.instances.create(spec, name=name, warnings=[])

    async def run(self, name: str | None = None, **fields: Any) -> tuple[Instance, FakeRunning]:
        """Create and start."""
        record = await self.create(name, **fields)
        await self.engine.instances.start(record.id)
        return record, self.driver.running[record.id]

    def directory(self, record: Instance) -> Path:
        return self.root / "data" / "instances" / record.id

    def actions(self) -> list[str]:
        """What has happened so far, in order."""
        return [event.action for event in self.engine.events.recent]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    await made.open()
    yield made
    await made.engine.close()
