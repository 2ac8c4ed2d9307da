"""What Python and the program in C number alike."""

from __future__ import annotations

import re
from pathlib import Path

from enisle.launcher.container import enter, setup

PROGRAM = Path(setup.__file__).parent / "program"


def enumerated(file: str, beginning: str) -> dict[str, int]:
    """The names of an enum that begins so, with their numbers."""
    body = re.search(rf"enum [a-z]*\s*{{\s*({beginning}.*?)}}", (PROGRAM / file).read_text(), re.DOTALL)
    assert body is not None
    found, number = {}, -1
    for name, value in re.findall(r"(\w+)(?: = (\w+))?,?", re.sub(r"//.*", "", body[1])):
        number = int(value, 0) if value else number + 1
        found[name] = number
    return found


def test_stages() -> None:
    assert enumerated("program.h", "STAGE_") == {f"STAGE_{each.name}": each.value for each in enter.Stage}


def test_steps() -> None:
    assert enumerated("steps.c", "STEP_") == {f"STEP_{each.name}": each.value for each in setup._Code}


def test_flags() -> None:
    assert enumerated("program.h", "TERMINAL") == {each.name: each.value for each in enter._Flag}
    of_mounts = {name: getattr(setup, f"_{name}") for name in ("WITHOUT_LINKS", "IS_PROC", "IS_PTS", "IS_DEV")}
    assert enumerated("steps.c", "WITHOUT_LINKS") == of_mounts
    of_binds = {name: getattr(setup, f"_{name}") for name in ("PROPAGATION_BELOW", "ATTRIBUTES_BELOW")}
    assert enumerated("steps.c", "PROPAGATION_BELOW") == of_binds
