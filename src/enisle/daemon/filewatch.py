"""Watching a directory from the event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

from enisle.linux.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, Inotify


@contextlib.contextmanager
def watch_directory(path: Path) -> Iterator[asyncio.Event]:
    """Implements engine.core.WatchDirectory: the event is set at each change of a file in the directory."""
    changed = asyncio.Event()
    loop = asyncio.get_running_loop()
    watcher = Inotify()

    def read() -> None:
        watcher.read()
        changed.set()

    try:
        watcher.add(str(path), IN_CREATE | IN_MODIFY | IN_MOVED_TO)
        loop.add_reader(watcher.fileno(), read)
        yield changed
    finally:
        loop.remove_reader(watcher.fileno())
        watcher.close()
