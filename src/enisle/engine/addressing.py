"""An instance's place on its networks: asked for at create, taken at start, given back at its end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from enisle.engine.announce import announce_network
from enisle.engine.core import Core
from enisle.engine.slots import Slot
from enisle.errors import Conflict, EnisleError, Invalid, NotFound
from enisle.model.instance import (
    BoundPort,
    Endpoint,
    EndpointRequest,
    Instance,
    InstanceSpec,
    Isolation,
    PublishedPort,
    publisher,
)
from enisle.model.network import Network

_NO_NETWORK = ("none", "host")
_SHAREABLE_IPC = ("shareable", "host", "container")


def uses_networks(spec: InstanceSpec) -> bool:
    """Whether it gets a NIC of its own."""
    return not (spec.network_disabled or spec.network_mode in _NO_NETWORK or spec.network_mode.startswith("container:"))


async def complete_networks(core: Core, spec: InstanceSpec) -> InstanceSpec:
    """The spec with one request per network, by name, the one of ``network_mode`` first.

    Invalid for combinations that make no sense, "network X not found", or no such container to join.
    """
    mode = spec.network_mode
    if mode in ("", "default"):
        mode = core.settings.default_network
    if mode.startswith("container:"):
        return replace(spec, network_mode=joined_mode(core, mode, "network"), endpoints=())
    if mode in _NO_NETWORK or spec.network_disabled:
        return replace(spec, network_mode=mode if mode in _NO_NETWORK else "none", endpoints=())
    asked: dict[str, EndpointRequest] = {}
    for request in spec.endpoints:
        name = request.network
        if name in ("", "default"):
            name = core.settings.default_network
        network = await _asked_network(core, name)
        asked[network.name] = replace(request, network=network.name)
    primary = (await _asked_network(core, mode)).name
    first = asked.pop(primary, None) or EndpointRequest(network=primary)
    if spec.mac_address and not first.mac_address:
        first = replace(first, mac_address=spec.mac_address)
    requests = (first, *asked.values())
    for request in requests:
        if request.network in _NO_NETWORK and len(requests) > 1:
            raise Invalid(
                f"container cannot be connected to network endpoints: {', '.join(r.network for r in requests)}"
            )
    return replace(spec, network_mode=mode if mode == core.settings.default_network else primary, endpoints=requests)


def published_ports(spec: InstanceSpec) -> list[PublishedPort]:
    """The ports to publish: those asked for and, with ``publish_all``, the other exposed ones on random ports."""
    ports = list(spec.ports)
    if spec.publish_all:
        taken = {(port.container_port, port.protocol) for port in ports}
        for text in spec.exposed_ports:
            ports += [port for port in exposed(text) if (port.container_port, port.protocol) not in taken]
    return ports


def exposed(text: str) -> list[PublishedPort]:
    """The ports that "80/tcp" or "8000-8010/udp" stand for. Invalid otherwise."""
    numbers, _, protocol = text.partition("/")
    first, _, last = numbers.partition("-")
    try:
        low, high = int(first), int(last or first)
    except ValueError:
        raise Invalid(f"invalid containerPort: {text}") from None
    if not 0 < low <= high < 65536:
        raise Invalid(f"invalid containerPort: {text}")
    return [PublishedPort(container_port=port, protocol=protocol or "tcp") for port in range(low, high + 1)]


async def attach_all(
    core: Core, record: Instance, undo: AsyncExitStack
) -> tuple[tuple[Endpoint, ...], tuple[BoundPort, ...], list[int]]:
    """Take an address on each network and publish the ports; ``undo`` gives back what was taken.

    The sockets returned hold the ports; ``undo`` closes them in any case.
    """
    endpoints: list[Endpoint] = []
    for index, request in enumerate(record.spec.endpoints):
        network = await core.network(request.network)
        endpoints.append(await attach_one(core, record, network, request, index, undo))
    ports = published_ports(record.spec)
    exposed_by = publisher(endpoints)
    if exposed_by is None or not ports:
        return tuple(endpoints), (), []
    undo.push_async_callback(core.network_provider.unpublish, record.id)
    bound, sockets = await core.network_provider.publish(record.id, exposed_by, ports)
    return tuple(endpoints), tuple(bound), sockets


async def attach_one(
    core: Core, record: Instance, network: Network, request: EndpointRequest, index: int, undo: AsyncExitStack
) -> Endpoint:
    """Take an address on one network; the NIC will be eth<index>."""
    names = [record.name, record.id[:12], *request.aliases]
    endpoint = await core.network_provider.attach(network, record.id, names, request, index, dns=record.spec.dns)
    undo.push_async_callback(core.network_provider.detach, network, endpoint)
    return endpoint


async def release_all(core: Core, slot: Slot) -> None:
    """Give back addresses and ports of an instance that ended. What cannot be given back is logged by the provider."""
    record = slot.record
    if record.bound_ports:
        with contextlib.suppress(EnisleError):
            await core.network_provider.unpublish(record.id)
    for endpoint in record.endpoints:
        with contextlib.suppress(EnisleError):
            await core.network_provider.detach(await core.network(endpoint.network_id), endpoint)
        announce_network(core, endpoint, "disconnect", record.id)


async def gateway_network(core: Core, record: Instance) -> Network | None:
    """The network whose resolver the instance uses: the first on a bridge, else the first; None for "none", "host"."""
    found = []
    for request in record.spec.endpoints:
        with contextlib.suppress(NotFound):
            found.append(await core.network(request.network))
    return next((network for network in found if network.bridge), found[0] if found else None)


async def _asked_network(core: Core, name: str) -> Network:
    try:
        return await core.network(name)
    except NotFound as error:
        raise Invalid(str(error)) from error  # clients take a NotFound of create for a missing image, and pull it


def joined_mode(core: Core, mode: str, what: str) -> str:
    """A namespace mode with the full id of the instance it names. Invalid when there is none."""
    kind, _, ref = mode.partition(":")
    if kind != "container":
        return mode
    try:
        other = core.slots.find(ref)
    except NotFound as error:
        raise Invalid(f"joining {what} namespace of container: {error}") from error
    if other.record.spec.isolation is Isolation.VM:  # what could be joined from outside is the host's
        raise Invalid(f"joining {what} namespace of container: {ref[:80]} is a virtual machine, which shares none")
    return f"container:{other.id}"


def joins(core: Core, spec: InstanceSpec) -> dict[str, int]:
    """The pids whose namespaces it joins (net, pid, ipc). Conflict when such an instance does not run."""
    found: dict[str, int] = {}
    for kind, mode in (("net", spec.network_mode), ("pid", spec.pid_mode), ("ipc", spec.ipc_mode)):
        if not mode.startswith("container:"):
            continue
        other = core.slots.find(mode.removeprefix("container:"))
        if other.running is None:
            what = {"net": "network", "pid": "PID", "ipc": "IPC"}[kind]
            raise Conflict(f"cannot join {what} namespace of a non running container: {other.id}")
        if kind == "ipc" and other.record.spec.ipc_mode.partition(":")[0] not in _SHAREABLE_IPC:
            hint = "non-shareable IPC (hint: use IpcMode:shareable for the donor container)"
            raise Conflict(f"can't join IPC of container {other.id}: {hint}")
        found[kind] = other.running.pid
    return found


def close_sockets(sockets: Sequence[int]) -> None:
    """Close our copies of port reservations; the keeper has its own."""
    for fd in sockets:
        with contextlib.suppress(OSError):
            os.close(fd)
