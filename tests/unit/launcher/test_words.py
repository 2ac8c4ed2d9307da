"""What is decided without touching anything: detach keys, mount words, identities, ps."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.launcher.client import DetachKeys
from enisle.launcher.container import identity
from enisle.launcher.container.failure import ChildFailure
from enisle.launcher.container.options import parse
from enisle.launcher.container.processes import filter_ps, full_list
from enisle.linux import mounts


@pytest.mark.parametrize(
    ("pieces", "out", "found"),
    [
        ([b"abc"], b"abc", False),
        ([b"a\x10\x11"], b"a", True),
        ([b"a\x10", b"\x11b"], b"a", True),
        ([b"a\x10", b"b"], b"a\x10b", False),
        ([b"\x10\x10\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11", False),
    ],
)
def test_detach_keys(pieces: list[bytes], out: bytes, found: bool) -> None:
    keys = DetachKeys(b"\x10\x11")
    results = [keys.feed(piece) for piece in pieces]
    assert b"".join(data for data, _ in results) == out
    assert any(detached for _, detached in results) is found


@given(st.lists(st.binary(max_size=5), max_size=20))
def test_input_without_the_keys_passes_unchanged(pieces: list[bytes]) -> None:
    keys = DetachKeys(b"\xff\xfe")
    data = b"".join(pieces).replace(b"\xff", b"")
    assert keys.feed(data) == (data, False)


def test_mount_words() -> None:
    options = parse(["rbind", "ro", "nosuid", "noatime", "rslave", "size=64m", "mode=1777", "huge"])
    assert options.recursive
    assert options.read_only
    assert options.add == mounts.ATTR_RDONLY | mounts.ATTR_NOSUID | mounts.ATTR_NOATIME
    assert (options.propagation, options.propagation_recursive) == (mounts.MS_SLAVE, True)
    assert options.data == {"size": "64m", "mode": "1777", "huge": None}
    assert not parse(["ro", "rw"]).read_only
    assert parse(["shared"]).propagation_recursive is False
    assert parse(["relatime", "defaults", "Z"]).data == {}


def files(passwd: bytes, group: bytes) -> Callable[[str, int], bytes]:
    return lambda path, limit: (passwd if path == "/etc/passwd" else group)[:limit]


USUAL = files(
    b"# comment\nroot:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:33::/var/www\n77:x:0:0::/evil\nbad:x:abc:0::/\n",
    b"root:x:0:\nweb:x:33:\nmedia:x:44:web,other\n55:x:0:\n",
)


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", (0, 0, (0,), "/root")),
        ("web", (33, 33, (33, 44), "/var/www")),
        ("33", (33, 33, (33, 44), "/var/www")),
        ("web:media", (33, 44, (44,), "/var/www")),
        ("77", (77, 0, (0,), "/")),
        ("77:55", (77, 55, (55,), "/")),
        ("2147483647", (2147483647, 0, (0,), "/")),
        (":44", (0, 44, (44,), "/root")),
    ],
)
def test_identities(user: str, expected: tuple[int, int, tuple[int, ...], str]) -> None:
    found = identity.resolve(user, [], USUAL)
    assert (found.uid, found.gid, found.groups, found.home) == expected


@pytest.mark.parametrize(
    "user", ["2147483648", "-1", "+0", "00", "1000\n", "nobody", "bad", "web:none", "0x0", "１", " 0"]
)
def test_identities_that_are_none(user: str) -> None:
    with pytest.raises(ChildFailure):
        identity.resolve(user, [], USUAL)


@given(st.binary(), st.binary(), st.text(max_size=20))
def test_any_passwd_gives_an_identity_or_a_reason(passwd: bytes, group: bytes, user: str) -> None:
    try:
        found = identity.resolve(user, [], files(passwd, group))
    except ChildFailure:
        return
    assert 0 <= found.uid <= identity.MAX_ID
    assert 0 <= found.gid <= identity.MAX_ID
    if user.isascii() and user.isdigit():
        assert found.uid == int(user)


def test_ps_is_filtered() -> None:
    output = "  PID COMMAND\n    1 init\n   42 sh -c a b\n  142 other\n"
    assert filter_ps(output, {42})["processes"] == [["42", "sh -c a b"]]
    with pytest.raises(ValueError, match="PID"):
        filter_ps("COMMAND\nx\n", {1})


def test_processes_that_are_gone_are_left_out() -> None:
    assert full_list([2**22 + 1])["processes"] == []
