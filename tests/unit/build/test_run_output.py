"""What a RUN prints."""

from __future__ import annotations

from enisle.build.run_output import Output


def frame(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


def test_streams_are_told_apart_and_pieces_of_any_size_are_put_together() -> None:
    sent = frame(1, b"out\n") + frame(2, b"err\n") + frame(1, b"\xc3") + frame(2, b"x") + frame(1, b"\xa9\n")
    for size in (1, 7, len(sent)):
        said: list[tuple[str, bool]] = []
        output = Output(lambda text, stderr, said=said: said.append((text, stderr)))
        for start in range(0, len(sent), size):
            output.feed(sent[start : start + size])
        output.end()
        assert said == [("out\n", False), ("err\n", True), ("x", True), ("é\n", False)]


def test_what_is_no_text_is_replaced() -> None:
    said: list[str] = []
    output = Output(lambda text, stderr: said.append(text))
    output.feed(frame(1, b"a\xff") + frame(1, b"\xc3"))
    output.end()
    assert said == ["a\ufffd", "\ufffd"]
