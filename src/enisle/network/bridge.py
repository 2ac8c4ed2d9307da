"""Bridge networks: addresses, published ports and names for instances behind either wall."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from enisle.contracts import StateStore
from enisle.errors import Conflict, Denied, EnisleError, Exhausted, Internal, Invalid
from enisle.linux import conntrack
from enisle.linux.route import Route, pack_mac
from enisle.model.ids import NetworkId, new_id
from enisle.model.instance import BoundPort, Endpoint, EndpointRequest, InstanceSpec, PublishedPort, way_out
from enisle.model.network import Network
from enisle.network import definitions, devices, host, ports, records, resolv_conf
from enisle.network.addresses import Subnet, mac_of
from enisle.network.firewall import Firewall
from enisle.network.names import Names, addresses_of, gateway, known_of
from enisle.network.ruleset import ICC, Forward
from enisle.wire.frames import Message

_log = logging.getLogger(__name__)


class BridgeNetworks:
    """Implements contracts.NetworkProvider for one host.

    ``name`` keeps several engines of one host apart: bridges, tables and interfaces are named after it.
    ``resolv_conf`` is the host's, ``upstream_port`` its nameservers' (other than 53 in tests only).
    """

    def __init__(
        self,
        store: StateStore,
        *,
        name: str,
        run_root: Path,
        default_subnet: str = "",
        resolv_conf: Path = Path("/etc/resolv.conf"),
        upstream_port: int = 53,
    ) -> None:
        self._store = store
        self._name = name
        self._default_subnet = default_subnet
        self._resolv_conf = resolv_conf
        self._networks: dict[str, Network] = {}
        self._subnets: dict[str, list[Subnet]] = {}
        self._interfaces: set[str] = set()
        self._labels: dict[str, str] = {}  # endpoint id -> name of its instance, for messages
        self._failure: EnisleError | None = None
        self._firewall = Firewall(name, devices.port_prefix(name), self._bridges)
        self._names = Names(run_root, resolv_conf=resolv_conf, upstream_port=upstream_port)

    # life

    async def open(self) -> None:
        """Make kernel and resolver what the store says. A host that cannot have bridges is told so by attach."""
        stored = {network.name: network for network in await records.load_networks(self._store)}
        holdings = await records.load_holdings(self._store)
        networks = [*definitions.builtins(self._name, stored), *(each for each in stored.values() if not each.builtin)]
        in_use = {endpoint.network_id for held in holdings for endpoint in held.endpoints}
        with host.choosing_alone(), Route() as route:
            for network in networks:
                try:
                    self._admit(self._settle(route, network, in_use))
                except (EnisleError, OSError) as error:
                    self._fail(error)
                    self._admit(network)
        for network in self._networks.values():
            if stored.get(network.name) != network:
                await records.save(self._store, network)
        self._restore(holdings)
        forwards = {held.id: found for held in holdings if (found := _stored_forwards(held))}
        try:
            self._firewall.open(forwards)
        except EnisleError as error:
            self._fail(error)
        if not self._failure:
            await self._names.open(self._bridges())
            self._names.tell_all(self._known(holdings))

    async def close(self, *, keep: bool) -> None:
        await self._names.close(keep=keep)
        self._firewall.close(keep=keep)
        if not keep:
            with Route() as route:
                for network in self._bridges():
                    devices.remove(route, network.bridge)

    def _fail(self, error: EnisleError | OSError) -> None:
        self._failure = error if isinstance(error, EnisleError) else Internal(f"networks cannot be set up: {error}")
        _log.error("%s", self._failure)

    def _bridges(self) -> list[Network]:
        return [network for network in self._networks.values() if network.driver == "bridge"]

    def _settle(self, route: Route, network: Network, in_use: set[str]) -> Network:
        """The network with its bridge up; the default one gets a subnet if it has none, or lost it to somebody."""
        if network.driver != "bridge":
            return network
        used = host.used_subnets(route, besides=network.bridge)
        used += [subnet.network for held in self._subnets.values() for subnet in held]
        if clash := definitions.clash(network, used):
            _log.warning("network %s: its subnet is also that of %s on this host", network.name, clash)
            if network.builtin and network.id not in in_use:
                network = replace(network, pools=())
        if not network.pools:
            network = definitions.complete(network, used, wanted=self._default_subnet, mtu=host.uplink_mtu(route))
        if not host.allow_forwarding(ipv6=network.ipv6):
            _log.warning("the host does not forward packets and /proc/sys cannot be written: instances reach it only")
        devices.make(route, network)
        return network

    def _admit(self, network: Network) -> None:
        self._networks[network.id] = network
        self._subnets[network.id] = [Subnet(pool) for pool in network.pools]

    def _restore(self, holdings: Sequence[records.Holding]) -> None:
        for held in holdings:
            for endpoint in held.endpoints:
                self._interfaces.add(endpoint.host_ifname)
                for subnet in self._subnets.get(endpoint.network_id, ()):
                    cidr = endpoint.ipv4 if subnet.version == 4 else endpoint.ipv6
                    if cidr:
                        subnet.restore(endpoint.endpoint_id, cidr)

    def _known(self, holdings: Sequence[records.Holding]) -> dict[str, dict[str, Message]]:
        known: dict[str, dict[str, Message]] = {}
        for held in holdings:
            for endpoint in held.endpoints:
                if addresses_of(endpoint):
                    known.setdefault(endpoint.network_id, {})[endpoint.endpoint_id] = known_of(endpoint, held.id)
        return known

    # networks

    async def all(self) -> list[Network]:
        return list(self._networks.values())

    async def create(self, network: Network) -> Network:
        """Choose what is open and make it. Conflict: its name, bridge or addresses are taken."""
        self._check_working()
        definitions.check(network, self._networks.values())
        network = replace(
            network,
            id=network.id or NetworkId(new_id()),
            mtu=definitions.mtu_option(network) or network.mtu,
        )
        network = replace(
            network, bridge=definitions.bridge_option(network) or devices.bridge_of(self._name, network.id)
        )
        own = [subnet.network for held in self._subnets.values() for subnet in held]
        with host.choosing_alone(), Route() as route:
            if route.exists(network.bridge):
                raise Conflict(f"network {network.name}: interface {network.bridge} exists already")
            if clash := definitions.clash(network, own):
                raise Conflict(
                    f"invalid pool request: Pool overlaps with other one on this address space ({clash})",
                    remedy="Choose another subnet.",
                )
            network = definitions.complete(network, [*own, *host.used_subnets(route)])
            host.allow_forwarding(ipv6=network.ipv6)
            devices.make(route, network)
        try:
            self._admit(network)
            self._firewall.rebuild()
            self._names.listen(network)
            await records.save(self._store, network)
        except BaseException:
            self._unmake(network)
            raise
        return network

    def _unmake(self, network: Network) -> None:
        self._networks.pop(network.id, None)
        self._subnets.pop(network.id, None)
        self._names.drop(network)
        with Route() as route:
            devices.remove(route, network.bridge)
        self._firewall.rebuild()

    async def remove(self, network: Network) -> None:
        """Remove a network nobody is on. Denied for a builtin one and for one in use."""
        if network.builtin:
            raise Denied(f"{network.name} is a pre-defined network and cannot be removed")
        if any(subnet.in_use() for subnet in self._subnets.get(network.id, ())):
            raise Denied(f"error while removing network: network {network.name} id {network.id} has active endpoints")
        await records.forget(self._store, network)
        self._unmake(network)

    # endpoints

    async def attach(
        self, network: Network, instance_id: str, names: Sequence[str], request: EndpointRequest, index: int
    ) -> Endpoint:
        """See contracts. Without any kernel call: what it gives out is in memory until the record is stored."""
        endpoint_id = new_id()
        if network.driver != "bridge":
            return Endpoint(network=network.name, network_id=network.id, endpoint_id=endpoint_id, request=request)
        self._check_working()
        ipv4, ipv6 = self._take(network, endpoint_id, request)
        known = [*names, *request.aliases]
        if not network.builtin:
            known.append(instance_id[:12])
        gateways = {pool.subnet: "" if network.internal else pool.gateway for pool in network.pools}
        endpoint = Endpoint(
            network=network.name,
            network_id=network.id,
            endpoint_id=endpoint_id,
            name=f"eth{index}",
            host_ifname=self._interface(),
            bridge=network.bridge,
            mac=request.mac_address or (mac_of(ipv4) if ipv4 else _random_mac()),
            ipv4=ipv4,
            ipv6=ipv6,
            gateway4=next((address for subnet, address in gateways.items() if ":" not in subnet), ""),
            gateway6=next((address for subnet, address in gateways.items() if ":" in subnet), ""),
            mtu=network.mtu,
            isolated=network.options.get(ICC) == "false",
            aliases=tuple(request.aliases),
            dns_names=tuple(dict.fromkeys(known)),
            request=request,
        )
        self._labels[endpoint_id] = names[0] if names else instance_id[:12]
        self._names.tell(network, endpoint_id, known_of(endpoint, instance_id))
        return endpoint

    def _take(self, network: Network, endpoint_id: str, request: EndpointRequest) -> tuple[str, str]:
        """Addresses of both families, or none of either."""
        if request.mac_address:
            _check_mac(request.mac_address)
        if network.builtin and (request.ipv4_address or request.ipv6_address):
            raise Invalid("user specified IP address is supported on user defined networks only")
        taken = {4: "", 6: ""}
        subnets = self._subnets[network.id]
        try:
            for version, wanted in ((4, request.ipv4_address), (6, request.ipv6_address)):
                taken[version] = _take_one([each for each in subnets if each.version == version], endpoint_id, wanted)
        except EnisleError as error:
            for subnet in subnets:
                if taken[subnet.version]:
                    subnet.release(endpoint_id, taken[subnet.version])
            if isinstance(error, Exhausted):
                raise Exhausted(f"{error.message}: {network.name} ({network.id})") from error
            raise
        return taken[4], taken[6]

    def _interface(self) -> str:
        while (name := devices.port_prefix(self._name) + secrets.token_hex(3)) in self._interfaces:
            pass
        self._interfaces.add(name)
        return name

    async def detach(self, network: Network, endpoint: Endpoint) -> None:
        """Give back what attach gave out; twice is no error."""
        for subnet in self._subnets.get(network.id, ()):
            for cidr in (endpoint.ipv4, endpoint.ipv6):
                if cidr and (":" in cidr) == (subnet.version == 6):
                    subnet.release(endpoint.endpoint_id, cidr)
        self._interfaces.discard(endpoint.host_ifname)
        self._labels.pop(endpoint.endpoint_id, None)
        self._names.forget(network, endpoint.endpoint_id)

    # published ports

    async def publish(
        self, instance_id: str, endpoint: Endpoint, ports_wanted: Sequence[PublishedPort]
    ) -> tuple[list[BoundPort], list[int]]:
        """See contracts. Nothing is published on networks without a way out (internal, none) or without NAT (host)."""
        network = self._networks.get(endpoint.network_id)
        if not ports_wanted or network is None or network.driver != "bridge" or network.internal:
            return [], []
        self._check_working()
        label = self._labels.get(endpoint.endpoint_id) or next(iter(endpoint.dns_names), instance_id[:12])
        bound, sockets = ports.reserve(ports_wanted, endpoint, label=label)
        try:
            held = self._firewall.forwards(instance_id)
            self._firewall.publish(instance_id, (*held, *_forwards(endpoint, bound)))
            _forget_flows(bound, ())
        except BaseException:
            for each in sockets:
                each.close()
            raise
        return bound, [each.detach() for each in sockets]

    async def republish(self, instance_id: str, endpoint: Endpoint, ports_bound: Sequence[BoundPort]) -> None:
        self._firewall.publish(instance_id, _forwards(endpoint, ports_bound))

    async def unpublish(self, instance_id: str) -> None:
        held = self._firewall.forwards(instance_id)
        if held:
            self._firewall.publish(instance_id, ())
            _forget_flows((), held)

    # names

    async def resolv_conf(self, network: Network | None, spec: InstanceSpec) -> str:
        """Our resolver, unless --dns says otherwise; where we cannot serve, those of the host that can be reached."""
        try:
            text = self._resolv_conf.read_text(errors="replace")
        except OSError:
            text = ""
        on_bridge = network is not None and network.driver == "bridge"
        if not on_bridge and not (spec.dns or spec.dns_search or spec.dns_options):
            return text
        known = resolv_conf.parse(text)
        options = spec.dns_options or known.options
        nameservers: Sequence[str] = spec.dns or known.nameservers
        if network is not None and on_bridge and (not spec.dns or not network.builtin):
            served = self._names.serves(network)
            nameservers = (gateway(network), *spec.dns) if served else spec.dns or resolv_conf.outside(known)
            if not network.builtin and not any(option.startswith("ndots:") for option in options):
                options = (*options, "ndots:0")
        return resolv_conf.render(nameservers[: resolv_conf.MAX_NAMESERVERS], spec.dns_search or known.search, options)

    def _check_working(self) -> None:
        if self._failure:
            raise self._failure


def _take_one(subnets: Sequence[Subnet], endpoint_id: str, wanted: str) -> str:
    """An address of the first subnet that has (or holds) one; "" where there is no subnet of that family."""
    if wanted:
        subnets = [subnet for subnet in subnets if wanted in subnet]
        if not subnets:
            raise Invalid(f"no configured subnet or ip-range contain the IP address {wanted}")
    for position, subnet in enumerate(subnets):
        try:
            return subnet.take(endpoint_id, wanted)
        except Exhausted:
            if position == len(subnets) - 1:
                raise
    return ""


def _forwards(endpoint: Endpoint, bound: Sequence[BoundPort]) -> tuple[Forward, ...]:
    targets = {":" in address: address for address in addresses_of(endpoint)}
    return tuple(
        Forward(
            protocol=port.protocol,
            host_ip=port.host_ip,
            host_port=port.host_port,
            target_ip=targets[":" in port.host_ip],
            target_port=port.container_port,
        )
        for port in bound
        if (":" in port.host_ip) in targets
    )


def _stored_forwards(held: records.Holding) -> tuple[Forward, ...]:
    """What a stored instance has published; republish and unpublish make it right where this guess was wrong."""
    endpoint = way_out(held.endpoints)
    return _forwards(endpoint, held.bound_ports) if endpoint else ()


def _forget_flows(bound: Sequence[BoundPort], gone: Sequence[Forward]) -> None:
    """Let UDP flows that began before a port was published, or before it was withdrawn, begin anew."""
    fresh = {port.host_port for port in bound if port.protocol == "udp"}
    stale = {forward.target_ip for forward in gone if forward.protocol == "udp"}
    if fresh or stale:
        try:
            conntrack.forget_udp(lambda port, answerer: port in fresh or answerer in stale)
        except OSError as error:
            _log.warning("tracked UDP flows could not be dropped, old ones may go to the wrong instance: %s", error)


def _random_mac() -> str:
    return "02:42:" + secrets.token_bytes(4).hex(":")


def _check_mac(mac: str) -> None:
    try:
        valid = not pack_mac(mac)[0] & 1
    except ValueError:
        valid = False
    if not valid:
        raise Invalid(f"invalid MAC address: {mac}")
