"""The service by which a client acts as the frontend of its own build, as buildx does."""

from __future__ import annotations

from enisle.buildkit.gateway_messages import (
    BridgeSolveRequest,
    BridgeSolveResponse,
    Capability,
    InputsResponse,
    Pong,
    ReturnRequest,
)
from enisle.buildkit.grpc import Call, CallFailed, Code, Method
from enisle.buildkit.job import result_of
from enisle.buildkit.jobs import Jobs
from enisle.buildkit.protobuf import Message
from enisle.buildkit.session_messages import Empty
from enisle.buildkit.workers import Workers

_SERVICE = "/moby.buildkit.v1.frontend.LLBBridge"
_BUILD_ID = "buildkit-controlapi-buildid"
_FRONTEND = (
    *("solve.base", "return", "returnmap", "proto.refarray", "importcaches", "reference.output"),
    *("frontend.inputs", "frontend.caps", "gateway.solve.metadata", "gateway.solve.evaluate", "gateway.evaluate"),
    "gateway.warnings",
)
_LLB = (
    *("source.image", "source.local", "source.local.followpaths", "source.local.excludepatterns"),
    *("source.git", "source.http", "exec.meta.base", "exec.meta.network", "exec.meta.ulimit"),
    *("exec.mount.bind", "exec.mount.cache", "exec.mount.tmpfs", "exec.mount.secret", "exec.mount.ssh"),
    *("exec.secretenv", "file.base", "constraints", "platform", "meta.ignorecache", "meta.description"),
    "exporter.multiple",
)
"""Capabilities (moby/buildkit, frontend/gateway/pb/caps.go and solver/pb/caps.go) that our builder has, in effect."""


class Bridge:
    """LLBBridge: each call names its build."""

    def __init__(self, jobs: Jobs, workers: Workers) -> None:
        self._jobs = jobs
        self._workers = workers

    @property
    def methods(self) -> dict[str, Method]:
        """What it serves."""
        return {
            f"{_SERVICE}/Ping": self._ping,
            f"{_SERVICE}/Solve": self._solve,
            f"{_SERVICE}/Evaluate": self._evaluate,
            f"{_SERVICE}/Inputs": self._inputs,
            f"{_SERVICE}/Warn": self._warn,
            f"{_SERVICE}/Return": self._return,
        }

    async def _ping(self, call: Call) -> Message:
        await self._jobs.get(_name(call))
        return Pong(
            frontend=[Capability(id=name, enabled=True) for name in _FRONTEND],
            llb=[Capability(id=name, enabled=True) for name in _LLB],
            workers=await self._workers.all(),
        )

    async def _solve(self, call: Call) -> Message:
        request = await call.request(BridgeSolveRequest)
        job = await self._jobs.get(_name(call))
        if not request.frontend:
            if request.definition is not None and request.definition.operations:
                raise CallFailed(
                    Code.UNIMPLEMENTED, "builds in BuildKit's own language (LLB) are not done: only Dockerfiles are"
                )
            return BridgeSolveResponse()
        image = await job.build(request.frontend, request.attributes, request.inputs)
        return BridgeSolveResponse(result=result_of(image))

    async def _evaluate(self, call: Call) -> Message:
        """What we give as a result is there already."""
        await self._jobs.get(_name(call))
        return Empty()

    async def _inputs(self, call: Call) -> Message:
        await self._jobs.get(_name(call))
        return InputsResponse()

    async def _warn(self, call: Call) -> Message:
        await self._jobs.get(_name(call))
        return Empty()

    async def _return(self, call: Call) -> Message:
        request = await call.request(ReturnRequest)
        (await self._jobs.get(_name(call))).give_back(request)
        return Empty()


def _name(call: Call) -> str:
    name = call.metadata.get(_BUILD_ID, "")
    if not name:
        raise CallFailed(Code.INVALID_ARGUMENT, "no buildid found in context")
    return name
