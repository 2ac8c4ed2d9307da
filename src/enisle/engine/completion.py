"""Completing what the user asked for from what the image says (Docker's rules). Pure."""

from __future__ import annotations

import posixpath
from dataclasses import replace

from enisle.errors import Invalid
from enisle.model.image import Image, ImageConfig
from enisle.model.instance import Healthcheck, InstanceSpec

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def complete(spec: InstanceSpec, image: Image) -> InstanceSpec:
    """The spec with the image's defaults where the user gave none.

    The image's command applies only where the user gave neither command nor entrypoint. Variables, labels, ports and
    volumes are united, the user's winning. Invalid when there is no command at all.
    """
    config = image.config
    entrypoint, command = _command(spec, config)
    if not (entrypoint or command):
        raise Invalid("no command specified")
    return replace(
        spec,
        image_id=image.id,
        entrypoint=entrypoint,
        command=command,
        args_escaped=spec.args_escaped or config.args_escaped,
        env=merge_env(config.env, spec.env),
        user=spec.user or config.user,
        working_dir=_working_dir(spec.working_dir or config.working_dir),
        labels={**config.labels, **spec.labels},
        exposed_ports=_union(config.exposed_ports, spec.exposed_ports),
        volumes=tuple(_clean(path) for path in _union(config.volumes, spec.volumes)),
        stop_signal=spec.stop_signal or config.stop_signal,
        shell=spec.shell or config.shell,
        healthcheck=merge_healthcheck(spec.healthcheck, config.healthcheck),
    )


def _command(spec: InstanceSpec, config: ImageConfig) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
    entrypoint, command = spec.entrypoint, spec.command
    if entrypoint is None:
        if not command:
            command = config.command
        entrypoint = config.entrypoint
    elif entrypoint in ((), ("",)):
        # `--entrypoint ""` clears the image's entrypoint.
        entrypoint = None
    return entrypoint or None, command or None


def merge_env(base: tuple[str, ...], own: tuple[str, ...]) -> tuple[str, ...]:
    """The variables of the image, replaced and followed by the user's; PATH always has a value.

    An entry without "=" (`docker run -e NAME`, where the client has none) stays, and removes the variable at the start.
    """
    merged: dict[str, str] = {}
    for entry in (*base, *own):
        name = entry.partition("=")[0]
        if not name:
            raise Invalid(f"invalid environment variable: {entry}")
        merged[name] = entry
    if "PATH" not in merged:
        merged = {"PATH": DEFAULT_PATH, **merged}
    return tuple(merged.values())


def merge_healthcheck(own: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """Field by field: what the user left at 0 comes from the image."""
    if own is None or image is None or own.test[:1] == ("NONE",):
        return own or image
    return Healthcheck(
        test=own.test or image.test,
        interval_ns=own.interval_ns or image.interval_ns,
        timeout_ns=own.timeout_ns or image.timeout_ns,
        start_period_ns=own.start_period_ns or image.start_period_ns,
        start_interval_ns=own.start_interval_ns or image.start_interval_ns,
        retries=own.retries or image.retries,
    )


def _working_dir(path: str) -> str:
    if not path:
        return ""
    if not path.startswith("/"):
        raise Invalid(f"the working directory '{path}' is invalid, it needs to be an absolute path")
    return _clean(path)


def _clean(path: str) -> str:
    """Without "..", "." and doubled slashes, so that no path of an image points out of its root."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _union(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))
