"""The tar reader against Python's tarfile, and against damaged and hostile headers."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.archive.entry import ArchiveError, Entry, FileKind
from enisle.archive.numbers import format_number, parse_number
from enisle.archive.reader import TarReader
from enisle.archive.writer import TarWriter


def read_all(data: bytes) -> list[tuple[Entry, bytes]]:
    reader = TarReader(io.BytesIO(data))
    return [(entry, b"".join(bytes(piece) for _, piece in reader.data())) for entry in reader]


def archive(*members: tuple[tarfile.TarInfo, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=form) as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return sink.getvalue()


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_each_format(form: int) -> None:
    name = "d/" + "n" * (90 if form == tarfile.USTAR_FORMAT else 300)
    info = tarfile.TarInfo(name)
    info.mode, info.uid, info.gid, info.mtime = 0o4755, 1000, 1001, 1_600_000_000
    (entry, content), (second, _) = read_all(archive((info, b"x" * 1000), (tarfile.TarInfo("e"), b""), form=form))
    assert (entry.name, entry.mode, entry.uid, entry.gid) == (name.encode(), 0o4755, 1000, 1001)
    assert entry.mtime_ns == 1_600_000_000 * 10**9
    assert content == b"x" * 1000
    assert second.name == b"e"


def test_unread_content_is_skipped() -> None:
    data = archive((tarfile.TarInfo("a"), b"1" * 5000), (tarfile.TarInfo("b"), b"2"))
    assert [entry.name for entry in TarReader(io.BytesIO(data))] == [b"a", b"b"]


def test_pax_xattrs_are_kept_unless_they_steer_overlayfs() -> None:
    info = tarfile.TarInfo("a")
    info.pax_headers = {
        "SCHILY.xattr.user.note": "a=b\nc",
        "SCHILY.xattr.trusted.overlay.opaque": "y",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.security.selinux": "x",
    }
    (entry, _), *_ = read_all(archive((info, b"")))
    assert entry.xattrs == {b"user.note": b"a=b\nc"}


def test_large_numbers_travel_in_base_256() -> None:
    assert parse_number(format_number(1 << 40, 12)) == 1 << 40
    assert parse_number(format_number(-5, 12)) == -5
    assert parse_number(b"0000644\0") == 0o644
    assert parse_number(b"   644 \0") == 0o644
    with pytest.raises(ArchiveError):
        parse_number(b"00009\0\0\0")


def old_gnu_sparse() -> bytes:
    """A sparse file of 1 MiB with "head" at 0 and "tail" at 512 KiB, in GNU tar's first format."""
    info = tarfile.TarInfo("sparse")
    info.size = 1024
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = b"S"
    for at, (offset, length) in enumerate([(0, 512), (512 << 10, 512)]):
        block[386 + 24 * at : 410 + 24 * at] = format_number(offset, 12) + format_number(length, 12)
    block[483:495] = format_number(1 << 20, 12)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + b"head".ljust(512, b"\0") + b"tail".ljust(512, b"\0") + bytes(1024)


def test_old_gnu_sparse_file() -> None:
    reader = TarReader(io.BytesIO(old_gnu_sparse()))
    entry = next(iter(reader))
    assert (entry.size, entry.stored) == (1 << 20, 1024)
    assert [(offset, bytes(piece)[:4]) for offset, piece in reader.data()] == [(0, b"head"), (512 << 10, b"tail")]


def test_pax_sparse_1_0() -> None:
    info = tarfile.TarInfo("GNUSparseFile.0/x")
    info.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "real",
        "GNU.sparse.realsize": "100000",
    }
    body = b"2\n0\n4\n99996\n4\n".ljust(512, b"\0") + b"headtail"
    reader = TarReader(io.BytesIO(archive((info, body), (tarfile.TarInfo("next"), b""))))
    entries = iter(reader)
    entry = next(entries)
    assert (entry.name, entry.size) == (b"real", 100000)
    assert [(offset, bytes(piece)) for offset, piece in reader.data()] == [(0, b"head"), (99996, b"tail")]
    assert next(entries).name == b"next"


