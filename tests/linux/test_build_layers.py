"""Layers read as overlayfs would show them, compared with what overlayfs does show."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.archive.apply import OPAQUE_XATTR
from enisle.archive.entry import FileKind
from enisle.build.layer_tree import LayerTree
from enisle.build.tree import split


@pytest.fixture
def layers(tmp_path: Path) -> list[Path]:
    """Three layers, topmost first: changes, deletions and a directory that hides the one below."""
    bottom, middle, top = (tmp_path / name for name in ("bottom", "middle", "top"))
    for path in ("etc", "opt/a", "hidden/below", "gone", "turns"):
        (bottom / path).mkdir(parents=True)
    (bottom / "etc" / "one").write_text("1")
    (bottom / "opt" / "a" / "f").write_text("old")
    (bottom / "hidden" / "below" / "f").write_text("x")
    (bottom / "gone" / "f").write_text("x")
    (bottom / "link").symlink_to("/etc/one")
    for path in ("opt/a", "hidden/own"):
        (middle / path).mkdir(parents=True)
    (middle / "opt" / "a" / "f").write_text("new")
    (middle / "opt" / "a" / "g").write_text("added")
    os.setxattr(middle / "hidden", OPAQUE_XATTR, b"y")
    os.mknod(middle / "gone", stat.S_IFCHR, 0)
    (middle / "turns").write_text("a file now")
    (top / "gone").mkdir(parents=True)
    (top / "gone" / "again").write_text("back")
    os.setxattr(top / "gone", OPAQUE_XATTR, b"y")
    (top / "turns").mkdir()
    (top / "turns" / "in").write_text("a directory again")
    return [top, middle, bottom]


@pytest.fixture
def tree(layers: list[Path]) -> Iterator[LayerTree]:
    made = LayerTree(layers)
    yield made
    made.close()


def test_as_overlayfs_shows_them(tree: LayerTree, layers: list[Path], tmp_path: Path) -> None:
    seen = {}
    for path, node in tree.walk(()):
        text = b"".join(tree.content(path, node)).decode() if node.kind is FileKind.REGULAR else node.target.decode()
        seen["./" + b"/".join(path).decode()] = text
    (tmp_path / "merged").mkdir()
    lower = ":".join(layer.name for layer in layers)  # by their names, because newer mount(8) takes 255 bytes only
    script = (
        f"mount -t overlay overlay -o lowerdir={lower} merged && cd merged && find . -mindepth 1 -print0 | "
        'while IFS= read -r -d \'\' f; do printf \'%s=\' "$f"; [ -L "$f" ] && readlink -n "$f" || '
        '{ [ -f "$f" ] && cat "$f"; }; echo; done'
    )
    shown = subprocess.run(
        ["unshare", "-m", "bash", "-c", script], capture_output=True, text=True, timeout=30, check=True, cwd=tmp_path
    )
    assert seen == dict(line.split("=", 1) for line in shown.stdout.splitlines())


def test_links_are_followed_in_the_merged_tree(tree: LayerTree) -> None:
    assert tree.read((b"link",), limit=10) == b"1"
    assert tree.evaluate(split("link")) == (b"etc", b"one")


def test_a_link_in_the_place_of_a_directory_is_not_gone_through_by_the_kernel(layers: list[Path]) -> None:
    (layers[0] / "trap").symlink_to("/etc")
    tree = LayerTree(layers)
    assert tree.look((b"trap", b"passwd")) is None
    assert tree.names((b"trap",)) == []
    assert tree.read((b"trap", b"passwd"), limit=1 << 20) is None  # our own /etc, which has no such file
    tree.close()
