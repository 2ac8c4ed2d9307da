"""The driver without processes keeps the contract that tests of the engine rely on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from enisle.contracts import Launch, Running
from enisle.drivers.fake import MISSING, FakeDriver
from enisle.model.ids import ImageId, InstanceId, new_id
from enisle.model.instance import Instance, InstanceSpec
from tests.contracts.driver_suite import DriverSuite


class FakeStage:
    """A FakeDriver and its directories."""

    sleep = ("sleep", "1000")
    missing = MISSING

    def __init__(self, root: Path) -> None:
        self._root = root
        self.driver = FakeDriver(root / "run")

    async def on_event(self, name: str, fields: dict[str, Any]) -> None:
        """Nobody listens."""

    async def prepare(self, *command: str) -> Launch:
        spec = InstanceSpec(image="busybox", image_id=ImageId("sha256:" + "a" * 64), command=command)
        instance = Instance(id=InstanceId(new_id()), name="calm_skye", created_at=time.time_ns(), spec=spec)
        directory = self._root / "instances" / instance.id
        directory.mkdir(parents=True)
        launch = Launch(instance=instance, directory=directory)
        await self.driver.prepare(launch)
        return launch

    async def start(self, launch: Launch) -> Running:
        return await self.driver.start(launch, self.on_event)

    async def reconnect(self, launch: Launch) -> Running | None:
        return await self.driver.reconnect(launch.instance, self.on_event)

    def run_directory(self, launch: Launch) -> Path:
        return self.driver.run_directory(launch.instance.id)


class TestFakeDriver(DriverSuite):
    @pytest.fixture
    def stage(self, tmp_path: Path) -> FakeStage:
        return FakeStage(tmp_path)
