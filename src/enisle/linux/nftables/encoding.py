"""Changes of nftables as the kernel takes them: requests of netlink (linux/netfilter/nf_tables.h)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from enisle.linux.netlink import NLM_F_CREATE, attribute, text
from enisle.linux.nftables.expressions import nest, number, rule_expressions, slots, value_data, verdict_data
from enisle.linux.nftables.model import (
    Chain,
    Change,
    Dispatch,
    Element,
    Elements,
    Hook,
    Jump,
    OneOf,
    Removal,
    SetType,
    Table,
)
from enisle.linux.nftables.values import IFNAME, DataType, Family

_SUBSYSTEM = 10 << 8  # NFNL_SUBSYS_NFTABLES
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE, _NEWSET, _NEWSETELEM, _DELSETELEM = 0, 2, 3, 6, 9, 12, 14
_APPEND = 0x800  # NLM_F_APPEND
_ACCEPT = 1
_ANONYMOUS, _CONSTANT, _MAP = 0x1, 0x2, 0x8
_VERDICTS = 0xFFFFFF00  # NFT_DATA_VERDICT
_TYPE_BITS = 6  # of each field of a concatenation, in nft's number for it
_ELEMENTS_AT_ONCE = 400  # what is in one attribute has 64 KiB at most
_TEXT_ORDER = bytes((0, 4, 1, 0, 0, 0))  # for who lists it with nft: a key byte order, that of the host
_LIST_ELEMENT = 1  # NFTA_LIST_ELEM


@dataclass(frozen=True, slots=True)
class Request:
    """One message of a batch. ``what`` names it when it is refused."""

    kind: int
    flags: int
    body: bytes
    what: str


def requests(changes: Sequence[Change]) -> list[Request]:
    """The messages of one transaction, in order."""
    found: list[Request] = []
    for change in changes:
        match change:
            case Removal(family, name):
                found.append(_request(family, _NEWTABLE, f"table {name}", text(1, name)))
                found.append(_request(family, _DELTABLE, f"removal of table {name}", text(1, name)))
            case Table():
                found += _TableRequests(change).found
            case Elements():
                found += _elements(change.family, change.table, change.elements, delete=change.delete)
    return found


def _request(family: Family, kind: int, what: str, *attributes: bytes, append: bool = False) -> Request:
    flags = 0 if kind in (_DELTABLE, _DELSETELEM) else NLM_F_CREATE | (_APPEND if append else 0)
    return Request(_SUBSYSTEM | kind, flags, bytes((family, 0, 0, 0)) + b"".join(attributes), what)


class _TableRequests:
    """What makes a whole table."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._identity = 0
        self.found: list[Request] = []
        self._add(_NEWTABLE, f"table {table.name}", text(1, table.name), number(2, 0))
        for one in table.sets:
            self._make_set(one)
        for chain in table.chains:
            self._make_chain(chain)
        self.found += _elements(table.family, table.name, table.elements)
        for chain in table.chains:
            for rule in chain.rules:
                expressions = nest(4, rule_expressions(rule, table.family, self._own_set))
                what = f"rule {' '.join(str(part) for part in rule)}"
                self._add(_NEWRULE, what, text(1, table.name), text(2, chain.name), expressions, append=True)

    def _add(self, kind: int, what: str, *attributes: bytes, append: bool = False) -> None:
        self.found.append(_request(self._table.family, kind, what, *attributes, append=append))

    def _make_set(self, one: SetType, flags: int = 0, size: int = 0) -> int:
        """Make a set; its id within the transaction. ``size`` is known of those that never change."""
        self._identity += 1
        given = [
            *(text(1, self._table.name), text(2, one.name), number(3, flags | (_MAP if one.is_map else 0))),
            *(number(4, _type_code(one.key)), number(5, _length(one.key))),
        ]
        if one.verdicts:
            given.append(number(6, _VERDICTS))
        elif one.data:
            given += [number(6, _type_code(one.data)), number(7, _length(one.data))]
        if size:
            given.append(nest(9, number(1, size)))
        if one.key == (IFNAME,):
            given.append(attribute(13, _TEXT_ORDER))
        self._add(_NEWSET, f"set {one.name}", *given, number(10, self._identity))
        return self._identity

    def _make_chain(self, chain: Chain) -> None:
        given = [text(1, self._table.name), text(3, chain.name)]
        if chain.hook:
            given += _hook(chain.hook)
        self._add(_NEWCHAIN, f"chain {chain.name}", *given)

    def _own_set(self, part: OneOf | Dispatch) -> tuple[str, int]:
        """The set of one rule alone: the kernel finds a name for it."""
        if isinstance(part, OneOf):
            one = SetType("__set%d", (part.field.type,))
            elements = [Element(one, (value,)) for value in part.values]
        else:
            one = SetType("__map%d", (part.field.type,), verdicts=True)
            elements = [Element(one, (value,), jump) for value, jump in part.ways]
        identity = self._make_set(one, _ANONYMOUS | _CONSTANT, len(elements))
        self.found += _elements(self._table.family, self._table.name, elements, identity=identity)
        return one.name, identity


def _hook(hook: Hook) -> list[bytes]:
    return [nest(4, number(1, hook.number), number(2, hook.priority)), number(5, _ACCEPT), text(7, hook.kind)]


def _type_code(types: Sequence[DataType]) -> int:
    code = 0
    for one in types:
        code = code << _TYPE_BITS | one.code
    return code


def _length(types: Sequence[DataType]) -> int:
    """Of a value of these types together, in bytes."""
    return types[0].size if len(types) == 1 else sum(4 * slots(one.size) for one in types)


def _elements(
    family: Family, table: str, elements: Sequence[Element], *, delete: bool = False, identity: int = 0
) -> Iterator[Request]:
    kind = _DELSETELEM if delete else _NEWSETELEM
    by_set: dict[str, list[Element]] = {}
    for one in elements:
        by_set.setdefault(one.set.name, []).append(one)
    for name, held in by_set.items():
        for start in range(0, len(held), _ELEMENTS_AT_ONCE):
            some = held[start : start + _ELEMENTS_AT_ONCE]
            listed = nest(3, *(nest(_LIST_ELEMENT, *_element(one, key_only=delete)) for one in some))
            given = [text(1, table), text(2, name), listed, *([number(4, identity)] if identity else [])]
            shown = ", ".join(str(one) for one in some[:3])
            yield _request(family, kind, f"elements {shown}{', …' if len(some) > 3 else ''} of {name}", *given)


def _element(one: Element, *, key_only: bool) -> list[bytes]:
    key = nest(1, value_data(_packed(one.set.key, one.key)))
    if key_only or not one.data:
        return [key]
    if isinstance(one.data, Jump):
        return [key, nest(2, verdict_data(one.data))]
    return [key, nest(2, value_data(_packed(one.set.data, one.data)))]


def _packed(types: Sequence[DataType], values: Sequence[str]) -> bytes:
    """Values one after the other; several begin at multiples of 4 bytes each."""
    parts = [kind.pack(value) for kind, value in zip(types, values, strict=True)]
    return parts[0] if len(parts) == 1 else b"".join(part + bytes(-len(part) % 4) for part in parts)
