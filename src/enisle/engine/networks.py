"""The use cases of networks."""

from __future__ import annotations

from collections.abc import Callable

from enisle.model.instance import Endpoint, EndpointRequest, Instance
from enisle.model.network import Network


class Networks:
    async def get(self, ref: str) -> Network:
        """By name, id or id prefix. NotFound: "network X not found"."""
        raise NotImplementedError

    async def all(self) -> list[Network]:
        raise NotImplementedError

    async def create(self, network: Network) -> Network:
        """``network.id`` is chosen here (pass ""). Conflict: "network with name X already exists"."""
        raise NotImplementedError

    async def remove(self, ref: str) -> None:
        """Denied for a builtin one, or one with active endpoints (Docker answers 403)."""
        raise NotImplementedError

    async def connect(self, ref: str, instance_ref: str, request: EndpointRequest) -> None:
        raise NotImplementedError

    async def disconnect(self, ref: str, instance_ref: str, *, force: bool = False) -> None:
        raise NotImplementedError

    async def prune(self, match: Callable[[Network], bool]) -> list[str]:
        """Names of the removed ones."""
        raise NotImplementedError

    def members(self, network_id: str) -> list[tuple[Instance, Endpoint]]:
        """The running instances on it."""
        raise NotImplementedError
