from __future__ import annotations

import pytest

from enisle.cli.copy import Landing, Place, landing, place
from enisle.errors import Invalid, NotFound


def test_sides_are_told_apart() -> None:
    assert place("web:/etc") == Place("web", "/etc")
    assert place("./a:b") == Place("", "./a:b")
    assert place("/a:b") == Place("", "/a:b")
    assert place("web:") == Place("web", "/")
    assert place("-") == Place("", "-")
    with pytest.raises(Invalid):
        place(":x")


@pytest.mark.parametrize(
    ("source", "directory", "destination", "kind", "expected"),
    [
        ("/etc/hosts", False, "here", "directory", Landing("here", "hosts")),
        ("/etc/hosts", False, "a/new", "", Landing("a", "new")),
        ("/etc/hosts", False, "a/old", "file", Landing("a", "old")),
        ("/etc", True, "here", "directory", Landing("here", "etc")),
        ("/etc/", True, "here", "directory", Landing("here", "etc")),
        ("/etc/.", True, "here", "directory", Landing("here", ".")),
        ("/etc", True, "new", "", Landing(".", "new")),
        ("/etc/.", True, "new/", "", Landing(".", "new")),
        ("/", True, "here", "directory", Landing("here", ".")),
    ],
)
def test_where_copies_land(source: str, directory: bool, destination: str, kind: str, expected: Landing) -> None:
    assert landing(destination, source=Place("c", source), source_is_directory=directory, kind=kind) == expected


def test_copies_that_cannot_be() -> None:
    with pytest.raises(Invalid, match="directory to the file"):
        landing("f", source=Place("c", "/etc"), source_is_directory=True, kind="file")
    with pytest.raises(NotFound, match="no such directory"):
        landing("d/", source=Place("c", "/f"), source_is_directory=False, kind="", must_be_directory=True)
