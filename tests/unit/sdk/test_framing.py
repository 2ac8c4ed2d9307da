from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.sdk.framing import FrameDecoder
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
