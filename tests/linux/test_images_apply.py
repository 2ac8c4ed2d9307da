"""Unpacking on a real file system: what is made, and that nothing can be reached outside of the root."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.archive import copy, overlay
from enisle.archive.apply import Limits, Policy, Whiteouts, apply, apply_with
from enisle.archive.beneath import remove
from enisle.archive.entry import ArchiveError, Entry, FileKind
from enisle.archive.pack import export, pack
from enisle.archive.reader import TarReader
from enisle.archive.writer import TarWriter

Dir, Sym, Hard, Reg = FileKind.DIRECTORY, FileKind.SYMBOLIC_LINK, FileKind.HARD_LINK, FileKind.REGULAR


def tar(*members: tuple[str, FileKind, str] | Entry) -> io.BytesIO:
    """An archive of (name, kind, target or content)."""
    sink = io.BytesIO()
    writer = TarWriter(sink)
    for member in members:
        if isinstance(member, Entry):
            writer.add(member, [b"x" * member.size])
            continue
        name, kind, text = member
        content = text.encode() if kind is Reg else b""
        target = b"" if kind is Reg else text.encode()
        mode = 0o755 if kind is Dir else 0o644
        writer.add(Entry(name=name.encode(), kind=kind, target=target, size=len(content), mode=mode), [content])
    writer.close()
    sink.seek(0)
    return sink


def census(top: Path) -> dict[str, tuple[int, int, int, str]]:
    """Everything that can be told of a tree."""
    found = {}
    for path in [top, *sorted(top.rglob("*"))]:
        status = path.lstat()
        content = os.readlink(path) if path.is_symlink() else ""
        if stat.S_ISREG(status.st_mode):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path)] = (status.st_mode, status.st_uid, status.st_nlink, content)
    return found


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    top = tmp_path / "canary"
    (top / "dir").mkdir(parents=True)
    (top / "file").write_text("precious")
    (top / "file").chmod(0o600)
    (top / "dir" / "inner").write_text("precious")
    before = census(top)
    yield top
    assert census(top) == before


@pytest.fixture
def root(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "root").mkdir()
    fd = os.open(tmp_path / "root", os.O_RDONLY | os.O_DIRECTORY)
    yield fd
    os.close(fd)


def hostile(outside: str) -> list[list[tuple[str, FileKind, str]]]:
    """Archives that try to write, link, chmod or delete at ``outside``, an absolute path beside the root."""
    up = "../" * 12
    name = outside.lstrip("/")
    ways = [outside, up + name, "x/../" + up + name, "../canary", "./" + up + name, "a/" + up + up + name]
    cases: list[list[tuple[str, FileKind, str]]] = []
    for target in ways:
        cases += [
            [(target + "/file", Reg, "bad")],
            [(target, Dir, "")],
            [(target + "/new", Sym, "x")],
            [("l", Sym, target), ("l/file", Reg, "bad")],
            [("l", Sym, target), ("l/dir", Dir, ""), ("l/dir/inner", Reg, "bad")],
            [("l", Sym, target), ("l", Dir, ""), ("l/file", Reg, "bad")],
            [("l", Sym, target + "/file"), ("l", Reg, "bad")],
            [("h", Hard, target + "/file"), ("h", Reg, "bad")],
            [("h", Hard, target + "/file")],
            [("l", Sym, target), ("h", Hard, "l/file"), ("h", Reg, "bad")],
            [("l", Sym, target), ("l/.wh.file", Reg, "")],
            [("l", Sym, target), ("l/.wh..wh..opq", Reg, "")],
            [(target + "/.wh.file", Reg, "")],
            [("a", Dir, ""), ("a/b", Sym, "../" + target), ("a/b/file", Reg, "bad")],
            [("a", Sym, "b"), ("b", Sym, target), ("a/file", Reg, "bad")],
            [("d/e", Dir, ""), ("d/e/l", Sym, "../.."), ("d/e/l/l2", Sym, target), ("l2/file", Reg, "bad")],
            [("l", Sym, "/proc/self/root" + outside), ("l/file", Reg, "bad")],
            [("l", Sym, "/proc/self/cwd"), ("l/" + name + "/file", Reg, "bad")],
        ]
    deep = "/".join(["d" * 200] * 18)
    cases.append([(deep, Dir, ""), ("l", Sym, deep + "/" + up + name), ("l/file", Reg, "bad")])
    return cases


@pytest.mark.parametrize("whiteouts", list(Whiteouts))
@pytest.mark.parametrize("case", range(len(hostile("/x"))))
def test_nothing_leaves_the_root(tmp_path: Path, canary: Path, root: int, case: int, whiteouts: Whiteouts) -> None:
    members = hostile(str(canary))[case]
    try:
        apply(root, tar(*members), whiteouts=whiteouts)
    except ArchiveError:
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"root", "canary"}


@pytest.mark.parametrize("name", ["..", "../x", "a/../../x", "nul\0ä", "n" * 5000, "c" * 300])
def test_impossible_names_are_refused(root: int, name: str) -> None:
    with pytest.raises(ArchiveError):
        apply(root, tar((name, Reg, "x")))


def test_links_are_followed_inside_the_root(tmp_path: Path, root: int) -> None:
    apply(root, tar(("usr/lib", Dir, ""), ("lib", Sym, "/usr/lib"), ("lib/x", Reg, "1"), ("h", Hard, "lib/x")))
    assert (tmp_path / "root/usr/lib/x").read_text() == "1"
    assert (tmp_path / "root/h").stat().st_ino == (tmp_path / "root/usr/lib/x").stat().st_ino


def test_attributes_arrive(tmp_path: Path, root: int) -> None:
    time_ns = 1_500_000_000_123_456_789
    apply(
        root,
        tar(
            Entry(name=b"d", kind=Dir, mode=0o1777, uid=5, gid=6, mtime_ns=time_ns),
            Entry(name=b"d/f", mode=0o4711, uid=7, gid=8, size=3, mtime_ns=time_ns, xattrs={b"user.a": b"b"}),
            Entry(name=b"d/n", kind=FileKind.CHARACTER, device=(1, 3), mode=0o666, mtime_ns=time_ns),
            Entry(name=b"d/p", kind=FileKind.FIFO, mode=0o622, uid=9, mtime_ns=time_ns),
            Entry(name=b"d/s", kind=Sym, target=b"nowhere", uid=10, mtime_ns=time_ns),
        ),
    )
    top = tmp_path / "root/d"
    status = {name: (top / name).lstat() for name in ("f", "n", "p", "s")} | {"d": top.stat()}
    assert {name: oct(stat.S_IMODE(s.st_mode)) for name, s in status.items() if name != "s"} == {
        "f": "0o4711",
        "n": "0o666",
        "p": "0o622",
        "d": "0o1777",
    }
    assert [(s.st_uid, s.st_gid) for s in status.values()] == [(7, 8), (0, 0), (9, 0), (10, 0), (5, 6)]
    assert {s.st_mtime_ns for s in status.values()} == {time_ns}
    assert status["n"].st_rdev == os.makedev(1, 3)
    assert os.getxattr(top / "f", "user.a") == b"b"


def test_file_capabilities_survive(tmp_path: Path, root: int) -> None:
    capability = bytes.fromhex("0100000200040000000000000000000000000000")
    apply(root, tar(Entry(name=b"ping", mode=0o755, xattrs={b"security.capability": capability}, size=2)))
    assert os.getxattr(tmp_path / "root/ping", "security.capability") == capability


def test_a_sparse_file_stays_sparse(tmp_path: Path, root: int) -> None:
    info = tarfile.TarInfo("s")
    info.pax_headers = {"GNU.sparse.map": "1073741824,4", "GNU.sparse.size": str((1 << 30) + 4)}
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as archive:
        info.size = 4
        archive.addfile(info, io.BytesIO(b"tail"))
    sink.seek(0)
    apply(root, sink)
    status = (tmp_path / "root/s").stat()
    assert status.st_size == (1 << 30) + 4
    assert status.st_blocks < 100


def test_whiteouts_become_overlay_marks(tmp_path: Path, root: int) -> None:
    apply(
        root,
        tar(
            ("a/.wh.gone", Reg, ""),
            ("b/.wh..wh..opq", Reg, ""),
            ("b/new", Reg, "1"),
            (".wh.again", Reg, ""),
            ("again", Dir, ""),
            (".wh..wh.plnk", Reg, ""),
        ),
        whiteouts="overlay",
    )
    top = tmp_path / "root"
    gone = (top / "a/gone").lstat()
    assert stat.S_ISCHR(gone.st_mode)
    assert gone.st_rdev == 0
    assert os.getxattr(top / "b", "trusted.overlay.opaque") == b"y"
    assert os.getxattr(top / "again", "trusted.overlay.opaque") == b"y"
    assert sorted(os.listdir(top)) == ["a", "again", "b"]


def test_whiteouts_delete_only_what_other_layers_made(tmp_path: Path, root: int) -> None:
    apply(root, tar(("d/old", Reg, ""), ("d/kept/x", Reg, ""), ("f", Reg, "")))
    second = tar(
        ("d/new", Reg, ""), ("d/.wh..wh..opq", Reg, ""), (".wh.f", Reg, ""), ("g", Reg, ""), (".wh.g", Reg, "")
    )
    apply(root, second, whiteouts="delete")
    top = tmp_path / "root"
    assert sorted(os.listdir(top)) == ["d", "g"]
    assert os.listdir(top / "d") == ["new"]


@pytest.mark.parametrize("name", [".wh.", ".wh..", ".wh...", "a/.wh..."])
def test_whiteouts_of_nothing_are_refused(root: int, name: str) -> None:
    with pytest.raises(ArchiveError, match="whiteout"):
        apply(root, tar((name, Reg, "")), whiteouts="overlay")


def test_limits(root: int) -> None:
    with pytest.raises(ArchiveError, match="limit of 3 files"):
        apply(root, tar(*[(f"f{n}", Reg, "") for n in range(4)]), limits=Limits(entries=3))
    with pytest.raises(ArchiveError, match="limit of 10 bytes"):
        apply(root, tar(("f", Reg, "x" * 11)), limits=Limits(total_bytes=10))
    with pytest.raises(ArchiveError, match="larger than"):
        apply(root, tar(("f", Reg, "x" * 11)), limits=Limits(file_bytes=10))


def test_parents_nobody_described_are_told(root: int) -> None:
    done = apply(root, tar(("a/b/c", Reg, "xyz"), ("a/b", Dir, "")))
    assert done.made == [b"a", b"a/b"]
    assert (done.entries, done.size) == (2, 3)


def test_remove_takes_trees_of_any_depth(tmp_path: Path, canary: Path) -> None:
    top = tmp_path / "deep"
    top.mkdir()
    (top / "link").symlink_to(canary)
    fd = os.open(top, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    parent = os.open(tmp_path, os.O_RDONLY)
    remove(parent, b"deep")
    os.close(parent)
    assert not top.exists()


# --- docker cp -----------------------------------------------------------------------------------------------------


@pytest.fixture
def tree(tmp_path: Path, canary: Path, root: int) -> Path:
    """A root with files, links that lead outside, and links that lead inside."""
    top = tmp_path / "root"
    (top / "etc/app").mkdir(parents=True)
    (top / "etc/app/conf").write_text("inside")
    os.link(top / "etc/app/conf", top / "etc/app/conf2")
    (top / "abs").symlink_to("/etc/app")
    (top / "out").symlink_to(canary)
    (top / "loop").symlink_to("loop")
    (top / "etc/secret").symlink_to(f"../../../../..{canary}/file")
    os.mkfifo(top / "etc/fifo")
    return top


def packed(root: int, path: str) -> dict[str, tuple[str, bytes]]:
    sink = io.BytesIO()
    pack(root, path, sink)
    sink.seek(0)
    reader = TarReader(sink)
    return {
        entry.name.decode(): (entry.kind.name, entry.target + b"".join(bytes(p) for _, p in reader.data()))
        for entry in reader
    }


def test_stat(tree: Path, root: int, canary: Path) -> None:
    found = copy.stat(root, "/abs/conf")
    assert (found["name"], found["size"], found["mode"], found["linkTarget"]) == ("conf", 6, 0o644, "")
    assert copy.stat(root, "/abs")["linkTarget"] == "/etc/app"
    assert copy.stat(root, "/abs")["mode"] == 1 << 27 | 0o777
    assert copy.stat(root, "/abs/")["mode"] == 1 << 31 | 0o755
    assert copy.stat(root, "/out")["linkTarget"] == str(canary)
    assert copy.stat(root, "/")["name"] == "/"
    for missing in ("/nope", "/out/file", "/etc/../../../nope"):
        with pytest.raises(FileNotFoundError):
            copy.stat(root, missing)
    with pytest.raises(NotADirectoryError):
        copy.stat(root, "/etc/app/conf/")
    with pytest.raises(OSError, match="symbolic links"):
        copy.stat(root, "/loop/x")


def test_pack(tree: Path, root: int) -> None:
    found = packed(root, "/etc")
    assert found["etc/app/conf"] == ("REGULAR", b"inside")
    assert found["etc/app/conf2"] == ("HARD_LINK", b"etc/app/conf")
    assert found["etc/fifo"] == ("FIFO", b"")
    assert found["etc/secret"][0] == "SYMBOLIC_LINK"
    assert set(packed(root, "/abs/.")) == {"./", "./conf", "./conf2"}
    assert set(packed(root, "/abs")) == {"abs"}
    assert packed(root, "/etc/secret")["secret"][0] == "SYMBOLIC_LINK"
    assert "/etc/" in packed(root, "/")


def test_export_leaves_out_what_is_mounted(tree: Path, root: int) -> None:
    sink = io.BytesIO()
    export(root, sink)
    sink.seek(0)
    names = [entry.name for entry in TarReader(sink)]
    assert names[:2] == [b"abs", b"etc/"]
    assert b"etc/app/conf" in names


def test_put(tree: Path, root: int, canary: Path) -> None:
    copy.put(root, "/abs", tar(("new", Reg, "1"), ("sub/x", Reg, "2")), owner=(5, 6))
    assert (tree / "etc/app/new").stat().st_uid == 5
    assert (tree / "etc/app/sub/x").read_text() == "2"
    with pytest.raises(FileNotFoundError):
        copy.put(root, "/out", tar(("file", Reg, "bad")))
    with pytest.raises(NotADirectoryError):
        copy.put(root, "/etc/app/conf", tar(("file", Reg, "bad")))
    with pytest.raises(ArchiveError, match="leads out"):
        copy.put(root, "/etc/app", tar(("../x", Reg, "bad")))
    copy.put(root, "/", tar(("abs/deeper", Reg, "3")))
    assert (tree / "etc/app/deeper").read_text() == "3"


def test_put_keeps_kinds_when_asked(tree: Path, root: int) -> None:
    with pytest.raises(ArchiveError, match='cannot overwrite directory "/etc/app" with non-directory "app"'):
        copy.put(root, "/etc", tar(("app", Reg, "")), keep_kind=True)
    with pytest.raises(ArchiveError, match='cannot overwrite non-directory "/etc/app/conf" with directory "conf"'):
        copy.put(root, "/etc/app", tar(("conf", Dir, "")), keep_kind=True)
    copy.put(root, "/etc", tar(("app", Reg, "file")))
    assert (tree / "etc/app").read_text() == "file"


def test_put_does_not_change_the_directory_itself(tree: Path, root: int) -> None:
    (tree / "etc/app").chmod(0o711)
    copy.put(root, "/etc/app", tar((".", Dir, ""), ("x", Reg, "")))
    assert stat.S_IMODE((tree / "etc/app").stat().st_mode) == 0o711


# --- overlay -------------------------------------------------------------------------------------------------------


@pytest.fixture
def layers(tmp_path: Path) -> Iterator[tuple[int, int, Path]]:
    """Descriptors of a lower and an upper, and the upper's path; lower has d/{a,b}, e/x, f."""
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for path in ("d/a", "d/b", "e/x", "f", "etc/passwd"):
        (lower / path).parent.mkdir(parents=True, exist_ok=True)
        (lower / path).write_text(path)
    upper.mkdir()
    fds = [os.open(path, os.O_RDONLY) for path in (lower, upper)]
    yield fds[0], fds[1], upper
    for fd in fds:
        os.close(fd)


