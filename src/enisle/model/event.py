"""Events: what happened to which object."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """``kind``: container, image, network, volume, daemon. ``action``: create, start, die, exec_create: sh, ...

    ``actor`` is the id (or name) of the object, ``time`` in nanoseconds since the epoch.
    """

    kind: str
    action: str
    actor: str
    attributes: dict[str, str] = field(default_factory=dict)
    time: int = 0
