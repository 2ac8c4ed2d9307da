"""Events in Docker's words, and their filters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from enisle.api.query import Filters, labels_match
from enisle.api.times import SECOND_NS
from enisle.model.event import Event

ACCEPTED = frozenset(
    "config container daemon event image label network node plugin scope secret service type volume".split()
)
_BY_OBJECT = ("container", "daemon", "network", "volume", "plugin", "service", "node", "secret", "config")


def event_json(event: Event) -> dict[str, Any]:
    """One message of ``GET /events``; status, id and from are what old clients read."""
    result: dict[str, Any] = {}
    if event.kind in ("container", "image"):
        result["status"] = event.action
        result["id"] = event.actor
        if event.kind == "container" and "image" in event.attributes:
            result["from"] = event.attributes["image"]
    result.update(
        Type=event.kind,
        Action=event.action,
        Actor={"ID": event.actor, "Attributes": event.attributes},
        scope="local",
        time=event.time // SECOND_NS,
        timeNano=event.time,
    )
    return result


def matcher(filters: Filters) -> Callable[[Event], bool]:
    """Values of one filter are alternatives, labels excepted; filters are all to hold."""
    types, actions, scopes = filters.get("type", []), filters.get("event", []), filters.get("scope", [])
    labels, images = filters.get("label", []), filters.get("image", [])
    objects = {kind: filters[kind] for kind in _BY_OBJECT if filters.get(kind)}

    def match(event: Event) -> bool:
        return (
            (not types or event.kind in types)
            and (not scopes or "local" in scopes)
            and (not actions or event.action in actions or event.action.partition(":")[0] in actions)
            and labels_match(labels, event.attributes)
            and (not images or _is_image(event, images))
            and (not objects or any(_is_object(event, kind, names) for kind, names in objects.items()))
        )

    return match


def _is_object(event: Event, kind: str, names: list[str]) -> bool:
    """Of that kind, and named by id, beginning of the id, or name."""
    if event.kind != kind:
        return False
    name = event.attributes.get("name", "")
    return any(event.actor.startswith(wanted) or name == wanted.removeprefix("/") for wanted in names if wanted)


def _is_image(event: Event, images: list[str]) -> bool:
    """An event of the image, or of an instance made from it; a name without tag stands for all of its tags."""
    names = {event.attributes.get("image", "")}
    if event.kind == "image":
        names |= {event.actor, event.attributes.get("name", "")}
    names |= {name.rpartition(":")[0] for name in names if ":" in name}
    return any(image in names for image in images)
