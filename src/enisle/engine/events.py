"""Events: told to whoever listens, kept for a week."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from enisle.model.event import Event


class Events:
    def publish(self, event: Event) -> None:
        """Tell subscribers and keep it. ``event.time`` 0 is filled in. Never blocks."""
        raise NotImplementedError

    def subscribe(
        self, *, since_ns: int = 0, until_ns: int = 0, match: Callable[[Event], bool] = lambda _event: True
    ) -> AsyncIterator[Event]:
        """Past events from ``since_ns`` (0: none), then those to come until ``until_ns`` (0: for ever).

        An async generator: do not await it; close it (``aclose``) when the listener goes.
        """
        raise NotImplementedError