def change_upper(tmp_path: Path, upper: Path) -> None:
    """As a workload would: f removed, d/a written, e replaced, n/new made, and mount places."""
    (upper / "d").mkdir()
    lower = (tmp_path / "lower/d").stat()
    (upper / "d/a").write_text("changed")
    os.utime(upper / "d", ns=(lower.st_mtime_ns, lower.st_mtime_ns))
    os.mknod(upper / "f", stat.S_IFCHR, 0)
    (upper / "e/same").mkdir(parents=True)
    (tmp_path / "lower/e/same").mkdir()
    for path in (upper / "e/same", tmp_path / "lower/e/same"):
        os.utime(path, ns=(0, 0))
    os.setxattr(upper / "e", "trusted.overlay.opaque", b"y")
    (upper / "n").mkdir()
    (upper / "n/new").write_text("new")
    (upper / "etc").mkdir()
    (upper / "etc/hosts").touch()
    (upper / "proc").mkdir()


def test_changes(tmp_path: Path, layers: tuple[int, int, Path]) -> None:
    lower, upper_fd, upper = layers
    change_upper(tmp_path, upper)
    assert overlay.changes([lower], upper_fd) == [
        ("/d", 0),
        ("/d/a", 0),
        ("/e", 0),
        ("/e/x", 2),
        ("/f", 2),
        ("/n", 1),
        ("/n/new", 1),
    ]


