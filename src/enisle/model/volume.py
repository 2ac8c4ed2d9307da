"""Volumes."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Volume:
    """A named directory of ours; ``mountpoint`` on the host, ``created_at`` in ns since the epoch."""

    name: str
    mountpoint: str
    driver: str = "local"
    created_at: int = 0
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False
