"""Events about instances, as Docker's clients expect them."""

from __future__ import annotations

from enisle.engine.core import Core
from enisle.model.event import Event
from enisle.model.instance import Endpoint, Instance, MountKind


def announce(core: Core, record: Instance, action: str, *, keep: bool = True, **attributes: str) -> None:
    """Publish what happened to an instance, with its labels, image and name."""
    core.events.publish(
        Event(
            kind="container",
            action=action,
            actor=record.id,
            attributes={**record.spec.labels, "image": record.spec.image, "name": record.name, **attributes},
        ),
        keep=keep,
    )


def announce_network(core: Core, endpoint: Endpoint, action: str, instance_id: str) -> None:
    """Publish that an instance was connected to, or disconnected from, a network."""
    core.events.publish(
        Event(
            kind="network",
            action=action,
            actor=endpoint.network_id,
            attributes={"container": instance_id, "name": endpoint.network, "type": "bridge"},
        )
    )


def announce_volumes(core: Core, record: Instance, action: str) -> None:
    """Publish that an instance's volumes were mounted in it, or no longer are."""
    for mount in record.mounts:
        if mount.kind is not MountKind.VOLUME:
            continue
        attributes = {"container": record.id, "driver": mount.driver or "local"}
        if action == "mount":
            attributes |= {"destination": mount.target, "propagation": mount.propagation}
            attributes["read/write"] = "false" if mount.read_only else "true"
        core.events.publish(Event(kind="volume", action=action, actor=mount.name, attributes=attributes))
