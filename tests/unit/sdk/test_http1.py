from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import Unavailable
from enisle.sdk.http1 import MAX_HEAD_BYTES, BodyDecoder, Head, request_head, split_head


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(bounds)]


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=6), st.lists(st.integers(0, 10_000), max_size=8))
def test_chunks_come_out_whole_however_they_are_cut(pieces: list[bytes], places: list[int]) -> None:
    coded = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nTrailer: x\r\n\r\nREST"
    decoder = BodyDecoder(Head(200, "OK", {"transfer-encoding": "chunked"}), method="GET")
    out = b"".join(decoder.feed(part) for part in cut(coded, places))
    assert out == b"".join(pieces)
    assert decoder.done
    assert decoder.rest == b"REST"


@given(st.binary(max_size=60), st.lists(st.integers(0, 10_000), max_size=5))
def test_a_body_with_a_length_ends_there(body: bytes, places: list[int]) -> None:
    decoder = BodyDecoder(Head(200, "OK", {"content-length": str(len(body))}), method="GET")
    out = b"".join(decoder.feed(part) for part in cut(body + b"next", places))
    assert (out, decoder.done, decoder.rest) == (body, True, b"next")


def test_a_body_without_length_ends_with_the_connection() -> None:
    decoder = BodyDecoder(Head(200, "OK", {}), method="GET")
    assert decoder.feed(b"abc") == b"abc"
    assert not decoder.done
    decoder.end()
    assert decoder.done


@pytest.mark.parametrize("headers", [{"content-length": "5"}, {"transfer-encoding": "chunked"}])
def test_a_body_cut_short_is_an_error(headers: dict[str, str]) -> None:
    decoder = BodyDecoder(Head(200, "OK", headers), method="GET")
    decoder.feed(b"3\r\n")
    with pytest.raises(Unavailable):
        decoder.end()


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_some_answers_have_no_body(method: str, status: int) -> None:
    assert BodyDecoder(Head(status, "", {"content-length": "9"}), method=method).done


@pytest.mark.parametrize("length", ["-1", "x", ""])
def test_broken_lengths_are_refused(length: str) -> None:
    with pytest.raises(Unavailable):
        BodyDecoder(Head(200, "OK", {"content-length": length}), method="GET")


def test_head_is_read_with_what_follows() -> None:
    assert split_head(b"HTTP/1.1 200 OK\r\nA: 1\r\n") is None
    split = split_head(b"HTTP/1.1 404 Not Found\r\nContent-Type:  a/b \r\n\r\nbody")
    assert split == (Head(404, "Not Found", {"content-type": "a/b"}), b"body")


@pytest.mark.parametrize("data", [b"SSH-2.0-x\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n", b"x" * (MAX_HEAD_BYTES + 1)])
def test_what_is_no_http_is_refused(data: bytes) -> None:
    with pytest.raises(Unavailable):
        split_head(data)


def test_headers_cannot_smuggle_lines() -> None:
    with pytest.raises(ValueError, match="line break"):
        request_head("GET", "/", {"X": "a\r\nEvil: b"})
