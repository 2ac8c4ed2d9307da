"""Enisled's end of the resolver: starts it when first needed, finds it again, tells it names."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from enisle.linux.route import Route
from enisle.model.instance import Endpoint
from enisle.model.network import Network
from enisle.network.resolv_conf import is_within
from enisle.wire import frames
from enisle.wire.frames import Message
from enisle.wire.names import SOCKET_NAME as KEEPERS_SOCKET_NAME

_log = logging.getLogger(__name__)

GENERATION = 4  # of what is said on the socket; raised when the resolver of an older enisled would not understand
SOCKET_NAME = "resolver.sock"
_PORT = 53
_PATIENCE_S = 1.0  # for the resolver, which never waits itself
_RESTART_S = 1.0
_SO_BINDTODEVICE = 25


class Names:
    """The resolver of one engine. ``resolv_conf`` and ``upstream_port`` are for tests.

    What it does never waits and never fails: instances run on without names, and the log says why.
    """

    def __init__(self, run_root: Path, *, resolv_conf: Path, upstream_port: int = _PORT) -> None:
        self._path = run_root / SOCKET_NAME
        self._keepers_path = run_root / KEEPERS_SOCKET_NAME
        self._arguments = ["--resolv-conf", str(resolv_conf), "--upstream-port", str(upstream_port)]
        self._connection: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._pid = 0
        self._networks: dict[str, Network] = {}
        self._sockets: dict[str, list[socket.socket]] = {}  # bound, and not handed over yet
        self._told: dict[str, dict[str, Message]] = {}
        self._restart: asyncio.TimerHandle | None = None

    async def open(self, networks: Sequence[Network]) -> None:
        """Go on with the resolver that an earlier enisled left, if it is there, and listen on every network."""
        running = await asyncio.to_thread(self._find)
        if self._connection:
            asyncio.get_running_loop().add_reader(self._connection.fileno(), self._on_readable)
        with Route() as route:
            for network in networks:
                facts = _facts(network, route)
                self._networks[network.id] = network
                if running.get(network.id) != facts:
                    self._bind(network)
                if self._connection:
                    self._hand_over(network, facts)
        for gone in running.keys() - self._networks.keys():
            self._send({"op": "drop", "network": gone})

    def listen(self, network: Network) -> None:
        """Answer on the gateway addresses of a network whose bridge is there; without one, to keepers only."""
        self._networks[network.id] = network
        self._bind(network)
        if self._connection:
            with Route() as route:
                self._hand_over(network, _facts(network, route))

    def drop(self, network: Network) -> None:
        """Answer no longer on that network."""
        self._networks.pop(network.id, None)
        for held in self._sockets.pop(network.id, []):
            held.close()
        self._send({"op": "drop", "network": network.id})

    def serves(self, network: Network) -> bool:
        """Whether its instances can ask us."""
        return network.id in self._networks

    def tell(self, network: Network, endpoint: str, known: Message) -> None:
        """Make an endpoint known (see :func:`known_of`); starts the resolver if it does not run yet."""
        self._told.setdefault(network.id, {})[endpoint] = known
        if self._connection is None:
            if self._restart is None:
                self._start()
        else:
            self._send({"op": "tell", "network": network.id, "endpoints": {endpoint: known}})

    def tell_all(self, told: dict[str, dict[str, Message]]) -> None:
        """All that is to be known (network id -> endpoint id -> :func:`known_of`), and nothing else."""
        self._told = told
        if self._connection:
            self._tell_all()
        elif told:
            self._start()

    def forget(self, network: Network, endpoint: str) -> None:
        if self._told.get(network.id, {}).pop(endpoint, None):
            self._send({"op": "forget", "network": network.id, "endpoint": endpoint})

    async def close(self, *, keep: bool) -> None:
        """Let go of the resolver; unless ``keep``, end it and wait until it has ended."""
        if self._restart:
            self._restart.cancel()
        for held in self._sockets.values():
            for one in held:
                one.close()
        self._sockets.clear()
        self._restart = None
        connection = self._connection
        if connection:
            asyncio.get_running_loop().remove_reader(connection.fileno())
        if not keep:
            if connection:
                await asyncio.to_thread(_quit, connection)
            if self._process:
                await asyncio.to_thread(_reap, self._process)
            for path in (self._path, self._keepers_path):
                path.unlink(missing_ok=True)
        self._disconnect()

    # the process

    def _find(self) -> dict[str, Any]:
        """Connect to the resolver of an earlier enisled; the facts of each network it answers on."""
        with ExitStack() as undo:
            connection = undo.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC))
            connection.settimeout(_PATIENCE_S)
            try:
                connection.connect(str(self._path))
                frames.send(connection, {"op": "hello"})
                decoder = frames.Decoder()
                while not (messages := decoder.feed(data := frames.receive(connection)[0])):
                    if not data:
                        return {}
                if messages[0]["generation"] != GENERATION:
                    _quit(connection)
                    return {}
            except (OSError, frames.ProtocolError):
                return {}
            undo.pop_all()
        self._connection, self._pid = connection, int(messages[0]["pid"])
        return dict(messages[0]["networks"])

    def _start(self) -> None:
        """Start the process, hand it all networks and names. It need not be up for that: sockets queue."""
        self._restart = None
        if not self._networks:
            return
        try:
            with _listening(self._path, 8) as control, _listening(self._keepers_path, 1024) as for_keepers:
                self._process = self._spawn(control, for_keepers)
                self._pid = self._process.pid
            self._connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            self._connection.settimeout(_PATIENCE_S)
            self._connection.connect(str(self._path))
        except OSError as error:
            _log.error("the resolver could not be started, names are not resolved: %s", error)
            self._disconnect()
            return
        asyncio.get_running_loop().add_reader(self._connection.fileno(), self._on_readable)
        with Route() as route:
            for network in list(self._networks.values()):
                if network.id not in self._sockets:
                    self._bind(network)
                self._hand_over(network, _facts(network, route))
        self._tell_all()

    def _tell_all(self) -> None:
        for network in self._networks:
            self._send({"op": "tell_all", "network": network, "endpoints": self._told.get(network, {})})
        self._send({"op": "told"})

    def _spawn(self, control: socket.socket, for_keepers: socket.socket) -> subprocess.Popen[bytes]:
        package_root = Path(__file__).resolve().parents[2]
        return subprocess.Popen(
            [
                sys.executable,
                "-P",
                "-m",
                "enisle.network.resolver",
                *("--control", str(control.fileno()), "--keepers", str(for_keepers.fileno())),
                *self._arguments,
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=[control.fileno(), for_keepers.fileno()],
            start_new_session=True,
            cwd="/",
            env={"PYTHONPATH": str(package_root), "PATH": os.defpath},
        )

    def _on_readable(self) -> None:
        """The resolver never speaks first: it has ended."""
        with suppress(OSError):
            if self._connection and self._connection.recv(4096):
                return
        _log.warning("the resolver has ended and is started again")
        self._disconnect()
        self._start_later()

    def _start_later(self) -> None:
        if self._restart is None:
            self._restart = asyncio.get_running_loop().call_later(_RESTART_S, self._start)

    def _disconnect(self) -> None:
        if self._connection:
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            self._connection.close()
            self._connection = None
        if self._process and self._process.poll() is not None:
            self._process = None

    # networks

    def _bind(self, network: Network) -> None:
        """Sockets for a network; where they cannot be had its instances are given the host's nameservers instead."""
        for held in self._sockets.pop(network.id, []):
            held.close()
        if not network.bridge:
            self._sockets[network.id] = []
            return
        with ExitStack() as undo:
            bound = []
            try:
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    one = undo.enter_context(_socket(network, kind))
                    bound.append(one)
            except OSError as error:
                address = gateway(network)
                _log.warning(
                    "no names on network %s: %s:%d cannot be listened on: %s", network.name, address, _PORT, error
                )
                self._networks.pop(network.id, None)
                return
            undo.pop_all()
        self._sockets[network.id] = bound

    def _hand_over(self, network: Network, facts: Message) -> None:
        bound = self._sockets.pop(network.id, None)
        if bound is not None:
            message: Message = {"op": "listen", "network": network.id, "facts": facts, "fds": len(bound)}
            self._send(message, [one.fileno() for one in bound])
            for one in bound:
                one.close()

    def _send(self, message: Message, fds: Sequence[int] = ()) -> None:
        if self._connection is None:
            return
        try:
            frames.send(self._connection, message, fds)
        except OSError as error:
            # It is stuck or ending. Half a frame may have gone out, so the connection is of no more use.
            _log.warning("the resolver does not listen (%s) and is started again", error)
            with suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
            self._disconnect()
            self._start_later()


