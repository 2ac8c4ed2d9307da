"""A state store without a file: for tests, and for engines whose state may be lost."""

from __future__ import annotations

from collections.abc import Sequence


class MemoryStore:
    """Implements contracts.StateStore."""

    restored = False

    def __init__(self) -> None:
        self._entries: dict[str, tuple[bytes, int]] = {}
        self._revision = 0

    async def get(self, key: str) -> tuple[bytes, int] | None:
        return self._entries.get(key)

    async def scan(self, prefix: str) -> list[tuple[str, bytes, int]]:
        return sorted((key, *entry) for key, entry in self._entries.items() if key.startswith(prefix))

    async def commit(
        self, puts: dict[str, bytes], deletes: Sequence[str] = (), expect: dict[str, int] | None = None
    ) -> bool:
        for key, revision in (expect or {}).items():
            if self._entries.get(key, (b"", 0))[1] != revision:
                return False
        self._revision += 1
        for key in deletes:
            self._entries.pop(key, None)
        for key, value in puts.items():
            self._entries[key] = (bytes(value), self._revision)
        return True

    async def close(self) -> None:
        """Nothing to do; what was stored stays readable, as a file would."""
