"""Images and archives that want the host to run, load, follow or believe what they hold."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import docker
import pytest
import zstandard
from docker.errors import APIError

from tests.daemon import Daemon
from tests.faults.lives import archive

_UNPACKERS = "gzip gunzip zcat xz unxz xzcat bzip2 bunzip2 zstd unzstd zstdcat unpigz pigz tar".split()


@pytest.fixture
def api(daemon: Daemon) -> Iterator[docker.APIClient]:
    made = docker.APIClient(base_url=f"unix://{daemon.socket}", version="1.47", timeout=120)
    yield made
    made.close()


def build(api: docker.APIClient, tag: str, files: dict[str, bytes], **options: object) -> str:
    """What a build says."""
    lines = api.build(fileobj=io.BytesIO(archive(files)), custom_context=True, tag=tag, decode=True, **options)
    return "".join(line.get("stream", line.get("error", "")) for line in lines)


@pytest.mark.timeout(300)
def test_variables_of_an_image_reach_no_helper(daemon: Daemon, api: docker.APIClient, tmp_path: Path) -> None:
    """LD_PRELOAD and its like name a library that is there on the host, too (CVE-2025-23266)."""
    source, trap, sprung = tmp_path / "trap.c", tmp_path / "trap.so", tmp_path / "sprung"
    source.write_text(
        "#include <fcntl.h>\n#include <unistd.h>\n__attribute__((constructor)) static void spring(void)"
        f'{{ close(open("{sprung}", O_CREAT | O_WRONLY, 0600)); }}\n'
    )
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", trap, source], check=True)
    subprocess.run(["/bin/true"], env={"LD_PRELOAD": str(trap)}, check=True)
    assert sprung.exists(), "the trap does not work"
    sprung.unlink()
    (tmp_path / "sitecustomize.py").write_text(f"open({str(sprung)!r}, 'w')\n")
    names = {
        "LD_PRELOAD": trap,
        "LD_AUDIT": trap,
        "PYTHONPATH": tmp_path,
        "GCONV_PATH": tmp_path,
        "LD_LIBRARY_PATH": tmp_path,
    }
    lines = [f"ENV {name}={value}" for name, value in names.items()]
    dockerfile = "\n".join(["FROM busybox", *lines, "RUN echo hi > /made", "HEALTHCHECK --interval=1s CMD true", ""])
    output = build(api, "trapped", {"Dockerfile": dockerfile.encode()})
    assert "Successfully built" in output, output
    for wall in ((), ("--runtime", "vm")):
        name = f"trapped{len(wall)}"
        daemon.docker("run", "-d", "--name", name, *wall, "-v", f"{name}:/v", "trapped", "sleep", "1000", timeout_s=120)
        daemon.docker("exec", name, "true", timeout_s=60)
        daemon.docker("cp", f"{name}:/made", str(tmp_path / "copied"))
        daemon.docker("top", name, "-ef" if wall else "aux")
        daemon.docker("stats", "--no-stream", name)
        daemon.docker("commit", name, "trapped-again")
        daemon.docker("rm", "-f", "-v", name)
    api.remove_image("trapped-again")
    api.remove_image("trapped")
    daemon.docker("volume", "prune", "-af")
    assert not sprung.exists()


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress, zstd])
def test_compressed_copies_are_unpacked_by_us(
    daemon: Daemon, api: docker.APIClient, pack: Callable[[bytes], bytes]
) -> None:
    """Not by the unpacker found in the container (CVE-2026-41567)."""
    script = "".join(
        f"rm -f /bin/{name}; printf '#!/bin/sh\\ntouch /sprung\\n' > /bin/{name}; chmod 755 /bin/{name};"
        for name in _UNPACKERS
    )
    daemon.docker("run", "-d", "--name", "unpacks", "busybox", "sh", "-c", f"{script} touch /ready; exec sleep 1000")
    assert daemon.docker("exec", "unpacks", "sh", "-c", "while [ ! -e /ready ]; do sleep 0.1; done").returncode == 0
    for running in (True, False):
        assert api.put_archive("unpacks", "/tmp", pack(archive({"file": b"content"})))
        if running:
            assert daemon.docker("exec", "unpacks", "cat", "/tmp/file").stdout == "content"
            daemon.docker("kill", "unpacks")
    assert daemon.docker("cp", "unpacks:/sprung", "-", check=False).returncode != 0
    daemon.docker("rm", "-f", "unpacks")


def member(name: str, kind: bytes = tarfile.REGTYPE, *, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def hostile_archives(canary: Path) -> dict[str, bytes]:
    """Archives that try to write, change or remove what is at ``canary`` on the host."""
    up = "../" * 20
    out, inside = f"{up}{canary}"[:-1] if str(canary).endswith("/") else up + str(canary)[1:], str(canary)
    sym, hard, directory = tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
    cases = {
        "up": [member(f"{out}/made")],
        "absolute": [member(f"{inside}/made")],
        "link, then through it": [member("l", sym, link=inside), member("l/made")],
        "relative link, then through it": [member("l", sym, link=out), member("l/made")],
        "link of a link": [member("a", sym, link="b"), member("b", sym, link=out), member("a/made")],
        "link to a file, then that file": [member("l", sym, link=f"{inside}/file"), member("l")],
        "hard link out": [member("h", hard, link=f"{out}/file"), member("h", mode=0o777)],
        "absolute hard link": [member("h", hard, link=f"{inside}/file"), member("h", mode=0o777)],
        "hard link of a link": [member("l", sym, link=f"{inside}/file"), member("h", hard, link="l"), member("h")],
        "mode through a link": [member("l", sym, link=inside), member("l", directory, mode=0o777)],
        "mode of a file through a link": [member("l", sym, link=f"{inside}/file"), member("l", mode=0o4777)],
        "whiteout out": [member(f"{out}/.wh.file")],
        "whiteout through a link": [member("l", sym, link=inside), member("l/.wh.file"), member("l/.wh..wh..opq")],
        "whiteout of the parent": [member(".wh..."), member(".wh."), member(".wh./file"), member("d/.wh...")],
        "a name of dots": [member("./../..//.///made"), member("d/../../made")],
        "a long way": [member("d" * 200 + "/" + "../" * 300 + inside[1:] + "/made")],
        "a device": [member("disk", tarfile.BLKTYPE), member("mem", tarfile.CHRTYPE), member("fifo", tarfile.FIFOTYPE)],
    }  # fmt: skip
    found = {}
    for name, members in cases.items():
        sink = io.BytesIO()
        with tarfile.open(fileobj=sink, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for info in members:
                tar.addfile(info)
        found[name] = sink.getvalue()
    return found


@pytest.mark.timeout(400)
def test_archives_that_lead_out(daemon: Daemon, api: docker.APIClient, tmp_path: Path) -> None:
    """By every way in: cp into what runs and what does not, import, ADD and COPY of a build."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("of the host")
    (canary / "file").chmod(0o600)
    before = snapshot(canary)
    daemon.docker("run", "-d", "--name", "target", "-v", "target:/v", "busybox", "sleep", "1000")
    daemon.docker("create", "--name", "still", "-v", "target:/v", "busybox", "true")
    for name, data in hostile_archives(canary).items():
        for place in ("/", "/tmp", "/v"):
            for target in ("target", "still"):
                try:
                    api.put_archive(target, place, data)
                except APIError as error:
                    assert error.status_code < 500, (name, target, error)
        try:
            api.import_image_from_data(data, repository="led", tag="out")
            daemon.docker("run", "--rm", "led:out", "/none", check=False)
            api.remove_image("led:out", force=True)
        except APIError as error:
            assert error.status_code < 500, (name, error)
        files = {
            "Dockerfile": b"FROM busybox\nADD a.tar /x/\nADD a.tar /\nCOPY --from=busybox /bin/true /x/l/made\n",
            "a.tar": data,
        }
        build(api, "led:built", files, rm=True)
        context = io.BytesIO(data)
        with suppress(APIError):
            list(api.build(fileobj=context, custom_context=True, dockerfile="Dockerfile", decode=True))
        assert snapshot(canary) == before, name
    daemon.docker("exec", "target", "true")
    daemon.docker("rm", "-f", "target", "still")
    daemon.docker("volume", "rm", "target")
    daemon.docker("rmi", "-f", "led:built", check=False)
    daemon.docker("builder", "prune", "-af")


