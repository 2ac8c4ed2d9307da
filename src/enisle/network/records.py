"""What of networks is in the state store: networks of our own, endpoints and ports in the instances' records.

Addresses are stored nowhere else than with the instance that has them, so that no crash can lose or leak one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import msgspec

from enisle.contracts import StateStore
from enisle.errors import Internal
from enisle.model.instance import BoundPort, Endpoint
from enisle.model.network import Network

Record = TypeVar("Record")

_NETWORKS = "networks/"
_INSTANCES = "instances/"


@dataclass(frozen=True, kw_only=True, slots=True)
class Holding:
    """The part of an instance's record that is about networks; the rest of it is not read."""

    id: str
    endpoints: tuple[Endpoint, ...] = ()
    bound_ports: tuple[BoundPort, ...] = ()


_encoder = msgspec.json.Encoder()
_network_decoder = msgspec.json.Decoder(Network)
_holding_decoder = msgspec.json.Decoder(Holding)


async def load_networks(store: StateStore) -> list[Network]:
    """All stored networks. Internal when a record cannot be read."""
    return [_decode(_network_decoder, key, data) for key, data, _ in await store.scan(_NETWORKS)]


async def load_holdings(store: StateStore) -> list[Holding]:
    """What each instance has. Internal when a record cannot be read."""
    return [_decode(_holding_decoder, key, data) for key, data, _ in await store.scan(_INSTANCES)]


async def save(store: StateStore, network: Network) -> None:
    await store.commit({_NETWORKS + network.id: _encoder.encode(network)})


async def forget(store: StateStore, network: Network) -> None:
    await store.commit({}, [_NETWORKS + network.id])


def _decode(decoder: msgspec.json.Decoder[Record], key: str, data: bytes) -> Record:
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise Internal(f"the stored record {key} cannot be read: {error}") from error
