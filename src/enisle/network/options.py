"""Driver options of bridge networks, by the names Docker documents for them. Pure.

Options nobody knows are kept and shown, and have no effect, as with dockerd.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from enisle.errors import Invalid
from enisle.model.network import Network
from enisle.model.numbers import decimal

BRIDGE_NAME = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
INHIBIT_IPV4 = "com.docker.network.bridge.inhibit_ipv4"
GATEWAY_MODE = {4: "com.docker.network.bridge.gateway_mode_ipv4", 6: "com.docker.network.bridge.gateway_mode_ipv6"}
MTU = "com.docker.network.driver.mtu"
IFACE_PREFIX = "com.docker.network.container_iface_prefix"
ENDPOINT_IFNAME = "com.docker.network.endpoint.ifname"

_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})  # strconv.ParseBool of Go
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_LINK_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,14}")
_LINK_PREFIX = re.compile(r"[a-zA-Z][a-zA-Z0-9_-]{0,10}")  # room for a number of four digits


class GatewayMode(StrEnum):
    """How a network's addresses of one family are reached from outside.

    NAT: by the host's addresses, published ports only. ROUTED: by their own, published ports only, untranslated.
    NAT_UNPROTECTED: as NAT, and by their own whatever the port. ISOLATED: not at all, not even by the host.
    """

    NAT = "nat"
    ROUTED = "routed"
    NAT_UNPROTECTED = "nat-unprotected"
    ISOLATED = "isolated"


@dataclass(frozen=True, kw_only=True, slots=True)
class BridgeOptions:
    """What a bridge network's options say. ``mtu`` in bytes, 0: not said."""

    bridge: str = ""
    icc: bool = True
    masquerade: bool = True
    host_binding: str = ""
    inhibit_ipv4: bool = False
    gateway_mode4: GatewayMode = GatewayMode.NAT
    gateway_mode6: GatewayMode = GatewayMode.NAT
    mtu: int = 0
    iface_prefix: str = "eth"

    def gateway_mode(self, version: int) -> GatewayMode:
        return self.gateway_mode6 if version == 6 else self.gateway_mode4


def bridge_options(network: Network) -> BridgeOptions:
    """Invalid for a value that makes no sense, and for modes that do not go with the network."""
    given = network.options
    found = BridgeOptions(
        bridge=link_name(given.get(BRIDGE_NAME, ""), "bridge name"),
        icc=_flag(given, ICC, default=True),
        masquerade=_flag(given, MASQUERADE, default=True),
        host_binding=_address4(given, HOST_BINDING),
        inhibit_ipv4=_flag(given, INHIBIT_IPV4, default=False),
        gateway_mode4=_mode(given, GATEWAY_MODE[4]),
        gateway_mode6=_mode(given, GATEWAY_MODE[6]),
        mtu=mtu_option(network),
        iface_prefix=_prefix(given),
    )
    if GatewayMode.ISOLATED in (found.gateway_mode4, found.gateway_mode6) and not network.internal:
        raise Invalid(f"network {network.name}: gateway mode 'isolated' can only be used for an internal network")
    return found


def mtu_option(network: Network) -> int:
    """The MTU the user chose, bytes, or 0."""
    text = network.options.get(MTU, "")
    if not text:
        return 0
    mtu = decimal(text)
    if mtu is None or not 68 <= mtu <= 65535:
        raise Invalid(f"network {network.name}: invalid MTU {text[:40]!r}: 68 to 65535 bytes")
    return mtu


def link_name(text: str, what: str) -> str:
    """The name of an interface, if it is one that may also stand in a rule; "" stays."""
    if text and not _LINK_NAME.fullmatch(text):
        raise Invalid(f"invalid {what} {text[:80]!r}: up to 15 of [a-zA-Z0-9_.-]")
    return text


def _flag(given: Mapping[str, str], option: str, *, default: bool) -> bool:
    text = given.get(option)
    if text is None:
        return default
    if text not in _TRUE | _FALSE:
        raise Invalid(f"failed to parse {option} value: {text[:40]} (must be true or false)")
    return text in _TRUE


def _address4(given: Mapping[str, str], option: str) -> str:
    text = given.get(option, "")
    if not text:
        return ""
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise Invalid(f"failed to parse {option} value: {text[:60]} (nil ip)") from None


def _mode(given: Mapping[str, str], option: str) -> GatewayMode:
    text = given.get(option, "")
    try:
        return GatewayMode(text or "nat")
    except ValueError:
        raise Invalid(f"failed to parse {option} value: {text[:40]} (unknown gateway mode {text[:40]})") from None


def _prefix(given: Mapping[str, str]) -> str:
    text = given.get(IFACE_PREFIX, "") or "eth"
    if not _LINK_PREFIX.fullmatch(text):
        raise Invalid(f"invalid {IFACE_PREFIX} {text[:40]!r}: a letter and up to 10 of [a-zA-Z0-9_-]")
    return text
