"""Networks."""

from __future__ import annotations

from dataclasses import dataclass, field

from enisle.model.ids import NetworkId


@dataclass(frozen=True, kw_only=True, slots=True)
class AddressPool:
    """One subnet of a network; ``ip_range`` limits what is given out, ``reserved`` maps names to addresses."""

    subnet: str
    gateway: str = ""
    ip_range: str = ""
    reserved: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """``driver``: bridge, host, null (the network "none"), macvlan, ipvlan. ``created_at`` in ns since the epoch.

    ``config_only``: a template that other networks are made from (their ``config_from``), and nothing else.
    """

    id: NetworkId
    name: str
    driver: str = "bridge"
    created_at: int = 0
    bridge: str = ""  # interface on the host
    pools: tuple[AddressPool, ...] = ()
    ipv6: bool = False
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    mtu: int = 1500
    options: dict[str, str] = field(default_factory=dict)
    ipam_driver: str = "default"
    ipam_options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    builtin: bool = False
    config_only: bool = False
    config_from: str = ""  # name
    parent_made: bool = False  # the host's interface it is on was made for it, and goes with it
