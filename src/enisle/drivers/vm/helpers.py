"""Helper VMs: a machine on the disks of an instance that does not run, for its files.

Booting one takes as long as booting the instance, and clients ask several things in a row (``docker cp`` looks first,
then copies): so a helper stays for some seconds after its last use, and two users at once share it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from enisle.drivers.channel import Channel

LINGER_S = 5.0

Open = Callable[[], Awaitable[Channel]]
Stop = Callable[[Channel], Awaitable[None]]


class _Helper:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.channel: Channel | None = None
        self.users = 0
        self.timer: asyncio.TimerHandle | None = None


class Helpers:
    """At most one helper per instance. ``stop`` ends a helper's keeper and waits for that."""

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._helpers: dict[str, _Helper] = {}
        self._ending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def use(self, instance_id: str, boot: Open) -> AsyncIterator[Channel]:
        """The helper's channel; one is booted if there is none."""
        helper = self._helpers.setdefault(instance_id, _Helper())
        helper.users += 1
        if helper.timer is not None:
            helper.timer.cancel()
        try:
            async with helper.lock:
                if helper.channel is None or not helper.channel.is_open:
                    helper.channel = None
                    helper.channel = await boot()
            yield helper.channel
        finally:
            helper.users -= 1
            if helper.users == 0:
                self._rest(instance_id, helper)

    def _rest(self, instance_id: str, helper: _Helper) -> None:
        if helper.channel is None:
            self._helpers.pop(instance_id, None)
            return

        def expire() -> None:
            task = asyncio.ensure_future(self.retire(instance_id))
            self._ending.add(task)
            task.add_done_callback(self._ending.discard)

        helper.timer = asyncio.get_running_loop().call_later(LINGER_S, expire)

    async def retire(self, instance_id: str) -> None:
        """End the helper of an instance, if it has one, and wait until its disks are free. Its users see it break."""
        helper = self._helpers.get(instance_id)
        if helper is None:
            return
        if helper.timer is not None:
            helper.timer.cancel()
        async with helper.lock:
            channel, helper.channel = helper.channel, None
            if helper.users == 0:
                self._helpers.pop(instance_id, None)
            if channel is not None:
                await self._stop(channel)

    async def wait_idle(self, instance_id: str, timeout_s: float) -> None:
        """Give those who use it now some time to finish."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while asyncio.get_running_loop().time() < deadline:
            helper = self._helpers.get(instance_id)
            if helper is None or helper.users == 0:
                return
            await asyncio.sleep(0.02)
