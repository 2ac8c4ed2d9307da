"""Volumes and mounts through the real docker client, for instances behind either wall."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, run

WALLS = {"container": [], "vm": ["--runtime", "vm"]}


class Bench:
    """docker against one wall, and names that are removed at the end."""

    def __init__(self, daemon: Daemon, kind: str) -> None:
        self.daemon = daemon
        self.kind = kind
        self.docker = daemon.docker
        self.volumes: list[str] = []
        self.instances: list[str] = []

    def name(self) -> str:
        """A volume's name; it goes at the end."""
        name = f"v{os.urandom(4).hex()}"
        self.volumes.append(name)
        return name

    def volume(self, *options: str) -> str:
        name = self.name()
        self.docker("volume", "create", *options, name)
        return name

    def run(self, *args: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.docker("run", "--rm", *WALLS[self.kind], *args, check=check, timeout_s=120)

    def shell(self, volume: str, script: str, *, check: bool = True) -> str:
        """What a script prints that has the volume at /v."""
        done = self.run("-v", f"{volume}:/v", "busybox", "sh", "-c", script, check=check)
        return done.stdout + ("" if check else done.stderr)

    def look(self, volume: str, script: str) -> str:
        """As ``shell``, always in a container: which wall looks makes no difference, and a VM takes its time."""
        return self.docker("run", "--rm", "-v", f"{volume}:/v", "busybox", "sh", "-c", script).stdout

    def start(self, *args: str) -> str:
        name = f"i{os.urandom(4).hex()}"
        self.instances.append(name)
        self.docker("run", "-d", "--name", name, *WALLS[self.kind], *args, "busybox", "sleep", "1000", timeout_s=120)
        return name

    def create(self, *args: str) -> str:
        name = f"i{os.urandom(4).hex()}"
        self.instances.append(name)
        self.docker("create", "--name", name, *WALLS[self.kind], *args, timeout_s=120)
        return name

    def inspect(self, volume: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.docker("volume", "inspect", volume).stdout)[0]
        return found

    def clean(self) -> None:
        if self.instances:
            self.docker("rm", "-f", "-v", *self.instances, check=False, timeout_s=120)
        if self.volumes:
            self.docker("volume", "rm", "-f", *self.volumes, check=False)


@pytest.fixture(params=list(WALLS))
def wall(daemon: Daemon, request: pytest.FixtureRequest) -> Iterator[Bench]:
    """Each wall in turn."""
    bench = Bench(daemon, request.param)
    yield bench
    bench.clean()


@pytest.fixture
def bench(daemon: Daemon) -> Iterator[Bench]:
    """Where the wall makes no difference: containers."""
    made = Bench(daemon, "container")
    yield made
    made.clean()


# --- mounts ---


def test_image_of_several_layers_is_mounted_whole(wall: Bench, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox\nRUN mkdir /new && echo first > /new/file && rm /bin/vi\nRUN echo second > /two\n"
    )
    image = f"layers{os.urandom(3).hex()}"
    wall.docker("build", "-q", "-t", image, str(tmp_path), timeout_s=120)
    try:
        script = "cat /img/new/file /img/two; ls /img/bin/vi 2>/dev/null || echo removed; touch /img/x || echo refused"
        mount = f"type=image,source={image},target=/img"
        done = wall.run("--mount", mount, "busybox", "sh", "-c", script)
        assert done.stdout.splitlines() == ["first", "second", "removed", "refused"]
        user = wall.create("--mount", mount, "busybox", "true")
        assert "is using its referenced image" in wall.docker("rmi", image, check=False).stderr
        wall.docker("rm", user)
    finally:
        wall.docker("rmi", "-f", image, check=False)


def test_subpath_cannot_leave_its_volume(wall: Bench) -> None:
    volume = wall.volume()
    wall.look(volume, "mkdir -p /v/sub/deep /v/etc; echo own > /v/etc/passwd; echo in > /v/sub/deep/file")
    wall.look(
        volume, "ln -s /etc /v/absolute; ln -s ../../../../../../../etc /v/sub/climbing; ln -s /proc/1/root /v/magic"
    )

    def read(subpath: str, path: str) -> subprocess.CompletedProcess[str]:
        mount = f"type=volume,source={volume},target=/s,volume-subpath={subpath}"
        return wall.run("--mount", mount, "busybox", "cat", f"/s/{path}", check=False)

    assert read("sub/deep", "file").stdout == "in\n"
    assert read("absolute", "passwd").stdout == "own\n"
    assert read("sub/climbing", "passwd").stdout == "own\n"
    assert "no such file or directory" in read("magic", "etc/passwd").stderr
    assert "no such file or directory" in read("missing", "x").stderr
    assert "subpath must be a relative path" in read("../x", "x").stderr


def test_propagation_needs_a_source_that_propagates(wall: Bench, tmp_path: Path) -> None:
    mount = f"type=bind,source={tmp_path},target=/b,bind-propagation=rshared"
    done = wall.run("--mount", mount, "busybox", "true", check=False)
    assert "but it is not a shared mount" in done.stderr


def test_volume_update_is_for_swarms(bench: Bench) -> None:
    done = run("curl", "-sS", "--unix-socket", str(bench.daemon.socket), "-X", "PUT", "-w", "%{http_code}",
               "http://d/v1.47/volumes/x?version=1")  # fmt: skip
    assert done.stdout.endswith("503") and "only valid for cluster volumes" in done.stdout


# --- volumes that are mounted ---


def test_tmpfs_volume_is_shared_by_its_users_and_goes_with_the_last(wall: Bench) -> None:
    volume = wall.volume("--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=4m,mode=0777")
    first = wall.start("-v", f"{volume}:/t")
    wall.docker("exec", first, "sh", "-c", "echo here > /t/file")
    assert wall.run("-v", f"{volume}:/t:ro", "busybox", "cat", "/t/file").stdout == "here\n"
    full = wall.docker("exec", first, "dd", "if=/dev/zero", "of=/t/big", "bs=1M", "count=8", check=False)
    assert "No space left on device" in full.stderr
    done = wall.docker("cp", f"{first}:/t/file", "-")
    assert "here" in done.stdout
    wall.docker("rm", "-f", first)
    assert wall.run("-v", f"{volume}:/t", "busybox", "ls", "/t").stdout == ""
    assert not list(Path(str(wall.inspect(volume)["Mountpoint"])).iterdir())


def test_users_of_a_mounted_volume_outlive_enisled(own_daemon: Daemon) -> None:
    docker = own_daemon.docker
    docker("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "shared")
    docker("volume", "create", "--opt", "size=16m", "limited")
    mounts = ("-v", "shared:/t", "-v", "limited:/l")
    docker("run", "-d", "--name", "one", *mounts, "busybox", "sleep", "1000")
    docker("exec", "one", "sh", "-c", "echo a > /t/file; echo b > /l/file")
    own_daemon.kill()
    own_daemon.start()
    assert docker("run", "--rm", *mounts, "busybox", "cat", "/t/file", "/l/file").stdout == "a\nb\n"
    own_daemon.kill()
    docker_keeper = own_daemon.census()["processes"]
    assert any("volumes" in line for line in docker_keeper)
    own_daemon.start()
    docker("rm", "-f", "one")
    assert docker("run", "--rm", *mounts, "busybox", "sh", "-c", "ls /t; cat /l/file").stdout == "b\n"


def test_what_cannot_be_mounted_fails_the_start_in_one_sentence(wall: Bench) -> None:
    for kind, device, reason in (
        ("nfs", "10.255.255.1:/x", "no file system nfs" if "nfs" not in _filesystems() else "mount"),
        ("ext4", "/dev/enisle-missing", "no such file or directory"),
        ("nonsense", "x", "no such device (this host's kernel has no file system nonsense)"),
    ):
        if kind == "nfs" and "nfs" in _filesystems():
            continue
        volume = wall.volume("--opt", f"type={kind}", "--opt", f"device={device}", "--opt", "o=ro")
        done = wall.run("-v", f"{volume}:/x", "busybox", "true", check=False)
        assert f"error while mounting volume '{wall.inspect(volume)['Mountpoint']}'" in done.stderr
        assert reason in done.stderr and "Traceback" not in done.stderr


def _filesystems() -> set[str]:
    return {line.split()[-1] for line in Path("/proc/filesystems").read_text().splitlines()}


def test_bound_volume(wall: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    options = ("--opt", "type=none", "--opt", f"device={tmp_path}")
    assert wall.shell(wall.volume(*options, "--opt", "o=bind"), "cat /v/file; echo more > /v/new") == "of the host\n"
    assert (tmp_path / "new").exists()
    refused = wall.shell(wall.volume(*options, "--opt", "o=bind,ro"), "touch /v/x || echo refused")
    assert refused == "refused\n"
    gone = wall.volume("--opt", "type=none", "--opt", f"device={tmp_path}/missing", "--opt", "o=bind")
    done = wall.run("-v", f"{gone}:/v", "busybox", "true", check=False)
    assert "no such file or directory" in done.stderr and not (tmp_path / "missing").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["x=y"], 'invalid option: "x"'),
        (["type=tmpfs"], 'missing required option: "device"'),
        (["device=tmpfs"], 'missing required option: "type"'),
        (["size=lots"], "invalid size: 'lots'"),
        (["size=1k"], "too small"),
    ],
)
def test_options_that_cannot_be(bench: Bench, options: list[str], words: str) -> None:
    name = bench.name()
    done = bench.docker("volume", "create", *(f"--opt={option}" for option in options), name, check=False)
    assert words in done.stderr
    assert "no such volume" in bench.docker("volume", "inspect", name, check=False).stderr


