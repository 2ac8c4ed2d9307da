"""The blocking client: plain sockets, no event loop."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import AsyncIterable, Callable, Iterator
from typing import Any, Concatenate, ParamSpec, TypeVar

from enisle.errors import Unavailable
from enisle.sdk import address, builds, execs, images, instances, networks, system, volumes
from enisle.sdk.framing import FrameDecoder
from enisle.sdk.http1 import BodyDecoder, Head, request_head, split_head
from enisle.sdk.request import API_VERSION, Reply, Request, failure

T = TypeVar("T")
P = ParamSpec("P")
_READ_BYTES = 256 << 10


class Exchange:
    """One request on one connection: the head has come, the body is read by iterating. Close it, or use ``with``.

    A connection that was read to its end goes back to the client for the next request.
    """

    def __init__(self, client: Client, connection: socket.socket, head: Head, rest: bytes, *, method: str) -> None:
        self.head = head
        self._client = client
        self._connection: socket.socket | None = connection
        self._decoder = BodyDecoder(head, method=method)
        self._rest = rest

    @property
    def status(self) -> int:
        return self.head.status

    def __enter__(self) -> Exchange:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    @property
    def ready(self) -> bool:
        """Whether ``read`` has something to give without waiting: then the descriptor may never poll readable."""
        return bool(self._rest) or self._decoder.done

    def fileno(self) -> int:
        """The connection's descriptor, to poll for more of the body once it is not ``ready``."""
        return self._connection.fileno() if self._connection else -1

    def __iter__(self) -> Iterator[bytes]:
        """Pieces of the body as they come."""
        while piece := self.read():
            yield piece

    def read(self) -> bytes:
        """The next piece of the body; empty at its end. Raises Unavailable when the connection breaks off."""
        while not self._decoder.done and self._connection is not None:
            data, self._rest = self._rest, b""
            if not data:
                data = _receive(self._connection)
                if not data:
                    self._decoder.end()
                    break
            if piece := self._decoder.feed(data):
                return piece
        return b""

    def objects(self) -> Iterator[dict[str, Any]]:
        """The body as JSON objects, one after the other as they come (events, progress, stats)."""
        decoder = json.JSONDecoder()
        text = ""
        pending = b""
        for piece in self:
            whole, newline, pending = (pending + piece).rpartition(b"\n")
            if newline:
                text = yield from _objects(decoder, text + whole.decode("utf-8", "replace") + "\n")
            elif pending.endswith(b"}"):
                # Docker's stats come without line breaks: try, and wait for more if it is half an object.
                rest = yield from _objects(decoder, text + pending.decode("utf-8", "replace"))
                if not rest:
                    text, pending = "", b""
        yield from _objects(decoder, text + pending.decode("utf-8", "replace"))

    def frames(self) -> Iterator[tuple[int, bytes]]:
        """The body as (stream, data) of Docker's framing."""
        decoder = FrameDecoder()
        for piece in self:
            yield from decoder.feed(piece)

    def reply(self) -> Reply:
        """The whole response."""
        body = b"".join(self)
        self.close()
        return Reply(self.head.status, self.head.headers, body)

    def reply_head(self) -> Reply:
        """The response without its body, which is still to be read."""
        return Reply(self.head.status, self.head.headers, b"")

    def detach(self) -> tuple[socket.socket, bytes]:
        """The bare connection, now the caller's, and what was read of it after the head (hijacking)."""
        if self._connection is None:
            raise Unavailable("The connection is closed.")
        connection, self._connection = self._connection, None
        return connection, self._rest

    def close(self) -> None:
        """Give the connection back to the client if it can serve another request, else close it."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        reusable = self._decoder.done and not self._decoder.rest and not self._rest
        if reusable and self.head.headers.get("connection", "").lower() != "close" and self.head.status != 101:
            self._client.give_back(connection)
        else:
            connection.close()


class Client:
    """The API, blocking. ``host`` as in ENISLE_HOST (unix:///path or tcp://host:port); None: from the environment.

    Failures are :mod:`enisle.errors`. Not for use by several threads at once: give each its own.
    """

    def __init__(self, host: str | None = None) -> None:
        self.address = address.parse(host) if host else address.from_environment()
        self.version = os.environ.get("DOCKER_API_VERSION") or API_VERSION
        self._idle: list[socket.socket] = []
        self.instances = Instances(self)
        self.execs = Execs(self)
        self.builds = Builds(self)
        self.images = Images(self)
        self.volumes = Volumes(self)
        self.networks = Networks(self)
        self.system = System(self)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close idle connections; exchanges under way keep theirs."""
        while self._idle:
            self._idle.pop().close()

    def give_back(self, connection: socket.socket) -> None:
        """An idle connection for a later request."""
        if len(self._idle) < 2:
            self._idle.append(connection)
        else:
            connection.close()

    def call(self, request: Request[T]) -> T:
        """Carry out a request and read its whole answer."""
        with self.open(request) as exchange:
            return request.parse(exchange.reply())

    def open(self, request: Request[Any]) -> Exchange:
        """Send a request; the exchange once its head has come. Raises what a status of 300 or more stands for."""
        exchange = self._exchange(request)
        while 100 <= exchange.status < 200 and exchange.status != 101:
            connection, rest = exchange.detach()
            exchange = self._receive_head(connection, rest, method=request.method)
        if exchange.status >= 300:
            raise failure(exchange.reply())
        return exchange

    def hijack(self, request: Request[Any]) -> tuple[socket.socket, bytes]:
        """Send a request that turns its connection into a bare stream; the stream and its first bytes."""
        return self.open(request.with_hijack()).detach()

    def _exchange(self, request: Request[Any]) -> Exchange:
        while self._idle:
            connection = self._idle.pop()
            # An idle connection that polls readable was closed by the server: do not risk a request on it.
            if not _is_quiet(connection):
                connection.close()
                continue
            try:
                self._send(connection, request)
                return self._receive_head(connection, b"", method=request.method)
            except Unavailable:
                # Closed just now. What only reads can be asked again (RFC 9110, 9.2.2); what acts may have been done.
                if request.method not in ("GET", "HEAD"):
                    raise
        connection = address.connect(self.address)
        self._send(connection, request)
        return self._receive_head(connection, b"", method=request.method)

    def _send(self, connection: socket.socket, request: Request[Any]) -> None:
        body = request.body
        headers = {"Host": "enisle", "User-Agent": "enisle"} | request.headers
        if isinstance(body, AsyncIterable):
            raise TypeError("an asynchronous body needs the AsyncClient")
        if isinstance(body, bytes):
            headers["Content-Length"] = str(len(body))
        elif body is not None:
            headers["Transfer-Encoding"] = "chunked"
        elif request.method in ("POST", "PUT"):
            headers["Content-Length"] = "0"
        head = request_head(request.method, request.target(self.version), headers)
        try:
            if isinstance(body, bytes) or body is None:
                connection.sendall(head + (body or b""))
                return
            connection.sendall(head)
            for piece in body:
                if piece:
                    connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            connection.sendall(b"0\r\n\r\n")
        except (BrokenPipeError, ConnectionResetError):
            # The server has answered (an error, say) before it had read everything: its answer tells more.
            return
        except BaseException:
            connection.close()
            raise

    def _receive_head(self, connection: socket.socket, data: bytes, *, method: str) -> Exchange:
        try:
            while (split := split_head(data)) is None:
                piece = _receive(connection)
                if not piece:
                    raise Unavailable(f"The Enisle daemon at {self.address.text} closed the connection.")
                data += piece
        except BaseException:
            connection.close()
            raise
        return Exchange(self, connection, split[0], split[1], method=method)


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(_READ_BYTES)
    except OSError as error:
        raise Unavailable(f"The connection to the Enisle daemon broke off: {error.strerror or error}.") from error


def _is_quiet(connection: socket.socket) -> bool:
    import select

    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLHUP | select.POLLERR)
    return not poll.poll(0)


