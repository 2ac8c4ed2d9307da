"""Patterns in substitutions: what they match, and that nobody's pattern takes long."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import Invalid
from enisle.formats.dockerfile import patterns
from enisle.formats.dockerfile.words import MAX_RESULT, expand

PATTERNS = st.text(alphabet="ab?*", max_size=6)
TEXTS = st.text(alphabet="ab", max_size=9)


def matches(pattern: str, text: str) -> bool:
    return re.fullmatch(pattern.replace("*", ".*").replace("?", "."), text) is not None


@given(TEXTS, PATTERNS, st.booleans())
def test_what_is_taken_off_is_the_shortest_or_longest_that_matches(text: str, pattern: str, longest: bool) -> None:
    ends = [end for end in range(len(text) + 1) if matches(pattern, text[:end])]
    expected = text[ends[-1] if longest else ends[0] :] if ends else text
    assert patterns.without_prefix(text, pattern, longest=longest) == expected
    begins = [begin for begin in range(len(text) + 1) if matches(pattern, text[begin:])]
    expected = text[: begins[0] if longest else begins[-1]] if begins else text
    assert patterns.without_suffix(text, pattern, longest=longest) == expected


@pytest.mark.parametrize(
    ("text", "pattern", "every", "expected"),
    [
        ("foobarbaz", "ba", False, "fooXrbaz"),
        ("foobarbaz", "ba", True, "fooXrXz"),
        ("foobarbaz", "b*a", True, "fooXz"),
        ("a*b", r"\*", True, "aXb"),
        ("abc", "?", True, "XXX"),
        ("abc", "", True, "abc"),
        ("abc", "d*", True, "abc"),
    ],
)
def test_replacements(text: str, pattern: str, every: bool, expected: str) -> None:
    assert patterns.replaced(text, pattern, "X", every=every) == expected


def test_a_stranger_s_pattern_ends_soon() -> None:
    """With a regular expression for the whole pattern each of these took hours."""
    text = "a" * MAX_RESULT
    assert patterns.replaced(text, "a*a*a*a*b", "", every=True) == text
    assert patterns.without_prefix(text, "*a*a*a*b", longest=True) == text
    assert patterns.without_suffix(text, "b*a*a*a*", longest=False) == text


def test_variables_do_not_multiply_without_end() -> None:
    with pytest.raises(Invalid, match="longer than"):
        expand("$a" * 40, {"a": "x" * (MAX_RESULT // 20)})
