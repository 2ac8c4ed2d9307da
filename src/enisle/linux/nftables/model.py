"""Tables of nftables as data that prints itself in nft's syntax (nft(8)); :mod:`encoding` makes it the kernel's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, IntEnum

from enisle.linux.nftables.values import DataType, Family, Field


class CtFlag(Enum):
    """What connection tracking says of a packet: (nft's words, enum nft_ct_keys, the bits of which one must be set)."""

    ANSWER_OR_RELATED = ("ct state established,related", 0, 0x6)
    TRANSLATED = ("ct status dnat", 2, 0x20)

    def __str__(self) -> str:
        return str(self.value[0])


class Verdict(IntEnum):
    """How a rule ends a packet's way (linux/netfilter.h, enum nft_verdicts)."""

    DROP = 0
    ACCEPT = 1
    RETURN = -5

    def __str__(self) -> str:
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on in another chain, and come back from it."""

    chain: str

    def __str__(self) -> str:
        return f"jump {self.chain}"


@dataclass(frozen=True, slots=True)
class SetType:
    """A named set, or a map if ``data`` or ``verdicts``: what is in its elements."""

    name: str
    key: tuple[DataType, ...]
    data: tuple[DataType, ...] = ()
    verdicts: bool = False

    @property
    def is_map(self) -> bool:
        return bool(self.data) or self.verdicts

    def __str__(self) -> str:
        data = "verdict" if self.verdicts else " . ".join(kind.name for kind in self.data)
        key = " . ".join(kind.name for kind in self.key)
        return f"{'map' if data else 'set'} {self.name} {{ type {key}{f' : {data}' if data else ''};"


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a named set, or map."""

    set: SetType
    key: tuple[str, ...]
    data: tuple[str, ...] | Jump = ()

    @property
    def key_text(self) -> str:
        return " . ".join(kind.show(value) for kind, value in zip(self.set.key, self.key, strict=True))

    def __str__(self) -> str:
        if isinstance(self.data, Jump):
            return f"{self.key_text} : {self.data}"
        return f"{self.key_text} : {' . '.join(self.data)}" if self.data else self.key_text


@dataclass(frozen=True, slots=True)
class Is:
    """The field has that value. A name of an interface may end with "*"."""

    field: Field
    value: str
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.field.text} {'!= ' if self.negated else ''}{self.field.type.show(self.value)}"


@dataclass(frozen=True, slots=True)
class Within:
    """The address is one of that subnet (CIDR)."""

    field: Field
    subnet: str

    def __str__(self) -> str:
        return f"{self.field.text} {self.subnet}"


@dataclass(frozen=True, slots=True)
class OneOf:
    """The field has one of these values."""

    field: Field
    values: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.field.text} {{ {', '.join(self.field.type.show(value) for value in self.values)} }}"


@dataclass(frozen=True, slots=True)
class Among:
    """The fields together are in that set, or are not."""

    fields: tuple[Field, ...]
    set: str
    negated: bool = False

    def __str__(self) -> str:
        return f"{' . '.join(field.text for field in self.fields)} {'!= ' if self.negated else ''}@{self.set}"


@dataclass(frozen=True, slots=True)
class Dispatch:
    """Go on in the chain that the field's value has in ``ways``, if it has one."""

    field: Field
    ways: tuple[tuple[str, Jump], ...]

    def __str__(self) -> str:
        pairs = (f"{self.field.type.show(value)} : {jump}" for value, jump in self.ways)
        return f"{self.field.text} vmap {{ {', '.join(pairs)} }}"


@dataclass(frozen=True, slots=True)
class DispatchBy:
    """Go on in the chain that the field's value has in a named map, if it has one."""

    field: Field
    map: str

    def __str__(self) -> str:
        return f"{self.field.text} vmap @{self.map}"


@dataclass(frozen=True, slots=True)
class Masquerade:
    """Send it as the host's own."""

    def __str__(self) -> str:
        return "masquerade"


@dataclass(frozen=True, slots=True)
class Redirect:
    """Send it to the address and port that the fields have in a map, if they are in it. ``version``: of IP."""

    version: int
    fields: tuple[Field, ...]
    map: str

    def __str__(self) -> str:
        family = "ip6" if self.version == 6 else "ip"
        return f"dnat {family} to {' . '.join(field.text for field in self.fields)} map @{self.map}"


Part = Is | Within | OneOf | Among | CtFlag | Dispatch | DispatchBy | Verdict | Jump | Masquerade | Redirect
Rule = tuple[Part, ...]
"""Conditions, and what is done when all hold."""


@dataclass(frozen=True, slots=True)
class Hook:
    """Where packets come into a chain. ``number``: enum nf_inet_hooks, the same for bridges."""

    kind: str
    name: str
    priority: int

    @property
    def number(self) -> int:
        return ("prerouting", "input", "forward", "output", "postrouting").index(self.name)

    def __str__(self) -> str:
        return f"type {self.kind} hook {self.name} priority {self.priority}; policy accept;"


@dataclass(frozen=True, slots=True)
class Chain:
    """Rules in order; without ``hook`` one that others jump to."""

    name: str
    rules: tuple[Rule, ...]
    hook: Hook | None = None

    def __str__(self) -> str:
        lines = [f"  chain {self.name} {{", *([f"    {self.hook}"] if self.hook else [])]
        lines += ["    " + " ".join(str(part) for part in rule) for rule in self.rules]
        return "\n".join([*lines, "  }"])


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A whole table. Chains must stand after those that they jump to."""

    family: Family
    name: str
    sets: tuple[SetType, ...]
    elements: tuple[Element, ...]
    chains: tuple[Chain, ...]

    def __str__(self) -> str:
        lines = [f"table {self.family} {self.name} {{"]
        for one in self.sets:
            held = ", ".join(sorted(str(element) for element in self.elements if element.set == one))
            lines.append(f"  {one}{f' elements = {{ {held} }};' if held else ''} }}")
        return "\n".join([*lines, *(str(chain) for chain in self.chains), "}"])


@dataclass(frozen=True, slots=True)
class Removal:
    """Remove a table, whether it is there or not."""

    family: Family
    name: str

    def __str__(self) -> str:
        return f"table {self.family} {self.name}\ndelete table {self.family} {self.name}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Elements:
    """Add elements, which may be there already, but not with other data; or delete them, which must be there."""

    family: Family
    table: str
    elements: Sequence[Element]
    delete: bool = False

    def __str__(self) -> str:
        verb = "delete" if self.delete else "add"
        return "\n".join(
            f"{verb} element {self.family} {self.table} {one.set.name} {{ {one.key_text if self.delete else one} }}"
            for one in self.elements
        )


Change = Table | Removal | Elements
