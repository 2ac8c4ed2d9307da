from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.cli.flags import UsageError
from enisle.cli.terminal import DetachKeys, parse_keys


def test_keys_are_read_as_docker_writes_them() -> None:
    assert parse_keys("ctrl-p,ctrl-q") == b"\x10\x11"
    assert parse_keys("a,ctrl-@,ctrl-[,ctrl-\\,ctrl-_") == b"a\x00\x1b\x1c\x1f"
    for text in ("ctrl-", "ctrl-1", "esc", ""):
        with pytest.raises(UsageError, match="invalid detach keys"):
            parse_keys(text)


def test_the_sequence_detaches_even_in_pieces() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"ab\x10") == (b"ab", False)
    assert keys.feed(b"\x11rest") == (b"", True)


def test_its_beginning_is_passed_on_when_something_else_follows() -> None:
    keys = DetachKeys(b"\x10\x11")
    assert keys.feed(b"\x10") == (b"", False)
    assert keys.feed(b"x") == (b"\x10x", False)
    assert keys.feed(b"\x10\x10") == (b"\x10", False)
    assert keys.feed(b"\x11") == (b"", True)


@given(st.lists(st.binary(max_size=5).filter(lambda data: b"\x10" not in data), max_size=8))
def test_everything_else_passes_unchanged(pieces: list[bytes]) -> None:
    keys = DetachKeys(b"\x10\x11")
    assert b"".join(keys.feed(piece)[0] for piece in pieces) == b"".join(pieces)
