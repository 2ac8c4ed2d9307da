"""Docker's reference grammar."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.errors import Invalid
from enisle.formats.reference import parse_reference

SHA = "sha256:" + "ab" * 32


@pytest.mark.parametrize(
    ("text", "full", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian"),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        ("library/debian", "docker.io/library/debian", "debian"),
        ("docker.io/debian", "docker.io/library/debian", "debian"),
        ("index.docker.io/library/debian", "docker.io/library/debian", "debian"),
        ("team/app", "docker.io/team/app", "team/app"),
        ("docker.io/library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/app", "localhost/app", "localhost/app"),
        ("localhost:5000/app:1", "localhost:5000/app:1", "localhost:5000/app:1"),
        ("[::1]:5000/app", "[::1]:5000/app", "[::1]:5000/app"),
        ("Registry.example/app", "Registry.example/app", "Registry.example/app"),
        ("UPPER/app", "UPPER/app", "UPPER/app"),
        (f"app@{SHA}", f"docker.io/library/app@{SHA}", f"app@{SHA}"),
        (f"app:1@{SHA}", f"docker.io/library/app:1@{SHA}", f"app:1@{SHA}"),
        ("a__b/c-d.e", "docker.io/a__b/c-d.e", "a__b/c-d.e"),
    ],
)
def test_normalised_and_shown(text: str, full: str, familiar: str) -> None:
    reference = parse_reference(text)
    assert (str(reference), reference.familiar) == (full, familiar)


@pytest.mark.parametrize(
    "text",
    ["", ":1", "a:", "a b", "a//b", "/a", "a/", "-a", "a-", "a..b", "a___b", "a:-1", "a:" + "x" * 129, "a@", "a@x",
     "a@sha256:xyz", "a@sha256:" + "a" * 32, "a@md5:" + "a" * 32, "https://host/a", "host:port/a", "a\n", "ä", "../a",
     "a@" + SHA + "@" + SHA, "host:1/../a", "x" * 300],
)  # fmt: skip
def test_not_references(text: str) -> None:
    with pytest.raises(Invalid):
        parse_reference(text)


def test_docker_wording() -> None:
    with pytest.raises(Invalid, match=r"repository name \(Debian\) must be lowercase|invalid reference format"):
        parse_reference("Debian")
    with pytest.raises(Invalid, match="cannot specify 64-byte hexadecimal strings"):
        parse_reference("ab" * 32)


def test_with_and_without_tag() -> None:
    assert parse_reference("a").or_latest().familiar == "a:latest"
    assert parse_reference(f"a@{SHA}").or_latest().tag == ""
    assert parse_reference("a:1").with_tag("2").familiar == "a:2"
    with pytest.raises(Invalid, match="invalid tag format"):
        parse_reference("a").with_tag("-")


@given(st.text(alphabet="aA0/:.@-_[] \n", max_size=40))
@settings(max_examples=1000, deadline=None)
def test_what_is_accepted_is_stable(text: str) -> None:
    try:
        reference = parse_reference(text)
    except Invalid:
        return
    assert parse_reference(str(reference)) == reference
    assert parse_reference(reference.familiar) == reference
    assert "\n" not in str(reference)
    assert ".." not in reference.path
