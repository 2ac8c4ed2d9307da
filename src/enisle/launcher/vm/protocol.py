"""What keeper and guest agent say to each other (guest/PROTOCOL.md). Pure: bytes to and from values.

Integers are little-endian; a string or byte string comes after its length (u32), a list after its count (u32). What
comes from the guest is not to be trusted: :class:`Decoder` bounds it, and nothing of it is ever evaluated.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from enum import IntEnum, IntFlag
from typing import NamedTuple

from enisle.wire.plans import NicPlan, ProcessPlan

GENERATION = 2
MAX_FROM_GUEST_BYTES = 32760
MAX_TO_GUEST_BYTES = 4 << 20
OUTPUT_WINDOW_BYTES = 256 << 10
INPUT_WINDOW_BYTES = 256 << 10

_HEADER = struct.Struct("<IHBB")  # length of the body, channel, type, stream


class ToGuest(IntEnum):
    SETUP = 1
    RUN = 2
    CALL = 3
    INPUT = 4
    INPUT_END = 5
    CREDIT = 6
    SIGNAL = 7
    RESIZE = 8
    SHUTDOWN = 9
    ABORT = 10
    CLOCK = 11
    FREEZE = 12
    LIMIT = 13


class FromGuest(IntEnum):
    HELLO = 64
    READY = 65
    FAILED = 66
    STARTED = 67
    OUTPUT = 68
    CLOSED = 69
    EXITED = 70
    INPUT_CREDIT = 71
    OOM = 72


class Stage(IntEnum):
    """Where a start failed."""

    NONE = 0
    SETUP = 1
    USER = 2
    GROUP = 3
    CWD = 4
    EXEC = 5
    LIMIT = 6
    SESSION = 7


class Call(IntEnum):
    STATS = 1
    TOP = 2
    STAT = 3
    GET = 4
    PUT = 5
    EXPORT = 6
    UPPER = 7
    CHANGES = 8
    NIC_ADD = 9
    NIC_REMOVE = 10
    ACCEPT = 11
    ASKED = 12


class SetupFlag(IntFlag):
    READ_ONLY = 1
    PRIVILEGED = 2
    FILES_ONLY = 4
    MODULES = 8


class RunFlag(IntFlag):
    TERMINAL = 1
    STDIN = 2
    NO_NEW_PRIVS = 4
    PRIVILEGED = 8
    INIT = 16
    MAIN = 32


class MountKind(IntEnum):
    TMPFS = 1
    SHARE = 2
    SOCKET = 3


class GuestFault(Exception):
    """The guest said what its agent never says: whoever speaks there is not, or no longer, ours."""


class Frame(NamedTuple):
    channel: int
    type: int
    stream: int
    body: bytes


class Failure(NamedTuple):
    """Why the agent could not start something; ``detail`` is the guest's text, cut and printable."""

    stage: int
    errno: int
    detail: str


class Decoder:
    """Cuts what the guest sends into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Take in bytes; the frames they complete. GuestFault on one that is longer than any may be."""
        self._buffer += data
        frames: list[Frame] = []
        at = 0
        while len(self._buffer) - at >= _HEADER.size:
            length, channel, kind, stream = _HEADER.unpack_from(self._buffer, at)
            if length > MAX_FROM_GUEST_BYTES:
                raise GuestFault(f"a frame of {length} bytes")
            end = at + _HEADER.size + length
            if len(self._buffer) < end:
                break
            frames.append(Frame(channel, kind, stream, bytes(self._buffer[at + _HEADER.size : end])))
            at = end
        del self._buffer[:at]
        return frames


def frame(kind: ToGuest, channel: int = 0, body: bytes = b"", *, stream: int = 0) -> bytes:
    """One frame to the guest. ValueError when the body is longer than the agent takes."""
    if len(body) > MAX_TO_GUEST_BYTES:
        raise ValueError(f"{len(body)} bytes are more than the guest's agent takes")
    return _HEADER.pack(len(body), channel, kind, stream) + body


def u32(value: int) -> bytes:
    return (value & 0xFFFFFFFF).to_bytes(4, "little")


def u64(value: int) -> bytes:
    return (value & 0xFFFFFFFFFFFFFFFF).to_bytes(8, "little")


def blob(value: bytes) -> bytes:
    return u32(len(value)) + value


def text(value: str) -> bytes:
    """A string. ValueError when it holds a NUL, which C would take for its end."""
    raw = value.encode("utf-8", "surrogateescape")
    if b"\0" in raw:
        raise ValueError(f"{value!r} holds a NUL")
    return blob(raw)


def texts(values: Iterable[str]) -> bytes:
    items = [text(value) for value in values]
    return u32(len(items)) + b"".join(items)


def read_u32(body: bytes) -> int:
    """The number that is a whole body. GuestFault when it is not that."""
    if len(body) != 4:
        raise GuestFault("a number of the wrong length")
    return int.from_bytes(body, "little")


def read_failure(body: bytes) -> Failure:
    """The body of FAILED."""
    if len(body) < 5:
        raise GuestFault("a failure without a cause")
    return Failure(body[0], read_u32(body[1:5]), printable(body[5:], limit=200))


