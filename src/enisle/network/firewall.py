"""Our nftables table as it is in the kernel: made, changed, and made again when somebody flushes it."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence

from enisle.errors import Internal, Unavailable
from enisle.linux.netlink import NetlinkSocket, attributes
from enisle.linux.nftables.connection import Nftables, NftablesError, NftablesMissing
from enisle.linux.nftables.model import Change, Element
from enisle.model.network import Network
from enisle.network import ruleset, senders
from enisle.network.ruleset import Forward
from enisle.network.senders import Sender

_log = logging.getLogger(__name__)

_NETLINK_NETFILTER = 12
_GROUP_NFTABLES = 7  # NFNLGRP_NFTABLES
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_REMOVALS = frozenset({2, 5, 8, 11})  # NFT_MSG_DELTABLE, DELCHAIN, DELRULE, DELSET
_ATTRIBUTE_TABLE = 1  # the table's name, in all of these
_NFGENMSG_BYTES = 4
_MONITOR_BYTES = 4 << 20  # a hundred networks made anew are half a megabyte of messages
_SETTLE_S = 0.2  # between somebody's flush and our repair, so that two repairers do not race at full speed


class Firewall:
    """The tables named ``table``, holding what ``networks()``, the forwards and the senders say."""

    def __init__(self, table: str, port_prefix: str, networks: Callable[[], Sequence[Network]]) -> None:
        self._table = table
        self._port_prefix = port_prefix
        self._networks = networks
        self._forwards: dict[str, tuple[Forward, ...]] = {}
        self._holders: dict[tuple[str, tuple[str, ...]], str] = {}  # key of a forward -> instance
        self._senders: dict[str, Sender] = {}  # endpoint id -> what it may send as
        self._elements: Counter[Element] = Counter()
        self._nft: Nftables | None = None
        self._monitor: NetlinkSocket | None = None
        self._overrun = False  # the monitor has lost messages, and is made anew
        self._repair: asyncio.TimerHandle | None = None

    def open(self, forwards: dict[str, tuple[Forward, ...]], known: dict[str, Sender]) -> None:
        """Make the tables and watch over them. Unavailable when this kernel has no nftables."""
        self._forwards, self._holders = {}, {}
        self._senders = dict(known)
        self._elements = Counter(element for sender in known.values() for element in sender.elements())
        for instance_id, held in forwards.items():
            self._take_over(instance_id, held)
            self._forwards[instance_id] = held
            self._holders.update((forward.key(), instance_id) for forward in held)
        try:
            self._nft = self._nft or Nftables()
        except NftablesError as error:
            raise Unavailable(f"networks cannot be set up: {error}") from error
        self.rebuild()
        if self._monitor is None:
            self._watch()

    def rebuild(self) -> None:
        """Make the tables anew, in one transaction: connections that are established do not notice."""
        every = [forward for held in self._forwards.values() for forward in held]
        self._run(*ruleset.whole(self._table, self._port_prefix, self._networks(), every, self._senders.values()))
        # What our own replacement removed is no removal to repair.
        if self._drain() and self._overrun:
            self._watch_again()

    def forwards(self, instance_id: str) -> tuple[Forward, ...]:
        return self._forwards.get(instance_id, ())

    def publish(self, instance_id: str, forwards: Sequence[Forward]) -> None:
        """Forward these ports for an instance, and no others."""
        old = self._forwards.get(instance_id, ())
        gone = [forward for forward in old if forward not in forwards]
        gone += self._take_over(instance_id, forwards)
        new = [forward for forward in forwards if forward not in old]
        if not gone and not new:
            return
        if forwards:
            self._forwards[instance_id] = tuple(forwards)
        else:
            self._forwards.pop(instance_id, None)
        for forward in gone:
            self._holders.pop(forward.key(), None)
        for forward in new:
            self._holders[forward.key()] = instance_id
        self._change(ruleset.delete(self._table, gone), ruleset.add(self._table, new))

    def admit(self, endpoint_id: str, sender: Sender) -> None:
        """Let an endpoint send as what it holds, and nobody else as that."""
        self._senders[endpoint_id] = sender
        self._elements.update(sender.elements())
        self._change(senders.add(self._table, sender.elements()))

    def dismiss(self, endpoint_id: str) -> None:
        """Forget an endpoint; twice is no error."""
        sender = self._senders.pop(endpoint_id, None)
        if sender is None:
            return
        self._elements.subtract(sender.elements())
        gone = [element for element in sender.elements() if not self._elements[element]]
        for element in gone:
            del self._elements[element]
        if self._nft is None:
            return  # what is in the kernel is made anew at the next start
        self._change(senders.delete(self._table, gone))

    def _change(self, *changes: Change) -> None:
        if self._nft is None:
            raise Internal("the firewall is not open")
        try:
            self._run(*changes)
        except Internal as error:
            # Somebody else changed our table, or an element of it: it is made from what we know.
            _log.warning("the nftables table %s was not as expected and is made anew: %s", self._table, error)
            self.rebuild()

    def _take_over(self, instance_id: str, forwards: Sequence[Forward]) -> list[Forward]:
        """Forwards of others for the same ports, which are no longer theirs.

        Who has bound a port has it: an instance that has ended lost its own before we were told to unpublish them.
        """
        taken = []
        keys = {forward.key() for forward in forwards}
        for key in keys & self._holders.keys():
            holder = self._holders[key]
            if holder != instance_id:
                held = self._forwards.get(holder, ())
                taken += [forward for forward in held if forward.key() == key]
                self._forwards[holder] = tuple(forward for forward in held if forward.key() != key)
        return taken

    def close(self, *, keep: bool) -> None:
        """Stop watching; remove the tables unless ``keep``."""
        if self._repair:
            self._repair.cancel()
            self._repair = None
        self._stop_watching()
        if self._nft:
            if not keep:
                self._run(*ruleset.remove_tables(self._table))
            self._nft.close()
            self._nft = None

    def _run(self, *changes: Change) -> None:
        if self._nft is None:
            raise Internal("the firewall is not open")
        try:
            self._nft.commit(*changes)
        except NftablesMissing as error:
            raise Unavailable(f"networks cannot be set up: {error}") from error
        except NftablesError as error:
            raise Internal(f"the nftables table {self._table} could not be changed: {error}") from error

    def _watch(self) -> None:
        monitor = NetlinkSocket(_NETLINK_NETFILTER)
        try:
            monitor.join_group(_GROUP_NFTABLES, buffer_bytes=_MONITOR_BYTES)
        except OSError as error:
            monitor.close()
            _log.warning("changes of nftables by others cannot be watched (%s): restart enisled after a flush", error)
            return
        self._monitor = monitor
        asyncio.get_running_loop().add_reader(monitor.fileno(), self._on_change)

    def _stop_watching(self) -> None:
        if self._monitor:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
            self._monitor.close()
            self._monitor = None

    def _watch_again(self) -> None:
        self._overrun = False
        if self._monitor:
            self._stop_watching()
            self._watch()

    def _on_change(self) -> None:
        found = self._drain()
        if self._overrun:  # uvloop gives a descriptor up after an error
            asyncio.get_running_loop().call_soon(self._watch_again)
        if found and self._repair is None:
            self._repair = asyncio.get_running_loop().call_later(_SETTLE_S, self._on_repair)

    def _on_repair(self) -> None:
        self._repair = None
        _log.warning("somebody removed rules of the nftables table %s: it is made anew", self._table)
        try:
            self.rebuild()
        except Internal as error:
            _log.error("%s", error)

    def _drain(self) -> bool:
        """Read what happened to nftables; whether something of ours was removed."""
        if self._monitor is None:
            return False
        try:
            messages = self._monitor.notifications()
        except OSError:
            self._overrun = True  # some were lost (ENOBUFS): ours may have been among them
            return True
        name = self._table.encode()
        for kind, body in messages:
            if kind >> 8 == _SUBSYSTEM and kind & 0xFF in _REMOVALS:
                found = dict(attributes(body[_NFGENMSG_BYTES:]))
                if found.get(_ATTRIBUTE_TABLE, b"").rstrip(b"\0") == name:
                    return True
        return False
