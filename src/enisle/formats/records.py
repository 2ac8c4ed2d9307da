"""Stored records (JSON) <-> model. Field names are the model's; what a newer version added is ignored when read."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from enisle.errors import Internal
from enisle.model.event import Event
from enisle.model.instance import Instance
from enisle.model.network import Network
from enisle.model.volume import Volume

Record = TypeVar("Record", Instance, Network, Volume, Event)

_encoder = msgspec.json.Encoder()
_decoders: dict[type, msgspec.json.Decoder[object]] = {
    kind: msgspec.json.Decoder(kind) for kind in (Instance, Network, Volume, Event)
}


def encode(record: Instance | Network | Volume | Event) -> bytes:
    """The record as one line of JSON."""
    return _encoder.encode(record)


def decode(kind: type[Record], data: bytes) -> Record:
    """The record of that kind. Internal when the data is none: a store's content is checked like any other input."""
    try:
        record = _decoders[kind].decode(data)
    except (msgspec.DecodeError, ValueError) as error:
        raise Internal(f"a stored {kind.__name__.lower()} cannot be read: {error}") from error
    assert isinstance(record, kind)
    return record
