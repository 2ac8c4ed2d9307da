"""Networks of one host: addresses, published ports and names for instances behind either wall."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from enisle.contracts import StateStore
from enisle.errors import Conflict, Denied, EnisleError, Internal, NotFound
from enisle.linux import conntrack
from enisle.linux.route import Route
from enisle.model.ids import NetworkId, new_id
from enisle.model.instance import BoundPort, Endpoint, EndpointRequest, InstanceSpec, PublishedPort
from enisle.model.network import Network
from enisle.network import definitions, devices, host, parents, ports, records, resolv_conf
from enisle.network.addresses import Subnet
from enisle.network.endpoints import forwards_of, put_together, stored_forwards, take_addresses
from enisle.network.firewall import Firewall
from enisle.network.names import Names, addresses_of, gateway, known_of
from enisle.network.options import GatewayMode, bridge_options, mtu_option
from enisle.network.ruleset import Forward
from enisle.network.senders import sender_of
from enisle.network.subnets import Candidates
from enisle.wire.frames import Message
from enisle.wire.names import NAMESERVER

_log = logging.getLogger(__name__)


class BridgeNetworks:
    """Implements contracts.NetworkProvider for one host.

    ``name`` keeps several engines of one host apart: bridges, tables and interfaces are named after it.
    ``default_ipv6``: give the default bridge IPv6. ``address_pools``: where subnets come from that nobody named (see
    ``subnets.Candidates``). ``resolv_conf`` is the host's, ``upstream_port`` its nameservers' (other than 53 in tests).
    """

    def __init__(
        self,
        store: StateStore,
        *,
        name: str,
        run_root: Path,
        default_subnet: str = "",
        address_pools: Sequence[str] = (),
        default_ipv6: bool = False,
        resolv_conf: Path = Path("/etc/resolv.conf"),
        upstream_port: int = 53,
    ) -> None:
        self._store = store
        self._name = name
        self._default_subnet = default_subnet
        self._default_ipv6 = default_ipv6
        self._choice = Candidates.parse(address_pools)
        self._resolv_conf = resolv_conf
        self._networks: dict[str, Network] = {}
        self._subnets: dict[str, list[Subnet]] = {}
        self._interfaces: set[str] = set()
        self._labels: dict[str, str] = {}  # endpoint id -> name of its instance, for messages
        self._failure: EnisleError | None = None
        self._broken: dict[str, EnisleError] = {}  # network id -> why this one alone cannot be had
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
                    self._broken[network.id] = _told(error)
                    _log.error("network %s cannot be used: %s", network.name, error)
                    self._admit(network)
        for network in self._networks.values():
            if stored.get(network.name) != network:
                await records.save(self._store, network)
        self._restore(holdings)
        parents.remove_stray_taps(devices.port_prefix(self._name), self._interfaces)
        forwards = {held.id: found for held in holdings if (found := stored_forwards(held))}
        endpoints = [endpoint for held in holdings for endpoint in held.endpoints if endpoint.bridge]
        try:
            self._firewall.open(forwards, {endpoint.endpoint_id: sender_of(endpoint) for endpoint in endpoints})
        except EnisleError as error:
            self._fail(error)
        if not self._failure:
            named = [each for each in self._networks.values() if _has_names(each) and each.id not in self._broken]
            await self._names.open(named)
            self._names.tell_all(self._known(holdings))

    async def close(self, *, keep: bool) -> None:
        await self._names.close(keep=keep)
        self._firewall.close(keep=keep)
        if not keep:
            with Route() as route:
                for network in self._networks.values():
                    if network.bridge:
                        devices.remove(route, network.bridge)
                    elif parents.is_on_parent(network):
                        parents.remove(route, network)

    def _fail(self, error: EnisleError | OSError) -> None:
        self._failure = _told(error)
        _log.error("%s", self._failure)

    def _bridges(self) -> list[Network]:
        return [network for network in self._networks.values() if network.bridge]

    def _settle(self, route: Route, network: Network, in_use: set[str]) -> Network:
        """The network with its bridge up; the default one gets a subnet if it has none, or lost it to somebody."""
        if parents.is_on_parent(network):
            parents.make(route, network)
        if network.driver != "bridge" or network.config_only:
            return network
        if network.builtin and self._default_ipv6:
            network = replace(network, ipv6=True)
        used = host.used_subnets(route, besides=network.bridge)
        used += [subnet.network for held in self._subnets.values() for subnet in held]
        if clash := definitions.clash(network, used):
            _log.warning("network %s: its subnet is also that of %s on this host", network.name, clash)
            if network.builtin and network.id not in in_use:
                network = replace(network, pools=())
        if not network.pools or (network.ipv6 and not any(":" in pool.subnet for pool in network.pools)):
            network = definitions.complete(
                network, used, choice=self._choice, wanted=self._default_subnet, mtu=host.uplink_mtu(route)
            )
        if not host.allow_forwarding(ipv6=network.ipv6):
            _log.warning("the host does not forward packets and /proc/sys cannot be written: instances reach it only")
        devices.make(route, network)
        return network

    def _admit(self, network: Network) -> None:
        self._networks[network.id] = network
        self._subnets[network.id] = [] if network.config_only else [Subnet(pool) for pool in network.pools]

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
        """Choose what is open and make it. Conflict or Denied: its name, bridge or addresses are taken."""
        self._check_working()
        if network.config_from:
            config = next((each for each in self._networks.values() if each.name == network.config_from), None)
            if config is None:
                raise NotFound(f"network {network.config_from} not found")
            network = definitions.from_config(network, config)
        definitions.check(network, self._networks.values())
        network = replace(network, id=network.id or NetworkId(new_id()), mtu=mtu_option(network) or network.mtu)
        if not network.config_only:
            network = self._make(network)
        try:
            self._admit(network)
            if network.bridge:
                self._firewall.rebuild()
            if _has_names(network):
                self._names.listen(network)
            await records.save(self._store, network)
        except BaseException:
            self._unmake(network)
            raise
        return network

    def _make(self, network: Network) -> Network:
        """The network with its addresses chosen, and on the host what carries it."""
        own = [subnet.network for held in self._subnets.values() for subnet in held]
        with host.choosing_alone(), Route() as route:
            if clash := definitions.clash(network, own):
                raise Denied(
                    f"invalid pool request: Pool overlaps with other one on this address space ({clash})",
                    remedy="Choose another subnet.",
                )
            network = definitions.complete(network, [*own, *host.used_subnets(route)], choice=self._choice)
            if parents.is_on_parent(network):
                made = parents.make(route, network)
                return replace(network, parent_made=made, mtu=mtu_option(network) or parents.mtu(route, network))
            network = replace(
                network, bridge=bridge_options(network).bridge or devices.bridge_of(self._name, network.id)
            )
            if route.exists(network.bridge):
                raise Conflict(f"network {network.name}: interface {network.bridge} exists already")
            host.allow_forwarding(ipv6=network.ipv6)
            devices.make(route, network)
        return network

    def _unmake(self, network: Network) -> None:
        self._networks.pop(network.id, None)
        self._subnets.pop(network.id, None)
        self._broken.pop(network.id, None)
        self._names.drop(network)
        with Route() as route:
            if parents.is_on_parent(network):
                parents.remove(route, network)
            if network.bridge:
                devices.remove(route, network.bridge)
        if network.bridge:
            self._firewall.rebuild()

    async def remove(self, network: Network) -> None:
        """Remove a network nobody is on. Denied for a builtin one and for one in use."""
        if network.builtin:
            raise Denied(f"{network.name} is a pre-defined network and cannot be removed")
        users = [each.name for each in self._networks.values() if each.config_from == network.name]
        if network.config_only and users:
            raise Denied(f"configuration network {network.name} is in use by {', '.join(users)}")
        if any(subnet.in_use() for subnet in self._subnets.get(network.id, ())):
            raise Denied(f"error while removing network: network {network.name} id {network.id} has active endpoints")
        await records.forget(self._store, network)
        self._unmake(network)

    # endpoints

    async def attach(
        self,
        network: Network,
        instance_id: str,
        names: Sequence[str],
        request: EndpointRequest,
        index: int,
        *,
        dns: Sequence[str] = (),
    ) -> Endpoint:
        """See contracts. No link is made: what it gives out is in memory until the record is stored."""
        endpoint_id = new_id()
        if network.driver not in definitions.DRIVERS:
            return Endpoint(network=network.name, network_id=network.id, endpoint_id=endpoint_id, request=request)
        self._check_working()
        if network.id in self._broken:
            raise self._broken[network.id]
        if network.config_only:
            raise Denied(f"configuration-only network {network.name} cannot have instances on it")
        ipv4, ipv6 = take_addresses(network, self._subnets[network.id], endpoint_id, request)
        known = [*names, *request.aliases]
        if not network.builtin:
            known.append(instance_id[:12])
        endpoint = put_together(
            network,
            request,
            endpoint_id=endpoint_id,
            index=index,
            host_ifname=self._interface(),
            ipv4=ipv4,
            ipv6=ipv6,
            names=known,
            dns=dns,
        )
        self._labels[endpoint_id] = names[0] if names else instance_id[:12]
        try:
            if endpoint.bridge:
                self._firewall.admit(endpoint_id, sender_of(endpoint))
        except BaseException:
            await self.detach(network, endpoint)
            raise
        self._names.tell(network, endpoint_id, known_of(endpoint, instance_id))
        return endpoint

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
        self._firewall.dismiss(endpoint.endpoint_id)
        if endpoint.parent:
            parents.remove_tap(endpoint.host_ifname)
        self._names.forget(network, endpoint.endpoint_id)

    # published ports

    async def publish(
        self, instance_id: str, endpoint: Endpoint, ports_wanted: Sequence[PublishedPort]
    ) -> tuple[list[BoundPort], list[int]]:
        """See contracts. Nothing is published on networks without a way out (internal, none) or without NAT (host)."""
        network = self._networks.get(endpoint.network_id)
        if not ports_wanted or network is None or not network.bridge or network.internal:
            return [], []
        self._check_working()
        label = self._labels.get(endpoint.endpoint_id) or next(iter(endpoint.dns_names), instance_id[:12])
        options = bridge_options(network)
        place = ports.Place(
            endpoint=endpoint,
            label=label,
            default_ip=options.host_binding,
            routed=frozenset(version for version in (4, 6) if options.gateway_mode(version) is GatewayMode.ROUTED),
        )
        bound, sockets = ports.reserve(ports_wanted, place)
        try:
            held = self._firewall.forwards(instance_id)
            self._firewall.publish(instance_id, (*held, *forwards_of(endpoint, bound)))
            _forget_flows(bound, ())
        except BaseException:
            for each in sockets:
                each.close()
            raise
        return bound, [each.detach() for each in sockets]

    async def republish(self, instance_id: str, endpoint: Endpoint, ports_bound: Sequence[BoundPort]) -> None:
        self._firewall.publish(instance_id, forwards_of(endpoint, ports_bound))

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
        on = network if network is not None and _has_names(network) else None
        asked = spec.dns or spec.dns_search or spec.dns_options
        known = resolv_conf.parse(text)
        if on is None and not asked:
            return text
        options = spec.dns_options or known.options
        nameservers: Sequence[str] = spec.dns or known.nameservers
        own = any(resolv_conf.is_loopback(each) for each in spec.dns)  # a nameserver in the instance itself
        if on is not None and not own and (not spec.dns or not on.builtin):
            # The resolver asks those of --dns itself: a C library would ask them only where we do not answer at all.
            served = self._names.serves(on)
            nameservers = self._resolver_for(on, spec) if served else spec.dns or resolv_conf.outside(known)
            if not on.builtin and not any(option.startswith("ndots:") for option in options):
                options = (*options, "ndots:0")
        return resolv_conf.render(nameservers[: resolv_conf.MAX_NAMESERVERS], spec.dns_search or known.search, options)

    def _resolver_for(self, network: Network, spec: InstanceSpec) -> Sequence[str]:
        """Where its instances reach the resolver: at the gateway, or inside, where the keeper listens.

        Nameservers on a parent's segment are asked from inside as well: the host does not reach its own macvlans.
        """
        if network.bridge:
            return (gateway(network),)
        subnets = [pool.subnet for pool in network.pools]
        return (NAMESERVER, *(each for each in spec.dns if resolv_conf.is_within(each, subnets)))

    def _check_working(self) -> None:
        if self._failure:
            raise self._failure


def _has_names(network: Network) -> bool:
    """Whether the resolver is there for its instances: it has NICs, or would have."""
    return bool(network.bridge) or parents.is_on_parent(network)


def _told(error: EnisleError | OSError) -> EnisleError:
    return error if isinstance(error, EnisleError) else Internal(f"networks cannot be set up: {error}")


def _forget_flows(bound: Sequence[BoundPort], gone: Sequence[Forward]) -> None:
    """Let UDP flows that began before a port was published, or before it was withdrawn, begin anew."""
    fresh = {port.host_port for port in bound if port.protocol == "udp"}
    stale = {forward.target_ip for forward in gone if forward.protocol == "udp"}
    if fresh or stale:
        try:
            conntrack.forget_udp(lambda port, answerer: port in fresh or answerer in stale)
        except OSError as error:
            _log.warning("tracked UDP flows could not be dropped, old ones may go to the wrong instance: %s", error)
