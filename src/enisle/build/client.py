"""What a build may ask its client for while it runs, where the protocol lets it ask."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from enisle.build.tree import Tree
from enisle.contracts import RegistryAuth


class Client(ABC):
    """The client's side of a build."""

    @abstractmethod
    async def secret(self, name: str) -> bytes | None:
        """A secret; None: it has none of that name."""

    @abstractmethod
    async def agent(self, name: str) -> str | None:
        """The path of a socket that leads to an SSH agent of the client's, there as long as the build lasts."""

    @abstractmethod
    async def credentials(self, registry: str) -> RegistryAuth | None:
        """What a registry (a host, "docker.io") wants to know."""

    @abstractmethod
    def files(self, name: str, directory: Path) -> AbstractAsyncContextManager[Tree]:
        """A directory of the client's, by its name in the build; what it takes on the disk lies in ``directory``."""