def test_a_layer_applied_to_the_lower_gives_what_the_overlay_shows(
    tmp_path: Path, layers: tuple[int, int, Path]
) -> None:
    lower, upper_fd, upper = layers
    change_upper(tmp_path, upper)
    sink = io.BytesIO()
    overlay.layer([lower], upper_fd, sink)
    sink.seek(0)
    names = [entry.name for entry in TarReader(sink)]
    assert names == [b"d/", b"d/a", b"e/", b"e/.wh..wh..opq", b"e/same/", b".wh.f", b"n/", b"n/new"]
    sink.seek(0)
    apply(lower, sink, whiteouts="delete")
    top = tmp_path / "lower"
    assert sorted(str(path.relative_to(top)) for path in top.rglob("*")) == [
        "d",
        "d/a",
        "d/b",
        "e",
        "e/same",
        "etc",
        "etc/passwd",
        "n",
        "n/new",
    ]
    assert (top / "d/a").read_text() == "changed"


def test_an_upper_that_needs_its_lower_is_refused(layers: tuple[int, int, Path]) -> None:
    lower, upper_fd, upper = layers
    (upper / "moved").mkdir()
    os.setxattr(upper / "moved", "trusted.overlay.redirect", b"/d")
    with pytest.raises(ArchiveError, match="redirect_dir"):
        overlay.layer([lower], upper_fd, io.BytesIO())


def test_policy_within_is_relative_to_the_root_for_links(tmp_path: Path, root: int) -> None:
    apply(root, tar(("a", Dir, ""), ("b", Dir, ""), ("a/l", Sym, "/b")))
    apply_with(root, tar(("l/x", Reg, "1")), Policy(within=(b"a",)))
    assert (tmp_path / "root/b/x").read_text() == "1"
