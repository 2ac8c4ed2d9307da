"""Bridges, devices, rules, forwarding."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from enisle.contracts import HostCapability
from enisle.doctor.attempts import attempted
from enisle.linux.nftables.connection import Nftables, NftablesError

_DEVICES = {
    "bridge": ("bridge", "modprobe bridge", "both"),
    "veth": ("veth pairs", "modprobe veth", "container"),
    "tun": ("tap devices", "modprobe tun, and have /dev/net/tun", "vm"),
}
_LET_THROUGH = (
    "Let the bridge through: iptables -I FORWARD -i enisle0 -j ACCEPT; iptables -I FORWARD -o enisle0 -j ACCEPT"
)


def probe(trial: dict[str, str]) -> list[HostCapability]:
    """``trial`` is what :mod:`enisle.doctor.trial` found."""
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    return [
        rules(trial),
        *(_device(kind, trial) for kind in _DEVICES),
        ip_forward(forwarding.read_text().strip() if forwarding.exists() else ""),
        forward_policy(_dropping_tables()),
    ]


def rules(trial: dict[str, str]) -> HostCapability:
    """Whether nftables works, NAT included."""
    return attempted(
        "nftables",
        trial,
        fine="works, with NAT",
        remedy="modprobe nf_tables nft_nat nft_masq nft_fib_inet",
        wall="both",
    )


def _device(kind: str, trial: dict[str, str]) -> HostCapability:
    what, remedy, wall = _DEVICES[kind]
    return attempted(kind, trial, fine=f"{what} can be made", remedy=f"{remedy}.", wall=wall)


def ip_forward(value: str) -> HostCapability:
    """Whether the host forwards packets; enisled turns it on when it starts."""
    return HostCapability(
        name="ip_forward",
        ok=value == "1",
        detail="on" if value == "1" else "off: instances do not reach beyond this host",
        remedy="" if value == "1" else "enisled turns it on; if it cannot: sysctl -w net.ipv4.ip_forward=1",
    )


def forward_policy(dropping: list[str] | None) -> HostCapability:
    """Whether other tables drop what is forwarded (a firewall, Docker): their names; None: not known."""
    if dropping is None:
        return HostCapability(name="forward policy", ok=True, detail="not known without root")
    tables = ", ".join(repr(name) for name in dropping)
    return HostCapability(
        name="forward policy",
        ok=not dropping,
        detail=f"dropped unless let through, by table {tables}" if dropping else "nothing drops forwarded packets",
        remedy=_LET_THROUGH if dropping else "",
    )


def _dropping_tables() -> list[str] | None:
    try:
        with Nftables() as tables:
            found = tables.dropping_chains()
    except NftablesError:
        return None
    if legacy := shutil.which("iptables-legacy"):
        done = subprocess.run([legacy, "-S", "FORWARD"], capture_output=True, text=True, check=False)
        if "-P FORWARD DROP" in done.stdout:
            found.append("filter of iptables-legacy")
    return found
