"""Python client of Enisle: ``Client`` (blocking) and ``AsyncClient`` (asyncio) over the same requests.

    from enisle.sdk import Client

    with Client() as enisle:
        for instance in enisle.instances.list():
            print(instance["Names"], instance["State"])

    async def codes(*commands: list[str]) -> list[int]:
        enisle = AsyncClient()

        async def one(command: list[str]) -> int:
            body = {"Image": "debian:12", "Cmd": command, "HostConfig": {"Runtime": "vm"}}
            made = await enisle.instances.create(body)
            try:
                await enisle.instances.start(made["Id"])
                return (await enisle.instances.wait(made["Id"]))["StatusCode"]
            finally:
                await enisle.instances.remove(made["Id"], force=True)

        return await asyncio.gather(*map(one, commands))

What goes wrong is raised as a kind of :class:`enisle.errors.EnisleError` (NotFound, Conflict, Unavailable, ...), whose
text is the server's sentence. Answers that are large or have no end (``open_logs``, ``open_events``, ``open_export``)
are read while they come.

Every request is defined once, as data, in the modules ``instances``, ``images``, ``builds``, ``volumes``, ``networks``,
``execs`` and ``system``, and is a method of both clients (``facets``), which only carry it out. Names are looked up on
first use, so that the command line, which needs the blocking client alone, does not pay for asyncio.
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