def _objects(decoder: json.JSONDecoder, text: str) -> Any:
    """Yield the objects text begins with; returns what is left of it. Broken JSON is left as it is."""
    position = 0
    while True:
        while position < len(text) and text[position] in " \t\r\n":
            position += 1
        if position == len(text):
            return ""
        try:
            value, position = decoder.raw_decode(text, position)
        except ValueError:
            return text[position:]
        yield value


class _Facet:
    """A part of the API; its methods carry out the requests of one module."""

    def __init__(self, client: Client) -> None:
        self._client = client


def _calling(build: Callable[P, Request[T]]) -> Callable[Concatenate[_Facet, P], T]:
    """A method with the parameters of ``build`` that carries out the request it builds."""

    def method(self: _Facet, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._client.call(build(*args, **kwargs))

    method.__doc__ = build.__doc__
    return method


def _opening(build: Callable[P, Request[Any]]) -> Callable[Concatenate[_Facet, P], Exchange]:
    """As ``_calling``, for answers that are read while they come."""

    def method(self: _Facet, /, *args: P.args, **kwargs: P.kwargs) -> Exchange:
        return self._client.open(build(*args, **kwargs))

    method.__doc__ = build.__doc__
    return method


def _hijacking(build: Callable[P, Request[Any]]) -> Callable[Concatenate[_Facet, P], tuple[socket.socket, bytes]]:
    """As ``_calling``, for requests that turn into a bare stream."""

    def method(self: _Facet, /, *args: P.args, **kwargs: P.kwargs) -> tuple[socket.socket, bytes]:
        return self._client.hijack(build(*args, **kwargs))

    method.__doc__ = build.__doc__
    return method


class Instances(_Facet):
    """Instances behind either wall."""

    list = _calling(instances.list_all)
    get = _calling(instances.get)
    create = _calling(instances.create)
    start = _calling(instances.start)
    stop = _calling(instances.stop)
    restart = _calling(instances.restart)
    kill = _calling(instances.kill)
    pause = _calling(instances.pause)
    unpause = _calling(instances.unpause)
    remove = _calling(instances.remove)
    rename = _calling(instances.rename)
    update = _calling(instances.update)
    resize = _calling(instances.resize)
    top = _calling(instances.top)
    changes = _calling(instances.changes)
    prune = _calling(instances.prune)
    stat = _calling(instances.stat)
    put = _calling(instances.put)
    commit = _calling(instances.commit)
    wait = _calling(instances.wait)
    stats_once = _calling(instances.stats_once)
    open_wait = _opening(instances.wait)
    open_logs = _opening(instances.logs)
    open_stats = _opening(instances.stats)
    open_archive = _opening(instances.archive)
    open_export = _opening(instances.export)
    attach = _hijacking(instances.attach)


class Execs(_Facet):
    """Processes run inside instances."""

    create = _calling(execs.create)
    start_detached = _calling(execs.start_detached)
    start = _hijacking(execs.start)
    get = _calling(execs.get)
    resize = _calling(execs.resize)


class Images(_Facet):
    """Images."""

    list = _calling(images.list_all)
    get = _calling(images.get)
    history = _calling(images.history)
    tag = _calling(images.tag)
    remove = _calling(images.remove)
    prune = _calling(images.prune)
    open_pull = _opening(images.pull)
    open_push = _opening(images.push)
    open_load = _opening(images.load)
    open_save = _opening(images.save)
    open_files = _opening(images.files)
    open_import = _opening(images.import_tar)
    open_bootstrap = _opening(images.bootstrap)


class Builds(_Facet):
    """Builds of images."""

    open_build = _opening(builds.build)
    prune = _calling(builds.prune)


class Volumes(_Facet):
    """Volumes."""

    list = _calling(volumes.list_all)
    get = _calling(volumes.get)
    create = _calling(volumes.create)
    remove = _calling(volumes.remove)
    prune = _calling(volumes.prune)
    open_export = _opening(volumes.export)
    import_tar = _calling(volumes.import_tar)
    clone = _calling(volumes.clone)
    rename = _calling(volumes.rename)
    resize = _calling(volumes.resize)
    snapshots = _calling(volumes.snapshots)
    take_snapshot = _calling(volumes.take_snapshot)
    restore = _calling(volumes.restore)
    remove_snapshot = _calling(volumes.remove_snapshot)


class Networks(_Facet):
    """Networks."""

    list = _calling(networks.list_all)
    get = _calling(networks.get)
    create = _calling(networks.create)
    remove = _calling(networks.remove)
    connect = _calling(networks.connect)
    disconnect = _calling(networks.disconnect)
    prune = _calling(networks.prune)


class System(_Facet):
    """The daemon and its host."""

    ping = _calling(system.ping)
    version = _calling(system.version)
    info = _calling(system.info)
    disk_usage = _calling(system.disk_usage)
    doctor = _calling(system.doctor)
    login = _calling(system.login)
    open_events = _opening(system.events)
