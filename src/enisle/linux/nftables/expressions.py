"""Rules as the kernel takes them: lists of expressions that load, compare and act (linux/netfilter/nf_tables.h).

Registers are numbered in 4 bytes from 8 on (NFT_REG32_00), of which a value takes as many as it needs.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence

from enisle.linux.netlink import NLA_F_NESTED, attribute, text
from enisle.linux.nftables.model import (
    Among,
    CtFlag,
    Dispatch,
    DispatchBy,
    Is,
    Jump,
    Masquerade,
    OneOf,
    Part,
    Redirect,
    Rule,
    Verdict,
    Within,
)
from enisle.linux.nftables.values import Family, Fib, Field, Meta, Payload, requirements

_REGISTER = 8
_VERDICT_REGISTER = 0
_EQUAL, _NOT_EQUAL = 0, 1
_JUMP = -3
_DNAT = 1
_NFPROTO = {4: 2, 6: 10}
_FIB_RESULT_TYPE = 3

AnonymousSet = Callable[[OneOf | Dispatch], tuple[str, int]]
"""Makes the set of a rule's own; its name and id."""


def number(kind: int, value: int) -> bytes:
    """A 32-bit attribute in network byte order, as all of nftables' are."""
    return attribute(kind, (value & 0xFFFFFFFF).to_bytes(4, "big"))


def nest(kind: int, *attributes: bytes) -> bytes:
    return attribute(kind | NLA_F_NESTED, b"".join(attributes))


def value_data(value: bytes) -> bytes:
    """NFTA_DATA_VALUE."""
    return attribute(1, value)


def verdict_data(verdict: Verdict | Jump) -> bytes:
    """NFTA_DATA_VERDICT."""
    if isinstance(verdict, Jump):
        return nest(2, number(1, _JUMP), text(2, verdict.chain))
    return nest(2, number(1, verdict))


def slots(size: int) -> int:
    """How many registers of 4 bytes a value of that size takes."""
    return (size + 3) // 4


def rule_expressions(rule: Rule, family: Family, own_set: AnonymousSet) -> bytes:
    """The expressions of a rule, as a list; what fields need is compared once."""
    known: set[tuple[Meta, bytes]] = set()
    found: list[bytes] = []
    for part in rule:
        for need in (one for each in _fields(part) for one in requirements(each, family)):
            if need not in known:
                known.add(need)
                found += [_load(need[0]), _compare(need[1])]
        found += _expressions(part, own_set)
    return b"".join(found)


def _fields(part: Part) -> Sequence[Field]:
    match part:
        case Is() | Within() | OneOf() | Dispatch() | DispatchBy():
            return (part.field,)
        case Among() | Redirect():
            return part.fields
        case _:
            return ()


def _expressions(part: Part, own_set: AnonymousSet) -> list[bytes]:
    match part:
        case Is(one, value, negated):
            return _is(one, value, negated)
        case Within(one, subnet):
            return _within(one, subnet)
        case OneOf(one):
            return [_load(one.source, size=one.type.size), _lookup(*own_set(part))]
        case Among(fields, name, negated):
            return [*_load_all(fields), _lookup(name, negated=negated)]
        case CtFlag():
            _, key, bits = part.value
            mask = int(bits).to_bytes(4, "little")
            load = _expression("ct", number(1, _REGISTER), number(2, key))
            return [load, _mask(mask), _compare(bytes(4), _NOT_EQUAL)]
        case Dispatch(one):
            return [_load(one.source, size=one.type.size), _lookup(*own_set(part), target=_VERDICT_REGISTER)]
        case DispatchBy(one, name):
            return [_load(one.source, size=one.type.size), _lookup(name, target=_VERDICT_REGISTER)]
        case Verdict() | Jump():
            return [_expression("immediate", number(1, _VERDICT_REGISTER), nest(2, verdict_data(part)))]
        case Masquerade():
            return [_expression("masq")]
        case Redirect(version, fields, name):
            port = _REGISTER + (4 if version == 6 else 1)
            to = [number(1, _DNAT), number(2, _NFPROTO[version]), number(3, _REGISTER), number(5, port)]
            return [*_load_all(fields), _lookup(name, target=_REGISTER), _expression("nat", *to)]


def _is(one: Field, value: str, negated: bool) -> list[bytes]:
    data = value[:-1].encode() if value.endswith("*") else one.type.pack(value)
    return [_load(one.source, size=one.type.size), _compare(data, _NOT_EQUAL if negated else _EQUAL)]


def _within(one: Field, subnet: str) -> list[bytes]:
    network = ipaddress.ip_network(subnet)
    load, compare = _load(one.source, size=one.type.size), _compare(network.network_address.packed)
    return [load, _mask(network.netmask.packed), compare]


def _load_all(fields: Sequence[Field]) -> list[bytes]:
    found, register = [], _REGISTER
    for one in fields:
        found.append(_load(one.source, register=register, size=one.type.size))
        register += slots(one.type.size)
    return found


def _load(source: Payload | Meta | Fib, *, register: int = _REGISTER, size: int = 0) -> bytes:
    match source:
        case Payload(header, offset):
            where = [number(2, header), number(3, offset), number(4, size)]
            return _expression("payload", number(1, register), *where)
        case Meta():
            return _expression("meta", number(1, register), number(2, source))
        case Fib():
            return _expression("fib", number(1, register), number(2, _FIB_RESULT_TYPE), number(3, source))


def _compare(value: bytes, operation: int = _EQUAL) -> bytes:
    return _expression("cmp", number(1, _REGISTER), number(2, operation), nest(3, value_data(value)))


def _mask(mask: bytes) -> bytes:
    registers = [number(1, _REGISTER), number(2, _REGISTER), number(3, len(mask))]
    return _expression("bitwise", *registers, nest(4, value_data(mask)), nest(5, value_data(bytes(len(mask)))))


def _lookup(name: str, identity: int = 0, *, negated: bool = False, target: int | None = None) -> bytes:
    """``target``: the register that a map's data goes to."""
    given = [text(1, name), number(2, _REGISTER)]
    if target is not None:
        given.append(number(3, target))
    if identity:
        given.append(number(4, identity))
    if negated:
        given.append(number(5, 1))
    return _expression("lookup", *given)


def _expression(name: str, *data: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *data))
