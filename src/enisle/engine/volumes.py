"""Volumes: named directories of ours."""

from __future__ import annotations

from collections.abc import Callable

from enisle.model.volume import Volume


class Volumes:
    async def get(self, name: str) -> Volume:
        """NotFound: "get X: no such volume"."""
        raise NotImplementedError

    def all(self) -> list[Volume]:
        raise NotImplementedError

    async def create(
        self,
        name: str,
        *,
        driver: str = "local",
        options: dict[str, str] | None = None,
        labels: dict[str, str] | None = None,
    ) -> Volume:
        """Make it, or return the one that exists with the same driver. ``name`` "": an anonymous one."""
        raise NotImplementedError

    async def remove(self, name: str, *, force: bool = False) -> None:
        """Conflict: "remove X: volume is in use - [ids]". ``force``: a missing one is no error."""
        raise NotImplementedError

    async def prune(self, match: Callable[[Volume], bool]) -> tuple[list[str], int]:
        """Remove those that no instance uses and that match; names, bytes freed."""
        raise NotImplementedError

    def in_use_by(self, name: str) -> list[str]:
        """Ids of the instances that mount it."""
        raise NotImplementedError

    async def size(self, name: str) -> int:
        """Bytes its files take."""
        raise NotImplementedError
