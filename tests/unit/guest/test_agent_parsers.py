"""The agent's parsers, compiled for the host with address and undefined-behaviour sanitizers."""

import io
import random
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from enisle.guest.agent_build import SOURCES

HARNESS = Path(__file__).parent / "harness.c"


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("agent") / "harness"
    sources = [str(HARNESS), str(SOURCES / "parse.c"), str(SOURCES / "tar_parse.c")]
    flags = "-g -O1 -std=c11 -D_GNU_SOURCE -Wall -Wextra -Werror -fsanitize=address,undefined -fno-sanitize-recover=all"
    subprocess.run(["cc", *flags.split(), f"-I{SOURCES}", "-o", str(program), *sources], check=True)
    return program


def feed(harness: Path, kind: str, data: bytes) -> list[str]:
    done = subprocess.run([harness, kind], input=data, capture_output=True, check=False, timeout=20)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-2000:]
    return done.stdout.decode(errors="replace").splitlines()


def archive(format: int) -> bytes:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=format) as tar:
        for name, size in (("a", 3), ("dir/" + "n" * 120, 700), ("dir/" + "m" * 300, 0)):
            member = tarfile.TarInfo(name)
            member.size, member.uid, member.mtime, member.mode = size, 4_000_000, 1_600_000_000, 0o4755
            tar.addfile(member, io.BytesIO(b"x" * size))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "t" * 200
        tar.addfile(link)
    return target.getvalue()


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_as_other_programs_write_them(harness: Path, format: int) -> None:
    assert feed(harness, "tar", archive(format)) == [
        "0 a  4755 4000000 0 3 1600000000",
        f"0 dir/{'n' * 120}  4755 4000000 0 700 1600000000",
        f"0 dir/{'m' * 300}  4755 4000000 0 0 1600000000",
        f"2 link {'t' * 200} 644 0 0 0 0",
        "end",
    ]


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_damaged_archives_are_refused_without_harm(harness: Path, format: int) -> None:
    whole = archive(format)
    source = random.Random(7)
    for _ in range(60):
        damaged = bytearray(whole[: source.randrange(len(whole))])
        for _ in range(source.randrange(8)):
            if damaged:
                damaged[source.randrange(len(damaged))] = source.randrange(256)
        assert feed(harness, "tar", bytes(damaged))[-1] in ("end", "bad")


def test_a_sparse_member_is_refused(harness: Path) -> None:
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.PAX_FORMAT) as tar:
        member = tarfile.TarInfo("sparse")
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        tar.addfile(member)
    assert feed(harness, "tar", target.getvalue()) == ["bad"]


def test_message_bodies(harness: Path) -> None:
    body = b"\0" + struct.pack("<Q", 2**63 + 5)
    body += b"\1" + struct.pack("<I", 3) + b"abc"
    body += b"\2" + struct.pack("<I", 2) + b"hi"
    body += b"\3" + struct.pack("<I", 2) + (struct.pack("<I", 1) + b"x") * 2
    assert feed(harness, "body", body) == [str(2**63 + 5), "3 bytes", "2 characters", "2 strings", "end"]


@pytest.mark.parametrize(
    "body",
    [
        b"\2" + struct.pack("<I", 3) + b"a\0b",  # C would see another string than the host sent
        b"\1" + struct.pack("<I", 0xFFFFFFFF) + b"abc",
        b"\3" + struct.pack("<I", 0x40000000),
        b"\0\1\2",
    ],
)
def test_bodies_that_lie_are_marked_bad(harness: Path, body: bytes) -> None:
    assert feed(harness, "body", body)[-1] == "bad"


def test_random_bodies_do_no_harm(harness: Path) -> None:
    source = random.Random(11)
    for _ in range(60):
        assert feed(harness, "body", source.randbytes(source.randrange(200)))[-1] in ("end", "bad")
