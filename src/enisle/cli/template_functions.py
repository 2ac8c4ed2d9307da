"""The functions of ``--format`` templates, and how Go prints values."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from enisle.cli.printing import json_text
from enisle.errors import Invalid


class Missing:
    """A field that is not there: false in conditions, an error when printed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __bool__(self) -> bool:
        return False


def truth(value: Any) -> bool:
    """Go's idea of it: false, 0, "", nil and whatever is empty are false."""
    return bool(value)


def show(value: Any) -> str:
    """A value as Go's templates print it. Raises Invalid for a missing field."""
    if isinstance(value, Missing):
        raise Invalid(f'template cannot be applied: map has no entry for key "{value.name}"')
    if value is None:
        return "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "map[" + " ".join(f"{key}:{show(item)}" for key, item in sorted(value.items())) + "]"
    if isinstance(value, list | tuple):
        return "[" + " ".join(show(item) for item in value) + "]"
    return str(value)


def to_json(value: Any) -> str:
    """Compact JSON."""
    if isinstance(value, Missing):
        value = None
    if isinstance(value, dict):
        value = {key: item for key, item in value.items() if not callable(item)}
    return json_text(value)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if value is None or isinstance(value, Missing):
            return value
        value = value.get(key) if isinstance(value, dict) else value[key]
    return value


def _equal(value: Any, *others: Any) -> bool:
    return any(value == other for other in others)


def _and(*values: Any) -> Any:
    for value in values[:-1]:
        if not truth(value):
            return value
    return values[-1]


def _or(*values: Any) -> Any:
    for value in values[:-1]:
        if truth(value):
            return value
    return values[-1]


def _slice(value: Any, start: int = 0, end: int | None = None) -> Any:
    return value[start:end]


def _pad(text: Any, before: int, after: int) -> str:
    plain = show(text)
    return " " * before + plain + " " * after if plain else plain


_VERB = re.compile(r"%([-+ 0#]*)(\d*)(?:\.(\d+))?([a-zA-Z%])")


def _printf(pattern: str, *values: Any) -> str:
    rest = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match.groups()
        if verb == "%":
            return "%"
        if not rest:
            return f"%!{verb}(MISSING)"
        value = rest.pop(0)
        if verb == "q":
            text = json.dumps(show(value), ensure_ascii=False)
        elif verb in "dxXofeg":
            return str(f"%{flags}{width}{'.' + precision if precision else ''}{verb}" % value)
        else:
            text = show(value)[: int(precision)] if precision else show(value)
        return text.ljust(int(width or 0)) if "-" in flags else text.rjust(int(width or 0))

    return _VERB.sub(one, pattern)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": to_json,
    "join": lambda values, separator: separator.join(show(value) for value in values or ()),
    "split": lambda text, separator: text.split(separator),
    "lower": lambda text: show(text).lower(),
    "upper": lambda text: show(text).upper(),
    "title": lambda text: show(text).title(),
    "truncate": lambda text, length: show(text)[:length],
    "pad": _pad,
    "len": lambda value: len(value or ()),
    "index": _index,
    "slice": _slice,
    "print": lambda *values: "".join(show(value) for value in values),
    "println": lambda *values: " ".join(show(value) for value in values) + "\n",
    "printf": _printf,
    "eq": _equal,
    "ne": lambda left, right: left != right,
    "lt": lambda left, right: left < right,
    "le": lambda left, right: left <= right,
    "gt": lambda left, right: left > right,
    "ge": lambda left, right: left >= right,
    "and": _and,
    "or": _or,
    "not": lambda value: not truth(value),
}