def known_of(endpoint: Endpoint, instance_id: str) -> Message:
    """What the resolver is told of an endpoint: the fields of ``zone.Known``."""
    links = (link.partition(":") for link in (endpoint.request.links if endpoint.request else ()))
    return {
        "names": list(endpoint.dns_names),
        "addresses": addresses_of(endpoint),
        "owner": instance_id,
        "upstreams": _upstreams(endpoint),
        "links": {(alias or name).lower(): name for name, _, alias in links},
    }


def _upstreams(endpoint: Endpoint) -> list[str] | None:
    """Whom the resolver asks for it; None for the host's nameservers."""
    if not endpoint.parent:
        return list(endpoint.dns) or None
    segment = [cidr for cidr in (endpoint.ipv4, endpoint.ipv6) if cidr]
    return [each for each in endpoint.dns if not is_within(each, segment)] if endpoint.dns else None


def addresses_of(endpoint: Endpoint) -> list[str]:
    """Its addresses, IPv4 first."""
    return [cidr.partition("/")[0] for cidr in (endpoint.ipv4, endpoint.ipv6) if cidr]


def _listening(path: Path, backlog: int) -> socket.socket:
    """A listening socket for root, in place of what is there. OSError."""
    one = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        path.unlink(missing_ok=True)
        one.bind(str(path))
        path.chmod(0o600)
        one.listen(backlog)
    except OSError:
        one.close()
        raise
    return one


def _quit(connection: socket.socket) -> None:
    """Tell a resolver to end, and wait until its sockets are free."""
    with suppress(OSError):
        frames.send(connection, {"op": "quit"})
        while connection.recv(4096):
            pass


def _reap(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(_PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def gateway(network: Network) -> str:
    """Where the resolver listens on a network: its gateway, IPv4 first; "" for a network that has none."""
    return next(
        (pool.gateway for pool in sorted(network.pools, key=lambda pool: ":" in pool.subnet) if pool.gateway), ""
    )


def _socket(network: Network, kind: int) -> socket.socket:
    """A socket for queries that come from the network's bridge and nowhere else."""
    address = gateway(network)
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, kind | socket.SOCK_CLOEXEC)
    try:
        one.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, network.bridge.encode() + b"\0")
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.bind((address, _PORT))
        if kind == socket.SOCK_STREAM:
            one.listen(64)
    except OSError:
        one.close()
        raise
    return one


def _facts(network: Network, route: Route) -> Message:
    """What a listener depends on: as long as these are the same it can stay."""
    return {
        "name": network.name,
        "bridge": route.index_of(network.bridge) if network.bridge else 0,
        "gateway": gateway(network),
        "subnets": [pool.subnet for pool in network.pools],
        "internal": network.internal,
        "names": not network.builtin,
    }
