"""Figures as one Markdown table: medians, and how we compare."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field


@dataclass
class Row:
    """One measure: samples per engine. ``aim``: what the median should not exceed; ``aim_ratio``: what its ratio to
    dockerd's, or to that of whichever engine is fastest, should not. ``failed``: engines that could not do it."""

    title: str
    unit: str = "ms"
    samples: dict[str, list[float]] = field(default_factory=dict)
    aim: float | None = None
    aim_ratio: float | None = None
    of_fastest: bool = False
    failed: set[str] = field(default_factory=set)
    note: str = ""

    def median(self, engine: str) -> float | None:
        values = self.samples.get(engine)
        return statistics.median(values) if values else None

    def verdict(self) -> str:
        """Whether the aim is met; "" where there is none."""
        ours = self.median("enisle")
        theirs = self._other()
        if "enisle" in self.failed:
            return "FAILED"
        if ours is None or (self.aim is None and (self.aim_ratio is None or theirs is None)):
            return ""
        wanted = self.aim if self.aim is not None else (self.aim_ratio or 0) * (theirs or 0)
        whom = "the faster one" if self.of_fastest else "dockerd"
        text = f"≤ {self.aim:g} {self.unit}" if self.aim is not None else f"≤ {self.aim_ratio:g} of {whom}"
        return f"{text}: {'met' if ours <= wanted else 'MISSED'}"

    def _other(self) -> float | None:
        """What we are compared with."""
        if not self.of_fastest:
            return self.median("dockerd")
        return min((self.median(name) or 0.0 for name in self.samples if name != "enisle"), default=None)

    def cell(self, engine: str) -> str:
        """The median, or why there is none."""
        value = self.median(engine)
        if value is None:
            return "failed" if engine in self.failed else ""
        digits = 0 if value >= 100 else 1 if value >= 10 else 2
        return f"{value:.{digits}f} {self.unit}"


def render(rows: list[Row], engines: list[str]) -> str:
    """The table."""
    heads = ["measure", *engines, *(f"enisle / {name}" for name in engines if name != "enisle"), "aim"]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 2) + "|---|"]
    for row in rows:
        ours = row.median("enisle")
        cells = [row.title]
        cells += [row.cell(name) for name in engines]
        for name in engines:
            theirs = row.median(name)
            if name != "enisle":
                cells.append(f"{ours / theirs:.2f}" if ours is not None and theirs else "")
        cells.append(row.verdict() or row.note)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"
