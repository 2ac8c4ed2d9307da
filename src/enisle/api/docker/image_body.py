"""Images as Docker shows them."""

from __future__ import annotations

from typing import Any

from enisle.api.docker.host_config_body import healthcheck_json
from enisle.api.times import ZERO, rfc3339, to_seconds
from enisle.formats.oci import descriptor_document
from enisle.model.image import Descriptor, HistoryEntry, Image, ImageConfig, ImageVariant, Platform

_ATTESTATION_OF = "vnd.docker.reference.digest"  # BuildKit's annotation


def summary_json(image: Image, *, containers: int = -1, shared_bytes: int = -1, with_virtual: bool) -> dict[str, Any]:
    """One entry of ``GET /images/json``. -1: not counted. ``with_virtual``: VirtualSize, which API 1.44 dropped."""
    result: dict[str, Any] = {
        "Id": image.id,
        "ParentId": image.parent,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Created": to_seconds(image.created),
        "Size": image.size_bytes,
        "SharedSize": shared_bytes,
        "Labels": image.config.labels or None,
        "Containers": containers,
    }
    if with_virtual:
        result["VirtualSize"] = image.size_bytes
    return result


def variant_json(variant: ImageVariant, *, users: list[str]) -> dict[str, Any]:
    """One of the ``Manifests`` of an image. ``users``: ids of the containers made from it."""
    descriptor = variant.descriptor
    kind = "attestation" if _ATTESTATION_OF in descriptor.annotations else "image"
    unpacked = variant.unpacked_bytes if kind == "image" else 0
    result: dict[str, Any] = {
        "ID": descriptor.digest,
        "Descriptor": descriptor_document(descriptor),
        "Available": variant.available,
        "Size": {"Content": variant.content_bytes, "Total": variant.content_bytes + unpacked},
        "Kind": kind,
    }
    if kind == "image":
        platform = _platform_json(variant.platform)
        result["ImageData"] = {"Platform": platform, "Containers": users, "Size": {"Unpacked": unpacked}}
    else:
        result["AttestationData"] = {"For": descriptor.annotations[_ATTESTATION_OF]}
    return result


def inspect_json(image: Image, *, with_virtual: bool) -> dict[str, Any]:
    """``GET /images/{name}/json``."""
    result: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": list(image.repo_tags),
        "RepoDigests": list(image.repo_digests),
        "Parent": image.parent,
        "Comment": image.comment,
        "Created": image.created or ZERO,
        "DockerVersion": "",
        "Author": image.author,
        "Config": config_json(image.config),
        # API 1.45 dropped it, but compose v1 speaks the newest version there is and wants its volumes all the same.
        "ContainerConfig": config_json(image.config),
        "Architecture": image.platform.architecture,
        "Os": image.platform.os,
        "Size": image.size_bytes,
        "GraphDriver": {"Name": "overlay2", "Data": None},
        "RootFS": {"Type": "layers", "Layers": list(image.diff_ids)},
        "Metadata": {"LastTagTime": rfc3339(image.last_tagged_at)},
    }
    if image.platform.variant:
        result["Variant"] = image.platform.variant
    if with_virtual:
        result["VirtualSize"] = image.size_bytes
    return result


def config_json(config: ImageConfig) -> dict[str, Any]:
    """The defaults of an image, with the members that Docker shows for every image."""
    result: dict[str, Any] = {
        "Hostname": "",
        "Domainname": "",
        "User": config.user,
        "AttachStdin": False,
        "AttachStdout": False,
        "AttachStderr": False,
        "Tty": False,
        "OpenStdin": False,
        "StdinOnce": False,
        "Env": list(config.env),
        "Cmd": None if config.command is None else list(config.command),
        "Image": "",
        "Volumes": {target: {} for target in config.volumes} or None,
        "WorkingDir": config.working_dir,
        "Entrypoint": None if config.entrypoint is None else list(config.entrypoint),
        "OnBuild": list(config.on_build) or None,
        "Labels": config.labels or None,
    }
    if config.exposed_ports:
        result["ExposedPorts"] = {port: {} for port in config.exposed_ports}
    if config.stop_signal:
        result["StopSignal"] = config.stop_signal
    if config.shell:
        result["Shell"] = list(config.shell)
    if config.args_escaped:
        result["ArgsEscaped"] = True
    if config.healthcheck is not None:
        result["Healthcheck"] = healthcheck_json(config.healthcheck)
    return result


def history_json(steps: list[tuple[HistoryEntry, str, int, tuple[str, ...]]]) -> list[dict[str, Any]]:
    """``GET /images/{name}/history``, newest first."""
    return [
        {
            "Id": image_id,
            "Created": to_seconds(entry.created),
            "CreatedBy": entry.created_by,
            "Tags": list(tags) or None,
            "Size": size,
            "Comment": entry.comment,
        }
        for entry, image_id, size, tags in steps
    ]


def distribution_json(descriptor: Descriptor, platforms: list[Platform]) -> dict[str, Any]:
    """``GET /distribution/{name}/json``."""
    return {
        "Descriptor": {
            "mediaType": descriptor.media_type,
            "digest": descriptor.digest,
            "size": descriptor.size,
        },
        "Platforms": [_platform_json(platform) for platform in platforms],
    }


def _platform_json(platform: Platform) -> dict[str, Any]:
    result: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
    if platform.variant:
        result["variant"] = platform.variant
    if platform.os_version:
        result["os.version"] = platform.os_version
    return result
