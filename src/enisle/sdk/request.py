"""One request to the API, as data: what to send, and how to read the answer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterable, Callable, Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from enisle import errors
from enisle.sdk.http1 import request_head

API_VERSION = "1.47"

T = TypeVar("T")
Body = bytes | Iterable[bytes] | AsyncIterable[bytes] | None


class Reply(NamedTuple):
    """A whole response."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The decoded body, None when there is none. Raises Unavailable when it is not JSON."""
        if not self.body.strip():
            return None
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise errors.Unavailable(f"The server's answer is not JSON: {self.body[:80]!r}.") from error


def as_json(reply: Reply) -> Any:
    """The answer as decoded JSON."""
    return reply.json()


def nothing(reply: Reply) -> None:
    """For requests whose answer says no more than that it was done."""


class Request(Generic[T]):
    """``path`` is below the version prefix and already quoted; of ``query``, None values are left out.

    Booleans become 1 and 0, dicts and lists JSON. A ``body`` given as an iterable is sent in chunks as it comes.
    ``native`` paths (below /enisle/v1) carry no version of Docker's.
    """

    __slots__ = ("body", "headers", "method", "native", "parse", "path", "query")

    def __init__(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json_body: Any = None,
        body: Body = None,
        parse: Callable[[Reply], T],
        native: bool = False,
    ) -> None:
        self.method = method
        self.path = path
        self.query = dict(query or {})
        self.headers = dict(headers or {})
        self.body: Body = body
        self.parse = parse
        self.native = native
        if json_body is not None:
            self.body = _encoded(json_body)
            self.headers["Content-Type"] = "application/json"

    def target(self, version: str = API_VERSION) -> str:
        """The request target: prefix, path and query string."""
        pairs = [(name, text) for name, value in self.query.items() for text in _query_values(value)]
        prefix = "" if self.native else f"/v{version}"
        return prefix + self.path + ("?" + urlencode(pairs, errors="surrogateescape") if pairs else "")

    def head(self, version: str = API_VERSION) -> bytes:
        """The first bytes of the request, up to its body, which follows in chunks if it is given as an iterable."""
        headers = {"Host": "enisle", "User-Agent": "enisle"} | self.headers
        if isinstance(self.body, bytes):
            headers["Content-Length"] = str(len(self.body))
        elif self.body is not None:
            headers["Transfer-Encoding"] = "chunked"
        elif self.method in ("POST", "PUT"):
            headers["Content-Length"] = "0"
        return request_head(self.method, self.target(version), headers)

    def with_hijack(self) -> Request[T]:
        """The same request, asking to keep the bare connection after the head."""
        self.headers |= {"Connection": "Upgrade", "Upgrade": "tcp"}
        return self


def _encoded(value: Any) -> bytes:
    """JSON in UTF-8. Raises Invalid for text that is none (a file name in another encoding, say)."""
    try:
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        start = error.object.rfind('"', 0, error.start) + 1
        word = error.object[start : error.object.find('"', error.start)].encode("utf-8", "surrogateescape")
        raise errors.Invalid(f"{word!r} is not UTF-8, and the API carries no other text.") from error


def _query_values(value: Any) -> list[str]:
    if value is None:
        return []
    if isinstance(value, bool):
        return ["1" if value else "0"]
    if isinstance(value, tuple):
        return [str(item) for item in value]
    if isinstance(value, dict | list):
        return [json.dumps(value, separators=(",", ":"))]
    return [str(value)]


def segment(text: str) -> str:
    """A name or id as one piece of a path; a leading slash, as Docker's names have it, is dropped."""
    text = text.removeprefix("/")
    if not text:
        raise errors.Invalid("An empty name was given.")
    return quote(text, safe=":@._-~+", errors="surrogateescape")


def image_segment(text: str) -> str:
    """An image's name as part of a path: its slashes stay, as Docker's routes want them."""
    if not text or text.startswith("/") or "/../" in f"/{text}/":
        raise errors.Invalid(f"invalid reference format: {text!r}")
    return quote(text, safe="/:@._-~+", errors="surrogateescape")


_BY_STATUS: dict[int, type[errors.EnisleError]] = {
    304: errors.NotModified,
    400: errors.Invalid,
    401: errors.Unauthenticated,
    403: errors.Denied,
    404: errors.NotFound,
    405: errors.Invalid,
    406: errors.NotSupported,
    409: errors.Conflict,
    413: errors.Invalid,
    501: errors.NotSupported,
    502: errors.Unavailable,
    503: errors.Unavailable,
    504: errors.Unavailable,
    507: errors.Exhausted,
}


def failure(reply: Reply) -> errors.EnisleError:
    """The error that a response with a status of 300 or more stands for, in the server's words."""
    message = ""
    try:
        decoded = json.loads(reply.body)
        if isinstance(decoded, dict):
            message = str(decoded.get("message", ""))
    except ValueError:
        message = reply.body.decode("utf-8", "replace").strip()[:500]
    message = message.strip() or f"The server answered with status {reply.status}."
    return _BY_STATUS.get(reply.status, errors.Internal if reply.status >= 500 else errors.Invalid)(message)
