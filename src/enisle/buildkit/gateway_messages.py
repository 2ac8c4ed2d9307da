"""Messages between a client and the frontend's side of its build (facts: moby/buildkit, frontend/gateway/pb)."""

from __future__ import annotations

from dataclasses import dataclass

from enisle.buildkit.control_messages import CacheEntry, Definition, Status, Worker
from enisle.buildkit.protobuf import Message, data_map, flag, many, message_map, number, one, text, text_map


@dataclass(kw_only=True)
class Capability(Message):
    """APICap."""

    id: str = text(1)
    enabled: bool = flag(2)


@dataclass(kw_only=True)
class Pong(Message):
    """What this side can do."""

    frontend: list[Capability] = many(1, Capability)
    llb: list[Capability] = many(2, Capability)
    workers: list[Worker] = many(3, Worker)


@dataclass(kw_only=True)
class Ref(Message):
    """A result, by a name for it. ``definition``: how another build names it as an input."""

    id: str = text(1)
    definition: Definition | None = one(2, Definition)


@dataclass(kw_only=True)
class RefMap(Message):
    """Results by platform."""

    refs: dict[str, Ref] = message_map(1, Ref)


@dataclass(kw_only=True)
class Result(Message):
    """What a frontend, or a client as frontend, gives."""

    old_ref: str = text(1)
    ref: Ref | None = one(3, Ref)
    refs: RefMap | None = one(4, RefMap)
    metadata: dict[str, bytes] = data_map(10)


@dataclass(kw_only=True)
class BridgeSolveRequest(Message):
    """Build something within a build."""

    definition: Definition | None = one(1, Definition)
    frontend: str = text(2)
    attributes: dict[str, str] = text_map(3)
    cache_imports: list[CacheEntry] = many(12, CacheEntry)
    inputs: dict[str, Definition] = message_map(13, Definition)


@dataclass(kw_only=True)
class BridgeSolveResponse(Message):
    """What came of it."""

    result: Result | None = one(3, Result)


@dataclass(kw_only=True)
class ReturnRequest(Message):
    """The client's last word: the result to be exported, or its failure."""

    result: Result | None = one(1, Result)
    error: Status | None = one(2, Status)


@dataclass(kw_only=True)
class InputsResponse(Message):
    """What the build was given as inputs."""

    definitions: dict[str, Definition] = message_map(1, Definition)


@dataclass(kw_only=True)
class WarnRequest(Message):
    """A warning that a client wants shown."""

    digest: str = text(1)
    level: int = number(2)
