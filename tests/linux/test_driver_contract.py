"""The container driver keeps the contract of all drivers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from enisle.contracts import Launch, Running
from tests.contracts.driver_suite import DriverSuite
from tests.linux.walls import Walls


class ContainerStage(Walls):
    """Walls, with the names the suite uses."""

    sleep = ("sleep", "1000")
    missing = "nope"

    async def reconnect(self, launch: Launch) -> Running | None:
        self.driver = self.new_driver()
        running = await self.driver.reconnect(launch.instance, self.on_event)
        if running is not None:
            self.running.append(running)
        return running

    def run_directory(self, launch: Launch) -> Path:
        return self.run_root / "instances" / launch.instance.id[:16]


class TestContainerDriver(DriverSuite):
    @pytest.fixture
    async def stage(self) -> AsyncIterator[ContainerStage]:
        made = ContainerStage()
        yield made
        await made.close()
