"""What every driver does, whichever its wall: the suite behind contracts.Driver and contracts.Running.

A test module for one driver subclasses :class:`DriverSuite` and gives a fixture ``stage``.
"""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any, Protocol

import pytest

from enisle.contracts import Driver, Launch, Running
from enisle.errors import EnisleError, NotFound, StartFailed
from enisle.model.process import ExecSpec


class Stage(Protocol):
    """One driver with directories of its own. ``sleep`` is a command that does not end, ``missing`` one that is not
    there."""

    driver: Driver
    sleep: tuple[str, ...]
    missing: str

    async def prepare(self, *command: str) -> Launch: ...
    async def start(self, launch: Launch) -> Running: ...
    async def reconnect(self, launch: Launch) -> Running | None:
        """By a new driver, as after a restart of enisled."""

    def run_directory(self, launch: Launch) -> Any: ...


async def end(running: Running) -> int:
    """Kill it; its exit code."""
    await running.signal(9)
    return (await asyncio.wait_for(running.wait(), 30)).exit_code


class DriverSuite:
    """The tests."""

    async def test_a_life(self, stage: Stage) -> None:
        launch = await stage.prepare(*stage.sleep)
        before = time.time_ns()
        running = await stage.start(launch)
        assert running.pid > 0
        assert before <= running.started_at <= time.time_ns()
        assert (await running.status())["state"] == "running"
        waiters = [asyncio.create_task(running.wait()) for _ in range(3)]
        assert await end(running) == 137
        reports = await asyncio.gather(*waiters, running.wait())
        assert len(set(reports)) == 1
        assert reports[0].started_at == running.started_at
        assert reports[0].finished_at >= running.started_at
        assert (reports[0].oom_killed, reports[0].error) == (False, "")

    async def test_the_report_is_on_disk_before_it_is_told(self, stage: Stage) -> None:
        launch = await stage.prepare(*stage.sleep)
        running = await stage.start(launch)
        assert await end(running) == 137
        report = json.loads((launch.directory / "exit.json").read_text())
        assert (report["exit_code"], report["started_at"]) == (137, running.started_at)

    async def test_it_can_be_started_again(self, stage: Stage) -> None:
        launch = await stage.prepare(*stage.sleep)
        for _ in range(2):
            running = await stage.start(launch)
            assert not (launch.directory / "exit.json").exists()
            assert await end(running) == 137

    async def test_a_command_that_is_missing(self, stage: Stage) -> None:
        launch = await stage.prepare(stage.missing)
        with pytest.raises(StartFailed, match="not found") as caught:
            await stage.start(launch)
        assert caught.value.exit_code == 127
        assert await stage.reconnect(launch) is None

    async def test_execs(self, stage: Stage) -> None:
        launch = await stage.prepare(*stage.sleep)
        running = await stage.start(launch)
        with pytest.raises(StartFailed) as caught:
            await running.exec("e0", ExecSpec(command=(stage.missing,)), launch.instance, None)
        assert caught.value.exit_code == 127
        assert await running.exec("e1", ExecSpec(command=stage.sleep), launch.instance, None) > 0
        execs = {entry["exec_id"]: entry["running"] for entry in (await running.status())["execs"]}
        assert execs == {"e1": True}
        with pytest.raises(NotFound):
            await running.wait_exec("e2")
        await end(running)

    async def test_pause(self, stage: Stage) -> None:
        running = await stage.start(await stage.prepare(*stage.sleep))
        await running.pause()
        assert (await running.status())["state"] == "paused"
        await running.unpause()
        assert (await running.status())["state"] == "running"
        assert await end(running) == 137

    async def test_looking_at_it(self, stage: Stage) -> None:
        running = await stage.start(await stage.prepare(*stage.sleep))
        stats = await running.stats()
        assert stats["read_at"] > 0
        assert stats["pids"] >= 1
        titles, rows = await running.top("")
        assert {"PID", "CMD"} <= set(titles)
        assert rows
        assert all(len(row) == len(titles) for row in rows)
        await end(running)

    async def test_what_has_ended_answers_with_an_error(self, stage: Stage) -> None:
        launch = await stage.prepare(*stage.sleep)
        running = await stage.start(launch)
        await end(running)
        for call in (
            running.signal(15),
            running.pause(),
            running.exec("e", ExecSpec(command=("x",)), launch.instance, None),
        ):
            with pytest.raises(EnisleError):
                await call

    async def test_it_is_found_again(self, stage: Stage) -> None:
        launch = await stage.prepare(*stage.sleep)
        assert await stage.reconnect(launch) is None
        running = await stage.start(launch)
        assert stage.run_directory(launch).exists()
        running.abandon()
        again = await stage.reconnect(launch)
        assert again is not None
        assert (again.pid, again.started_at) == (running.pid, running.started_at)
        assert await end(again) == 137
        assert await stage.reconnect(launch) is None
        assert not stage.run_directory(launch).exists()

    async def test_files_of_what_does_not_run(self, stage: Stage) -> None:
        launch = await stage.prepare(*stage.sleep)
        async with stage.driver.files(launch, None) as files:
            with pytest.raises(NotFound):
                await files.stat("/no/such/file")

    async def test_destroy_leaves_nothing(self, stage: Stage) -> None:
        launch = await stage.prepare(*stage.sleep)
        await end(await stage.start(launch))
        assert await stage.driver.disk_usage(launch.directory) >= 0
        await stage.driver.destroy(launch.directory)
        assert not (launch.directory / "upper").exists()
        await stage.driver.destroy(launch.directory)
        assert await stage.driver.disk_usage(launch.directory) == 0
