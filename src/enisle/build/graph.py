"""Which stages of a Dockerfile are needed, and what they need. Pure."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator

from enisle.errors import Invalid
from enisle.formats.dockerfile.instructions import Copy, Dockerfile, Run, Stage
from enisle.model.numbers import decimal


def target_index(dockerfile: Dockerfile, target: str) -> int:
    """The stage to build; "" is the last. Invalid: there is no such stage."""
    if not target:
        return len(dockerfile.stages) - 1
    index = stage_index(dockerfile, target, len(dockerfile.stages))
    if index is None:
        raise Invalid(f"failed to reach build target {target} in Dockerfile")
    return index


def stage_index(dockerfile: Dockerfile, name: str, before: int) -> int | None:
    """The stage of that name (the last one, if several have it) or number, among those before ``before``."""
    for stage in reversed(dockerfile.stages[:before]):
        if stage.base.name and stage.base.name == name.lower():
            return stage.index
    number = decimal(name)
    return number if number is not None and number < before else None


def needs(
    dockerfile: Dockerfile, stage: Stage, expand: Callable[[str], str], named: Container[str] = ()
) -> Iterator[int]:
    """The stages that one stage is made from. ``named``: contexts, which stand in the place of stages of their name."""
    names = [expand(stage.base.image)]
    for instruction in stage.instructions:
        if isinstance(instruction, Copy) and instruction.source:
            names.append(instruction.source)
        elif isinstance(instruction, Run):
            names += [mount.options["from"] for mount in instruction.mounts if mount.options.get("from")]
    for position, name in enumerate(names):
        if (position == 0 and name.isdigit()) or name in named:
            continue  # FROM knows names only
        index = stage_index(dockerfile, name, stage.index)
        if index is not None:
            yield index


def needed(dockerfile: Dockerfile, target: int, expand: Callable[[str], str], named: Container[str] = ()) -> list[int]:
    """The target and everything it is made from, in the order of the Dockerfile."""
    found: set[int] = set()
    waiting = [target]
    while waiting:
        index = waiting.pop()
        if index not in found:
            found.add(index)
            waiting += needs(dockerfile, dockerfile.stages[index], expand, named)
    return sorted(found)
