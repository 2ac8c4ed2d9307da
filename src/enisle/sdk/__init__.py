"""Python client of Enisle: ``Client`` (blocking) and ``AsyncClient`` (asyncio) over the same requests.

    from enisle.sdk import Client

    with Client() as enisle:
        for instance in enisle.instances.list():
            print(instance["Names"], instance["State"])

Every request is defined once, as data, in the modules ``instances``, ``images``, ``volumes``, ``networks``, ``execs``
and ``system``; the clients only carry them out. Names are looked up on first use, so that the command line, which
needs the blocking client alone, does not pay for asyncio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from enisle.sdk.aio import AsyncClient
    from enisle.sdk.client import Client

__all__ = ["AsyncClient", "Client"]


def __getattr__(name: str) -> Any:
    if name == "Client":
        from enisle.sdk.client import Client

        return Client
    if name == "AsyncClient":
        from enisle.sdk.aio import AsyncClient

        return AsyncClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
