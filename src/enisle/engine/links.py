"""Links of old (`docker run --link name:alias` on the default bridge): host names and variables of another instance.

On networks of the user's own a link is a name, which the resolver answers (:mod:`enisle.network.zone`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from enisle.engine.addressing import exposed
from enisle.engine.core import Core
from enisle.engine.slots import Slot
from enisle.errors import Conflict, NotFound
from enisle.model.instance import Instance

_NOT_LENT = frozenset({"HOME", "PATH"})  # of no use to another instance


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """``other`` is known as ``alias`` to whoever has the link; ``address`` is its IPv4 address."""

    alias: str
    other: Instance
    address: str


def split(link: str) -> tuple[str, str]:
    """Whom "name:alias" names, and as what."""
    ref, _, alias = link.partition(":")
    return ref.removeprefix("/"), alias or ref.removeprefix("/")


def links_of(core: Core, record: Instance) -> list[Link]:
    """The links of an instance that is about to start. Conflict when one of the others does not run."""
    found = []
    for ref, alias in map(split, record.spec.links):
        other = core.slots.find(ref).record
        address = other.endpoints[0].ipv4.partition("/")[0] if other.endpoints else ""
        if not address:
            raise Conflict(f"Cannot link to a non running container: /{other.name} AS /{record.name}/{alias}")
        found.append(Link(alias=alias, other=other, address=address))
    return found


def host_lines(links: list[Link]) -> list[tuple[str, str]]:
    """What /etc/hosts says of them: address, names."""
    return [
        (link.address, " ".join(dict.fromkeys((link.alias, link.other.spec.hostname, link.other.name))))
        for link in links
    ]


def variables(record: Instance, links: list[Link]) -> Iterator[str]:
    """NAME=value for what each of the others is, listens on, and has in its own environment (Docker's names)."""
    for link in links:
        prefix = link.alias.upper().replace("-", "_")
        ports = sorted(
            (port.protocol, port.container_port) for text in link.other.spec.exposed_ports for port in exposed(text)
        )
        for number, (protocol, port) in enumerate(ports):
            url = f"{protocol}://{link.address}:{port}"
            if number == 0:
                yield f"{prefix}_PORT={url}"
            name = f"{prefix}_PORT_{port}_{protocol.upper()}"
            yield f"{name}={url}"
            yield f"{name}_ADDR={link.address}"
            yield f"{name}_PORT={port}"
            yield f"{name}_PROTO={protocol}"
        yield f"{prefix}_NAME=/{record.name}/{link.alias}"
        for entry in link.other.spec.env:
            name, equals, _value = entry.partition("=")
            if equals and name not in _NOT_LENT:
                yield f"{prefix}_ENV_{entry}"


def with_variables(record: Instance, links: list[Link]) -> Instance:
    """The record as it is started: with the links' variables below its own."""
    if not links:
        return record
    return replace(record, spec=replace(record.spec, env=(*variables(record, links), *record.spec.env)))


async def unlink(core: Core, slot: Slot, alias: str) -> None:
    """Forget a link; both instances stay, and one that runs keeps what it was started with."""
    async with slot.lock:
        spec = slot.record.spec
        left = tuple(link for link in spec.links if split(link)[1] != alias)
        if len(left) == len(spec.links):
            raise NotFound(f"No such link: /{slot.record.name}/{alias}")
        await core.slots.change(slot, spec=replace(spec, links=left))
