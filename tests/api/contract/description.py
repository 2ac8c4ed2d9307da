"""Docker's description of its API, as the tests ask it: which operation a request is, and what it may answer."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from typing import Any

from tests.api.contract.reduce import REDUCED

_VERSION = re.compile(r"/v(\d+)\.(\d+)(?=/)")
VERSION = (1, 47)


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path. ``name`` is as in "GET /containers/{id}/json"."""

    name: str
    tag: str
    pattern: re.Pattern[str]
    method: str
    responses: dict[str, Any]
    produces: tuple[str, ...]


@functools.cache
def document() -> dict[str, Any]:
    """The reduced description."""
    return json.loads(REDUCED.read_text())


@functools.cache
def operations() -> tuple[Operation, ...]:
    """All of the contract's operations; those with fewer variable parts first."""
    described = document()
    found = [
        Operation(
            name=f"{method.upper()} {path}",
            tag=operation["tags"][0],
            pattern=_pattern(path),
            method=method.upper(),
            responses=operation["responses"],
            produces=tuple(operation.get("produces", described["produces"])),
        )
        for path, item in described["paths"].items()
        for method, operation in item.items()
    ]
    return tuple(sorted(found, key=lambda operation: operation.name.count("{")))


def _pattern(path: str) -> re.Pattern[str]:
    """Names of images and plugins may hold slashes."""
    segment = ".+" if path.startswith(("/images/", "/distribution/", "/plugins/")) else "[^/]+"
    return re.compile(
        "".join(segment if part.startswith("{") else re.escape(part) for part in re.split(r"(\{\w+\})", path))
    )


def find(method: str, target: str) -> tuple[Operation | None, tuple[int, int]]:
    """The operation of a request line's method and target, and the API version it asks for."""
    path = target.partition("?")[0]
    version = VERSION
    if match := _VERSION.match(path):
        version = (int(match[1]), int(match[2]))
        path = path[match.end() :]
    for operation in operations():
        if operation.method == method and operation.pattern.fullmatch(path):
            return operation, version
    return None, version