def printable(data: bytes, *, limit: int = 1000) -> str:
    """Text of the guest, fit for messages: cut, and without control characters."""
    decoded = data[:limit].decode("utf-8", "replace")
    return "".join(each if each.isprintable() else "\ufffd" for each in decoded)


# --- bodies --------------------------------------------------------------------------------------------------------


class GuestMount(NamedTuple):
    """One mount as the agent makes it. ``flags``: MS_* bits; ``inside``: a file of the share, "" for all of it.

    ``data`` of a socket: whom it belongs to, "uid=…,gid=…,mode=…".
    """

    kind: MountKind
    target: str
    tag: str = ""
    inside: str = ""
    data: str = ""
    flags: int = 0
    copy_up: bool = False


class GuestNames(NamedTuple):
    """Where the agent listens for questions, and the transaction of nftables that leads them there; 0: nowhere."""

    port: int = 0
    rules: bytes = b""


class Setup(NamedTuple):
    """All the agent needs to make the root. ``sysctls``: (path below /proc/sys, value)."""

    flags: SetupFlag
    time_ns: int
    entropy: bytes
    hostname: str
    domainname: str
    pids: int
    nics: list[NicPlan]
    names: GuestNames
    mounts: list[GuestMount]
    files: dict[str, str]
    sysctls: list[tuple[str, str]]


def setup_body(setup: Setup) -> bytes:
    """The body of SETUP."""
    parts = [u32(setup.flags), u64(setup.time_ns), blob(setup.entropy), text(setup.hostname), text(setup.domainname)]
    parts += [u32(setup.pids), u32(len(setup.nics)), *map(nic_body, setup.nics)]
    parts += [setup.names.port.to_bytes(2, "little"), blob(setup.names.rules)]
    shares = any(mount.kind is MountKind.SHARE for mount in setup.mounts)
    parts += [u32(len(setup.mounts)), bytes([shares]), *map(_mount_body, setup.mounts)]
    parts.append(u32(len(setup.files)))
    parts += [text(path) + blob(content.encode("utf-8", "surrogateescape")) for path, content in setup.files.items()]
    parts.append(u32(len(setup.sysctls)))
    parts += [text(path) + text(value) for path, value in setup.sysctls]
    return b"".join(parts)


def _mount_body(mount: GuestMount) -> bytes:
    words = (mount.target, mount.tag, mount.inside, mount.data)
    return bytes([mount.kind]) + b"".join(map(text, words)) + u32(mount.flags) + bytes([mount.copy_up])


def nic_body(nic: NicPlan) -> bytes:
    """One NIC: name, MAC, MTU, addresses, both gateways, routes. ValueError on what is no address."""
    addresses = [ipaddress.ip_interface(each) for each in nic.addresses]
    parts = [text(nic.name), blob(bytes.fromhex(nic.mac.replace(":", ""))), u32(nic.mtu), u32(len(addresses))]
    parts += [_ip(each.ip, each.network.prefixlen) for each in addresses]
    parts += [_gateway(nic.gateway4), _gateway(nic.gateway6), u32(len(nic.routes))]
    for destination, via in nic.routes:
        network = ipaddress.ip_network(destination, strict=False)
        parts += [_ip(network.network_address, network.prefixlen), _gateway(via)]
    return b"".join(parts)


def _ip(address: ipaddress.IPv4Address | ipaddress.IPv6Address, prefix: int) -> bytes:
    return blob(address.packed) + bytes([prefix])


def _gateway(address: str) -> bytes:
    return _ip(ipaddress.ip_address(address), 0) if address else blob(b"") + b"\0"


class Identity(NamedTuple):
    """What of a process plan has been turned into numbers. ``limits``: (RLIMIT_*, soft, hard)."""

    capabilities: int
    limits: list[tuple[int, int, int]]


def run_body(plan: ProcessPlan, identity: Identity, *, main: bool) -> bytes:
    """The body of RUN."""
    flags = RunFlag(0)
    for flag, wanted in (
        (RunFlag.TERMINAL, plan.terminal),
        (RunFlag.STDIN, plan.stdin),
        (RunFlag.NO_NEW_PRIVS, plan.no_new_privileges),
        (RunFlag.PRIVILEGED, plan.privileged),
        (RunFlag.INIT, plan.init),
        (RunFlag.MAIN, main),
    ):
        if wanted:
            flags |= flag
    parts = [u32(flags), u32(plan.umask), u32(plan.oom_score_adj), size_body(*plan.terminal_size)]
    parts += [u64(identity.capabilities), text(plan.user), text(plan.cwd)]
    parts += [texts(plan.args), texts(plan.env), texts(plan.groups), u32(len(identity.limits))]
    parts += [u32(resource) + u64(soft) + u64(hard) for resource, soft, hard in identity.limits]
    return b"".join(parts)


def size_body(rows: int, columns: int) -> bytes:
    """The body of RESIZE."""
    return struct.pack("<HH", min(max(rows, 0), 65535), min(max(columns, 0), 65535))
