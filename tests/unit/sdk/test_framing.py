from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import Unavailable
from enisle.sdk.framing import FrameDecoder, ObjectDecoder
from tests.unit.sdk.fake_server import frame


@given(st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=30)), max_size=6), st.integers(1, 20))
def test_streams_come_out_whole_however_they_are_cut(frames: list[tuple[int, bytes]], step: int) -> None:
    data = b"".join(frame(stream, body) for stream, body in frames)
    decoder = FrameDecoder()
    out = [item for start in range(0, len(data), step) for item in decoder.feed(data[start : start + step])]
    for number in (1, 2):
        assert b"".join(body for stream, body in out if stream == number) == b"".join(
            body for stream, body in frames if stream == number
        )


def test_bytes_that_are_no_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="unrecognised"):
        list(FrameDecoder().feed(b"plain text"))


_VALUES = st.recursive(st.text(max_size=4) | st.integers() | st.none(), lambda deeper: st.lists(deeper, max_size=3))


@given(
    st.lists(st.dictionaries(st.text(max_size=4), _VALUES, max_size=3), max_size=5),
    st.sampled_from(["", "\n", "\r\n", " "]),
    st.integers(1, 20),
)
def test_objects_come_out_whole_however_they_are_cut(objects: list[dict[str, object]], between: str, step: int) -> None:
    data = "".join(json.dumps(item, ensure_ascii=False) + between for item in objects).encode("utf-8", "replace")
    decoder = ObjectDecoder()
    out = [item for start in range(0, len(data), step) for item in decoder.feed(data[start : start + step])]
    assert [*out, *decoder.end()] == objects


def test_objects_are_told_when_a_brace_or_a_line_ends_the_data() -> None:
    decoder = ObjectDecoder()
    assert list(decoder.feed(b'{"a": {"b": 1}')) == []
    assert list(decoder.feed(b'}{"c')) == []
    assert list(decoder.feed(b'": 2}')) == [{"a": {"b": 1}}, {"c": 2}]


def test_a_rest_that_is_no_object_is_an_error() -> None:
    decoder = ObjectDecoder()
    assert list(decoder.feed(b'{"a": 1}\n<html>oops\n')) == [{"a": 1}]
    with pytest.raises(Unavailable, match="oops"):
        list(decoder.end())
