"""Fixtures of the tests that use the real clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.places import Place
from tests.api.walls import WALLS, Wall
from tests.daemon import Daemon


@pytest.fixture(params=list(WALLS))
def wall(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[Wall]:
    made = Wall(daemon, request.param)
    yield made
    made.clean()


@pytest.fixture
def place(daemon: Daemon) -> Iterator[Place]:
    made = Place(daemon)
    yield made
    if made.instances:
        daemon.docker("rm", "-f", "-v", *made.instances)
    if made.networks:
        daemon.docker("network", "rm", *made.networks)
