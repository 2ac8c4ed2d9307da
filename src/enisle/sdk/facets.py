"""The parts of the API as methods, defined once for both clients.

A method builds a request of this package's modules and has its parameters; it gives the answer with ``Client``, and a
coroutine of the answer with ``AsyncClient``.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from enisle.sdk import builds, execs, images, instances, networks, system, volumes

if TYPE_CHECKING:
    import socket

    from enisle.sdk.aio import AsyncClient, AsyncExchange, Stream
    from enisle.sdk.client import Client, Exchange
    from enisle.sdk.request import Request

T = TypeVar("T")
P = ParamSpec("P")
C = TypeVar("C", "Client", "AsyncClient")


class Facet(Generic[C]):
    """A part of the API; its methods carry out the requests of one module."""

    def __init__(self, client: C) -> None:
        self.client: C = client


def _bound(carry_out: Callable[[Request[Any]], Any], build: Callable[P, Request[Any]]) -> Callable[P, Any]:
    @wraps(build)
    def method(*args: P.args, **kwargs: P.kwargs) -> Any:
        return carry_out(build(*args, **kwargs))

    return method


class Calling(Generic[P, T]):
    """A method that carries out the request which ``build`` makes, and gives its answer."""

    def __init__(self, build: Callable[P, Request[T]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, facet: Facet[Client], owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, facet: Facet[AsyncClient], owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, facet: None, owner: type) -> Calling[P, T]: ...
    def __get__(self, facet: Facet[Any] | None, owner: type) -> Any:
        return self if facet is None else _bound(facet.client.call, self._build)


class Opening(Generic[P]):
    """As ``Calling``, for answers that are read while they come."""

    def __init__(self, build: Callable[P, Request[Any]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, facet: Facet[Client], owner: type) -> Callable[P, Exchange]: ...
    @overload
    def __get__(self, facet: Facet[AsyncClient], owner: type) -> Callable[P, Coroutine[Any, Any, AsyncExchange]]: ...
    @overload
    def __get__(self, facet: None, owner: type) -> Opening[P]: ...
    def __get__(self, facet: Facet[Any] | None, owner: type) -> Any:
        return self if facet is None else _bound(facet.client.open, self._build)


class Hijacking(Generic[P]):
    """As ``Calling``, for requests that turn into a bare stream."""

    def __init__(self, build: Callable[P, Request[Any]]) -> None:
        self._build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, facet: Facet[Client], owner: type) -> Callable[P, tuple[socket.socket, bytes]]: ...
    @overload
    def __get__(
        self, facet: Facet[AsyncClient], owner: type
    ) -> Callable[P, Coroutine[Any, Any, tuple[Stream, bytes]]]: ...
    @overload
    def __get__(self, facet: None, owner: type) -> Hijacking[P]: ...
    def __get__(self, facet: Facet[Any] | None, owner: type) -> Any:
        return self if facet is None else _bound(facet.client.hijack, self._build)


class Instances(Facet[C]):
    """Instances behind either wall."""

    list = Calling(instances.list_all)
    get = Calling(instances.get)
    create = Calling(instances.create)
    start = Calling(instances.start)
    stop = Calling(instances.stop)
    restart = Calling(instances.restart)
    kill = Calling(instances.kill)
    pause = Calling(instances.pause)
    unpause = Calling(instances.unpause)
    remove = Calling(instances.remove)
    rename = Calling(instances.rename)
    update = Calling(instances.update)
    resize = Calling(instances.resize)
    top = Calling(instances.top)
    changes = Calling(instances.changes)
    prune = Calling(instances.prune)
    stat = Calling(instances.stat)
    put = Calling(instances.put)
    commit = Calling(instances.commit)
    wait = Calling(instances.wait)
    stats_once = Calling(instances.stats_once)
    open_wait = Opening(instances.wait)
    open_logs = Opening(instances.logs)
    open_stats = Opening(instances.stats)
    open_archive = Opening(instances.archive)
    open_export = Opening(instances.export)
    attach = Hijacking(instances.attach)


class Execs(Facet[C]):
    """Processes run inside instances."""

    create = Calling(execs.create)
    start_detached = Calling(execs.start_detached)
    start = Hijacking(execs.start)
    get = Calling(execs.get)
    resize = Calling(execs.resize)


class Images(Facet[C]):
    """Images."""

    list = Calling(images.list_all)
    get = Calling(images.get)
    history = Calling(images.history)
    tag = Calling(images.tag)
    remove = Calling(images.remove)
    prune = Calling(images.prune)
    open_pull = Opening(images.pull)
    open_push = Opening(images.push)
    open_load = Opening(images.load)
    open_save = Opening(images.save)
    open_files = Opening(images.files)
    open_import = Opening(images.import_tar)
    open_bootstrap = Opening(images.bootstrap)


class Builds(Facet[C]):
    """Builds of images."""

    open_build = Opening(builds.build)
    prune = Calling(builds.prune)


class Volumes(Facet[C]):
    """Volumes."""

    list = Calling(volumes.list_all)
    get = Calling(volumes.get)
    create = Calling(volumes.create)
    remove = Calling(volumes.remove)
    prune = Calling(volumes.prune)
    open_export = Opening(volumes.export)
    import_tar = Calling(volumes.import_tar)
    clone = Calling(volumes.clone)
    rename = Calling(volumes.rename)
    resize = Calling(volumes.resize)
    snapshots = Calling(volumes.snapshots)
    take_snapshot = Calling(volumes.take_snapshot)
    restore = Calling(volumes.restore)
    remove_snapshot = Calling(volumes.remove_snapshot)


class Networks(Facet[C]):
    """Networks."""

    list = Calling(networks.list_all)
    get = Calling(networks.get)
    create = Calling(networks.create)
    remove = Calling(networks.remove)
    connect = Calling(networks.connect)
    disconnect = Calling(networks.disconnect)
    prune = Calling(networks.prune)


class System(Facet[C]):
    """The daemon and its host."""

    ping = Calling(system.ping)
    version = Calling(system.version)
    info = Calling(system.info)
    disk_usage = Calling(system.disk_usage)
    doctor = Calling(system.doctor)
    login = Calling(system.login)
    open_events = Opening(system.events)