# --- size limits ---


def test_size_limit_is_seen_inside_and_changes(wall: Bench) -> None:
    volume = wall.volume("--opt", "size=16m")
    full = wall.shell(volume, "echo kept > /v/file; dd if=/dev/zero of=/v/big bs=1M count=32; rm /v/big", check=False)
    assert "No space left on device" in full or "Disk quota exceeded" in full
    more = "dd if=/dev/zero of=/v/big bs=1M count=32 2>/dev/null && cat /v/file; rm -f /v/big"
    wall.daemon.enisle("volume", "resize", volume, "64m")
    assert wall.shell(volume, more) == "kept\n"
    wall.daemon.enisle("volume", "resize", volume, "16m")
    assert wall.shell(volume, more) == ""
    assert wall.inspect(volume)["Options"] == {"size": "16m"}
    wall.look(volume, "dd if=/dev/zero of=/v/big bs=1M count=9 2>/dev/null")
    done = wall.daemon.enisle("volume", "resize", volume, "8m", check=False)
    assert "no space left" in done.stderr.lower()
    assert wall.look(volume, "cat /v/file; ls /v") == "kept\nbig\nfile\n"


# --- content ---


def test_export_and_import_keep_everything(wall: Bench, tmp_path: Path) -> None:
    volume, copy = wall.volume(), wall.name()
    wall.shell(
        volume,
        "cd /v; echo one > a; ln a b; ln -s /etc/passwd link; mkdir -m 3775 dir; touch -d 2001-02-03 dir/old;"
        "chown 1234:4321 a; dd if=/dev/zero of=hole bs=1 count=1 seek=20M 2>/dev/null; mkfifo pipe; chmod 4755 dir/old",
    )
    first, second, third = (str(tmp_path / name) for name in ("1.tar", "2.tar", "3.tar"))
    enisle = wall.daemon.enisle
    enisle("volume", "export", "-o", first, volume)
    enisle("volume", "export", "-o", second, volume)
    assert Path(first).read_bytes() == Path(second).read_bytes()
    assert Path(first).stat().st_size < 1 << 20  # the hole is none of it
    enisle("volume", "import", copy, first)
    enisle("volume", "export", "-o", third, copy)
    assert Path(third).read_bytes() == Path(first).read_bytes()
    shown = wall.shell(copy, "cd /v; stat -c '%h %u:%g' a b; readlink link; stat -c %a dir dir/old; cat b")
    assert shown.splitlines() == ["2 1234:4321", "2 1234:4321", "/etc/passwd", "3775", "4755", "one"]


