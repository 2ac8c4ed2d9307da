"""Programs that attack, compiled once."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.programs import compile_program


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Makes every call that no container may make."""
    return compile_program("probe", tmp_path_factory.mktemp("probe") / "probe")
