"""Query strings by Docker's rules: what counts as true, numbers, filters."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import parse_qs

import msgspec

from enisle.api.decode import decode
from enisle.errors import Invalid
from enisle.model.numbers import decimal

_FALSE = frozenset({"", "0", "no", "false", "none"})
_INTEGER = re.compile(r"[+-]?[0-9]+")
Filters = dict[str, list[str]]


def atoi(text: str) -> int:
    """The number that Go's strconv.Atoi takes a text for. Raises Invalid in its words."""
    digits = decimal(text[1:] if text[:1] in ("+", "-") else text)
    number = digits if digits is None or not text.startswith("-") else -digits
    if number is None or not -(1 << 63) <= number < 1 << 63:
        known = _INTEGER.fullmatch(text) is not None
        raise Invalid(f'strconv.Atoi: parsing "{text[:100]}": {"value out of range" if known else "invalid syntax"}')
    return number


class Query:
    """The parameters of one request."""

    __slots__ = ("_values",)

    def __init__(self, raw: str) -> None:
        self._values = parse_qs(raw, keep_blank_values=True) if raw else {}

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def text(self, name: str, default: str = "") -> str:
        values = self._values.get(name)
        return values[0] if values else default

    def texts(self, name: str) -> list[str]:
        return self._values.get(name, [])

    def flag(self, name: str, *, default: bool = False) -> bool:
        """Go clients and curl users write 1, true, True, yes ...; everything but Docker's five noes is true."""
        values = self._values.get(name)
        if values is None:
            return default
        return values[0].strip().lower() not in _FALSE

    def json(self, name: str, kind: Any) -> Any:
        """A parameter that is JSON of this kind; None when it is not given. Raises Invalid for anything else."""
        text = self.text(name)
        if text in ("", "null"):
            return None
        try:
            return decode(text.encode("utf-8", "surrogateescape"), kind)
        except Invalid as error:
            raise Invalid(f"error reading {name}: {error}") from error

    def number(self, name: str) -> int | None:
        """An integer; None when it is not given or empty. Raises Invalid in Go's words."""
        value = self.text(name)
        if not value:
            return None
        return atoi(value)

    def filters(self, accepted: frozenset[str]) -> Filters:
        """The ``filters`` parameter: {"name": {"value": true}} or, of old clients, {"name": ["value"]}."""
        raw = self.text("filters")
        if not raw:
            return {}
        try:
            decoded = msgspec.json.decode(raw)
        except (msgspec.MsgspecError, UnicodeError, RecursionError):
            raise Invalid(f"invalid filter: {raw[:200]!r} is no JSON") from None
        if not isinstance(decoded, dict):
            raise Invalid("invalid filter: an object is expected")
        filters: Filters = {}
        for name, values in decoded.items():
            filters[name] = _filter_values(name, values)
            if name not in accepted:
                raise Invalid(f"invalid filter '{name[:100]}'")
        return filters


def _filter_values(name: str, values: object) -> list[str]:
    if isinstance(values, dict) and all(isinstance(chosen, bool) for chosen in values.values()):
        return [value for value, chosen in values.items() if chosen]
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return list(values)
    raise Invalid(f"invalid filter '{name[:100]}': its values must be strings")


def flag_filter(filters: Filters, name: str) -> bool | None:
    """A filter that is true or false, given once; None when it is not given. Raises Invalid."""
    values = filters.get(name)
    if not values:
        return None
    meanings = {_BOOLEANS.get(value.lower()) for value in values}
    if len(meanings) != 1 or None in meanings:
        raise Invalid(f"invalid filter '{name}=[{' '.join(values)[:40]}]'")
    return meanings.pop()


_BOOLEANS = {"1": True, "true": True, "t": True, "0": False, "false": False, "f": False}


def labels_match(wanted: list[str], labels: dict[str, str]) -> bool:
    """Whether all of "key" or "key=value" hold."""
    for item in wanted:
        key, equals, value = item.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True
