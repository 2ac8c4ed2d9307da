"""Bridges, devices, rules, forwarding."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from enisle.contracts import HostCapability
from enisle.linux.nftables import Nftables, NftablesError

_DEVICES = {
    "bridge": ("bridge", "modprobe bridge", "both"),
    "veth": ("veth pairs", "modprobe veth", "container"),
    "tun": ("tap devices", "modprobe tun, and have /dev/net/tun", "vm"),
}
_LET_THROUGH = (
    "Let the bridge through: iptables -I FORWARD -i enisle0 -j ACCEPT; iptables -I FORWARD -o enisle0 -j ACCEPT"
)
_DROPS_FORWARD = re.compile(r"hook forward priority [^;]+;\s*policy drop")


def probe(trial: dict[str, str]) -> list[HostCapability]:
    """``trial`` is what :mod:`enisle.doctor.trial` found."""
    forwarding = Path("/proc/sys/net/ipv4/ip_forward")
    return [
        rules(trial),
        *(_device(kind, trial) for kind in _DEVICES),
        ip_forward(forwarding.read_text().strip() if forwarding.exists() else ""),
        forward_policy(_ruleset()),
    ]


def rules(trial: dict[str, str]) -> HostCapability:
    """Whether nftables works, NAT included."""
    reason = trial.get("nftables", "not tried")
    return HostCapability(
        name="nftables",
        ok=not reason,
        detail=reason or "library and kernel, with NAT",
        remedy="apt install libnftables1; modprobe nf_tables nft_nat nft_masq" if reason else "",
        wall="both",
    )


def _device(kind: str, trial: dict[str, str]) -> HostCapability:
    what, remedy, wall = _DEVICES[kind]
    reason = trial.get(kind, "not tried")
    return HostCapability(
        name=kind,
        ok=not reason,
        detail=reason or f"{what} can be made",
        remedy=f"{remedy}." if reason else "",
        wall=wall,
    )


def ip_forward(value: str) -> HostCapability:
    """Whether the host forwards packets; enisled turns it on when it starts."""
    return HostCapability(
        name="ip_forward",
        ok=value == "1",
        detail="on" if value == "1" else "off: instances do not reach beyond this host",
        remedy="" if value == "1" else "enisled turns it on; if it cannot: sysctl -w net.ipv4.ip_forward=1",
    )


def forward_policy(ruleset: str | None) -> HostCapability:
    """Whether another table drops what is forwarded (a firewall, Docker)."""
    if ruleset is None:
        return HostCapability(name="forward policy", ok=True, detail="not known without root")
    dropping = _DROPS_FORWARD.search(ruleset) is not None
    return HostCapability(
        name="forward policy",
        ok=not dropping,
        detail="another table drops forwarded packets" if dropping else "nothing drops forwarded packets",
        remedy=_LET_THROUGH if dropping else "",
    )


def _ruleset() -> str | None:
    """All rules but ours as text; None when they cannot be read."""
    text = ""
    try:
        with Nftables() as tables:
            text = tables.run("list chains")
    except NftablesError:
        return None
    if legacy := shutil.which("iptables-legacy"):
        done = subprocess.run([legacy, "-S", "FORWARD"], capture_output=True, text=True, check=False)
        if "-P FORWARD DROP" in done.stdout:
            text += "hook forward priority 0; policy drop"
    return text
