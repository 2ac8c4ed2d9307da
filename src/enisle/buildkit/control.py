"""BuildKit's control service."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from contextlib import aclosing

from enisle.build.builder import Builder
from enisle.build.usage import CacheEntry
from enisle.buildkit.control_messages import (
    DiskUsageRequest,
    DiskUsageResponse,
    InfoResponse,
    ListWorkersResponse,
    PruneRequest,
    SolveRequest,
    SolveResponse,
    StatusRequest,
    Timestamp,
    UsageRecord,
)
from enisle.buildkit.grpc import Call, Method
from enisle.buildkit.jobs import Jobs
from enisle.buildkit.protobuf import Message
from enisle.buildkit.workers import Workers
from enisle.errors import Invalid

_SERVICE = "/moby.buildkit.v1.Control"
_CONDITION = re.compile(r"([a-z]+)(?:(==|!=|~=)(.*))?")
_PATTERN_LIMIT = 200
Match = Callable[[CacheEntry], bool]


class Control:
    """What a client may ask of the daemon as a whole."""

    def __init__(self, builder: Builder, jobs: Jobs, workers: Workers) -> None:
        self._builder = builder
        self._jobs = jobs
        self._workers = workers

    @property
    def methods(self) -> dict[str, Method]:
        """What it serves."""
        return {
            f"{_SERVICE}/Info": self._info,
            f"{_SERVICE}/ListWorkers": self._list_workers,
            f"{_SERVICE}/DiskUsage": self._disk_usage,
            f"{_SERVICE}/Prune": self._prune,
            f"{_SERVICE}/Solve": self._solve,
            f"{_SERVICE}/Status": self._status,
        }

    async def _info(self, _call: Call) -> Message:
        return InfoResponse(version=self._workers.version)

    async def _list_workers(self, _call: Call) -> Message:
        return ListWorkersResponse(records=await self._workers.all())

    async def _solve(self, call: Call) -> Message:
        return SolveResponse(response=await self._jobs.solve(await call.request(SolveRequest)))

    async def _status(self, call: Call) -> None:
        request = await call.request(StatusRequest)
        job = await self._jobs.get(request.ref)
        async with aclosing(job.progress.responses()) as responses:  # the build waits for those who listen
            async for response in responses:
                await call.send(response)

    async def _disk_usage(self, call: Call) -> Message:
        request = await call.request(DiskUsageRequest)
        match = matcher(request.filters, request.age_limit)
        return DiskUsageResponse(records=[_record(one) for one in await self._builder.usage.entries() if match(one)])

    async def _prune(self, call: Call) -> None:
        request = await call.request(PruneRequest)
        if min(request.reserved, request.most, request.keep_duration) < 0:
            raise Invalid("what is to be kept is a number of bytes, and of nanoseconds")
        limit = min((one for one in (request.reserved, request.most) if one), default=0)
        match = matcher(request.filters, request.keep_duration)
        entries = {entry.id: entry for entry in await self._builder.usage.entries()}
        gone, _ = await self._builder.usage.prune(match, everything=request.everything, keep_bytes=limit)
        for name in gone:
            if name in entries:
                await call.send(_record(entries[name]))


def _record(entry: CacheEntry) -> UsageRecord:
    return UsageRecord(
        id=entry.id,
        mutable=entry.kind == "exec.cachemount",
        in_use=entry.in_use,
        size=entry.size_bytes,
        created=Timestamp.of(entry.created_ns),
        used=Timestamp.of(entry.used_ns) if entry.count else None,
        count=entry.count,
        description=entry.text,
        kind=entry.kind,
        shared=entry.shared,
        parents=[entry.parent] if entry.parent else [],
    )


def matcher(filters: list[str], age_ns: int) -> Match:
    """Entries that one of the filters fits (any, if there is none) and that were not used within ``age_ns``.

    A filter is conditions with commas between, all of which have to hold: ``type==regular``, ``id~=^ab``, ``inuse``.
    Raises Invalid for one that cannot be read.
    """
    limit = time.time_ns() - age_ns
    alternatives = [[_condition(text) for text in one.split(",") if text] for one in filters]

    def match(entry: CacheEntry) -> bool:
        return (not age_ns or entry.used_ns < limit) and (
            not alternatives or any(all(condition(entry) for condition in one) for one in alternatives)
        )

    return match


def _condition(text: str) -> Match:
    found = _CONDITION.fullmatch(text.strip())
    if found is None or found[1] not in _FIELDS or len(text) > _PATTERN_LIMIT:
        raise Invalid(f"invalid filter: {text[:100]!r}")
    read, operator, value = _FIELDS[found[1]], found[2], (found[3] or "").strip('"')
    if operator is None:
        return lambda entry: read(entry) not in ("", "false")
    if operator == "~=":
        try:
            expression = re.compile(value)
        except re.error as error:
            raise Invalid(f"invalid filter: {value!r} is no regular expression: {error}") from error
        return lambda entry: expression.search(read(entry)) is not None
    return lambda entry: (read(entry) == value) is (operator == "==")


def _flag(value: bool) -> str:
    return "true" if value else "false"


_FIELDS: dict[str, Callable[[CacheEntry], str]] = {
    "id": lambda entry: entry.id,
    "parent": lambda entry: entry.parent,
    "parents": lambda entry: entry.parent,
    "description": lambda entry: entry.text,
    "type": lambda entry: entry.kind,
    "inuse": lambda entry: _flag(entry.in_use),
    "mutable": lambda entry: _flag(entry.kind == "exec.cachemount"),
    "immutable": lambda entry: _flag(entry.kind != "exec.cachemount"),
    "shared": lambda entry: _flag(entry.shared),
    "private": lambda entry: _flag(not entry.shared),
}
