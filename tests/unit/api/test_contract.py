"""The checks of answers against Docker's description do find what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.api.times import parse_time
from enisle.errors import Invalid
from enisle.model.numbers import decimal
from tests.api.contract.coverage import unexercised
from tests.api.contract.description import VERSION, document, find, operations
from tests.api.contract.http1 import Message, Reader, answer_length, parse_head
from tests.api.contract.recorder import Exchange, Recorder, faults
from tests.api.contract.schema import Schemas


@pytest.mark.parametrize(
    ("target", "name"),
    [
        ("GET /v1.47/images/json?all=1", "GET /images/json"),
        ("GET /images/registry:5000/a/b/json", "GET /images/{name}/json"),
        ("GET /v1.30/containers/a%2Fb/json", "GET /containers/{id}/json"),
        ("HEAD /v1.47/_ping", "HEAD /_ping"),
        ("GET /v1.47/nothing", None),
    ],
)
def test_finding_an_operation(target: str, name: str | None) -> None:
    operation, _ = find(*target.split(" "))
    assert (operation.name if operation else None) == name


@pytest.mark.parametrize(
    ("value", "schema", "fault"),
    [
        (None, {"type": "string"}, "$: null"),
        (5, {"type": "string"}, "$: 5, string is expected"),
        (True, {"type": "integer"}, "$: True, an integer (int64) is expected"),
        (1 << 63, {"type": "integer", "format": "int64"}, f"$: {1 << 63}, an integer (int64) is expected"),
        ("x", {"type": "string", "enum": ["y"]}, "$: 'x' is none of ['y']"),
        ("now", {"type": "string", "format": "dateTime"}, "$: 'now' is no time of RFC 3339"),
        ({}, {"type": "object", "properties": {"B": {}}, "required": ["A"]}, ""),  # nobody knows what A is
        ([{}], {"type": "array", "items": {"type": "object", "properties": {}, "required": ["A"]}}, None),
        ({"B": 1}, {"$ref": "#/definitions/Thing"}, "$.B: not described (Thing.B)"),
        ({"A": None}, {"allOf": [{"$ref": "#/definitions/Thing"}]}, "$.A: null (Thing.A)"),
        ({"a": {"A": 1}}, {"type": "object", "additionalProperties": {"$ref": "#/definitions/Thing"}}, None),
        ({"A": "x"}, {"$ref": "#/definitions/Thing"}, ""),
        ({"A": "x"}, {"allOf": [{"$ref": "#/definitions/Thing"}]}, ""),
    ],
)
def test_faults_of_values(value: Any, schema: dict[str, Any], fault: str | None) -> None:
    schemas = Schemas({"Thing": {"type": "object", "properties": {"A": {"type": "string"}}}})
    found = list(schemas.faults(value, schema))
    assert bool(found) == (fault != "")
    if fault:
        assert found == [fault]


def _answer(status: int, body: object) -> Message:
    return Message(
        f"HTTP/1.1 {status} x", {"content-type": "application/json"}, bytearray(json.dumps(body).encode()), True
    )


def test_faults_of_answers() -> None:
    operation, _ = find("GET", "/containers/json")
    assert operation is not None
    assert list(faults(operation, VERSION, _answer(200, []))) == []
    assert list(faults(operation, VERSION, _answer(200, {})))
    assert list(faults(operation, VERSION, _answer(299, []))) == ["is not a documented status"]
    assert list(faults(operation, VERSION, _answer(418, {"message": "x"}))) == ["is not a documented status"]
    assert list(faults(operation, VERSION, _answer(404, {"error": "x"})))
    assert list(faults(operation, (1, 30), _answer(200, [{"Old": 1}]))) == []


@given(cuts=st.lists(st.integers(1, 200), max_size=20), chunked=st.booleans())
def test_an_exchange_in_pieces(cuts: list[int], chunked: bool) -> None:
    body = b'[{"Bad": 1}]'
    framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
    sent = b"5\r\n%s\r\n7\r\n%s\r\n0\r\n\r\n" % (body[:5], body[5:]) if chunked else body
    stream = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n%s\r\n\r\n%s" % (framing, sent)
    recorder = Recorder()
    exchange = Exchange(recorder)
    exchange.client_said(b"GET /v1.47/containers/json HTTP/1.1\r\nHost: d\r\n\r\n" * 2)
    rest = stream * 2
    for cut in cuts:
        exchange.engine_said(rest[:cut])
        rest = rest[cut:]
    exchange.engine_said(rest)
    assert recorder.take_faults() == ["GET /containers/json -> 200: $[0].Bad: not described (ContainerSummary.Bad)"] * 2


def test_a_stream_is_not_read_as_http() -> None:
    exchange = Exchange(Recorder())
    exchange.client_said(b"POST /v1.47/containers/x/attach HTTP/1.1\r\nHost: d\r\n\r\n")
    exchange.engine_said(b"HTTP/1.1 101 UPGRADED\r\nUpgrade: tcp\r\n\r\nHTTP/1.1 500 said the container\r\n\r\n")
    assert exchange.raw


def test_bodies_until_the_end() -> None:
    found: list[Message] = []
    reader = Reader(lambda answer: answer_length(answer, "GET"), found.append)
    reader.feed(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    reader.end()
    assert [bytes(message.body or b"") for message in found] == [b"all of it"]
    assert parse_head(b"HTTP/1.1 404 no").status == 404


def test_the_description_is_whole() -> None:
    assert len(operations()) == 107
    assert "descr" not in json.dumps(document()["definitions"]).replace('"Description"', "").replace("Descriptor", "")
    assert unexercised([]) and not unexercised([f"{operation.name} 200" for operation in operations()])


@pytest.mark.parametrize("text", ["9" * 5000, "²", "１", "-1", "", "1_0", " 1", "1" * 20])
def test_texts_that_are_no_numbers(text: str) -> None:
    assert decimal(text) is None


@pytest.mark.parametrize("text", ["9" * 400 + "h", "1h" * 100_000, "9" * 5000, "1." + "9" * 400 + "s"])
def test_times_without_end(text: str) -> None:
    with pytest.raises(Invalid):
        parse_time(text)
