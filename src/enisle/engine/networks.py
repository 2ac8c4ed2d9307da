"""The use cases of networks."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import replace

from enisle.engine import etcfiles
from enisle.engine.addressing import attach_one, uses_networks
from enisle.engine.announce import announce_network
from enisle.engine.core import Core
from enisle.engine.slots import Slot
from enisle.errors import Conflict, Denied, EnisleError, NotFound, NotSupported
from enisle.model.event import Event
from enisle.model.ids import NetworkId, check_network_name, new_id
from enisle.model.instance import Endpoint, EndpointRequest, Instance, InstanceSpec, Status, publisher
from enisle.model.network import Network


class Networks:
    def __init__(self, core: Core) -> None:
        self._core = core
        self._provider = core.network_provider

    async def get(self, ref: str) -> Network:
        """By name, id or id prefix. NotFound: "network X not found"."""
        return await self._core.network(ref)

    async def all(self) -> list[Network]:
        return await self._provider.all()

    async def create(self, network: Network) -> Network:
        """``network.id`` is chosen here (pass ""). Conflict: "network with name X already exists"."""
        check_network_name(network.name)
        if any(each.name == network.name for each in await self.all()):
            raise Conflict(f"network with name {network.name} already exists")
        made = await self._provider.create(replace(network, id=NetworkId(new_id()), created_at=time.time_ns()))
        self._tell("create", made)
        return made

    async def remove(self, ref: str) -> None:
        """Denied for a builtin one, or one with active endpoints (Docker answers 403)."""
        network = await self.get(ref)
        if network.builtin:
            raise Denied(f"{network.name} is a pre-defined network and cannot be removed")
        members = self.members(network.id)
        if members:
            names = ", ".join(f'name:"{record.name}" id:"{record.id[:12]}"' for record, _endpoint in members)
            raise Denied(f"error while removing network: network {network.name} has active endpoints ({names})")
        await self._provider.remove(network)
        self._tell("destroy", network)

    async def connect(self, ref: str, instance_ref: str, request: EndpointRequest) -> None:
        """Put an instance on one more network, at once if it runs; one that does not and is on it is asked for anew.

        Denied: it runs and is there already (dockerd answers 403).
        """
        network = await self.get(ref)
        slot = self._core.slots.find(instance_ref)
        request = replace(request, network=network.name)
        async with slot.lock:
            _check_connectable(slot, network)
            spec = slot.record.spec
            others = tuple(each for each in spec.endpoints if each.network != network.name)
            if slot.running is not None and len(others) < len(spec.endpoints):
                raise Denied(f"endpoint with name {slot.record.name} already exists in network {network.name}")
            mode = spec.network_mode if spec.endpoints else network.name
            endpoints = slot.record.endpoints
            async with AsyncExitStack() as undo:
                if slot.running is not None:
                    index = _free_index(endpoints)
                    endpoint = await attach_one(self._core, slot.record, network, request, index, undo)
                    await slot.running.add_nic(endpoint)
                    undo.push_async_callback(slot.running.remove_nic, endpoint.name)
                    endpoints = (*endpoints, endpoint)
                asked = [request if each.network == network.name else each for each in spec.endpoints]
                asked += [request] if len(asked) == len(others) else []
                changed = replace(spec, endpoints=tuple(asked), network_mode=mode)
                await self._change(slot, changed, endpoints)
                undo.pop_all()
        for endpoint in endpoints[-1:] if slot.running is not None else ():
            announce_network(self._core, endpoint, "connect", slot.id)

    async def disconnect(self, ref: str, instance_ref: str, *, force: bool = False) -> None:
        """Take an instance off a network, at once if it runs."""
        network = await self.get(ref)
        try:
            slot = self._core.slots.find(instance_ref)
        except NotFound:
            if force:
                return
            raise
        async with slot.lock:
            spec = slot.record.spec
            left = tuple(each for each in spec.endpoints if each.network != network.name)
            if len(left) == len(spec.endpoints):
                raise Conflict(f"container {slot.id} is not connected to network {network.name}")
            gone = next((each for each in slot.record.endpoints if each.network_id == network.id), None)
            if gone is not None:
                await self._take_off(slot, network, gone)
            mode = (
                left[0].network
                if left and spec.network_mode not in {each.network for each in left}
                else spec.network_mode
            )
            endpoints = tuple(each for each in slot.record.endpoints if each is not gone)
            await self._change(slot, replace(spec, endpoints=left, network_mode=mode), endpoints)
        if gone is not None:
            announce_network(self._core, gone, "disconnect", slot.id)

    async def _change(self, slot: Slot, spec: InstanceSpec, endpoints: tuple[Endpoint, ...]) -> None:
        before = slot.record
        await self._core.slots.change(slot, spec=spec, endpoints=endpoints)
        if slot.running is not None:
            await etcfiles.follow(self._core, before, slot.record)

    async def _take_off(self, slot: Slot, network: Network, endpoint: Endpoint) -> None:
        if slot.running is not None:
            await slot.running.remove_nic(endpoint.name)
        record = slot.record
        if record.bound_ports and publisher(record.endpoints) is endpoint:
            left = publisher(each for each in record.endpoints if each is not endpoint)
            await self._provider.unpublish(slot.id)
            if left is not None:
                await self._provider.republish(slot.id, left, record.bound_ports)
                if slot.running is not None:
                    with suppress(NotSupported):  # a keeper of an older enisled relays nothing
                        await slot.running.relay(record.bound_ports, left)
        await self._provider.detach(network, endpoint)

    async def prune(self, match: Callable[[Network], bool]) -> list[str]:
        """Names of the removed ones."""
        used = {request.network for slot in self._core.slots for request in slot.record.spec.endpoints}
        names = []
        for network in await self.all():
            if network.builtin or network.name in used or not match(network):
                continue
            try:
                await self.remove(network.id)
            except EnisleError:
                continue  # taken into use or removed meanwhile
            names.append(network.name)
        self._core.events.publish(Event(kind="network", action="prune", actor="", attributes={"reclaimed": "0"}))
        return names

    def members(self, network_id: str) -> list[tuple[Instance, Endpoint]]:
        """The running instances on it."""
        return [
            (slot.record, endpoint)
            for slot in self._core.slots
            for endpoint in slot.record.endpoints
            if endpoint.network_id == network_id
        ]

    def _tell(self, action: str, network: Network) -> None:
        attributes = {"name": network.name, "type": network.driver}
        self._core.events.publish(Event(kind="network", action=action, actor=network.id, attributes=attributes))


def _check_connectable(slot: Slot, network: Network) -> None:
    if slot.removed or slot.status in (Status.REMOVING, Status.DEAD):
        raise Conflict(
            f"Container {slot.id} is marked for removal and cannot be connected or disconnected to the network"
        )
    if network.name == "host" or slot.record.spec.network_mode == "host":
        raise Denied("container cannot be disconnected from host network or connected to host network")
    if slot.record.spec.network_mode.startswith("container:"):
        raise Denied(
            "container sharing network namespace with another container or host cannot be connected to any other "
            "network"
        )
    if network.name == "none" or (slot.running is not None and not uses_networks(slot.record.spec)):
        raise Denied(
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        )


def _free_index(endpoints: tuple[Endpoint, ...]) -> int:
    """The lowest number that no NIC's name ends with."""
    taken = {re.sub(r"^.*?(\d*)$", r"\1", endpoint.name) for endpoint in endpoints}
    return next(index for index in range(len(endpoints) + 1) if str(index) not in taken)
