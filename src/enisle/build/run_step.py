"""RUN: an instance of the image so far, behind the wall the build asks for; what it has written is the layer."""

from __future__ import annotations

import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from enisle.build.archive_tree import spool
from enisle.build.options import BuildOptions
from enisle.build.report import Section
from enisle.build.run_mounts import Mounted
from enisle.build.run_output import pump
from enisle.cleanup import to_the_end
from enisle.contracts import Connection
from enisle.engine.instances import Instances
from enisle.errors import EnisleError, Invalid, NotFound
from enisle.model.ids import ImageId
from enisle.model.image import ImageConfig
from enisle.model.instance import DEFAULT_SHM_BYTES, Healthcheck, Instance, InstanceSpec, LogConfig

MARK = "enisle.build"
"""An annotation that says which instances are a build's: those a crash has left behind are removed."""

_READ_ENV = 'X="$(cat {path}; printf x)"; {name}="${{X%x}}"; unset X; export {name}; '


class RunFailed(Invalid):
    """A command ended with an exit code other than 0."""

    def __init__(self, words: tuple[str, ...], exit_code: int) -> None:
        super().__init__(f"The command '{' '.join(words)}' returned a non-zero code: {exit_code}")
        self.words = words
        self.exit_code = exit_code


@dataclass(frozen=True, kw_only=True, slots=True)
class RunStep:
    """``network``: "default" (as the whole build), "none" or "host"."""

    image: ImageId
    config: ImageConfig
    words: tuple[str, ...]
    environment: tuple[str, ...]
    network: str = "default"


def spec_of(step: RunStep, options: BuildOptions, mounted: Mounted) -> InstanceSpec:
    """The instance that a RUN is. Pure."""
    words = step.words
    if mounted.env_files:
        script = "".join(_READ_ENV.format(path=_quoted(path), name=name) for name, path in mounted.env_files.items())
        words = ("/bin/sh", "-c", script + 'exec "$@"', "sh", *words)
    network = options.network_mode or "default"
    return InstanceSpec(
        runtime=options.runtime or "enisle",  # never the default runtime, of which the steps' cache knows nothing
        image=step.image,
        image_id=step.image,
        entrypoint=(),
        command=words,
        env=(*step.environment, *mounted.environment),
        attach_stdout=True,
        attach_stderr=True,
        mounts=tuple(mounted.mounts),
        network_mode=network if step.network == "default" else step.network,
        extra_hosts=options.extra_hosts,
        resources=options.resources,
        ulimits=options.ulimits,
        shm_size_bytes=options.shm_size_bytes or DEFAULT_SHM_BYTES,
        security_options=options.security_options,
        cgroup_parent=options.cgroup_parent,
        healthcheck=Healthcheck(test=("NONE",)),
        log=LogConfig(driver="none"),
        annotations={MARK: "run"},
    )


def defaults_of(config: ImageConfig) -> ImageConfig:
    """What of the image's config a RUN is completed from: what it writes below a VOLUME is kept."""
    return replace(
        config, volumes=(), healthcheck=None, entrypoint=None, command=None, exposed_ports=(), stop_signal=""
    )


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


class Runner:
    """Runs steps. What the commands print goes to their stage's section."""

    def __init__(self, instances: Instances, directory: FilePath) -> None:
        self._instances = instances
        self._directory = directory

    @asynccontextmanager
    async def ran(
        self, step: RunStep, options: BuildOptions, mounted: Mounted, section: Section
    ) -> AsyncIterator[FilePath]:
        """Run it; its layer as a tar file. The instance is gone at the end, however it ends. Raises RunFailed."""
        spec = spec_of(step, options, mounted)
        record = await self._instances.create(spec, name=None, warnings=[], defaults=defaults_of(step.config))
        path = self._directory / secrets.token_hex(8)
        removes = options.remove or options.force_remove
        try:
            section.note(f" ---> Running in {record.id[:12]}\n")
            exit_code = await self._run(record, section)
            if exit_code:
                removes = True
                raise RunFailed(step.words, exit_code)
            async with self._instances.files(record.id) as files:
                await spool(await files.layer(), path)
            if options.remove:
                section.note(f"Removing intermediate container {record.id[:12]}\n")
                await self._remove(record)
            yield path
        except BaseException:
            removes = True
            raise
        finally:
            path.unlink(missing_ok=True)
            if removes:
                await to_the_end(self._remove(record))

    async def _remove(self, record: Instance) -> None:
        with suppress(NotFound):
            await self._instances.remove(record.id, force=True, volumes=True)

    async def _run(self, record: Instance, section: Section) -> int:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        async with AsyncExitStack() as stack:
            stack.callback(ours.close)
            connection = Connection(fd=theirs.detach(), stdin=False, stdout=True, stderr=True, framed=True)
            await self._instances.attach(record.id, connection)
            ended = await self._instances.prepare_wait(record.id, "next-exit")
            await self._instances.start(record.id)
            await pump(ours, section.output)
            return (await ended).exit_code


async def sweep(instances: Instances) -> None:
    """Remove what builds that were cut short have left."""
    for record in instances.all():
        if MARK in record.spec.annotations:
            with suppress(EnisleError):
                await instances.remove(record.id, force=True, volumes=True)
