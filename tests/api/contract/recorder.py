"""What a test's clients and the engine said to each other, checked against the description."""

from __future__ import annotations

import functools
import json
import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.api.contract import known
from tests.api.contract.description import VERSION, Operation, document, find
from tests.api.contract.http1 import Message, Reader, answer_length, request_length
from tests.api.contract.schema import Schemas

OPERATIONS_FILE = "ENISLE_TEST_OPERATIONS"
"""The environment's name of a file that every operation which was answered with success is written to."""

_ERROR = {"$ref": "#/definitions/ErrorResponse"}
_STREAMS = ("application/vnd.docker.raw-stream", "application/vnd.docker.multiplexed-stream")


class Recorder:
    """Faults found in the answers so far; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[str] = []
        self._exercised: set[str] = set()

    def add(self, request: Message, answer: Message) -> None:
        """One exchange that is over."""
        method, target, *_ = [*request.start.split(" "), "", ""]
        operation, version = find(method, target)
        name = operation.name if operation else f"{method} {target[:100]}"
        found = [f"{name} -> {answer.status}: {fault}" for fault in faults(operation, version, answer)]
        with self._lock:
            self._faults += found
            if operation is not None and answer.status < 400:
                self._note(f"{operation.name} {answer.status}")

    def _note(self, exercised: str) -> None:
        path = os.environ.get(OPERATIONS_FILE)
        if exercised not in self._exercised and path:
            with Path(path).open("a") as file:
                file.write(f"{exercised}\n")
        self._exercised.add(exercised)

    def take_faults(self) -> list[str]:
        """What has been found since this was last asked."""
        with self._lock:
            found, self._faults = self._faults, []
        return found


@functools.cache
def _schemas() -> Schemas:
    return Schemas(document()["definitions"], known.NULLABLE, known.EXTRA, known.VALUES)


def faults(operation: Operation | None, version: tuple[int, int], answer: Message) -> Iterator[str]:
    """What is wrong with an answer. Older versions have other shapes: of theirs only the failures are looked at."""
    if answer.status >= 400:
        yield from _refusal_faults(operation, answer)
        return
    if operation is None or answer.status in (100, 101):
        return
    described = operation.responses.get(str(answer.status))
    if described is None:
        yield "is not a documented status"
        return
    if version != VERSION or answer.body is None:
        return
    if answer.body and answer.media_type not in (*operation.produces, *_STREAMS):
        yield f"Content-Type {answer.media_type!r} is none of {operation.produces}"
    schema = described.get("schema")
    if operation.name in known.STREAMED:
        schema = {"$ref": f"#/definitions/{known.STREAMED[operation.name]}"}
    if schema is not None and answer.media_type == "application/json":
        yield from _body_faults(operation, schema, answer)


def _refusal_faults(operation: Operation | None, answer: Message) -> Iterator[str]:
    documented = operation is not None and str(answer.status) in operation.responses
    if not documented and answer.status not in known.REFUSALS:
        yield "is not a documented status"
    if b"Traceback (most recent call last)" in (answer.body or b""):
        yield "shows a traceback"
    if answer.body:
        try:
            yield from _schemas().faults(json.loads(answer.body), _ERROR)
        except ValueError:
            yield f"is no JSON: {bytes(answer.body[:100])!r}"


def _body_faults(operation: Operation, schema: dict[str, Any], answer: Message) -> Iterator[str]:
    for value in _documents(answer):
        if isinstance(value, ValueError):
            yield f"is no JSON: {value}"
            return
        yield from _schemas().faults(value, schema, owner=operation.name)


def _documents(answer: Message) -> Iterator[Any]:
    """The JSON values of a body, one after the other; of one that was cut off, those that are complete."""
    text = (answer.body or b"").decode("utf-8", "replace").lstrip()
    decoder = json.JSONDecoder()
    while text:
        try:
            value, end = decoder.raw_decode(text)
        except ValueError as error:
            if answer.whole:
                yield error
            return
        yield value
        text = text[end:].lstrip()


class Exchange:
    """One connection: pairs its answers with its requests, until it becomes a stream of bytes."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._requests: deque[Message] = deque()
        self._asked = Reader(self._request_opened, lambda _request: None)
        self._answers = Reader(self._answer_opened, self._answer_closed)
        self.raw = False  # no longer HTTP

    def client_said(self, data: bytes) -> None:
        if not self.raw:
            self._listen(self._asked, data)

    def engine_said(self, data: bytes) -> None:
        if not self.raw:
            self._listen(self._answers, data)

    def engine_ended(self) -> None:
        if not self.raw:
            self._answers.end()

    def _listen(self, reader: Reader, data: bytes) -> None:
        try:
            reader.feed(data)
        except (ValueError, IndexError):
            self.raw = True

    def _request_opened(self, request: Message) -> int:
        self._requests.append(request)
        return request_length(request)

    def _answer_opened(self, answer: Message) -> int | None:
        if not self._requests:  # to what we could not read
            raise ValueError("an answer without a request")
        method = self._requests[0].start.partition(" ")[0]
        length = answer_length(answer, method)
        if answer.status == 101 or (length is None and answer.media_type in _STREAMS):
            self._recorder.add(self._requests[0], answer)
            self.raw = True
            return 0
        return length

    def _answer_closed(self, answer: Message) -> None:
        if answer.status != 100 and not self.raw:
            self._recorder.add(self._requests.popleft(), answer)
