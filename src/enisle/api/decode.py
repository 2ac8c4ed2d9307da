"""JSON bodies by the rules of Go's encoding/json, which all Docker clients rely on.

Unknown members are ignored, null means the zero value, and names match without regard to case when there is no exact
match. Types are checked by msgspec.
"""

from __future__ import annotations

import types
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from enisle.errors import Invalid

Body = TypeVar("Body")
MAX_DEPTH = 64

_plans: dict[Any, _Plan | None] = {}


class _Plan:
    """How to fit a decoded value to a type: only structs, and lists and maps that hold structs, need anything done."""

    __slots__ = ("fields", "folded", "inner", "shape")

    def __init__(self, shape: str) -> None:
        self.shape = shape
        self.inner: _Plan | None = None
        self.fields: dict[str, _Plan | None] = {}
        self.folded: dict[str, str] = {}


def decode(data: bytes, kind: type[Body]) -> Body:
    """The body as a ``kind`` (a msgspec Struct, list or dict type). Raises Invalid."""
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Invalid(f"invalid JSON: {error}") from None
    if data.count(b"{") + data.count(b"[") > MAX_DEPTH:
        _check_depth(raw)
    if raw is None:
        raw = {}
    try:
        return msgspec.convert(_fit(raw, _plan(kind)), kind)
    except msgspec.ValidationError as error:
        raise Invalid(f"invalid JSON: {_go_like(str(error))}") from None


def _check_depth(value: Any) -> None:
    """What is decoded may be kept and written again, by code that calls itself for each level."""
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for each in level
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
        ]
        if not level:
            return
    raise Invalid("invalid JSON: exceeded max depth")


def _go_like(text: str) -> str:
    """ "Expected `int`, got `str` - at `$.HostConfig.Memory`" with the path in front."""
    what, at, path = text.partition(" - at `$")
    what = what.replace("`", "")
    return f"{path.rstrip('`').lstrip('.')}: {what}" if at else what


def _plan(kind: Any) -> _Plan | None:
    if kind not in _plans:
        _plans[kind] = None
        _plans[kind] = _make_plan(kind)
    return _plans[kind]


def _make_plan(kind: Any) -> _Plan | None:
    origin = get_origin(kind)
    if origin is Union or origin is types.UnionType:
        for arm in get_args(kind):
            if (plan := _plan(arm)) is not None:
                return plan
        return None
    if origin in (list, dict):
        inner = _plan(get_args(kind)[-1])
        if inner is None:
            return None
        plan = _Plan("list" if origin is list else "dict")
        plan.inner = inner
        return plan
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct)):
        return None
    plan = _Plan("struct")
    hints = get_type_hints(kind)
    for name, wire_name in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True):
        plan.fields[wire_name] = _plan(hints[name])
        plan.folded[wire_name.casefold()] = wire_name
    return plan


def _fit(value: Any, plan: _Plan | None) -> Any:
    if plan is None:
        return value
    if plan.shape == "struct":
        return _fit_struct(value, plan) if isinstance(value, dict) else value
    if plan.shape == "list":
        return [_fit(item, plan.inner) for item in value] if isinstance(value, list) else value
    return {key: _fit(item, plan.inner) for key, item in value.items()} if isinstance(value, dict) else value


def _fit_struct(value: dict[str, Any], plan: _Plan) -> dict[str, Any]:
    fitted = {}
    for key, item in value.items():
        if item is None:
            continue
        name = key
        if key not in plan.fields:
            name = plan.folded.get(key.casefold(), "")
            if not name or name in value:
                continue
        inner = plan.fields[name]
        fitted[name] = item if inner is None else _fit(item, inner)
    return fitted
