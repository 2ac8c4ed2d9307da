"""Reading an instance's log."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class LogRecord:
    """A line (or, where a line was longer than the keeper's buffer, a part of one without its newline).

    ``stream``: 1 stdout, 2 stderr. ``time_ns`` since the epoch. ``data`` ends in a newline unless it is a part.
    """

    stream: int
    time_ns: int
    data: bytes
    attributes: dict[str, str] = field(default_factory=dict)
