"""``--sysctl``: only keys that belong to a namespace of the container's own (namespaces(7), sysctl.d(5))."""

from __future__ import annotations

import re

from enisle.errors import Invalid
from enisle.model.instance import InstanceSpec

_IPC = frozenset(
    "kernel/msgmax kernel/msgmnb kernel/msgmni kernel/sem kernel/shmall kernel/shmmax kernel/shmmni "
    "kernel/shm_rmid_forced".split()
)
_IPC_PREFIX = "fs/mqueue/"
_NET_PREFIX = "net/"
_KEY = re.compile(r"[a-zA-Z0-9_:@.-]+(/[a-zA-Z0-9_:@.-]+)+")
_VALUE = re.compile(r"[ -~\t]{0,4096}")
# Programs in a container need no capability for low ports and ping: the network namespace is theirs.
_LOW_PORTS, _PING = "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"


_SWAP = {ord("."): "/", ord("/"): "."}


def key_path(key: str) -> str:
    """The key as a path below /proc/sys; both notations, a.b.c and a/b/c (where dots belong to a name)."""
    dot, slash = key.find("."), key.find("/")
    if slash < 0 or 0 <= dot < slash:
        key = key.translate(_SWAP)
    return key


def sysctls(spec: InstanceSpec, *, last_gid: int = 2**31 - 1) -> dict[str, str]:
    """Keys in the notation a.b.c, and values, with the defaults. Invalid in Docker's words for what is not allowed.

    ``last_gid``: the highest that the instance knows.
    """
    own_network = spec.network_mode != "host" and not spec.network_mode.startswith("container:")
    planned = {_LOW_PORTS: "0", _PING: f"0 {last_gid}"} if own_network else {}
    for key, value in spec.sysctls.items():
        planned[_checked(key, spec).translate(_SWAP)] = value
        if not _VALUE.fullmatch(value):
            raise Invalid(f"invalid value for sysctl {key!r}: {value[:80]!r}")
    return planned


def _checked(key: str, spec: InstanceSpec) -> str:
    path = key_path(key)
    if not _KEY.fullmatch(path) or any(part in (".", "..") for part in path.split("/")):
        raise Invalid(f"invalid sysctl key: {key[:200]!r}")
    if path in _IPC or path.startswith(_IPC_PREFIX):
        if spec.ipc_mode == "host":
            raise Invalid(f'sysctl "{key}" is not allowed in the hosts ipc namespace')
        return path
    if path.startswith(_NET_PREFIX):
        if spec.network_mode == "host":
            raise Invalid(f'sysctl "{key}" not allowed in host network namespace')
        return path
    raise Invalid(f'sysctl "{key}" is not in a separate kernel namespace')
