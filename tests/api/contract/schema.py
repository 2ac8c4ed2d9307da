"""Checks a value against a schema of Swagger 2.0, strictly: what the schema does not name is a fault, too."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?(Z|[+-]\d{2}:\d{2})")
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")
_INTEGERS = {
    "int32": (-(1 << 31), (1 << 31) - 1),
    "int64": (-(1 << 63), (1 << 63) - 1),
    "uint8": (0, (1 << 8) - 1),
    "uint16": (0, (1 << 16) - 1),
    "uint32": (0, (1 << 32) - 1),
    "uint64": (0, (1 << 64) - 1),
}
_TYPES = {"string": str, "boolean": bool, "object": dict, "array": list}


@dataclass(frozen=True)
class Schemas:
    """``definitions`` of a document, and what is known to be wrong in them: see tests.api.contract.known.

    ``nullable``, ``extra`` and ``values`` name members as "Definition.Member".
    """

    definitions: Mapping[str, Any]
    nullable: frozenset[str] = frozenset()
    extra: frozenset[str] = frozenset()
    values: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def faults(self, value: Any, schema: Mapping[str, Any], *, at: str = "$", owner: str = "") -> Iterator[str]:
        """Every fault as "path: what is wrong". ``owner`` is the definition that the schema stands in."""
        if "$ref" in schema:
            owner = schema["$ref"].rpartition("/")[2]
            yield from self.faults(value, {**self.definitions[owner], **_without_ref(schema)}, at=at, owner=owner)
        elif value is None:
            if not schema.get("x-nullable") and schema.get("type") != "null":
                yield f"{at}: null"
        elif "allOf" in schema:
            merged = self._merged(schema)
            if merged["properties"]:
                yield from self._object(value, merged, at, owner)
            else:
                for part in schema["allOf"]:
                    yield from self.faults(value, part, at=at, owner=owner)
        elif schema.get("type") in ("object", None) and ("properties" in schema or "additionalProperties" in schema):
            yield from self._object(value, schema, at, owner)
        elif schema.get("type") == "array":
            yield from self._array(value, schema, at, owner)
        elif not (isinstance(value, str) and value in self.values.get(owner, ())):
            yield from _scalar(value, schema, at)

    def _merged(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        """One schema that says what all parts of an ``allOf`` say."""
        merged: dict[str, Any] = {"properties": {}, "required": [], "_owners": {}}
        for part in [*schema["allOf"], {key: value for key, value in schema.items() if key != "allOf"}]:
            owner = part["$ref"].rpartition("/")[2] if "$ref" in part else ""
            resolved = self.definitions[owner] if owner else part
            if "allOf" in resolved:
                resolved = self._merged(resolved)
            merged["properties"] |= resolved.get("properties", {})
            merged["required"] += resolved.get("required", [])
            merged["_owners"] |= dict.fromkeys(resolved.get("properties", {}), owner) if owner else {}
        return merged

    def _object(self, value: Any, schema: Mapping[str, Any], at: str, owner: str) -> Iterator[str]:
        if not isinstance(value, dict):
            yield f"{at}: {_shown(value)}, an object is expected"
            return
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        owners = schema.get("_owners", {})
        for name in schema.get("required", []):
            undescribed = properties and name not in properties and not others  # required by mistake
            if name not in value and not undescribed:
                yield f"{at}.{name}: missing"
        for name, item in value.items():
            known_as = f"{owners.get(name) or owner}.{name}"
            if item is None and known_as in self.nullable:
                continue
            if item is None and name in properties and not properties[name].get("x-nullable"):
                yield f"{at}.{name}: null ({known_as})"
            elif name in properties:
                yield from self.faults(item, properties[name], at=f"{at}.{name}", owner=known_as)
            elif isinstance(others, dict):
                if not (item is None and f"{owner}.*" in self.nullable):
                    yield from self.faults(item, others, at=f"{at}.{name}", owner=owner)
            elif properties and not others and known_as not in self.extra:
                yield f"{at}.{name}: not described ({known_as})"

    def _array(self, value: Any, schema: Mapping[str, Any], at: str, owner: str) -> Iterator[str]:
        if not isinstance(value, list):
            yield f"{at}: {_shown(value)}, an array is expected"
            return
        for number, item in enumerate(value):
            yield from self.faults(item, schema.get("items", {}), at=f"{at}[{number}]", owner=owner)


def _without_ref(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in schema.items() if key == "x-nullable"}


def _scalar(value: Any, schema: Mapping[str, Any], at: str) -> Iterator[str]:
    kind, form = schema.get("type"), schema.get("format", "")
    if kind == "integer":
        low, high = _INTEGERS.get(form, _INTEGERS["int64"])
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            yield f"{at}: {_shown(value)}, an integer ({form or 'int64'}) is expected"
            return
    elif kind == "number":
        if not isinstance(value, int | float) or isinstance(value, bool):
            yield f"{at}: {_shown(value)}, a number is expected"
            return
    elif kind in _TYPES and not isinstance(value, _TYPES[kind]):
        yield f"{at}: {_shown(value)}, {kind} is expected"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {_shown(value)} is none of {schema['enum']}"
    if form in ("dateTime", "date-time") and value and not _RFC3339.fullmatch(value):
        yield f"{at}: {_shown(value)} is no time of RFC 3339"
    if form == "byte" and not _BASE64.fullmatch(value):
        yield f"{at}: {_shown(value)} is no base64"
    if "minimum" in schema and value < schema["minimum"]:
        yield f"{at}: {value} is less than {schema['minimum']}"
    if "maximum" in schema and value > schema["maximum"]:
        yield f"{at}: {value} is more than {schema['maximum']}"
    if "pattern" in schema and isinstance(value, str) and not re.search(schema["pattern"], value):
        yield f"{at}: {_shown(value)} does not fit {schema['pattern']}"


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 80 else f"{text[:77]}..."
