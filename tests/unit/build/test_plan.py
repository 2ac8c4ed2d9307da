"""Layers put together from files: what is in them, and when two are the same."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.archive.entry import FileKind
from enisle.build.layer_filter import filtered, stubs
from enisle.build.layer_plan import LayerPlan, Planned
from enisle.build.owners import mode, owner
from enisle.build.tree import EmptyTree, Node, Tree
from enisle.build.tree import Path as TreePath
from enisle.errors import Invalid
from tests.unit.build.test_trees import archive


class FakeTree(Tree):
    """Paths to content; None is a directory; "-> x" a link."""

    def __init__(self, files: dict[str, str | None]) -> None:
        super().__init__()
        self._files = {tuple(path.encode().split(b"/")): text for path, text in files.items()}

    def look(self, path: TreePath) -> Node | None:
        if not path:
            return Node(kind=FileKind.DIRECTORY, mode=0o755)
        if path not in self._files:
            return None
        text = self._files[path]
        if text is None:
            return Node(kind=FileKind.DIRECTORY, mode=0o711, uid=7, gid=8, mtime_ns=5 * 10**9)
        if text.startswith("-> "):
            return Node(kind=FileKind.SYMBOLIC_LINK, mode=0o777, target=text[3:].encode())
        return Node(kind=FileKind.REGULAR, size=len(text), key=path)

    def names(self, path: TreePath) -> list[bytes]:
        return sorted({one[len(path)] for one in self._files if one[: len(path)] == path and len(one) > len(path)})

    def content(self, path: TreePath, node: Node) -> Iterator[bytes]:
        yield (self._files[path] or "").encode()


def file(data: bytes, **attributes: int) -> Planned:
    return Planned(node=Node(kind=FileKind.REGULAR, size=len(data), **attributes), data=data)  # type: ignore[arg-type]


def members(plan: LayerPlan) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(plan.pieces()))) as tar:
        return tar.getmembers()


def test_directories_below_are_repeated_as_they_are() -> None:
    plan = LayerPlan(FakeTree({"etc": None}), now_ns=0)
    plan.put((b"etc", b"new", b"f"), file(b"x", uid=1, gid=2, mtime_ns=9 * 10**9))
    etc, new, made = members(plan)
    assert (etc.name, etc.mode, etc.uid, etc.gid, etc.mtime) == ("etc", 0o711, 7, 8, 5)
    assert (new.name, new.mode, new.uid, new.gid) == ("etc/new", 0o755, 1, 2)
    assert (made.name, made.size, made.mtime) == ("etc/new/f", 1, 9)


def test_a_link_to_a_directory_below_is_gone_through() -> None:
    plan = LayerPlan(FakeTree({"usr": None, "usr/lib": None, "lib": "-> usr/lib"}), now_ns=0)
    plan.directory((b"lib",), owner=(0, 0))
    plan.put((b"lib", b"so"), file(b"x"))
    assert [one.name for one in members(plan)] == ["usr", "usr/lib", "usr/lib/so"]


def test_files_and_directories_do_not_take_each_others_place() -> None:
    plan = LayerPlan(FakeTree({"d": None, "f": "text"}), now_ns=0)
    with pytest.raises(Invalid, match="cannot copy to directory: /d"):
        plan.put((b"d",), file(b"x"))
    with pytest.raises(Invalid, match="cannot copy to non-directory: /f"):
        plan.put((b"f", b"below"), file(b"x"))


def test_the_digest_is_of_content_not_of_times() -> None:
    def digest(data: bytes, **attributes: int) -> str:
        plan = LayerPlan(EmptyTree(), now_ns=0)
        plan.put((b"f",), file(data, **attributes))
        return plan.digest()

    assert digest(b"x", mtime_ns=1) == digest(b"x", mtime_ns=2)
    assert len({digest(b"x"), digest(b"y"), digest(b"x", mode=0o600), digest(b"x", uid=1)}) == 4


def test_no_file_is_younger_than_the_limit() -> None:
    plan = LayerPlan(EmptyTree(), now_ns=10**9, limit_ns=3 * 10**9)
    plan.put((b"old",), file(b"", mtime_ns=2 * 10**9))
    plan.put((b"young",), file(b"", mtime_ns=5 * 10**9))
    assert [one.mtime for one in members(plan)] == [2, 3]


def test_hard_links_stay_hard_links() -> None:
    source = FakeTree({"a": "data"})
    node = source.look((b"a",))
    assert node is not None
    plan = LayerPlan(EmptyTree(), now_ns=0)
    for name in (b"one", b"two"):
        plan.put((name,), Planned(node=node, tree=source, source=(b"a",)))
    one, two = members(plan)
    assert (one.size, two.type, two.linkname) == (4, tarfile.LNKTYPE, "one")


def test_places_made_for_mounts_are_left_out(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.write_bytes(
        archive(
            [
                ("dir", "cache", ""),
                ("dir", "cache/in", ""),
                ("dir", "used", ""),
                ("file", "used/f", "x"),
                ("dir", "own", ""),
            ]
        )
    )
    unwanted = stubs(["/cache/in", "/used", "/there/x"], FakeTree({"there": None}))
    assert unwanted == {(b"cache",), (b"cache", b"in"), (b"used",), (b"there", b"x")}
    with tarfile.open(fileobj=io.BytesIO(b"".join(filtered(layer, unwanted, limit_ns=None)))) as tar:
        assert tar.getnames() == ["used", "used/f", "own"]


def test_owner() -> None:
    tree = FakeTree({"etc": None, "etc/passwd": "root:x:0:0::/:\nweb:x:33:44::/:\n", "etc/group": "staff:x:50:\n"})
    assert owner("web", tree) == owner("web:", tree) == (33, 44)  # the primary group
    assert owner("web:staff", tree) == (33, 50)
    assert owner("5:6", tree) == (5, 6)
    assert owner("5", EmptyTree()) == (5, 5)
    with pytest.raises(Invalid, match="can't find uid for user nobody"):
        owner("nobody", tree)
    with pytest.raises(Invalid, match="no user id"):
        owner("4294967295", tree)


@pytest.mark.parametrize(
    ("text", "old", "is_directory", "new"),
    [
        ("0755", 0o644, False, 0o755),
        ("u+x", 0o644, False, 0o744),
        ("go-rwx,u=rw", 0o777, False, 0o600),
        ("a+X", 0o644, False, 0o644),
        ("a+X", 0o644, True, 0o755),
        ("+t", 0o755, True, 0o1755),
    ],
)
def test_mode(text: str, old: int, is_directory: bool, new: int) -> None:
    assert mode(text, old, is_directory=is_directory) == new


@pytest.mark.parametrize("text", ["rwx", "u+q", "99999", "u", "-1"])
def test_modes_that_are_none(text: str) -> None:
    with pytest.raises(Invalid, match="invalid chmod"):
        mode(text, 0o644, is_directory=False)
