"""Messages of BuildKit's control API, as far as we use them (facts: moby/buildkit, api/)."""

from __future__ import annotations

from dataclasses import dataclass

from enisle.buildkit.protobuf import Message, data, datas, flag, many, message_map, number, one, text, text_map, texts


@dataclass(kw_only=True)
class Timestamp(Message):
    """google.protobuf.Timestamp."""

    seconds: int = number(1)
    nanos: int = number(2)

    @staticmethod
    def of(time_ns: int) -> Timestamp:
        """A time since the epoch."""
        return Timestamp(seconds=time_ns // 1_000_000_000, nanos=time_ns % 1_000_000_000)


@dataclass(kw_only=True)
class Any(Message):
    """google.protobuf.Any."""

    type_url: str = text(1)
    value: bytes = data(2)


@dataclass(kw_only=True)
class Status(Message):
    """google.rpc.Status."""

    code: int = number(1)
    message: str = text(2)
    details: list[Any] = many(3, Any)


@dataclass(kw_only=True)
class Platform(Message):
    """pb.Platform."""

    architecture: str = text(1)
    os: str = text(2)
    variant: str = text(3)


@dataclass(kw_only=True)
class Version(Message):
    """BuildkitVersion."""

    package: str = text(1)
    version: str = text(2)
    revision: str = text(3)


@dataclass(kw_only=True)
class InfoResponse(Message):
    """What we are."""

    version: Version | None = one(1, Version)


@dataclass(kw_only=True)
class Worker(Message):
    """WorkerRecord."""

    id: str = text(1)
    labels: dict[str, str] = text_map(2)
    platforms: list[Platform] = many(3, Platform)
    version: Version | None = one(5, Version)


@dataclass(kw_only=True)
class ListWorkersResponse(Message):
    """Who builds."""

    records: list[Worker] = many(1, Worker)


@dataclass(kw_only=True)
class PruneRequest(Message):
    """``keep_duration``: nanoseconds. ``reserved`` and ``most``: bytes."""

    filters: list[str] = texts(1)
    everything: bool = flag(2)
    keep_duration: int = number(3)
    reserved: int = number(4)
    most: int = number(5)


@dataclass(kw_only=True)
class DiskUsageRequest(Message):
    """``age_limit``: nanoseconds."""

    filters: list[str] = texts(1)
    age_limit: int = number(2)


@dataclass(kw_only=True)
class UsageRecord(Message):
    """One thing in the build cache."""

    id: str = text(1)
    mutable: bool = flag(2)
    in_use: bool = flag(3)
    size: int = number(4)
    created: Timestamp | None = one(6, Timestamp)
    used: Timestamp | None = one(7, Timestamp)
    count: int = number(8)
    description: str = text(9)
    kind: str = text(10)
    shared: bool = flag(11)
    parents: list[str] = texts(12)


@dataclass(kw_only=True)
class DiskUsageResponse(Message):
    """All of it."""

    records: list[UsageRecord] = many(1, UsageRecord)


@dataclass(kw_only=True)
class CacheEntry(Message):
    """CacheOptionsEntry."""

    kind: str = text(1)
    attributes: dict[str, str] = text_map(2)


@dataclass(kw_only=True)
class CacheOptions(Message):
    """Where a cache comes from, and goes to."""

    old_export: str = text(1)
    old_imports: list[str] = texts(2)
    exports: list[CacheEntry] = many(4, CacheEntry)
    imports: list[CacheEntry] = many(5, CacheEntry)


@dataclass(kw_only=True)
class Exporter(Message):
    """What is to become of the result."""

    kind: str = text(1)
    attributes: dict[str, str] = text_map(2)


@dataclass(kw_only=True)
class Source(Message):
    """pb.SourceOp."""

    identifier: str = text(1)
    attributes: dict[str, str] = text_map(2)


@dataclass(kw_only=True)
class OpInput(Message):
    """pb.Input."""

    digest: str = text(1)
    index: int = number(2)


@dataclass(kw_only=True)
class Op(Message):
    """pb.Op, with no operation but a source."""

    inputs: list[OpInput] = many(1, OpInput)
    source: Source | None = one(3, Source)
    platform: Platform | None = one(10, Platform)


@dataclass(kw_only=True)
class OpMetadata(Message):
    """pb.OpMetadata, of which we need that it is there."""


@dataclass(kw_only=True)
class Definition(Message):
    """pb.Definition: encoded operations, and what is told of each, by its digest."""

    operations: list[bytes] = datas(1)
    metadata: dict[str, OpMetadata] = message_map(2, OpMetadata)


@dataclass(kw_only=True)
class SolveRequest(Message):
    """Build something."""

    ref: str = text(1)
    definition: Definition | None = one(2, Definition)
    old_exporter: str = text(3)
    old_exporter_attributes: dict[str, str] = text_map(4)
    session: str = text(5)
    frontend: str = text(6)
    attributes: dict[str, str] = text_map(7)
    cache: CacheOptions | None = one(8, CacheOptions)
    entitlements: list[str] = texts(9)
    inputs: dict[str, Definition] = message_map(10, Definition)
    exporters: list[Exporter] = many(13, Exporter)


@dataclass(kw_only=True)
class SolveResponse(Message):
    """What the exporters tell."""

    response: dict[str, str] = text_map(1)


@dataclass(kw_only=True)
class StatusRequest(Message):
    """How is a build getting on."""

    ref: str = text(1)


@dataclass(kw_only=True)
class Vertex(Message):
    """A step. ``error`` "": none."""

    digest: str = text(1)
    inputs: list[str] = texts(2)
    name: str = text(3)
    cached: bool = flag(4)
    started: Timestamp | None = one(5, Timestamp)
    completed: Timestamp | None = one(6, Timestamp)
    error: str = text(7)


@dataclass(kw_only=True)
class VertexStatus(Message):
    """Progress within a step."""

    id: str = text(1)
    vertex: str = text(2)
    name: str = text(3)
    current: int = number(4)
    total: int = number(5)
    timestamp: Timestamp | None = one(6, Timestamp)
    started: Timestamp | None = one(7, Timestamp)
    completed: Timestamp | None = one(8, Timestamp)


@dataclass(kw_only=True)
class VertexLog(Message):
    """Output of a step. ``stream``: 1 or 2."""

    vertex: str = text(1)
    timestamp: Timestamp | None = one(2, Timestamp)
    stream: int = number(3)
    data: bytes = data(4)


@dataclass(kw_only=True)
class VertexWarning(Message):
    """Something the user should know. ``level`` 1: shown at the end."""

    vertex: str = text(1)
    level: int = number(2)
    short: bytes = data(3)


@dataclass(kw_only=True)
class StatusResponse(Message):
    """What has changed."""

    vertexes: list[Vertex] = many(1, Vertex)
    statuses: list[VertexStatus] = many(2, VertexStatus)
    logs: list[VertexLog] = many(3, VertexLog)
    warnings: list[VertexWarning] = many(4, VertexWarning)
