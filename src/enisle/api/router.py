"""Routes as one dictionary: finding a handler costs two or three look-ups, however many routes there are.

A pattern is a path of fixed words, ``*`` (one segment) and, once, ``**`` (one or more segments, for image names)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from enisle.api.call import Call

Handler = Callable[["Call"], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """``watch``: the client's going away cancels the handler, which changes nothing or can be undone."""

    method: str
    pattern: str
    handler: Handler
    watch: bool = False


class Router:
    """Finds the route of a method and a path without its version."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes: dict[str, dict[tuple[str, ...], Route]] = {}
        for route in routes:
            table = self._routes.setdefault(route.method, {})
            key = tuple(route.pattern.split("/"))
            if key in table:
                raise ValueError(f"two routes for {route.method} {route.pattern}")
            table[key] = route

    def find(self, method: str, path: str) -> tuple[Route, str] | None:
        """The route and what stands for its star ("" when it has none); None when there is no such route.

        ``path`` is percent-decoded, without leading slash or version.
        """
        table = self._routes.get(method)
        if table is None:
            return None
        parts = path.split("/")
        if len(parts) > 2 and parts[1] == "":  # "/containers//name/json": a name with its slash
            del parts[1]
        route = table.get(tuple(parts))
        if route is not None:
            return route, ""
        if len(parts) < 2:
            return None
        name = parts[1]
        route = table.get((parts[0], "*", *parts[2:])) if name else None
        if route is not None:
            return route, name
        route = table.get((parts[0], "**", parts[-1])) if len(parts) > 2 else None
        if route is not None:
            return route, "/".join(parts[1:-1])
        route = table.get((parts[0], "**"))
        if route is not None:
            return route, "/".join(parts[1:])
        return None
