"""Fixtures of the tests that use the real clients."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.walls import WALLS, Wall
from tests.daemon import Daemon


@pytest.fixture(params=list(WALLS))
def wall(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[Wall]:
    made = Wall(daemon, request.param)
    yield made
    made.clean()
