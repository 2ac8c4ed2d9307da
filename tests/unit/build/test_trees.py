"""Archives as trees, and what the sources of COPY name in them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.archive.entry import FileKind
from enisle.build.archive_tree import ArchiveTree
from enisle.build.sources import Excluded, found
from enisle.build.tree import split
from enisle.errors import Invalid

Member = tuple[str, str, str]  # kind, name, content or target


def archive(members: list[Member]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for kind, name, text in members:
            info = tarfile.TarInfo(name)
            if kind == "file":
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
                continue
            info.type = {"dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE, "hard": tarfile.LNKTYPE}[kind]
            info.linkname = text
            tar.addfile(info)
    return out.getvalue()


class Trees:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._made: list[ArchiveTree] = []

    def __call__(self, *members: Member) -> ArchiveTree:
        path = self._directory / f"{len(self._made)}.tar"
        path.write_bytes(archive(list(members)))
        tree = ArchiveTree(path)
        self._made.append(tree)
        tree.index()
        return tree

    def close(self) -> None:
        for tree in self._made:
            tree.close()


@pytest.fixture
def trees(tmp_path: Path) -> Iterator[Trees]:
    made = Trees(tmp_path)
    yield made
    made.close()


def text(tree: ArchiveTree, path: str) -> str | None:
    data = tree.read(split(path), limit=1000)
    return None if data is None else data.decode()


def test_content_by_name(trees: Trees) -> None:
    tree = trees(("dir", "d", ""), ("file", "d/a", "one"), ("file", "b", "two" * 100), ("file", "e", ""))
    assert (text(tree, "d/a"), text(tree, "/b"), text(tree, "e"), text(tree, "none")) == ("one", "two" * 100, "", None)
    assert tree.names(()) == [b"b", b"d", b"e"]


def test_parents_that_the_archive_does_not_describe(trees: Trees) -> None:
    tree = trees(("file", "a/b/c", "x"))
    assert tree.look((b"a", b"b")) is not None and tree.names((b"a",)) == [b"b"]


def test_the_last_of_a_name_counts(trees: Trees) -> None:
    tree = trees(("dir", "a", ""), ("file", "a/b", "x"), ("file", "a", "now a file"))
    assert text(tree, "a") == "now a file"
    assert tree.look((b"a", b"b")) is None


def test_links_stay_inside(trees: Trees) -> None:
    tree = trees(
        ("file", "etc/passwd", "ours"),
        ("link", "up", "../../../../etc/passwd"),
        ("link", "abs", "/etc/passwd"),
        ("link", "dir", "etc"),
    )
    assert text(tree, "up") == text(tree, "abs") == text(tree, "dir/passwd") == "ours"


def test_files_put_through_a_link_lie_where_it_leads(trees: Trees) -> None:
    tree = trees(("dir", "real", ""), ("link", "lib", "real"), ("file", "lib/a", "x"))
    assert text(tree, "real/a") == "x"
    assert tree.names((b"lib",)) == []


def test_links_in_a_circle_are_refused(trees: Trees) -> None:
    tree = trees(("link", "a", "b"), ("link", "b", "a"))
    with pytest.raises(Invalid, match="too many symbolic links"):
        text(tree, "a")


def test_hard_links_are_the_same_file(trees: Trees) -> None:
    tree = trees(("file", "a", "x"), ("hard", "b", "a"))
    one, two = tree.look((b"a",)), tree.look((b"b",))
    assert one is not None and two is not None and one.key == two.key and text(tree, "b") == "x"
    with pytest.raises(Invalid, match="hard link"):
        trees(("hard", "b", "nowhere"))


@pytest.mark.parametrize("name", ["../out", "a/../../out"])
def test_names_that_lead_out_are_refused(trees: Trees, name: str) -> None:
    with pytest.raises(Invalid, match="leads out"):
        trees(("file", name, "x"))


def test_a_deep_tree_is_forgotten_without_recursion(trees: Trees) -> None:
    name = "/".join(["d"] * 1500)
    tree = trees(("file", f"{name}/f", "x"))
    tree.forget((b"d",))
    assert tree.names(()) == []


def test_ignored_files_are_hidden_with_directories_that_held_nothing_else(trees: Trees) -> None:
    tree = trees(("dir", "a", ""), ("file", "a/x", "1"), ("file", "keep", "2"))
    tree.hide(lambda path: path.startswith("a"))
    assert tree.names(()) == [b"keep"]


def names(tree: ArchiveTree, source: str) -> list[str]:
    return [b"/".join(named).decode() for named, _, _ in found(tree, source, what="COPY")]


def test_wildcards(trees: Trees) -> None:
    tree = trees(("file", "a.txt", ""), ("file", "b.txt", ""), ("file", "d/c.txt", ""), ("file", "d/e.go", ""))
    assert names(tree, "*.txt") == ["a.txt", "b.txt"]
    assert names(tree, "*/*.txt") == ["d/c.txt"]
    assert names(tree, "[ab].txt") == ["a.txt", "b.txt"]
    assert names(tree, "d/?.go") == ["d/e.go"]
    with pytest.raises(Invalid, match="no source files were specified"):
        names(tree, "*.nothing")


def test_two_stars_are_directories_however_deep(trees: Trees) -> None:
    tree = trees(("file", "a.c", ""), ("file", "d/b.c", ""), ("file", "d/e/c.c", ""), ("file", "d/e/c.h", ""))
    places = [b"/".join(named) for named, _, _ in found(tree, "./**/*.c", what="COPY", deep=True)]
    assert sorted(places) == [b"a.c", b"d/b.c", b"d/e/c.c"]
    with pytest.raises(Invalid, match="no source files"):
        found(tree, "**/*.x", what="COPY", deep=True)


@pytest.mark.parametrize("source", ["../a", "d/../../a", "/../a", "d/../../../etc/passwd"])
def test_sources_outside_are_refused(trees: Trees, source: str) -> None:
    with pytest.raises(Invalid, match="forbidden path outside the build context"):
        names(trees(("file", "a", "")), source)


def test_a_missing_source_is_named(trees: Trees) -> None:
    with pytest.raises(Invalid, match=r"file not found in build context .* stat gone: file does not exist"):
        names(trees(("file", "a", "")), "gone")


def test_a_link_that_is_named_is_followed(trees: Trees) -> None:
    tree = trees(("file", "a", "x"), ("link", "l", "a"))
    ((_, place, node),) = found(tree, "l", what="COPY")
    assert (place, node.kind) == ((b"a",), FileKind.REGULAR)


def test_excluded() -> None:
    excluded = Excluded(["*.txt", "d/**/x"])
    assert excluded.matches((b"a.txt",)) and excluded.matches((b"d", b"e", b"x", b"below"))
    assert not excluded.matches((b"d", b"a.txt"))
    assert not Excluded([]).matches((b"a.txt",))