def test_import_is_whole_or_not_at_all(bench: Bench, tmp_path: Path) -> None:
    volume = bench.volume()
    bench.shell(volume, "echo old > /v/file")
    archive = tmp_path / "x.tar"
    bench.daemon.enisle("volume", "export", "-o", str(archive), volume)
    archive.write_bytes(archive.read_bytes()[:700] + b"nonsense")
    enisle = bench.daemon.enisle
    for arguments in (("--replace", volume), (bench.name(),)):
        done = enisle("volume", "import", *arguments, str(archive), check=False)
        assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "no such volume" in bench.docker("volume", "inspect", bench.volumes[-1], check=False).stderr
    assert bench.shell(volume, "cat /v/file; ls -A /v") == "old\nfile\n"
    assert "already exists" in enisle("volume", "import", volume, str(archive), check=False).stderr
    user = bench.start("-v", f"{volume}:/v")
    done = enisle("volume", "import", "--replace", volume, str(archive), check=False)
    assert (
        "volume is in use" in done.stderr and bench.docker("inspect", "-f", "{{.Id}}", user).stdout[:12] in done.stderr
    )


def test_clone_snapshot_restore_and_rename(wall: Bench) -> None:
    volume, copy, renamed = wall.volume("--opt", "size=16m"), wall.name(), wall.name()
    enisle = wall.daemon.enisle
    wall.shell(volume, "echo first > /v/file")
    assert enisle("volume", "snapshot", volume, "monday").stdout == "monday\n"
    assert "monday already" in enisle("volume", "snapshot", volume, "monday", check=False).stderr
    wall.look(volume, "echo second > /v/file; touch /v/more")
    enisle("volume", "clone", volume, copy)
    assert wall.look(copy, "cat /v/file") == "second\n"
    user = wall.start("-v", f"{volume}:/v")
    assert "volume is in use" in enisle("volume", "restore", volume, "monday", check=False).stderr
    assert "volume is in use" in enisle("volume", "rename", volume, renamed, check=False).stderr
    wall.docker("rm", "-f", user)
    enisle("volume", "restore", volume, "monday")
    assert wall.shell(volume, "cat /v/file; ls /v") == "first\nfile\n"
    enisle("volume", "rename", volume, renamed)
    assert wall.look(renamed, "cat /v/file") == "first\n"
    assert enisle("volume", "snapshots", "-q", renamed).stdout == "monday\n"
    enisle("volume", "rm-snapshot", renamed, "monday")
    assert "no snapshot monday" in enisle("volume", "restore", renamed, "monday", check=False).stderr
    assert wall.inspect(copy)["Options"]


