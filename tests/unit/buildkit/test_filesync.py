"""Fetching files: fsutil's protocol, told by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from enisle.archive.entry import FileKind
from enisle.buildkit.filesync import Wanted, received
from enisle.buildkit.grpc import Call
from enisle.buildkit.session_messages import Packet, PacketKind, Stat
from enisle.buildkit.sessions import Session
from enisle.errors import EnisleError, Invalid
from tests.unit.buildkit.peers import connected

METHOD = "/moby.filesync.v1.FileSync/DiffCopy"
DIRECTORY, LINK, SOCKET = 1 << 31, 1 << 27, 1 << 24


def client(stats: list[Stat], contents: dict[int, list[bytes]]) -> Callable[[Call], object]:
    """A client that has these files, and sends their contents a piece of each in turn."""

    async def serve(call: Call) -> None:
        for stat in stats:
            await call.send(Packet(stat=stat))
        await call.send(Packet())
        for _ in contents:
            packet = await call.receive(Packet)
            assert packet is not None and packet.kind == PacketKind.REQUEST and packet.id in contents
        for turn in range(max(map(len, contents.values()), default=0)):
            for number, pieces in contents.items():
                for piece in pieces[turn : turn + 1]:
                    await call.send(Packet(kind=PacketKind.DATA, id=number, data=piece))
        for number in contents:
            await call.send(Packet(kind=PacketKind.DATA, id=number))
        packet = await call.receive(Packet)
        assert packet is not None and packet.kind == PacketKind.FINISHED

    return serve


async def test_files_become_a_tree(tmp_path: Path) -> None:
    stats = [
        Stat(path="d", mode=DIRECTORY | 0o750),
        Stat(path="d/a", mode=0o4755 & 0o777 | 1 << 23, size=4, modified=5),
        Stat(path="d/empty", mode=0o600),
        Stat(path="grown", mode=0o644, size=1),
        Stat(path="hard", mode=0o644, size=1, link="grown"),
        Stat(path="l", mode=LINK | 0o777, link="d/a"),
    ]
    contents = {1: [b"ab", b"cd"], 3: [b"more", b"than", b"told"]}
    async with connected({METHOD: client(stats, contents)}) as connection:  # type: ignore[dict-item]
        session = Session("s", [METHOD], "", connection)
        async with received(session, Wanted(name="context"), tmp_path) as tree:
            assert list(tmp_path.iterdir()) == []  # the file has no name
            assert tree.read((b"l",), limit=10) == b"abcd"
            assert tree.read((b"hard",), limit=100) == b"morethantold" == tree.read((b"grown",), limit=100)
            assert tree.read((b"d", b"empty"), limit=10) == b""
            node = tree.look((b"d", b"a"))
            assert node is not None and (node.mode, node.mtime_ns, node.kind) == (0o4755, 5, FileKind.REGULAR)


@pytest.mark.parametrize(
    ("stats", "words"),
    [
        ([Stat(path="../x", mode=0o644)], "no name of a file"),
        ([Stat(path="/x", mode=0o644)], "no name of a file"),
        ([Stat(path="", mode=0o644)], "no name of a file"),
        ([Stat(path="a/b", mode=0o644)], "before its directory"),
        ([Stat(path="a", mode=LINK, link="/"), Stat(path="a/b", mode=0o644)], "before its directory"),
        ([Stat(path="a", mode=0o644), Stat(path="a", mode=0o644)], "sent twice"),
        ([Stat(path="a", mode=0o644, link="b")], "hard link to a file that was not sent"),
        ([Stat(path="a", mode=SOCKET)], "of this kind cannot be sent"),
    ],
)
async def test_names_and_kinds_that_no_tree_has_are_refused(tmp_path: Path, stats: list[Stat], words: str) -> None:
    async with connected({METHOD: client(stats, {})}) as connection:  # type: ignore[dict-item]
        with pytest.raises(Invalid, match=words):
            async with received(Session("s", [METHOD], "", connection), Wanted(name="context"), tmp_path):
                pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "packets",
    [
        [Packet(kind=PacketKind.DATA, id=0, data=b"x")],
        [Packet(stat=Stat(path="a", size=1)), Packet(kind=PacketKind.DATA, id=7, data=b"x")],
        [Packet(stat=Stat(path="a", size=1)), Packet(kind=PacketKind.FINISHED)],
        [Packet(), Packet(stat=Stat(path="a"))],
        [Packet(stat=Stat(path="a", size=1)), Packet()],
        [Packet(kind=PacketKind.ERROR, data=b"lstat x: permission denied")],
        [],
    ],
)
async def test_transfers_that_break_the_protocol_fail(tmp_path: Path, packets: list[Packet]) -> None:
    async def serve(call: Call) -> None:
        for packet in packets:
            await call.send(packet)

    async with connected({METHOD: serve}) as connection:
        session = Session("s", [METHOD], "", connection)
        try:
            async with received(session, Wanted(name="context"), tmp_path) as tree:
                assert packets == [Packet(), Packet(stat=Stat(path="a"))] and tree.names(()) == []
        except EnisleError as error:
            assert isinstance(error, Invalid)
    assert list(tmp_path.iterdir()) == []
