"""Which paths a .dockerignore leaves out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import Invalid
from enisle.formats.dockerignore import parse


@pytest.mark.parametrize(
    ("text", "out", "kept"),
    [
        ("*.md\n!README.md", ["a.md"], ["README.md", "sub/a.md"]),
        ("**/*.pyc", ["a.pyc", "x/y/a.pyc"], ["a.py"]),
        ("# c\n/node_modules/", ["node_modules", "node_modules/a/b"], ["sub/node_modules"]),
        ("*/temp*", ["a/temporary", "a/temp/x"], ["temp", "a/b/temp"]),
        ("docs\n!docs/keep", ["docs/a", "docs"], ["docs/keep", "docs/keep/x"]),
        ("*\n!src/**", ["a", "b/c"], ["src/x/y"]),
        ("file?.[a-c]", ["file1.b"], ["file12.b", "file1.d"]),
        (r"we\*ird", ["we*ird"], ["weird"]),
        ("a**/*b/**c", ["ax/yb/c", "a/b/d/c"], ["ac", "a/b/d"]),
        ("**/a*??**a", ["b/abaa"], ["b/aba"]),
        ("", [], ["anything"]),
    ],
)
def test_patterns(text: str, out: list[str], kept: list[str]) -> None:
    ignore = parse(text)
    assert [path for path in out if not ignore.matches(path)] == []
    assert [path for path in kept if ignore.matches(path)] == []


@pytest.mark.parametrize("text", ["!", "[a", "a\\"])
def test_malformed(text: str) -> None:
    with pytest.raises(Invalid):
        parse(text)


@given(st.text(alphabet="ab/*?[]!\\^-.\n#", max_size=60), st.text(alphabet="ab/", min_size=1, max_size=20))
def test_any_text_decides_or_is_refused(text: str, path: str) -> None:
    try:
        assert parse(text).matches(path) in (True, False)
    except Invalid:
        pass


@pytest.mark.parametrize("part", ["*a", "**a", "**/a/"])
def test_a_pattern_of_many_stars_fails_soon(part: str) -> None:
    """Each star doubled the time once: this took years."""
    assert not parse(part * 40 + "b").matches("/".join(["a" * 40] * 100))
