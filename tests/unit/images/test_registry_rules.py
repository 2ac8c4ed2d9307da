"""Challenges, credentials, redirects, retries, platforms, package sources: the rules without a network."""

from __future__ import annotations

import email.utils
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from yarl import URL

from enisle.errors import Denied, Invalid, NotFound
from enisle.formats.oci import OCI_MANIFEST
from enisle.images.bootstrap.busybox import busybox_tar
from enisle.images.bootstrap.debian import mmdebstrap_arguments
from enisle.images.bootstrap.recipes import SUITES, parse_deb822, parse_list, read_sources, recipe_for, sources_for
from enisle.images.platforms import choose, fits, parse_platform_text
from enisle.images.registry.challenge import Challenge, parse_challenges
from enisle.images.registry.endpoints import (
    RegistrySettings,
    check_redirect,
    host_of,
    may_be_insecure,
    realm_gets_credentials,
)
from enisle.images.registry.transport import retry_after_s
from enisle.model.ids import Digest
from enisle.model.image import Descriptor, Platform


def test_challenges() -> None:
    header = 'Bearer realm="https://auth.example/token",service="a, b",scope="repository:x:pull,push", Basic realm=y'
    assert parse_challenges(header) == [
        Challenge(
            scheme="bearer",
            parameters={
                "realm": "https://auth.example/token",
                "service": "a, b",
                "scope": "repository:x:pull,push",
            },
        ),
        Challenge(scheme="basic", parameters={"realm": "y"}),
    ]
    assert parse_challenges("") == []
    assert parse_challenges('Basic realm="a\\"b"')[0].parameters == {"realm": 'a"b'}


@given(st.text(max_size=300))
@settings(max_examples=300, deadline=None)
def test_any_challenge_can_be_read(text: str) -> None:
    for challenge in parse_challenges(text):
        assert challenge.scheme == challenge.scheme.lower()


@pytest.mark.parametrize(
    ("registry", "realm", "given_to"),
    [
        ("https://r.example.com", "https://r.example.com/token", True),
        ("https://r.example.com", "https://auth.example.com/token", True),
        ("https://registry-1.docker.io", "https://auth.docker.io/token", True),
        ("https://r.example.com", "https://evil.com/token", False),
        ("https://r.example.com", "http://r.example.com/token", False),
        ("https://example.com", "https://other.com/token", False),
        ("https://10.0.0.1", "https://9.0.0.1/token", False),
        ("http://127.0.0.1:5000", "http://localhost:5001/token", True),
        ("http://127.0.0.1:5000", "http://example.com/token", False),
    ],
)
def test_who_gets_credentials(registry: str, realm: str, given_to: bool) -> None:
    assert realm_gets_credentials(URL(registry), URL(realm)) is given_to


@pytest.mark.parametrize(
    ("origin", "target", "followed"),
    [
        ("https://r.example", "https://cdn.example/x", True),
        ("https://r.example", "http://r.example/x", False),
        ("http://10.0.0.5:5000", "http://10.0.0.5:9000/x", True),
        ("https://r.example", "https://127.0.0.1/x", False),
        ("https://r.example", "https://localhost/x", False),
        ("https://r.example", "https://x.localhost/x", False),
        ("https://r.example", "https://[::1]/x", False),
        ("https://r.example", "https://[::ffff:127.0.0.1]/x", False),
        ("http://127.0.0.1:5000", "http://localhost:5001/x", True),
        ("http://127.0.0.1:5000", "http://169.254.169.254/x", False),
        ("https://r.example", "https://user@r.example/x", False),
    ],
)
def test_redirects(origin: str, target: str, followed: bool) -> None:
    if followed:
        check_redirect(URL(origin), URL(target))
    else:
        with pytest.raises(Denied):
            check_redirect(URL(origin), URL(target))