def snapshot(path: Path) -> list[tuple[str, int, int, bytes]]:
    found = []
    for entry in sorted([path, *path.rglob("*")]):
        facts = entry.lstat()
        found.append((str(entry), facts.st_mode, facts.st_nlink, entry.read_bytes() if entry.is_file() else b""))
    return found


@pytest.mark.timeout(300)
def test_a_guest_writes_a_disk_format_onto_its_disk(daemon: Daemon, tmp_path: Path) -> None:
    """A qcow2 header that names a file of the host (CVE-2024-32498): the disk is raw, whatever is on it."""
    secret = tmp_path / "secret"
    secret.write_bytes(b"of the host\n" * 4096)
    header = tmp_path / "header"
    qcow2 = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", qcow2, "1M"], check=True)
    header.write_bytes(qcow2.read_bytes()[:1024])  # ext4 leaves its first kilobyte to others
    write = "dd if=/header of=/dev/vdb bs=1024 count=1 conv=notrunc; sync; head -c 4 /dev/vdb | od -An -tx1"
    flags = ("--runtime", "vm", "--privileged", "-v", f"{header}:/header:ro")
    first = daemon.docker("run", "--name", "formats", *flags, "busybox", "sh", "-c", write, timeout_s=120)
    assert first.stdout.split() == ["51", "46", "49", "fb"], first
    again = daemon.docker("start", "-a", "formats", timeout_s=120)
    assert again.stdout.split() == ["51", "46", "49", "fb"]
    copied = daemon.docker("cp", "formats:/etc/passwd", "-", timeout_s=120, check=False)
    assert "of the host" not in copied.stdout
    daemon.docker("rm", "-f", "formats")
    assert os.path.getsize(secret) == 12 * 4096
