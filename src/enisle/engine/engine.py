"""The engine: the use cases, each a facet."""

from __future__ import annotations

from enisle.engine.events import Events
from enisle.engine.execs import Execs
from enisle.engine.images import Images
from enisle.engine.instances import Instances
from enisle.engine.networks import Networks
from enisle.engine.system import System
from enisle.engine.volumes import Volumes


class Engine:
    """What the API serves. ``open`` reconciles what an earlier enisled left; ``close`` leaves the workloads running."""

    instances: Instances
    execs: Execs
    images: Images
    networks: Networks
    volumes: Volumes
    events: Events
    system: System

    async def open(self) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError
