"""Docker's routes that we answer as a dockerd without Swarm and plugins does."""

from __future__ import annotations

from aiohttp import web

from enisle.api.call import Call
from enisle.api.reply import json_response
from enisle.api.router import Handler, Route
from enisle.errors import NotFound, NotSupported, Unavailable


async def _not_a_manager(_call: Call) -> web.StreamResponse:
    raise Unavailable(
        'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to '
        "swarm and try again."
    )


async def _no_swarm(_call: Call) -> web.StreamResponse:
    raise NotSupported("Swarm is not offered by this engine.")


async def _not_part_of_swarm(_call: Call) -> web.StreamResponse:
    raise Unavailable("This node is not part of a swarm")


async def _no_plugins(_call: Call) -> web.StreamResponse:
    return json_response([])


async def _no_such_plugin(call: Call) -> web.StreamResponse:
    raise NotFound(f'plugin "{call.name}" not found')


async def _plugins_refused(_call: Call) -> web.StreamResponse:
    raise NotSupported("plugins are not offered by this engine.")


async def _no_checkpoints(call: Call) -> web.StreamResponse:
    await call.engine.instances.get(call.name)
    raise NotSupported("checkpoints are not offered by this engine.")


def _manager_routes() -> list[Route]:
    routes = [
        Route("GET", "swarm", _not_a_manager),
        Route("POST", "swarm/init", _no_swarm),
        Route("POST", "swarm/join", _no_swarm),
        Route("POST", "swarm/leave", _not_part_of_swarm),
        Route("POST", "swarm/update", _not_a_manager),
        Route("GET", "swarm/unlockkey", _not_a_manager),
        Route("POST", "swarm/unlock", _not_a_manager),
        Route("GET", "services/*/logs", _not_a_manager),
        Route("GET", "tasks", _not_a_manager),
        Route("GET", "tasks/*", _not_a_manager),
        Route("GET", "tasks/*/logs", _not_a_manager),
    ]
    for kind in ("nodes", "services", "secrets", "configs"):
        for method, path in (("GET", ""), ("GET", "/*"), ("DELETE", "/*"), ("POST", "/*/update")):
            routes.append(Route(method, kind + path, _not_a_manager))
        if kind != "nodes":
            routes.append(Route("POST", f"{kind}/create", _not_a_manager))
    return routes


def _plugin_routes() -> list[Route]:
    refused: list[tuple[str, str, Handler]] = [
        ("GET", "plugins", _no_plugins),
        ("GET", "plugins/privileges", _plugins_refused),
        ("POST", "plugins/pull", _plugins_refused),
        ("POST", "plugins/create", _plugins_refused),
        ("GET", "plugins/**/json", _no_such_plugin),
        ("DELETE", "plugins/**", _no_such_plugin),
    ]
    refused += [
        ("POST", f"plugins/**/{verb}", _no_such_plugin) for verb in ("enable", "disable", "push", "set", "upgrade")
    ]
    return [Route(*entry) for entry in refused]


ROUTES = [
    *_manager_routes(),
    *_plugin_routes(),
    Route("GET", "containers/*/checkpoints", _no_checkpoints),
    Route("POST", "containers/*/checkpoints", _no_checkpoints),
]
