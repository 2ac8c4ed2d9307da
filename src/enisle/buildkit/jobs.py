"""The builds that are under way, by the name their client has given them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from enisle.build.builder import Builder
from enisle.buildkit.control_messages import CacheOptions, Exporter, SolveRequest
from enisle.buildkit.job import Demand, Job
from enisle.buildkit.sessions import Sessions
from enisle.errors import Conflict, Invalid, NotFound

_WAIT_S = 10.0
_NAME_LIMIT = 256


class Jobs:
    """All jobs."""

    def __init__(self, builder: Builder, sessions: Sessions) -> None:
        self._builder = builder
        self._sessions = sessions
        self._jobs: dict[str, Job] = {}
        self._changed = asyncio.Condition()

    async def get(self, name: str) -> Job:
        """A job, which may begin a moment later than who asks for it. Raises NotFound."""
        try:
            async with asyncio.timeout(_WAIT_S), self._changed:
                await self._changed.wait_for(lambda: name in self._jobs)
        except TimeoutError:
            raise NotFound(f"no such job {name[:64]}") from None
        return self._jobs[name]

    @asynccontextmanager
    async def job(self, request: SolveRequest) -> AsyncIterator[Job]:
        """A new job for a request. Raises Invalid, Conflict, NotSupported."""
        if not request.ref or len(request.ref) > _NAME_LIMIT:
            raise Invalid("a build needs a ref")
        if request.ref in self._jobs:
            raise Conflict(f"job ID {request.ref[:64]} exists")
        exporters = request.exporters
        if not exporters and request.old_exporter:
            exporters = [Exporter(kind=request.old_exporter, attributes=request.old_exporter_attributes)]
        demand = Demand(exporters=exporters, entitlements=request.entitlements, cache=request.cache or CacheOptions())
        session = await self._sessions.get(request.session) if request.session else None
        async with Job(request.ref, self._builder, session, demand) as job:
            self._jobs[request.ref] = job
            try:
                async with self._changed:
                    self._changed.notify_all()
                yield job
            finally:
                del self._jobs[request.ref]

    def cancel(self, name: str) -> None:
        """Call a job off, if there is one of that name."""
        if (job := self._jobs.get(name)) is not None and job.task is not None:
            job.task.cancel()

    async def solve(self, request: SolveRequest) -> dict[str, str]:
        """Carry out a whole request; what the client is told."""
        async with self.job(request) as job:
            if request.frontend:
                image = await job.build(request.frontend, request.attributes, request.inputs)
            elif request.definition is not None and request.definition.operations:
                raise Invalid("builds in BuildKit's own language (LLB) are not done: only Dockerfiles are")
            else:
                found = await job.returned()
                if found is None:
                    return {}
                image = found
            return await job.export(image)
