from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import struct
import termios
import time
from collections.abc import Iterator
from typing import Any

import pytest

from enisle.cli import progress
from enisle.errors import NotFound, Unauthenticated

PULL: list[dict[str, Any]] = [
    {"status": "Pulling from debian", "id": "12"},
    {"status": "Pulling fs layer", "id": "aaaaaaaaaaaa"},
    {"status": "Downloading", "id": "aaaaaaaaaaaa", "progressDetail": {"current": 50, "total": 100}},
    {"status": "Pulling fs layer", "id": "bbbbbbbbbbbb"},
    {"status": "Pull complete", "id": "aaaaaaaaaaaa", "progressDetail": {}},
    {"status": "Pull complete", "id": "bbbbbbbbbbbb"},
    {"status": "Digest: sha256:00"},
]


@pytest.fixture(autouse=True)
def _usual_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a dumb one nothing moves."""
    monkeypatch.setenv("TERM", "xterm")


def test_without_a_terminal_there_are_plain_lines(capfd: pytest.CaptureFixture[str]) -> None:
    progress.follow(PULL)
    assert capfd.readouterr().out.splitlines() == [
        "12: Pulling from debian",
        "aaaaaaaaaaaa: Pulling fs layer",
        "bbbbbbbbbbbb: Pulling fs layer",
        "aaaaaaaaaaaa: Pull complete",
        "bbbbbbbbbbbb: Pull complete",
        "Digest: sha256:00",
    ]


def test_quiet_says_nothing_but_gives_what_came_along(capfd: pytest.CaptureFixture[str]) -> None:
    assert progress.follow([*PULL, {"aux": {"ID": "x"}}], quiet=True) == [{"ID": "x"}]
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("text", "kind"),
    [("manifest unknown: x", NotFound), ("unauthorized: authentication required", Unauthenticated)],
)
def test_errors_in_the_stream_are_raised(text: str, kind: type[Exception]) -> None:
    with pytest.raises(kind, match=text):
        progress.follow([{"errorDetail": {"message": text}, "error": text}])


def read_all(reader: int) -> str:
    """What was written to a terminal whose other side is closed; its end is an error, EIO."""
    data = b""
    with contextlib.suppress(OSError):
        while piece := os.read(reader, 1 << 16):
            data += piece
    os.close(reader)
    return data.decode()


def test_on_a_terminal_layers_are_bars_that_stay_on_the_screen() -> None:
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("HHHH", 4, 80, 0, 0))
    layers = [
        {"status": "Downloading", "id": f"{number:012x}", "progressDetail": {"current": 1, "total": 4}}
        for number in range(10)
    ]
    progress.follow([*PULL[:1], *layers, *PULL[-1:]], descriptor=writer)
    os.close(writer)
    text = read_all(reader)
    assert "12: Pulling from debian" in text
    assert " 25%  1B/4B" in text
    # The block is drawn over from its first line, so it may never be taller than the screen.
    heights = [int(part.partition("A")[0]) for part in text.split("\x1b[")[1:] if part.partition("A")[0].isdigit()]
    assert heights
    assert max(heights) <= 2
    assert all(len(line) < 80 + 12 for line in text.split("\n"))


def test_who_is_not_logged_in_is_told_where_to() -> None:
    failure = {"error": "registry r.example:5000: unauthorized: authentication required"}
    with pytest.raises(Unauthenticated, match=r"required\. Try: enisle login r\.example:5000$"):
        progress.follow([failure])


def slowly(pieces: list[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        time.sleep(0.3)
        yield piece


def test_a_long_upload_is_counted_on_a_terminal_and_leaves_nothing_there() -> None:
    reader, writer = pty.openpty()
    sent = list(progress.counted(slowly([b"x" * 1000] * 3), "Sending it", descriptor=writer))
    os.close(writer)
    assert sent == [b"x" * 1000] * 3
    text = read_all(reader)
    assert text.startswith("Sending it  ")
    assert text.endswith("Sending it  3kB\x1b[K\r\x1b[K")


def test_a_short_upload_and_one_without_a_terminal_are_not_spoken_of(capfd: pytest.CaptureFixture[str]) -> None:
    assert list(progress.counted([b"a", b"b"], "Sending it")) == [b"a", b"b"]
    assert capfd.readouterr().err == ""
    reader, writer = pty.openpty()
    assert list(progress.counted([b"a", b"b"], "Sending it", descriptor=writer)) == [b"a", b"b"]
    os.close(writer)
    assert read_all(reader) == ""