# --- attacks ---


def _tar(*members: tuple[str, bytes, str]) -> bytes:
    """A tar of (name, type, link target) members; regular ones hold "evil"."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            member.size = 4 if kind == tarfile.REGTYPE else 0
            archive.addfile(member, io.BytesIO(b"evil") if member.size else None)
    return sink.getvalue()


def test_import_cannot_leave_its_volume(bench: Bench, tmp_path: Path) -> None:
    """Tar slip: CVE-2014-9356, CVE-2021-29136, CVE-2025-4517 and their like."""
    canary = tmp_path / "canary"
    canary.mkdir()
    (canary / "file").write_text("untouched")
    up = "../" * 20 + str(canary)[1:]
    regular, link, hard, folder = tarfile.REGTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE
    hostile = [
        _tar((f"{canary}/file", regular, "")),
        _tar((f"{up}/file", regular, "")),
        _tar(("l", link, str(canary)), ("l/file", regular, "")),
        _tar(("l", link, up), ("l/new", regular, "")),
        _tar(("l", link, str(canary / "file")), ("l", regular, "")),
        _tar(("h", hard, str(canary / "file")), ("h", regular, "")),
        _tar(("l", link, str(canary)), ("h", hard, "l/file"), ("h", regular, "")),
        _tar(("d", folder, ""), ("d/l", link, "../.."), ("d/l/x", link, str(canary)), ("d/l/x/new", regular, "")),
        _tar(("l", link, str(canary)), ("l", folder, ""), ("l/new", regular, "")),
        _tar((".", link, str(canary)), ("new", regular, "")),
        _tar(("a/" * 2000 + "x", regular, "")),
    ]
    for number, data in enumerate(hostile):
        archive = tmp_path / f"{number}.tar"
        archive.write_bytes(data)
        done = bench.daemon.enisle("volume", "import", bench.name(), str(archive), check=False)
        assert "Traceback" not in done.stderr
    assert [path.name for path in canary.iterdir()] == ["file"]
    assert (canary / "file").read_text() == "untouched" and (canary / "file").stat().st_nlink == 1


def test_export_of_a_volume_in_motion_shows_nothing_of_the_host(bench: Bench, tmp_path: Path) -> None:
    """CVE-2023-0778: a file swapped for a link while it is exported."""
    secret = tmp_path / "secret"
    secret.write_text("of the host alone")
    volume = bench.volume()
    user = bench.start("-v", f"{volume}:/v")
    steps = (
        "rm -f x; echo own > x; rm -f x; ln -s",
        f"{secret} x; rm -rf d; mkdir d; rm -rf d; ln -s {tmp_path} d",
    )
    swap = f"cd /v; while :; do {' '.join(steps)}; done"
    bench.docker("exec", "-d", user, "sh", "-c", swap)
    for _ in range(20):
        archive = tmp_path / "out.tar"
        bench.daemon.enisle("volume", "export", "-o", str(archive), volume)
        assert b"of the host alone" not in archive.read_bytes()
        with tarfile.open(archive) as opened:
            assert all(member.name.count("/") <= 1 for member in opened)


def test_mount_targets_swapped_for_links_stay_inside(bench: Bench, tmp_path: Path) -> None:
    """CVE-2021-30465 and CVE-2024-45310: a sibling exchanges the place of a nested mount for a link."""
    canary = tmp_path / "canary"
    canary.mkdir()
    volume, inner = bench.volume(), bench.volume()
    user = bench.start("-v", f"{volume}:/v")
    swap = f"cd /v; mkdir a; ln -s {canary} l; while :; do mv a t; mv l a; mv a l; mv t a; done"
    bench.docker("exec", "-d", user, "sh", "-c", swap)
    for number in range(20):
        bench.run("-v", f"{volume}:/v", "-v", f"{inner}:/v/a/deep{number}", "busybox", "true", check=False)
    assert list(canary.iterdir()) == []
    assert not [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(canary) in line]


def test_set_id_programs_of_a_volume_are_of_no_use_on_the_host(bench: Bench) -> None:
    """CVE-2025-64507: nobody but root reaches what an instance has written."""
    volume = bench.volume()
    bench.shell(volume, "cp /bin/busybox /v/id && chmod 4755 /v/id")
    program = Path(str(bench.inspect(volume)["Mountpoint"])) / "id"
    assert program.stat().st_mode & 0o4000
    with pytest.raises(PermissionError):
        subprocess.run([str(program)], user=65534, group=65534, extra_groups=[], check=False)


def test_a_volume_keeps_its_owner_where_the_image_has_nothing(wall: Bench) -> None:
    volume = wall.volume(
        "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=1m,uid=1000,gid=1001,mode=750"
    )
    assert wall.shell(volume, "stat -c %u:%g:%a /v") == "1000:1001:750\n"
