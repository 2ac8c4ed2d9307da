"""Tables that fit the terminal."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TextIO

from enisle.cli.printing import printable

_GAP = "   "
_LEAST_SHRUNK = 8  # columns are not cut to fewer cells than this


class Column(NamedTuple):
    """``shrink``: how readily it gives way when the table is too wide; 0 never, 1 only at last, higher earlier.

    ``drop``: left out, highest first, where the terminal is too narrow for it; 0 never, below 0 only where shrinking
    all columns was not enough. ``keep`` says which end of a cut cell stays: "start" or "end". ``right`` aligns numbers.
    """

    title: str
    shrink: int = 0
    drop: int = 0
    keep: str = "start"
    right: bool = False
    style: Callable[[str], str] | None = None


def use_colour(stream: TextIO) -> bool:
    """Colour only for a person at a terminal who did not say NO_COLOR (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def terminal_columns(stream: TextIO) -> int | None:
    """Width of the terminal behind a stream; None when there is none."""
    try:
        return os.get_terminal_size(stream.fileno()).columns or None if stream.isatty() else None
    except (OSError, ValueError):
        return None


def cells(text: str) -> int:
    """How many cells of a terminal the text takes."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text
    )


def cut(text: str, width: int, *, keep: str = "start") -> str:
    """The text in at most ``width`` cells, with an ellipsis where it was cut."""
    if cells(text) <= width:
        return text
    characters = list(text if keep == "start" else reversed(text))
    taken: list[str] = []
    used = 0
    for character in characters:
        used += cells(character)
        if used > width - 1:
            break
        taken.append(character)
    return "".join(taken) + "…" if keep == "start" else "…" + "".join(reversed(taken))


def widths(columns: Sequence[Column], rows: Sequence[Sequence[str]], *, limit: int | None) -> list[int]:
    """The width of each column so that a line fits into ``limit`` cells (None: as wide as it is); -1 leaves it out."""
    found = [max([cells(column.title), *(cells(row[index]) for row in rows)]) for index, column in enumerate(columns)]
    if limit is None:
        return found
    dropped = sorted(((column.drop, index) for index, column in enumerate(columns) if column.drop), reverse=True)
    for drop, index in dropped:
        if _total(_shrunk(columns, found, limit, least=2 if drop > 0 else 1)) > limit:
            found[index] = -1
    return _shrunk(columns, _shrunk(columns, found, limit, least=2), limit, least=1)


def _total(found: Sequence[int]) -> int:
    shown = [width for width in found if width >= 0]
    return sum(shown) + len(_GAP) * (len(shown) - 1)


def _shrunk(columns: Sequence[Column], found: Sequence[int], limit: int, *, least: int) -> list[int]:
    """Widths after columns with a ``shrink`` of at least ``least`` gave way, the readiest and widest first."""
    fitted = list(found)
    for _ in range(_total(found) - limit):
        able = [
            (column.shrink, fitted[index], index)
            for index, column in enumerate(columns)
            if column.shrink >= least and fitted[index] > max(_LEAST_SHRUNK, cells(column.title))
        ]
        if not able:
            break
        fitted[max(able)[2]] -= 1
    return fitted


def lines(
    columns: Sequence[Column], rows: Iterable[Sequence[str]], *, limit: int | None, colour: bool, header: bool = True
) -> list[str]:
    """The table's lines, without line breaks."""
    plain = [[printable(cell) for cell in row] for row in rows]
    found = widths(columns, plain, limit=limit)
    out = []
    if header:
        titles = _line(columns, [column.title for column in columns], found, colour=False)
        out.append(f"\x1b[2m{titles}\x1b[0m" if colour else titles)
    out += [_line(columns, row, found, colour=colour) for row in plain]
    return out


def _line(columns: Sequence[Column], row: Sequence[str], found: Sequence[int], *, colour: bool) -> str:
    parts = []
    for column, cell, width in zip(columns, row, found, strict=True):
        if width < 0:
            continue
        text = cut(cell, width, keep=column.keep)
        space = " " * (width - cells(text))
        if colour and column.style is not None:
            text = column.style(text)
        parts.append(space + text if column.right else text + space)
    return _GAP.join(parts).rstrip()


def show(columns: Sequence[Column], rows: Iterable[Sequence[str]], *, stream: TextIO | None = None) -> None:
    """Print a table, fitted to the terminal if the stream is one, at full width if it is not."""
    out = stream or sys.stdout
    for line in lines(columns, rows, limit=terminal_columns(out), colour=use_colour(out)):
        print(line, file=out)


def show_fields(fields: Mapping[str, Any], *, indent: int = 0) -> None:
    """Print ``name: value`` lines; nested mappings are indented."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            print(f"{' ' * indent}{name}:")
            show_fields(value, indent=indent + 1)
        else:
            print(f"{' ' * indent}{name}: {printable(str(value))}")
