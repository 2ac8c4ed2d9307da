"""Where a registry is, and where its answers may send us."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from dataclasses import dataclass, field

from yarl import URL

from enisle.errors import Denied
from enisle.formats.reference import DEFAULT_DOMAIN

_HUB_HOST = "registry-1.docker.io"
_TRUSTED_REALMS = {_HUB_HOST: frozenset({"auth.docker.io"})}


@dataclass(frozen=True, kw_only=True, slots=True)
class RegistrySettings:
    """``insecure``: hosts (with port) that may be spoken to without TLS or with a certificate that proves nothing;
    loopback always may. ``mirrors``: registry domain -> base URLs that are asked first for pulls, never sent
    credentials."""

    insecure: frozenset[str] = frozenset()
    mirrors: dict[str, tuple[str, ...]] = field(default_factory=dict)


def host_of(domain: str) -> str:
    """The host (and port) that serves a reference's domain."""
    return _HUB_HOST if domain == DEFAULT_DOMAIN else domain


def is_loopback(host: str) -> bool:
    """Whether a host name without port means this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def may_be_insecure(host: str, settings: RegistrySettings) -> bool:
    """Whether that host (with port) may be spoken to without proof of who it is."""
    return host in settings.insecure or is_loopback(_bare(host))


def _bare(host: str) -> str:
    return URL(f"http://{host}").host or host


def same_origin(a: URL, b: URL) -> bool:
    """Whether two URLs are of one server, as far as credentials go."""
    return (a.scheme, a.host, a.port) == (b.scheme, b.host, b.port)


def check_redirect(origin: URL, target: URL) -> None:
    """Raise Denied for a redirect that gives up TLS, or one to another host that is this machine or link-local."""
    if target.scheme not in ("http", "https") or not target.host or target.user is not None:
        raise Denied(f"registry {origin.host}: redirects to {str(target)[:200]!r}, which is not followed")
    if origin.scheme == "https" and target.scheme != "https":
        raise Denied(f"registry {origin.host}: redirects from https to http, which is not followed")
    both_here = is_loopback(origin.host or "") and is_loopback(target.host)
    if target.host != origin.host and not both_here:
        check_address(target.host, origin.host or "")


def check_address(host: str, wanted_by: str) -> None:
    """Raise Denied for an address that no registry has a reason to send us to (metadata services, this machine)."""
    if host == "localhost" or host.endswith(".localhost"):
        _deny(host, wanted_by)
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return
    mapped = getattr(address, "ipv4_mapped", None)
    address = mapped or address
    if address.is_loopback or address.is_link_local or address.is_unspecified or address.is_multicast:
        _deny(host, wanted_by)


def _deny(host: str, wanted_by: str) -> None:
    raise Denied(f"registry {wanted_by}: sends us to {host}, which is not followed")


def realm_gets_credentials(registry: URL, realm: URL, listed: Collection[str] = ()) -> bool:
    """Whether a token service may be given the credentials for a registry.

    It has to be the same host, a sibling below the same domain of at least two labels, or known to belong to it; and
    not less protected than the registry itself.
    """
    if registry.scheme == "https" and realm.scheme != "https":
        return False
    one, other = (registry.host or "").lower(), (realm.host or "").lower()
    if one == other or other in listed or other in _TRUSTED_REALMS.get(one, ()):
        return True
    if is_loopback(one) and is_loopback(other):
        return True
    parent = one.partition(".")[2]
    return parent.count(".") >= 1 and (other == parent or other.endswith("." + parent)) and not _is_address(one)


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
