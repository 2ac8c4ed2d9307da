"""A host with an engine's networks, its instances and its neighbours, each in a network namespace."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import socket
import subprocess
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import msgspec
import uvloop

from enisle.drivers.base import nic_plan
from enisle.linux.nics import plug
from enisle.linux.route import Route
from enisle.model.ids import NetworkId, new_id
from enisle.model.instance import BoundPort, Endpoint, EndpointRequest, PublishedPort
from enisle.model.network import Network
from enisle.network.bridge import BridgeNetworks
from enisle.network.names import SOCKET_NAME
from enisle.state.memory import MemoryStore
from enisle.wire import frames
from tests.linux.netns import Namespace, nft

T = TypeVar("T")
_numbers = itertools.count()
_REFUSED_S = 0.5  # long enough for a packet between namespaces, thousands of times over
_DEADLINE_S = 10.0


def reach(address: str, port: int) -> str:
    """``connect`` with the patience that a busy machine needs, for servers that are to be reached."""
    return connect(address, port, patience_s=_DEADLINE_S)


def connect(address: str, port: int, *, patience_s: float = _REFUSED_S) -> str:
    """What a server says to a client here, "" when it cannot be reached."""
    try:
        with socket.create_connection((address, port), timeout=patience_s) as connection:
            return connection.recv(100).decode()
    except OSError:
        return ""


def datagram(address: str, port: int) -> bytes:
    """What comes back for a datagram sent from here, b"" when nothing does."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(_REFUSED_S)
        try:
            client.connect((address, port))
            client.send(b"ping")
            return client.recv(100)
        except OSError:
            return b""


class Host(Namespace):
    """A machine with BridgeNetworks; ``beside`` another one in the same namespace."""

    def __init__(
        self, directory: Path, *, prepare: Callable[[], None] | None = None, beside: Host | None = None
    ) -> None:
        super().__init__()
        self._prepare = prepare
        self._beside = beside
        self.name = f"t{os.getpid() % 10000}{next(_numbers)}"
        self.store = MemoryStore()
        self.run_root = directory / self.name
        self.run_root.mkdir(parents=True)
        self.resolv_conf = directory / "resolv.conf"
        if not self.resolv_conf.exists():
            self.resolv_conf.write_text("nameserver 198.51.100.9\nsearch lan\n")
        self.loop = uvloop.new_event_loop() if beside is None else beside.loop
        self._closed = False

    def __enter__(self) -> Self:
        if self._beside is None:
            super().__enter__()
            self.run(_loopback_up)
        if self._prepare:
            self.run(self._prepare)
        self.links_before = self.links()
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close(keep=False)
        if self._beside is None:
            self.run(self.loop.close)
            super().__exit__(kind, error, trace)

    def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        if self._beside is not None:
            return self._beside.run(function, *args, **kwargs)
        return super().run(function, *args, **kwargs)

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine run by the engine's loop."""
        return self.run(self.loop.run_until_complete, work)

    def open(self) -> None:
        self.networks = BridgeNetworks(
            self.store, name=self.name, run_root=self.run_root, resolv_conf=self.resolv_conf, upstream_port=53
        )
        self.do(self.networks.open())
        self.default = next(each for each in self.do(self.networks.all()) if each.name == "bridge")

    def close(self, *, keep: bool) -> None:
        if not self._closed:
            self.do(self.networks.close(keep=keep))
        self._closed = not keep

    def restart(self) -> None:
        """End the engine's process, so to speak, and start another."""
        self.close(keep=True)
        self.open()

    def resolver_pid(self) -> int:
        """The pid of the engine's resolver, 0 if there is none."""
        return self.run(_resolver_pid, self.run_root / SOCKET_NAME)

    def small_monitor(self) -> None:
        """Have the socket that watches for removed rules overrun by a handful of them."""
        monitor = self.networks._firewall._monitor
        assert monitor is not None
        monitor._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)

    def turn(self, seconds: float) -> None:
        """Let the engine's loop run."""
        self.do(asyncio.sleep(seconds))

    def create_network(self, name: str, **fields: Any) -> Network:
        return self.do(self.networks.create(Network(id=NetworkId(""), name=name, **fields)))

    def nft(self, script: str) -> str:
        """What nft prints; CalledProcessError when it refuses."""
        return self.run(nft, script)

    def engine_table(self) -> str:
        """As nft shows it; "" when it is not there."""
        try:
            return self.nft(f"list table inet {self.name}")
        except subprocess.CalledProcessError:
            return ""

    def filter_bridged(self, flag: str) -> None:
        """Set whether iptables and nftables see what the host's bridges carry ("1", once br_netfilter is loaded)."""
        setting = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")
        if self.run(setting.exists):
            self.run(setting.write_text, flag)

    def links(self) -> list[str]:
        def work() -> list[str]:
            with Route() as route:
                return sorted(link.name for link in route.links())

        return self.run(work)

    def wait_until(self, condition: Callable[[], bool]) -> None:
        """Let the engine's loop run until something is so; fails after some seconds."""

        async def turn() -> None:
            await asyncio.sleep(0.01)

        for _ in range(int(_DEADLINE_S / 0.01)):
            if condition():
                return
            self.do(turn())
        raise AssertionError("it did not come about")


