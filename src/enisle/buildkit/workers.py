"""Who builds: this engine, as BuildKit's clients see it."""

from __future__ import annotations

from contextlib import suppress

from enisle.build.builder import Builder
from enisle.buildkit.control_messages import Platform, Version, Worker
from enisle.errors import NotFound

_LABEL = "org.mobyproject.buildkit.worker."
_DEFAULT_NETWORK = "bridge"


class Workers:
    """The one worker."""

    def __init__(self, builder: Builder, version: str) -> None:
        self._builder = builder
        self._version = version

    @property
    def version(self) -> Version:
        """What we are."""
        return Version(package="github.com/enisle/enisle", version=self._version)

    async def all(self) -> list[Worker]:
        """As ListWorkers tells them."""
        host = self._builder.host
        labels = {f"{_LABEL}executor": "enisle"}
        with suppress(NotFound):
            pools = (await self._builder.engine.networks.get(_DEFAULT_NETWORK)).pools
            labels[f"{_LABEL}moby.host-gateway-ip"] = next((pool.gateway for pool in pools if pool.gateway), "")
        platform = Platform(os=host.os, architecture=host.architecture, variant=host.variant)
        return [Worker(id="enisle", labels=labels, platforms=[platform], version=self.version)]
