"""Reading JSON that strangers wrote: bounded in size and depth, without what parsers disagree about."""

from __future__ import annotations

import json
from typing import Any

from enisle.errors import Invalid

SIZE_LIMIT_BYTES = 4 << 20
DEPTH_LIMIT = 64


def parse_object(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in ``data``. Raises Invalid, naming ``what``, for anything else.

    A key given twice and NaN are refused: two readers would read two things.
    """
    if len(data) > SIZE_LIMIT_BYTES:
        raise Invalid(f"{what}: {len(data)} bytes, which is over the limit of {SIZE_LIMIT_BYTES}")
    try:
        document = json.loads(data, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise Invalid(f"{what}: not valid JSON: {str(error)[:200]}") from error
    if not isinstance(document, dict):
        raise Invalid(f"{what}: not a JSON object")
    _check_depth(document, what)
    return document


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError("a key is given twice")
    return values


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON value")


def _check_depth(document: Any, what: str) -> None:
    level: list[Any] = [document]
    for _ in range(DEPTH_LIMIT):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, (dict, list))
        ]
        if not level:
            return
    raise Invalid(f"{what}: nested deeper than {DEPTH_LIMIT} levels")


def canonical(document: dict[str, Any]) -> bytes:
    """A document as bytes, always the same for the same document (keys in the order given)."""
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogatepass")