class Instance(Namespace):
    """A namespace with a NIC as a keeper makes it."""

    def __init__(
        self, host: Host, name: str, network: Network | None = None, *, dns: tuple[str, ...] = (), **request: Any
    ) -> None:
        super().__init__()
        self.host = host
        self.id = new_id()
        self.network = network or host.default
        self.name = name
        self._request = EndpointRequest(network=self.network.name, **request)
        self._dns = dns
        self._bound: list[BoundPort] = []
        self._second: tuple[Network, Endpoint] | None = None
        self._port_sockets: list[int] = []

    def __enter__(self) -> Self:
        super().__enter__()
        networks = self.host.networks
        attaching = networks.attach(self.network, self.id, [self.name], self._request, 0, dns=self._dns)
        self.endpoint = self.host.do(attaching)
        self.ipv4 = self.endpoint.ipv4.partition("/")[0]
        self.host.run(plug, [nic_plan(self.endpoint, published=True)], self.pid)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self.host.run(_delete_link, self.endpoint.host_ifname)
        self.unpublish()
        for network, endpoint in ((self.network, self.endpoint), *([self._second] if self._second else [])):
            self.host.do(self.host.networks.detach(network, endpoint))
        super().__exit__(kind, error, trace)

    def connect(self, network: Network) -> None:
        """Join a second network while running."""
        request = EndpointRequest(network=network.name)
        self._second = network, self.host.do(self.host.networks.attach(network, self.id, [self.name], request, 1))
        self.host.run(plug, [nic_plan(self._second[1])], self.pid)

    def publish(self, *ports: PublishedPort) -> list[BoundPort]:
        bound, fds = self.host.do(self.host.networks.publish(self.id, self.endpoint, ports))
        self._port_sockets += fds
        self._bound += bound
        return bound

    def unpublish(self) -> None:
        self.host.do(self.host.networks.unpublish(self.id))
        for fd in self._port_sockets:
            os.close(fd)
        self._port_sockets.clear()

    def store(self) -> None:
        """Write the instance's record, as the engine does."""
        record = {"id": self.id, "name": self.name, "endpoints": [self.endpoint], "bound_ports": self._bound}
        self.host.do(self.host.store.commit({f"instances/{self.id}": msgspec.json.encode(record)}))

    def default_route(self, gateway: str) -> None:
        self.run(_default_route, gateway)

    def claim_loopback(self, gateway: str) -> None:
        self.run(_claim_loopback, gateway)


class Lan(Namespace):
    """Another machine on the host's segment."""

    address, host_address = "198.51.100.2", "198.51.100.1"
    address6, host_address6 = "fd00:99::2", "fd00:99::1"

    def __init__(self, host: Host) -> None:
        super().__init__()
        self._host = host

    def __enter__(self) -> Self:
        super().__enter__()
        self._host.run(self._plug)
        self.run(self._configure)
        self._host.run(_wait_carrier, "lan0")
        return self

    def _plug(self) -> None:
        with Route() as route:
            route.create_veth("lan0", "eth0", peer_pid=self.pid, up=True)
            route.add_address("lan0", f"{self.host_address}/24")
            route.add_address("lan0", f"{self.host_address6}/64")

    def _configure(self) -> None:
        with Route() as route:
            route.configure("eth0", addresses=[f"{self.address}/24", f"{self.address6}/64"])

    def route(self, destination: str, gateway: str) -> None:
        def work() -> None:
            with Route() as route:
                route.add_route(destination, gateway=gateway)

        self.run(work)

    def claim_loopback(self, gateway: str) -> None:
        """Send what is for 127.0.0.1 to the host."""
        self.run(_claim_loopback, gateway)


def _resolver_pid(path: Path) -> int:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_DEADLINE_S)
        try:
            connection.connect(str(path))
            frames.send(connection, {"op": "hello"})
            (answer,) = frames.Decoder().feed(connection.recv(65536))
        except OSError:
            return 0
        return int(answer["pid"])


def _wait_carrier(name: str) -> None:
    with Route() as route:
        assert route.wait_carrier(name)


def _loopback_up() -> None:
    with Route() as route:
        route.link_up("lo")


def _delete_link(name: str) -> None:
    with Route() as route:
        route.delete_link(name)


def _default_route(gateway: str) -> None:
    with Route() as route:
        route.add_default_route(gateway)


def _claim_loopback(gateway: str) -> None:
    """Have packets for 127.0.0.1 leave by eth0, as only an attacker would."""
    Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
    with Route() as route:
        link = "eth0"
        route.link_down("lo")
        route.add_route("127.0.0.1/32", gateway=gateway, link=link)
