"""Links, addresses and routes over rtnetlink (rtnetlink(7)). Standard library only.

Nothing here imports lazily or looks up names, so all of it may be used after an image's root was entered.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass

from enisle.linux.netlink import (
    NLA_F_NESTED,
    NLM_F_CREATE,
    NLM_F_DUMP,
    NLM_F_EXCL,
    NLM_F_REPLACE,
    NetlinkError,
    NetlinkSocket,
    attribute,
    attributes,
    nested,
    text,
    uint32,
)

_RTM_NEWLINK, _RTM_DELLINK, _RTM_GETLINK, _RTM_SETLINK = 16, 17, 18, 19
_RTM_NEWADDR, _RTM_DELADDR, _RTM_GETADDR = 20, 21, 22
_RTM_NEWROUTE, _RTM_GETROUTE = 24, 26

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_LINK = 1, 3, 4, 5
_IFLA_MASTER, _IFLA_LINKINFO, _IFLA_NET_NS_PID, _IFLA_NET_NS_FD, _IFLA_PROTINFO = 10, 18, 19, 28, 12
_IFLA_INFO_KIND, _IFLA_INFO_DATA = 1, 2
_IFLA_BRPORT_MODE, _IFLA_BRPORT_ISOLATED = 4, 33
_IFLA_OPERSTATE = 16
_IF_OPER_UP = b"\6"
_CARRIER_POLL_S = 0.0003
_VETH_INFO_PEER = 1
_IFLA_MACVLAN_MODE = 1
_IFLA_VLAN_ID = 1
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IFLA_IPVLAN_MODE, _IFLA_IPVLAN_FLAGS = 1, 2
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_FLAGS = {"bridge": 0, "private": 1, "vepa": 2}
_UNSPECIFIED = ("0.0.0.0", "::")

_IFA_ADDRESS, _IFA_LOCAL, _IFA_BROADCAST, _IFA_FLAGS = 1, 2, 4, 8
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_PRIORITY, _RTA_TABLE = 1, 4, 5, 6, 15
_RT_TABLE_MAIN = 254
_RTPROT_STATIC = 4
_RT_SCOPE_UNIVERSE, _RT_SCOPE_LINK = 0, 253
_RTN_UNICAST = 1

IFF_UP = 0x1

_IFINFO = struct.Struct("=BxHiII")  # family, type, index, flags, change
_IFADDR = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # family, dst len, src len, tos, table, protocol, scope, type, flags


@dataclass(frozen=True, kw_only=True, slots=True)
class Link:
    """A network interface. ``kind``: bridge, veth, tun, ... or "" for hardware; ``master`` 0: none."""

    index: int
    name: str
    kind: str
    mac: str
    mtu: int
    master: int
    up: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """An address of a link, as CIDR."""

    index: int
    cidr: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RouteEntry:
    """A unicast route. ``destination`` is a CIDR (0.0.0.0/0 for the default), ``gateway`` "" where it is on link."""

    destination: str
    gateway: str
    index: int
    table: int


def pack_mac(mac: str) -> bytes:
    """The six bytes of aa:bb:cc:dd:ee:ff. ValueError unless it is that."""
    raw = bytes(int(part, 16) for part in mac.split(":"))
    if len(raw) != 6:
        raise ValueError(f"{mac!r} is no MAC address")
    return raw


def _pack_ip(address: str) -> tuple[int, bytes]:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return family, socket.inet_pton(family, address)


def _pack_cidr(cidr: str) -> tuple[int, bytes, int]:
    address, _, length = cidr.partition("/")
    family, raw = _pack_ip(address)
    return family, raw, int(length) if length else len(raw) * 8


def _unpack_ip(raw: bytes) -> str:
    return socket.inet_ntop(socket.AF_INET if len(raw) == 4 else socket.AF_INET6, raw)


def _link_attributes(name: str, mac: str, mtu: int) -> bytes:
    found = text(_IFLA_IFNAME, name) if name else b""
    if mac:
        found += attribute(_IFLA_ADDRESS, pack_mac(mac))
    if mtu:
        found += uint32(_IFLA_MTU, mtu)
    return found


class Route(NetlinkSocket):
    """Changes the network of the namespace it was made in. Failures are OSError with the kernel's words.

    Links are named by name; ``index_of`` gives their number. Every method is one request unless it says otherwise.
    """

    def __init__(self) -> None:
        super().__init__(socket.NETLINK_ROUTE)
        self.check_strictly()

    # links

    def create_bridge(self, name: str, *, mac: str = "", mtu: int = 0, up: bool = False) -> None:
        """A bridge. One with ``mac`` set keeps it, whichever ports come and go."""
        info = nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "bridge"))
        self._new_link(name, _link_attributes(name, mac, mtu) + info, up=up)

    def create_veth(
        self,
        name: str,
        peer_name: str,
        *,
        peer_pid: int = 0,
        peer_fd: int = -1,
        master: str = "",
        mac: str = "",
        peer_mac: str = "",
        mtu: int = 0,
        up: bool = False,
    ) -> None:
        """A veth pair whose peer appears, already named, in the namespace of ``peer_pid`` or of descriptor ``peer_fd``.

        ``master`` and ``up`` are for this end; the peer is left down (the kernel refuses otherwise). After the peer
        is up, ``wait_carrier`` on this end.
        """
        peer = _IFINFO.pack(0, 0, 0, 0, 0) + _link_attributes(peer_name, peer_mac, mtu)
        if peer_pid:
            peer += uint32(_IFLA_NET_NS_PID, peer_pid)
        elif peer_fd >= 0:
            peer += uint32(_IFLA_NET_NS_FD, peer_fd)
        data = nested(_IFLA_INFO_DATA, attribute(_VETH_INFO_PEER, peer))
        body = _link_attributes(name, mac, mtu) + nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "veth"), data)
        if master:
            body += uint32(_IFLA_MASTER, self.index_of(master))
        self._new_link(name, body, up=up)

    def create_macvlan(
        self,
        name: str,
        parent: str,
        *,
        mode: str = "bridge",
        peer_pid: int = 0,
        mac: str = "",
        mtu: int = 0,
        tap: bool = False,
    ) -> None:
        """A macvlan on ``parent``, made in the namespace of ``peer_pid`` if given. ``mode``: of MACVLAN_MODES.

        ``tap``: a macvtap, whose frames are read and written at /dev/tap<index>.
        """
        data = nested(_IFLA_INFO_DATA, uint32(_IFLA_MACVLAN_MODE, MACVLAN_MODES[mode]))
        body = _link_attributes(name, mac, mtu) + uint32(_IFLA_LINK, self.index_of(parent))
        body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "macvtap" if tap else "macvlan"), data)
        if peer_pid:
            body += uint32(_IFLA_NET_NS_PID, peer_pid)
        self._new_link(name, body)

    def create_ipvlan(
        self, name: str, parent: str, *, mode: str = "l2 bridge", peer_pid: int = 0, mtu: int = 0
    ) -> None:
        """An ipvlan on ``parent``, whose MAC it has, made in the namespace of ``peer_pid`` if given.

        ``mode``: one of IPVLAN_MODES and one of IPVLAN_FLAGS.
        """
        how, flag = mode.split()
        settings = ((_IFLA_IPVLAN_MODE, IPVLAN_MODES[how]), (_IFLA_IPVLAN_FLAGS, IPVLAN_FLAGS[flag]))
        data = nested(_IFLA_INFO_DATA, *(attribute(kind, struct.pack("=H", value)) for kind, value in settings))
        body = _link_attributes(name, "", mtu) + uint32(_IFLA_LINK, self.index_of(parent))
        body += nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "ipvlan"), data)
        if peer_pid:
            body += uint32(_IFLA_NET_NS_PID, peer_pid)
        self._new_link(name, body)

    def create_vlan(self, name: str, parent: str, number: int) -> None:
        """The VLAN of that number (IEEE 802.1Q, 1 to 4094) on ``parent``."""
        data = nested(_IFLA_INFO_DATA, attribute(_IFLA_VLAN_ID, struct.pack("=H", number)))
        body = _link_attributes(name, "", 0) + uint32(_IFLA_LINK, self.index_of(parent))
        self._new_link(name, body + nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "vlan"), data))

    def create_dummy(self, name: str) -> None:
        """An interface that leads nowhere."""
        self._new_link(name, _link_attributes(name, "", 0) + nested(_IFLA_LINKINFO, text(_IFLA_INFO_KIND, "dummy")))

    def _new_link(self, name: str, body: bytes, *, up: bool = False) -> None:
        flags = IFF_UP if up else 0
        message = _IFINFO.pack(0, 0, 0, flags, flags) + body
        self.request(_RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, message, f"create link {name}")

    def delete_link(self, name: str) -> None:
        """Delete a link (and a veth's peer). ENODEV when there is none."""
        self.request(_RTM_DELLINK, 0, _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name), f"delete link {name}")

    def link_up(self, name: str) -> None:
        self._set_link(name, b"", "up", flags=IFF_UP, change=IFF_UP)

    def link_down(self, name: str) -> None:
        self._set_link(name, b"", "down", change=IFF_UP)

    def set_name(self, name: str, new_name: str) -> None:
        """Rename a link that is down."""
        message = _IFINFO.pack(0, 0, self.index_of(name), 0, 0) + text(_IFLA_IFNAME, new_name)
        self.request(_RTM_NEWLINK, 0, message, f"rename link {name} to {new_name}")

    def set_mac(self, name: str, mac: str) -> None:
        self._set_link(name, attribute(_IFLA_ADDRESS, pack_mac(mac)), f"mac {mac}")

    def set_mtu(self, name: str, mtu: int) -> None:
        self._set_link(name, uint32(_IFLA_MTU, mtu), f"mtu {mtu}")

    def set_master(self, name: str, master: str) -> None:
        """Make the link a port of a bridge; "" takes it out of its bridge."""
        self._set_link(name, uint32(_IFLA_MASTER, self.index_of(master) if master else 0), f"master {master or 'none'}")

    def set_namespace(self, name: str, pid: int) -> None:
        """Move a link to the network namespace of a process."""
        self._set_link(name, uint32(_IFLA_NET_NS_PID, pid), f"namespace of process {pid}")

    def set_port(self, name: str, *, hairpin: bool = False, isolated: bool = False) -> None:
        """Options of a bridge port. ``hairpin``: frames may go back out by the port they came in by.

        ``isolated``: the port does not reach other isolated ports of its bridge.
        """
        options = attribute(_IFLA_BRPORT_MODE, bytes([hairpin])) + attribute(_IFLA_BRPORT_ISOLATED, bytes([isolated]))
        info = nested(_IFLA_PROTINFO | NLA_F_NESTED, options)
        message = _IFINFO.pack(socket.AF_BRIDGE, 0, self.index_of(name), 0, 0) + info
        self.request(_RTM_SETLINK, 0, message, f"set options of bridge port {name}")

    def _set_link(self, name: str, body: bytes, what: str, *, flags: int = 0, change: int = 0) -> None:
        message = _IFINFO.pack(0, 0, 0, flags, change) + text(_IFLA_IFNAME, name) + body
        self.request(_RTM_NEWLINK, 0, message, f"set link {name} {what}")

    def link(self, name: str) -> Link:
        """The link of that name. ENODEV when there is none."""
        message = _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)
        return _parse_link(self.request(_RTM_GETLINK, 0, message, f"link {name}")[0])

    def index_of(self, name: str) -> int:
        """The number of a link in this socket's namespace. ENODEV when there is none."""
        return self.link(name).index

    def exists(self, name: str) -> bool:
        try:
            self.link(name)
        except NetlinkError as error:
            if error.errno == errno.ENODEV:
                return False
            raise
        return True

    def wait_carrier(self, name: str, *, timeout_s: float = 1.0) -> bool:
        """Wait until a link whose other end has come up carries traffic; whether it does.

        The kernel enables such a link (and its port of a bridge) a moment later in a work queue. A first packet
        sent in that moment is lost, and its sender tries again after a whole second. Linux 6.8 and newer catch up
        when asked for the link, so that the first look is enough.
        """
        deadline = time.monotonic() + timeout_s
        while not self._is_operational(name):
            if time.monotonic() > deadline:
                return False
            time.sleep(_CARRIER_POLL_S)
        return True

    def _is_operational(self, name: str) -> bool:
        body = _IFINFO.pack(0, 0, 0, 0, 0) + text(_IFLA_IFNAME, name)
        found = dict(attributes(self.request(_RTM_GETLINK, 0, body, f"link {name}")[0][16:]))
        return found.get(_IFLA_OPERSTATE) == _IF_OPER_UP

    def links(self) -> list[Link]:
        body = _IFINFO.pack(0, 0, 0, 0, 0)
        return [_parse_link(payload) for payload in self.request(_RTM_GETLINK, NLM_F_DUMP, body, "list links")]

    # addresses

    def add_address(self, name: str, cidr: str, *, nodad: bool = True, index: int = 0) -> None:
        """Give a link an address; one that it has already is no error.

        ``nodad``: use an IPv6 address at once, without asking the segment whether somebody has it.
        ``index`` saves a request where it is known.
        """
        family, raw, length = _pack_cidr(cidr)
        message = _IFADDR.pack(family, length, 0, 0, index or self.index_of(name)) + attribute(_IFA_LOCAL, raw)
        message += attribute(_IFA_ADDRESS, raw)
        if family == socket.AF_INET and length < 31:
            host_bits = (1 << (32 - length)) - 1
            message += attribute(_IFA_BROADCAST, (int.from_bytes(raw, "big") | host_bits).to_bytes(4, "big"))
        if family == socket.AF_INET6 and nodad:
            message += uint32(_IFA_FLAGS, _IFA_F_NODAD)
        self.request(_RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, message, f"add address {cidr} to {name}")

    def delete_address(self, name: str, cidr: str) -> None:
        family, raw, length = _pack_cidr(cidr)
        message = _IFADDR.pack(family, length, 0, 0, self.index_of(name)) + attribute(_IFA_LOCAL, raw)
        self.request(_RTM_DELADDR, 0, message, f"delete address {cidr} of {name}")

    def addresses(self, name: str = "") -> list[Address]:
        """The addresses of one link, or of all."""
        index = self.index_of(name) if name else 0
        message = _IFADDR.pack(0, 0, 0, 0, index)
        found = [_parse_address(body) for body in self.request(_RTM_GETADDR, NLM_F_DUMP, message, "list addresses")]
        return [address for address in found if not index or address.index == index]

    # routes

    def add_route(
        self,
        destination: str,
        *,
        gateway: str = "",
        link: str = "",
        metric: int = 0,
        index: int = 0,
        replace: bool = True,
    ) -> None:
        """A route by a gateway, a link or both. ``index``: the link's number, if known.

        One that is there to the same destination is replaced, or else stays: EEXIST.
        """
        family, raw, length = _pack_cidr(destination)
        scope = _RT_SCOPE_UNIVERSE if gateway else _RT_SCOPE_LINK
        message = _RTMSG.pack(family, length, 0, 0, _RT_TABLE_MAIN, _RTPROT_STATIC, scope, _RTN_UNICAST, 0)
        if length:
            message += attribute(_RTA_DST, raw)
        if gateway:
            message += attribute(_RTA_GATEWAY, _pack_ip(gateway)[1])
        if index or link:
            message += uint32(_RTA_OIF, index or self.index_of(link))
        if metric:
            message += uint32(_RTA_PRIORITY, metric)
        what = f"add route to {destination} by {gateway or link}"
        flags = NLM_F_CREATE | (NLM_F_REPLACE if replace else NLM_F_EXCL)
        self.request(_RTM_NEWROUTE, flags, message, what)

    def add_default_route(self, gateway: str, *, link: str = "", index: int = 0) -> None:
        """Make a gateway the default one, unless there is one already: the first NIC's stays.

        An unspecified address stands for the link itself.
        """
        destination = "::/0" if ":" in gateway else "0.0.0.0/0"
        by = "" if gateway in _UNSPECIFIED else gateway
        try:
            self.add_route(destination, gateway=by, link=link, index=index, replace=False)
        except NetlinkError as error:
            if error.errno != errno.EEXIST:
                raise

    def routes(self) -> list[RouteEntry]:
        """All unicast routes of every table, both families."""
        found = []
        for family in (socket.AF_INET, socket.AF_INET6):
            message = _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            try:
                bodies = self.request(_RTM_GETROUTE, NLM_F_DUMP, message, "list routes")
            except NetlinkError as error:
                if error.errno in (errno.EAFNOSUPPORT, errno.EOPNOTSUPP):
                    continue  # a kernel without that family
                raise
            found += [_parse_route(body) for body in bodies if body[7] == _RTN_UNICAST]
        return found

    # the inside of an instance

    def configure(
        self,
        name: str,
        *,
        current_name: str = "",
        mac: str = "",
        mtu: int = 0,
        addresses: Sequence[str] = (),
        gateway4: str = "",
        gateway6: str = "",
        routes: Sequence[Sequence[str]] = (),
    ) -> None:
        """Bring up one NIC inside an instance, as wire.plans.NicPlan describes it (several requests).

        ``current_name``: what it is called now, where that is not ``name``. ``routes`` are (destination, via).
        To be called before the image's root is entered: a NIC without IPv6 addresses has IPv6 turned off in /proc.
        """
        index = self.index_of(current_name or name)
        if (current_name and current_name != name) or mac or mtu:
            message = _IFINFO.pack(0, 0, index, 0, 0) + _link_attributes(name, mac, mtu)
            self.request(_RTM_NEWLINK, 0, message, f"set up link {name}")
        if any(":" in cidr for cidr in addresses):
            _set_ipv6(name, "accept_dad", "0")  # a link-local address could not be used for a second otherwise
        else:
            _set_ipv6(name, "disable_ipv6", "1")
        self.request(_RTM_NEWLINK, 0, _IFINFO.pack(0, 0, index, IFF_UP, IFF_UP), f"set link {name} up")
        for cidr in addresses:
            self.add_address(name, cidr, index=index)
        for gateway in (gateway4, gateway6):
            if gateway:
                self.add_default_route(gateway, index=index)
        for destination, via in routes:
            self.add_route(destination, gateway=via, link=name, index=index)


