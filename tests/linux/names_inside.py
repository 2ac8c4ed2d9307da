"""A keeper's listener for names inside of an instance."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from enisle.launcher.loop import EpollLoop
from enisle.launcher.names import Names
from enisle.launcher.resolver import Resolver
from enisle.wire.names import SOCKET_NAME
from tests.linux.hosts import Instance

SERVER = "127.0.0.11"


@contextmanager
def listening(instance: Instance) -> Iterator[Instance]:
    """Have a keeper's loop run for the instance."""
    loop, done = EpollLoop(), os.eventfd(0)

    def begin() -> Names:
        return Names(loop, Resolver(str(instance.host.run_root / SOCKET_NAME), instance.id), instance.pid)

    names = instance.host.run(begin)
    loop.add_reader(done, loop.stop)
    thread = threading.Thread(target=loop.run)
    thread.start()
    try:
        yield instance
    finally:
        os.eventfd_write(done, 1)
        thread.join()
        names.close()
        os.close(done)
