"""A keeper's listener for names inside of an instance."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from enisle.drivers.base import nic_plan
from enisle.launcher.loop import EpollLoop
from enisle.launcher.names import Names
from tests.linux.hosts import Instance

SERVER = "127.0.0.11"


@contextmanager
def listening(instance: Instance) -> Iterator[Instance]:
    """Have a keeper's loop run for the instance."""
    loop, done = EpollLoop(), os.eventfd(0)

    def begin() -> Names:
        return Names(loop, nic_plan(instance.endpoint).names, instance.id, instance.pid)

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