def _set_ipv6(name: str, setting: str, value: str) -> None:
    """A setting of one NIC. One without an IPv6 address takes none from advertisements either (CVE-2024-32473)."""
    try:
        fd = os.open(f"/proc/sys/net/ipv6/conf/{name}/{setting}", os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return  # no IPv6 in this kernel, or no proc mounted: the bridge carries no advertisements
    try:
        os.write(fd, value.encode())
    finally:
        os.close(fd)


def _parse_link(body: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    found = dict(attributes(body[16:]))
    info = dict(attributes(found.get(_IFLA_LINKINFO, b"")))
    return Link(
        index=index,
        name=found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(),
        kind=info.get(_IFLA_INFO_KIND, b"").rstrip(b"\0").decode(),
        mac=found.get(_IFLA_ADDRESS, b"").hex(":"),
        mtu=int.from_bytes(found.get(_IFLA_MTU, b""), "little"),
        master=int.from_bytes(found.get(_IFLA_MASTER, b""), "little"),
        up=bool(flags & IFF_UP),
    )


def _parse_address(body: bytes) -> Address:
    _, length, _, _, index = _IFADDR.unpack_from(body)
    found = dict(attributes(body[8:]))
    return Address(index=index, cidr=f"{_unpack_ip(found.get(_IFA_LOCAL) or found[_IFA_ADDRESS])}/{length}")


def _parse_route(body: bytes) -> RouteEntry:
    family, length, _, _, table, *_ = _RTMSG.unpack_from(body)
    found = dict(attributes(body[12:]))
    raw = found.get(_RTA_DST) or bytes(4 if family == socket.AF_INET else 16)
    return RouteEntry(
        destination=f"{_unpack_ip(raw)}/{length}",
        gateway=_unpack_ip(found[_RTA_GATEWAY]) if _RTA_GATEWAY in found else "",
        index=int.from_bytes(found.get(_RTA_OIF, b""), "little"),
        table=int.from_bytes(found.get(_RTA_TABLE, b""), "little") or table,
    )
