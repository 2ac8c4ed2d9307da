"""Reduces Docker's description of its API to its structure, which the tests check answers against.

The source is ``docs/api/v1.47.yaml`` of https://github.com/moby/moby (Apache-2.0), a Swagger 2.0 document. Kept are
paths, methods, parameters, status codes, schemas, types, enumerations, limits and formats; left out are all prose and
all examples. Run it where PyYAML is installed: ``python -m tests.api.contract.reduce v1.47.yaml``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

REDUCED = Path(__file__).parent / "v1.47.json"
SOURCE = "Reduced by tests/api/contract/reduce.py from docs/api/v1.47.yaml of https://github.com/moby/moby"

_SCHEMA_KEYS = frozenset(
    "$ref type format enum required minimum maximum pattern minLength maxLength minItems maxItems default "
    "x-nullable additionalProperties items allOf properties".split()
)
_PARAMETER_KEYS = _SCHEMA_KEYS | {"name", "in", "schema", "collectionFormat", "allowEmptyValue"}
_METHODS = ("get", "head", "post", "put", "delete", "patch", "options")


def reduce(document: dict[str, Any]) -> dict[str, Any]:
    """The structure of a Swagger 2.0 document; it is one itself."""
    return {
        "swagger": "2.0",
        "info": {"title": SOURCE, "version": document["info"]["version"]},
        "basePath": document["basePath"],
        "produces": document["produces"],
        "consumes": document["consumes"],
        "paths": {
            path: {method: _operation(item[method], item) for method in _METHODS if method in item}
            for path, item in document["paths"].items()
        },
        "definitions": {name: _schema(schema) for name, schema in document["definitions"].items()},
    }


def _operation(operation: dict[str, Any], item: dict[str, Any]) -> dict[str, Any]:
    reduced: dict[str, Any] = {"operationId": operation["operationId"], "tags": operation.get("tags", [])}
    reduced |= {key: operation[key] for key in ("consumes", "produces") if key in operation}
    parameters = [*item.get("parameters", []), *operation.get("parameters", [])]
    if parameters:
        reduced["parameters"] = [_parameter(parameter) for parameter in parameters]
    reduced["responses"] = {str(status): _response(answer) for status, answer in operation["responses"].items()}
    return reduced


def _parameter(parameter: dict[str, Any]) -> dict[str, Any]:
    reduced = {key: value for key, value in parameter.items() if key in _PARAMETER_KEYS}
    if "schema" in reduced:
        reduced["schema"] = _schema(reduced["schema"])
    if reduced["in"] == "body":
        reduced.pop("type", None)
    return reduced


def _response(answer: dict[str, Any]) -> dict[str, Any]:
    reduced: dict[str, Any] = {"description": ""}
    if "schema" in answer:
        reduced["schema"] = _schema(answer["schema"])
    if "headers" in answer:
        reduced["headers"] = {name: _schema(header) for name, header in answer["headers"].items()}
    return reduced


def _schema(schema: Any) -> Any:
    if not isinstance(schema, dict):
        return schema
    reduced: dict[str, Any] = {}
    for key, value in schema.items():
        if key not in _SCHEMA_KEYS:
            continue
        if key == "properties":
            reduced[key] = {name: _schema(inner) for name, inner in value.items()}
        elif key == "allOf":
            reduced[key] = [_schema(inner) for inner in value]
        elif key in ("items", "additionalProperties"):
            reduced[key] = _schema(value)
        else:
            reduced[key] = value
    return reduced


def as_text(reduced: dict[str, Any]) -> str:
    """One path or definition a line, so that a difference shows where it is."""
    lines = []
    for key, value in reduced.items():
        if key in ("paths", "definitions"):
            inner = ",\n".join(f"  {json.dumps(name)}: {json.dumps(part)}" for name, part in value.items())
            lines.append(f"{json.dumps(key)}: {{\n{inner}\n}}")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def main() -> None:
    import yaml

    document = yaml.safe_load(Path(sys.argv[1]).read_text())
    REDUCED.write_text(as_text(reduce(document)))


if __name__ == "__main__":
    main()
