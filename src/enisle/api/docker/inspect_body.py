"""Instance -> what ``docker inspect`` and ``docker ps`` show."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from enisle.api.docker.host_config_body import config_json, host_config_json
from enisle.api.docker.network_settings import endpoints_json, network_mode, settings_json
from enisle.api.docker.state_body import state_json, status_text
from enisle.api.times import SECOND_NS, rfc3339
from enisle.model.instance import Instance, MountKind, ResolvedMount


def inspect_json(
    instance: Instance, *, directory: str, exec_ids: list[str], sizes: tuple[int, int] | None = None
) -> dict[str, Any]:
    """``directory``: the instance's own below the data root. ``sizes``: bytes of the writable layer and of all."""
    spec = instance.spec
    base = PurePosixPath(directory)
    args = instance.args
    result: dict[str, Any] = {
        "Id": instance.id,
        "Created": rfc3339(instance.created_at),
        "Path": args[0] if args else "",
        "Args": list(args[1:]),
        "State": state_json(instance.state),
        "Image": spec.image_id,
        "ResolvConfPath": str(base / "resolv.conf"),
        "HostnamePath": str(base / "hostname"),
        "HostsPath": str(base / "hosts"),
        "LogPath": str(base / f"{instance.id}-json.log") if spec.log.driver in ("", "json-file") else "",
        "Name": f"/{instance.name}",
        "RestartCount": instance.state.restart_count,
        "Driver": "overlay2",
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": exec_ids or None,
        "HostConfig": host_config_json(spec),
        "GraphDriver": {
            "Name": "overlay2",
            "Data": {"ID": instance.id, "UpperDir": str(base / "upper"), "WorkDir": str(base / "work")},
        },
        "Mounts": [_mount_json(mount) for mount in instance.mounts],
        "Config": config_json(spec, spec.hostname or instance.id[:12]),
        "NetworkSettings": settings_json(instance),
    }
    if sizes is not None:
        result["SizeRw"], result["SizeRootFs"] = sizes
    return result


def summary_json(instance: Instance, now_ns: int, sizes: tuple[int, int] | None = None) -> dict[str, Any]:
    """One entry of ``GET /containers/json``."""
    spec = instance.spec
    summary: dict[str, Any] = {
        "Id": instance.id,
        "Names": [f"/{instance.name}"],
        "Image": spec.image,
        "ImageID": spec.image_id,
        "Command": _command_line(instance.args),
        "Created": instance.created_at // SECOND_NS,
        "Ports": _ports_json(instance),
        "Labels": spec.labels,
        "State": str(instance.state.status),
        "Status": status_text(instance, now_ns),
        "HostConfig": {"NetworkMode": network_mode(spec)},
        "NetworkSettings": {"Networks": endpoints_json(instance)},
        "Mounts": [_mount_json(mount) for mount in instance.mounts],
        "Isolation": str(spec.isolation),  # ours: the wall, for lists; Docker's clients ignore it
    }
    if spec.annotations:
        summary["HostConfig"]["Annotations"] = spec.annotations
    if sizes is not None:
        summary["SizeRw"], summary["SizeRootFs"] = sizes
    return summary


def _command_line(args: tuple[str, ...]) -> str:
    """Words with a blank are quoted, as dockerd does."""
    return " ".join(f"'{word}'" if " " in word else word for word in args)


def _ports_json(instance: Instance) -> list[dict[str, Any]]:
    ports: list[dict[str, Any]] = []
    bound = set()
    for port in instance.bound_ports:
        bound.add(f"{port.container_port}/{port.protocol}")
        ports.append(
            {
                "IP": port.host_ip,
                "PrivatePort": port.container_port,
                "PublicPort": port.host_port,
                "Type": port.protocol,
            }
        )
    if instance.endpoints:
        for exposed in instance.spec.exposed_ports:
            if exposed not in bound:
                number, _, protocol = exposed.partition("/")
                ports.append({"PrivatePort": int(number), "Type": protocol or "tcp"})
    return ports


def _mount_json(mount: ResolvedMount) -> dict[str, Any]:
    result: dict[str, Any] = {
        "Type": str(mount.kind),
        "Source": mount.source,
        "Destination": mount.target,
        "Mode": mount.mode_text,
        "RW": not mount.read_only,
        "Propagation": mount.propagation or ("rprivate" if mount.kind is MountKind.BIND else ""),
    }
    if mount.kind is MountKind.VOLUME:
        result["Name"] = mount.name
        result["Driver"] = mount.driver or "local"
    return result