def test_hosts() -> None:
    assert host_of("docker.io") == "registry-1.docker.io"
    assert host_of("r.example:5000") == "r.example:5000"
    settings_ = RegistrySettings(insecure=frozenset({"r.example:5000"}))
    assert [may_be_insecure(h, settings_) for h in ("r.example:5000", "r.example", "127.9.9.9:1", "[::1]:5000")] == [
        True,
        False,
        True,
        True,
    ]


def test_retry_after() -> None:
    assert retry_after_s("7") == 7
    assert retry_after_s("99999999999") == 60
    assert retry_after_s("soon") == retry_after_s("") == retry_after_s("-5") == 0
    assert 20 < retry_after_s(email.utils.formatdate(time.time() + 30, usegmt=True)) <= 31
    assert retry_after_s(email.utils.formatdate(0, usegmt=True)) == 0


def child(architecture: str, variant: str = "") -> Descriptor:
    digest = Digest("sha256:" + "a" * 64)
    platform = Platform(architecture=architecture, variant=variant)
    return Descriptor(media_type=OCI_MANIFEST, digest=digest, size=1, platform=platform)


def test_platforms() -> None:
    children = [child("amd64"), child("arm", "v6"), child("arm", "v7"), child("arm64", "v8"), child("unknown")]
    assert choose(children, Platform(), "x") is children[0]
    assert choose(children, parse_platform_text("linux/arm"), "x") is children[2]
    assert choose(children, parse_platform_text("linux/arm/v6"), "x") is children[1]
    assert choose(children, parse_platform_text("aarch64"), "x") is children[3]
    with pytest.raises(NotFound, match="no matching manifest for linux/s390x in the manifest list entries of x"):
        choose(children, Platform(architecture="s390x"), "x")
    for text in ("", "a/b/c/d", "linux/", "li nux/amd64", "linux/../x"):
        with pytest.raises(Invalid):
            parse_platform_text(text)
    assert fits(Platform(architecture="arm64"), parse_platform_text("linux/arm64/v8"))
    assert not fits(Platform(), parse_platform_text("linux/arm64"))


DEB822 = """\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By:
 /usr/share/keyrings/x.gpg

Types: deb
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: trixie
Components: main
"""


def test_package_sources_come_from_the_host(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "deb https://vendor.example/apt stable-x main\n# deb http://no.example sid main\n"
    )
    (tmp_path / "sources.list.d/debian.sources").write_text(DEB822)
    lines = sources_for(SUITES[1], read_sources(tmp_path))
    assert [line.split("] ")[1] for line in lines] == [
        "http://mirror.example/debian trixie main",
        "http://mirror.example/debian trixie-updates main",
        "http://mirror.example/security trixie-security main",
    ]
    assert "off.example" not in str(parse_deb822(DEB822))
    assert parse_list("deb [arch=amd64 signed-by=/x] http://m/d bookworm main contrib")[0].components == (
        "main",
        "contrib",
    )
    assert "deb.debian.org" in sources_for(SUITES[0], [])[0]
    only = parse_list("deb http://private.example/d bookworm main")
    assert not any("security" in line for line in sources_for(SUITES[0], only))


def test_recipes() -> None:
    assert recipe_for("debian:12").suite == SUITES[0]
    assert recipe_for("docker.io/library/debian:trixie").suite == SUITES[1]
    assert recipe_for("busybox").reference.familiar == "busybox:latest"
    with pytest.raises(NotFound):
        recipe_for("debian:3")
    arguments = mmdebstrap_arguments("/usr/bin/mmdebstrap", SUITES[0])
    assert arguments[-3:] == ["bookworm", "-", "-"]
    assert all(argument.startswith("--") for argument in arguments[1:-3])


def test_a_busybox_root_is_the_same_bytes_each_time() -> None:
    first = busybox_tar(b"program", ["bin/ls", "usr/bin/env", "[", "../../evil"], 10**9)
    assert first == busybox_tar(b"program", ["../../evil", "bin/ls", "[", "usr/bin/env"], 10**9)
    assert b"bin/evil" in first
    assert b".." not in first
