"""Image configs (OCI image-spec config.md, with the fields Docker adds) <-> model."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from enisle.errors import Invalid
from enisle.formats.json_document import canonical, parse_object
from enisle.formats.oci import parse_platform
from enisle.model.ids import Digest, digest
from enisle.model.image import HistoryEntry, ImageConfig, Platform
from enisle.model.instance import Healthcheck

_OWN_LABELS = "enisle."  # reserved: what an image says of itself must not steer the engine


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageDocument:
    """A whole config file. ``diff_ids`` are bottom first."""

    config: ImageConfig
    platform: Platform
    created: str = ""
    author: str = ""
    comment: str = ""
    diff_ids: tuple[Digest, ...] = ()
    history: tuple[HistoryEntry, ...] = ()


def parse_config(data: bytes) -> ImageDocument:
    """The config in ``data``. Raises Invalid; fields of a wrong type count as malformed, unknown ones are ignored."""
    document = parse_object(data, "image config")
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict) or rootfs.get("type") != "layers":
        raise Invalid("image config: rootfs is missing or not of type layers: is this an image?")
    diff_ids = rootfs.get("diff_ids") or []
    if not isinstance(diff_ids, list) or not all(isinstance(item, str) for item in diff_ids):
        raise Invalid("image config: diff_ids is not a list of digests")
    fields = _Fields(document)
    return ImageDocument(
        config=_parse_defaults(_Fields(fields.object("config") or {})),
        platform=parse_platform(document),
        created=fields.text("created"),
        author=fields.text("author"),
        comment=fields.text("comment"),
        diff_ids=tuple(digest(item) for item in diff_ids),
        history=tuple(_parse_history(_Fields(item)) for item in fields.objects("history")),
    )


class _Fields:
    """Typed access to one JSON object; null counts as absent."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def _get(self, name: str, kind: type, fallback: Any) -> Any:
        value = self._document.get(name)
        if value is None:
            return fallback
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise Invalid(f"image config: {name} is not a {kind.__name__}")
        return value

    def text(self, name: str) -> str:
        return str(self._get(name, str, ""))

    def flag(self, name: str) -> bool:
        return bool(self._get(name, bool, False))

    def number(self, name: str) -> int:
        return int(self._get(name, int, 0))

    def texts(self, name: str) -> tuple[str, ...] | None:
        values = self._get(name, list, None)
        if values is None:
            return None
        if not all(isinstance(value, str) for value in values):
            raise Invalid(f"image config: {name} is not a list of texts")
        return tuple(values)

    def keys(self, name: str) -> tuple[str, ...]:
        return tuple(self._get(name, dict, {}))

    def map(self, name: str) -> dict[str, str]:
        values = self._get(name, dict, {})
        if not all(isinstance(value, str) for value in values.values()):
            raise Invalid(f"image config: {name} is not a map of texts")
        return dict(values)

    def objects(self, name: str) -> list[dict[str, Any]]:
        values = self._get(name, list, [])
        if not all(isinstance(value, dict) for value in values):
            raise Invalid(f"image config: {name} is not a list of objects")
        return list(values)

    def object(self, name: str) -> dict[str, Any] | None:
        value = self._get(name, dict, None)
        return value if isinstance(value, dict) else None


def _parse_defaults(fields: _Fields) -> ImageConfig:
    health = fields.object("Healthcheck")
    labels = fields.map("Labels")
    return ImageConfig(
        user=fields.text("User"),
        exposed_ports=fields.keys("ExposedPorts"),
        env=fields.texts("Env") or (),
        entrypoint=fields.texts("Entrypoint"),
        command=fields.texts("Cmd"),
        volumes=fields.keys("Volumes"),
        working_dir=fields.text("WorkingDir"),
        labels={key: value for key, value in labels.items() if not key.startswith(_OWN_LABELS)},
        stop_signal=fields.text("StopSignal"),
        args_escaped=fields.flag("ArgsEscaped"),
        healthcheck=_parse_health(_Fields(health)) if health else None,
        on_build=fields.texts("OnBuild") or (),
        shell=fields.texts("Shell") or (),
    )


def _parse_health(fields: _Fields) -> Healthcheck:
    return Healthcheck(
        test=fields.texts("Test") or (),
        interval_ns=fields.number("Interval"),
        timeout_ns=fields.number("Timeout"),
        start_period_ns=fields.number("StartPeriod"),
        start_interval_ns=fields.number("StartInterval"),
        retries=fields.number("Retries"),
    )


def _parse_history(fields: _Fields) -> HistoryEntry:
    return HistoryEntry(
        created=fields.text("created"),
        created_by=fields.text("created_by"),
        author=fields.text("author"),
        comment=fields.text("comment"),
        empty_layer=fields.flag("empty_layer"),
    )


def encode_config(image: ImageDocument) -> bytes:
    """A config's bytes; their digest is the image's id. Equal images are equal bytes."""
    platform = {"architecture": image.platform.architecture, "os": image.platform.os}
    if image.platform.variant:
        platform["variant"] = image.platform.variant
    document: dict[str, Any] = {
        **platform,
        **_present({"author": image.author, "comment": image.comment, "created": image.created}),
        "config": _defaults_document(image.config),
        "history": [_history_document(entry) for entry in image.history],
        "rootfs": {"type": "layers", "diff_ids": list(image.diff_ids)},
    }
    return canonical(document)


def _present(values: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value}


def _defaults_document(config: ImageConfig) -> dict[str, Any]:
    health = config.healthcheck
    return _present(
        {
            "User": config.user,
            "ExposedPorts": {port: {} for port in config.exposed_ports},
            "Env": list(config.env),
            "Entrypoint": None if config.entrypoint is None else list(config.entrypoint),
            "Cmd": None if config.command is None else list(config.command),
            "Volumes": {volume: {} for volume in config.volumes},
            "WorkingDir": config.working_dir,
            "Labels": config.labels,
            "StopSignal": config.stop_signal,
            "ArgsEscaped": config.args_escaped,
            "Healthcheck": _health_document(health) if health else None,
            "OnBuild": list(config.on_build),
            "Shell": list(config.shell),
        }
    )


def _health_document(health: Healthcheck) -> dict[str, Any]:
    return _present(
        {
            "Test": list(health.test),
            "Interval": health.interval_ns,
            "Timeout": health.timeout_ns,
            "StartPeriod": health.start_period_ns,
            "StartInterval": health.start_interval_ns,
            "Retries": health.retries,
        }
    )


def _history_document(entry: HistoryEntry) -> dict[str, Any]:
    return _present(
        {
            "created": entry.created,
            "created_by": entry.created_by,
            "author": entry.author,
            "comment": entry.comment,
            "empty_layer": entry.empty_layer,
        }
    )


def chain_ids(diff_ids: Sequence[Digest]) -> list[Digest]:
    """The chain id of each layer (image-spec config.md, "Layer ChainID"), bottom first."""
    chains: list[Digest] = []
    for diff_id in diff_ids:
        chains.append(next_chain(chains[-1:], diff_id))
    return chains


def next_chain(below: Sequence[Digest], diff_id: Digest) -> Digest:
    """The chain id of a layer upon the chain ``below[0]``, or upon nothing."""
    if not below:
        return diff_id
    return digest("sha256:" + hashlib.sha256(f"{below[0]} {diff_id}".encode()).hexdigest())