@pytest.mark.parametrize("pairs", [[(4096, 512), (0, 512)], [(0, 1 << 30)], [(0, 512), (1 << 20, 512)]])
def test_sparse_maps_that_lie_are_refused(pairs: list[tuple[int, int]]) -> None:
    info = tarfile.TarInfo("s")
    info.pax_headers = {
        "GNU.sparse.map": ",".join(f"{a},{b}" for a, b in pairs),
        "GNU.sparse.size": str(1 << 20),
    }
    with pytest.raises(ArchiveError):
        read_all(archive((info, bytes(1024))))


def test_a_cut_archive_is_refused_but_not_at_a_boundary() -> None:
    data = archive((tarfile.TarInfo("a"), b"1" * 1000))
    assert len(read_all(data[:1536])) == 1
    with pytest.raises(ArchiveError, match="cut short"):
        read_all(data[:1000])
    with pytest.raises(ArchiveError, match="cut short"):
        read_all(data[:300])


def test_what_is_no_tar_is_refused() -> None:
    with pytest.raises(ArchiveError):
        read_all(b"\x7fELF" + b"x" * 2000)
    assert read_all(b"") == []


def test_endless_extensions_and_huge_metadata_are_refused() -> None:
    info = tarfile.TarInfo("././@LongLink")
    info.type = b"L"
    info.size = 2 << 20
    with pytest.raises(ArchiveError, match="extended header"):
        read_all(info.tobuf(tarfile.GNU_FORMAT) + bytes(3 << 20))
    info.size = 2
    with pytest.raises(ArchiveError, match="too many"):
        read_all((info.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")) * 40)


def test_links_have_no_content_whatever_their_size_field_says() -> None:
    link = tarfile.TarInfo("l")
    link.type, link.linkname, link.size = tarfile.SYMTYPE, "a", 512
    data = link.tobuf(tarfile.USTAR_FORMAT) + archive((tarfile.TarInfo("b"), b"2"))
    assert [entry.kind for entry, _ in read_all(data)] == [FileKind.SYMBOLIC_LINK, FileKind.REGULAR]


names = st.binary(min_size=1, max_size=300).filter(lambda b: b"\0" not in b and not b.endswith(b"/"))


@given(
    name=names,
    content=st.binary(max_size=2000),
    uid=st.integers(0, 2**32 - 2),
    mtime_ns=st.integers(-(10**18), 10**19),
    xattr=st.binary(max_size=100),
)
@settings(max_examples=300, deadline=None)
def test_what_is_written_is_read(name: bytes, content: bytes, uid: int, mtime_ns: int, xattr: bytes) -> None:
    sink = io.BytesIO()
    writer = TarWriter(sink)
    entry = Entry(name=name, size=len(content), uid=uid, mtime_ns=mtime_ns, xattrs={b"user.x": xattr})
    writer.add(entry, [content])
    writer.close()
    assert read_all(sink.getvalue()) == [(entry, content)]
    assert len(sink.getvalue()) % 10240 == 0


@given(st.binary(max_size=4096))
@settings(max_examples=300, deadline=None)
def test_garbage_gives_archive_errors_only(data: bytes) -> None:
    try:
        read_all(data)
    except ArchiveError:
        pass


@given(st.lists(st.tuples(st.integers(0, 1535), st.integers(0, 255)), max_size=8))
@settings(max_examples=300, deadline=None)
def test_damaged_archives_give_archive_errors_only(damage: list[tuple[int, int]]) -> None:
    info = tarfile.TarInfo("x" * 150)
    info.pax_headers = {"SCHILY.xattr.user.a": "b"}
    data = bytearray(archive((info, b"content")))
    for at, value in damage:
        data[at] = value
    for block in (0, 1024):  # so that it is not only checksums that are tested
        header = data[block : block + 512]
        header[148:156] = b" " * 8
        data[block + 148 : block + 156] = b"%06o\0 " % sum(header)
    try:
        read_all(bytes(data))
    except ArchiveError:
        pass
