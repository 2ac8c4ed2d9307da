"""Shapes of answers that clients of older API versions expect (Docker's "Engine API version history").

Members that a version added later are sent to older clients too: they ignore them. What an older version did not know
is honoured when a client sends it all the same.
"""

from __future__ import annotations

from typing import Any

Version = tuple[int, int]

_BUILTIN = frozenset({"bridge", "default", "host", "none"})


def image_summary(summary: dict[str, Any], version: Version) -> dict[str, Any]:
    """One entry of ``GET /images/json``. Before 1.43, clients know a dangling image by names that are no names."""
    if version < (1, 43) and not summary["RepoTags"] and not summary["RepoDigests"]:
        return {**summary, "RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]}
    return summary


def container(inspected: dict[str, Any], version: Version) -> dict[str, Any]:
    """``GET /containers/{id}/json``. Before 1.45, the aliases on the user's networks held short id and host name:
    compose v1 connects a container anew to each network where it does not find the id."""
    if version >= (1, 45):
        return inspected
    networks = {}
    for name, endpoint in inspected["NetworkSettings"]["Networks"].items():
        networks[name] = endpoint
        if name not in _BUILTIN:
            names = [*(endpoint["Aliases"] or ()), inspected["Id"][:12], inspected["Config"]["Hostname"]]
            networks[name] = {**endpoint, "Aliases": [alias for alias in dict.fromkeys(names) if alias]}
    return {**inspected, "NetworkSettings": {**inspected["NetworkSettings"], "Networks": networks}}


def info(facts: dict[str, Any], version: Version) -> dict[str, Any]:
    """``GET /info``. Before 1.25, security options were bare names."""
    if version >= (1, 25):
        return facts
    names = [option.partition(",")[0].removeprefix("name=") for option in facts["SecurityOptions"]]
    return {**facts, "SecurityOptions": names}


def lists_members(version: Version) -> bool:
    """Whether ``GET /networks`` tells who is on each network."""
    return version < (1, 28)
