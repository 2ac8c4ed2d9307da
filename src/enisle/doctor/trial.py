"""What the kernel really does, tried in namespaces of our own: run as a program, prints JSON, leaves nothing behind.

{"name": "" or the reason why it failed, ...}. A kernel's configuration tells less than one attempt: modules may be
missing, and a container around us may forbid what the kernel could do.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable
from functools import partial

from enisle.linux import mounts, namespaces
from enisle.linux.nftables.connection import Nftables
from enisle.linux.nftables.model import Chain, Element, Hook, Is, Masquerade, Redirect, SetType, Table, Within
from enisle.linux.nftables.values import FIB_DADDR_TYPE, IP_SADDR, IPV4, L4PROTO, PROTOCOL, SERVICE, TH_DPORT, Family
from enisle.linux.route import Route
from enisle.linux.taps import open_tap

NAMESPACES = ("mnt", "net", "uts", "ipc", "cgroup", "pid")

_PUBLISHED = SetType("published", (PROTOCOL, SERVICE), (IPV4, SERVICE))
_TRIAL = Table(
    family=Family.INET,
    name="trial",
    sets=(_PUBLISHED,),
    elements=(Element(_PUBLISHED, ("tcp", "80"), ("192.0.2.2", "80")),),
    chains=(
        Chain(
            "in",
            ((Is(FIB_DADDR_TYPE, "local"), Redirect(4, (L4PROTO, TH_DPORT), "published")),),
            Hook("nat", "prerouting", -100),
        ),
        Chain("out", ((Within(IP_SADDR, "192.0.2.0/24"), Masquerade()),), Hook("nat", "postrouting", 100)),
    ),
)


def main() -> None:
    """Try everything, in an order in which what comes first is the ground for what comes later."""
    found = {f"namespace {kind}": _reason(partial(_unshare, kind)) for kind in NAMESPACES}
    if found["namespace mnt"]:
        found["overlay"] = "it needs a mount namespace"
    else:
        found["overlay"] = _reason(_overlay)
    for name, attempt in (("bridge", _bridge), ("veth", _veth), ("tun", _tun), ("nftables", _nftables)):
        found[name] = "it needs a network namespace" if found["namespace net"] else _reason(attempt)
    found["namespace user"] = _reason(partial(_unshare, "user"))
    json.dump(found, sys.stdout)


def _reason(attempt: Callable[[], None]) -> str:
    try:
        attempt()
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error) or type(error).__name__
    return ""


def _unshare(kind: str) -> None:
    namespaces.unshare(namespaces.FLAGS[kind])


def _overlay() -> None:
    mounts.set_tree_propagation("/", mounts.MS_PRIVATE)
    with tempfile.TemporaryDirectory() as directory:
        mounts.mount("tmpfs", directory, "tmpfs")
        try:
            for name in ("lower", "upper", "work", "root"):
                os.mkdir(f"{directory}/{name}")
            options = f"lowerdir={directory}/lower,upperdir={directory}/upper,workdir={directory}/work"
            mounts.mount("overlay", f"{directory}/root", "overlay", 0, options)
            mounts.unmount(f"{directory}/root")
        finally:
            mounts.unmount(directory, mounts.MNT_DETACH)


def _bridge() -> None:
    with Route() as route:
        route.create_bridge("trial0", up=True)


def _veth() -> None:
    with Route() as route:
        route.create_veth("trial1", "trial2", up=True)


def _tun() -> None:
    os.close(open_tap("trial3"))


def _nftables() -> None:
    with Nftables() as tables:
        tables.commit(_TRIAL)


if __name__ == "__main__":
    main()
