"""Progress of pulls, pushes and uploads: bars and counts on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from enisle.cli.command import write
from enisle.cli.human import bytes_text
from enisle.cli.printing import printable
from enisle.cli.table import cut
from enisle.errors import EnisleError, Internal, NotFound, Unauthenticated

_PATIENCE_S = 0.5
_REDRAW_S = 0.08
_BAR_CELLS = 24
_REGISTRY = re.compile(r"registry (\S+): ")  # as the daemon's messages begin
_DONE_WORDS = ("complete", "exists", "pushed", "mounted from")
Object = Mapping[str, Any]


def follow(objects: Iterable[Object], *, descriptor: int = 1, quiet: bool = False) -> list[Any]:
    """Show progress objects as they come; the values of their ``aux``. Raises the error that one of them tells."""
    aux = []
    view = _view(descriptor, quiet=quiet)
    try:
        for item in objects:
            if "error" in item or "errorDetail" in item:
                raise _failure(item)
            if "aux" in item:
                aux.append(item["aux"])
            else:
                view.take(item)
    finally:
        view.close()
    return aux


def counted(pieces: Iterable[bytes], what: str, *, descriptor: int = 2) -> Iterator[bytes]:
    """The same pieces. A terminal is told how much has been sent if that takes a while; the line goes at the end."""
    if not _moves(descriptor):
        yield from pieces
        return
    sent, shown, due = 0, False, time.monotonic() + _PATIENCE_S
    try:
        for piece in pieces:
            yield piece
            sent += len(piece)
            if (now := time.monotonic()) >= due:
                write(f"{what}  {bytes_text(sent)}\x1b[K\r".encode(), descriptor=descriptor)
                shown, due = True, now + _REDRAW_S
    finally:
        if shown:
            write(b"\x1b[K", descriptor=descriptor)


def _moves(descriptor: int) -> bool:
    """Whether what is written there can be written over."""
    return os.isatty(descriptor) and os.environ.get("TERM") != "dumb"


def _failure(item: Object) -> EnisleError:
    text = str((item.get("errorDetail") or {}).get("message") or item.get("error"))
    lower = text.lower()
    if "not found" in lower or "manifest unknown" in lower or "no such image" in lower:
        return NotFound(text)
    if "unauthorized" in lower or "authentication required" in lower or "no basic auth" in lower:
        registry = _REGISTRY.match(text)
        return Unauthenticated(
            f"{text.rstrip('.')}.", remedy=f"Try: enisle login {registry[1] if registry else 'REGISTRY'}"
        )
    return Internal(text)


def _view(descriptor: int, *, quiet: bool) -> _Plain:
    if quiet:
        return _Quiet(descriptor)
    if _moves(descriptor):
        return _Bars(descriptor)
    return _Plain(descriptor)


class _Plain:
    """One line per change of state; nothing that moves."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._last: dict[str, str] = {}

    def take(self, item: Object) -> None:
        """Show one object."""
        if "stream" in item:
            self._put(str(item["stream"]))
            return
        identity, status = str(item.get("id") or ""), str(item.get("status") or "")
        if not status or item.get("progressDetail") or self._last.get(identity) == status:
            return
        if identity:
            self._last[identity] = status
        self._put(f"{printable(f'{identity}: {status}' if identity else status)}\n")

    def close(self) -> None:
        """Nothing is left on the screen that needs an end."""

    def _put(self, text: str) -> None:
        write(text.encode("utf-8", "replace"), descriptor=self._descriptor)


class _Quiet(_Plain):
    """Nothing at all."""

    def take(self, item: Object) -> None:
        return


class _Bars(_Plain):
    """A block of lines at the bottom of the screen, one per layer under way; what is said once scrolls above it."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor)
        self._layers: dict[str, Object] = {}
        self._height = 0
        self._drawn_at = 0.0

    def take(self, item: Object) -> None:
        if "stream" in item:
            self._say(str(item["stream"]).rstrip("\n"))
        elif identity := str(item.get("id") or ""):
            if not _is_layer(item):
                self._say(f"{identity}: {item.get('status', '')}")
                return
            self._layers[identity] = item
            now = time.monotonic()
            if now - self._drawn_at >= _REDRAW_S:
                self._drawn_at = now
                self._draw()
        elif status := item.get("status"):
            self._say(str(status))

    def close(self) -> None:
        if self._layers:
            self._draw()

    def _say(self, text: str) -> None:
        """A line that stays, above the block."""
        self._put(f"{self._clear()}{printable(text)}\n")
        self._height = 0
        self._draw()

    def _clear(self) -> str:
        return f"\x1b[{self._height}A\r\x1b[J" if self._height else ""

    def _draw(self) -> None:
        size = os.get_terminal_size(self._descriptor)
        columns, rows = size.columns or 80, size.lines or 24
        # More lines than the screen has cannot be drawn over: those that are done make room first.
        room = max(rows - 2, 1)
        lines = list(self._layers.items())
        if len(lines) > room:
            busy = [line for line in lines if not _is_done(line[1])]
            lines = busy[:room]
        text = "".join(f"{cut(_line(identity, item, columns), columns - 1)}\n" for identity, item in lines)
        self._put(f"{self._clear()}{text}")
        self._height = len(lines)


def _is_layer(item: Object) -> bool:
    """Whether the id is a layer's (short hexadecimal), and not a tag as in "12: Pulling from debian"."""
    status = str(item.get("status", ""))
    return not status.startswith("Pulling from") and not status.startswith("The push refers")


def _is_done(item: Object) -> bool:
    return any(word in str(item.get("status", "")).lower() for word in _DONE_WORDS)


def _line(identity: str, item: Object, columns: int) -> str:
    status = printable(str(item.get("status", "")))
    detail = item.get("progressDetail") or {}
    current, total = int(detail.get("current") or 0), int(detail.get("total") or 0)
    start = f"{printable(identity)[:12]:12}  {status:18}"
    if not current and not total:
        return start.rstrip()
    if total <= 0:
        return f"{start}  {bytes_text(current)}"
    share = min(current / total, 1.0)
    cells = min(_BAR_CELLS, max(columns - 58, 8))
    filled = int(share * cells)
    return f"{start}  {'█' * filled}{'░' * (cells - filled)} {share:4.0%}  {bytes_text(current)}/{bytes_text(total)}"
