"""Transactions of nftables by netlink, without its library, which reads everybody's tables and has crashed on some."""

from __future__ import annotations

import errno
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from enisle.linux.netlink import NLM_F_DUMP, NetlinkSocket, attributes, datagram
from enisle.linux.nftables.encoding import Request, requests
from enisle.linux.nftables.model import Change

_NETLINK_NETFILTER = 12
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_SUBSYSTEM = bytes((0, 0, 0, 10))  # nfgenmsg: NFNL_SUBSYS_NFTABLES
_GETCHAIN = 10 << 8 | 4
_CHAIN_TABLE, _CHAIN_HOOK, _CHAIN_POLICY, _HOOK_NUMBER = 1, 4, 5, 1
_IP_FAMILIES = frozenset({1, 2, 10})  # NFPROTO_INET, IPV4, IPV6
_FORWARD, _DROP = (2).to_bytes(4, "big"), (0).to_bytes(4, "big")
_NO_NFTABLES = frozenset({errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT})


class NftablesError(OSError):
    """A transaction was refused: nothing of it was done."""


class NftablesMissing(NftablesError):
    """This kernel has no nftables, or none for us."""


class Nftables:
    """The nftables of the network namespace that the calling thread is in when it is made. Safe for several threads."""

    def __init__(self) -> None:
        """NftablesMissing when the kernel has no netfilter."""
        try:
            self._socket = NetlinkSocket(_NETLINK_NETFILTER)
        except OSError as error:
            raise NftablesMissing(error.errno, f"nftables cannot be had: {error.strerror}") from error
        self._turn = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def commit(self, *changes: Change) -> None:
        """Carry out changes as one transaction. The call blocks for the time that the kernel takes.

        NftablesError names the first one that was refused.
        """
        asked = requests(changes)
        if not asked:
            return
        try:
            with self._turn:
                failures = self._socket.exchange(_batch(asked))
        except OSError as error:
            raise NftablesError(error.errno, f"nftables: {error.strerror or 'no answer from the kernel'}") from error
        if failures:
            raise _refusal(asked, failures)

    def dropping_chains(self) -> list[str]:
        """Names of tables, anybody's, that drop forwarded packets of IP unless a rule lets them through."""
        try:
            with self._turn:
                chains = self._socket.request(_GETCHAIN, NLM_F_DUMP, bytes(4), "list the chains of nftables")
        except OSError as error:
            raise NftablesError(error.errno, f"nftables: {error.strerror}") from error
        found = []
        for chain in chains:
            given = dict(attributes(chain[4:]))
            hook = dict(attributes(given.get(_CHAIN_HOOK, b""))).get(_HOOK_NUMBER)
            if chain[0] in _IP_FAMILIES and hook == _FORWARD and given.get(_CHAIN_POLICY) == _DROP:
                found.append(given.get(_CHAIN_TABLE, b"").rstrip(b"\0").decode(errors="replace"))
        return found


def transaction(*changes: Change) -> bytes:
    """One datagram that carries out changes, for another kernel; it answers the last of them."""
    return datagram(_batch(requests(changes)))


def _batch(asked: Sequence[Request]) -> list[tuple[int, int, bytes]]:
    inside = [(each.kind, each.flags, each.body) for each in asked]
    return [(_BATCH_BEGIN, 0, _SUBSYSTEM), *inside, (_BATCH_END, 0, _SUBSYSTEM)]


def _refusal(asked: Sequence[Request], failures: Sequence[tuple[int, OSError]]) -> NftablesError:
    position, failure = failures[0]
    reason = failure.strerror
    if position and position <= len(asked):
        return NftablesError(failure.errno, f"nftables: {asked[position - 1].what}: {reason}")
    if failure.errno in _NO_NFTABLES:
        return NftablesMissing(failure.errno, f"nftables: this kernel has none ({reason}). Load the module nf_tables.")
    if failure.errno == errno.EPERM:
        return NftablesMissing(failure.errno, f"nftables: {reason}: CAP_NET_ADMIN in this network namespace is needed.")
    return NftablesError(failure.errno, f"nftables: {reason}")
