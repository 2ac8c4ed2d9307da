from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from enisle.errors import Invalid, Unavailable
from enisle.sdk.credentials import DOCKER_HUB, CredentialFile, Credentials, registry_of, server_key

HELPER = """#!/bin/sh
read server
case "$1" in
get) if [ "$server" = known.example ]; then echo '{"Username": "ann", "Secret": "s3"}';
     elif [ "$server" = token.example ]; then echo '{"Username": "<token>", "Secret": "t0"}';
     elif [ "$server" = broken.example ]; then echo 'keyring locked'; exit 1;
     else echo 'credentials not found in native keychain'; exit 1; fi ;;
esac
"""


@pytest.mark.parametrize(
    ("image", "server"),
    [
        ("debian", DOCKER_HUB),
        ("library/debian:12", DOCKER_HUB),
        ("docker.io/library/debian", DOCKER_HUB),
        ("localhost/a", "localhost"),
        ("registry.example:5000/a/b:1", "registry.example:5000"),
    ],
)
def test_images_name_their_registry(image: str, server: str) -> None:
    assert registry_of(image) == server


def test_servers_are_known_under_all_their_spellings() -> None:
    assert server_key("https://registry.example/v2/") == "registry.example"
    assert server_key("https://index.docker.io/v1/") == DOCKER_HUB


def test_what_is_stored_is_found_and_can_be_forgotten(tmp_path: Path) -> None:
    file = CredentialFile(tmp_path / "d" / "config.json")
    assert file.find("r.example") is None
    file.store(Credentials(username="ann", password="p:w", server="r.example"))
    assert file.find("r.example") == Credentials(username="ann", password="p:w", server="r.example")
    assert file.path.stat().st_mode & 0o777 == 0o600
    assert file.erase("r.example")
    assert not file.erase("r.example")
    assert file.find("r.example") is None


def test_other_settings_and_links_survive(tmp_path: Path) -> None:
    real = tmp_path / "real.json"
    real.write_text(json.dumps({"psFormat": "x", "auths": {"https://r.example/v1/": {"auth": "YTpi"}}}))
    link = tmp_path / "config.json"
    link.symlink_to(real)
    file = CredentialFile(link)
    assert file.find("r.example") == Credentials(username="a", password="b", server="r.example")
    file.store(Credentials(username="c", password="d", server="other.example"))
    assert link.is_symlink()
    assert json.loads(real.read_text())["psFormat"] == "x"


@pytest.mark.parametrize("text", ["{", "[]", '{"auths": ["a"]}', '{"credHelpers": ["a"]}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(Invalid, match=r"config\.json"):
        CredentialFile(path).find("r.example")


@pytest.mark.parametrize("text", ["a", "!!!", "YTpi\n"])
def test_credentials_that_are_no_base64_are_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"auths": {"r.example": {"auth": text}}}))
    with pytest.raises(Invalid, match=r"r\.example"):
        CredentialFile(path).find("r.example")


def test_helpers_are_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    helper = tmp_path / "docker-credential-test"
    helper.write_text(HELPER)
    helper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"credHelpers": {"gone.example": "missing"}, "credsStore": "test"}))
    file = CredentialFile(path)
    assert file.find("known.example") == Credentials(username="ann", password="s3", server="known.example")
    assert file.find("token.example") == Credentials(identity_token="t0", server="token.example")
    assert file.find("unknown.example") is None
    with pytest.raises(Unavailable, match="keyring locked"):
        file.find("broken.example")
    assert file.find("gone.example") is None


def test_header_is_what_docker_sends() -> None:
    header = Credentials(username="a", password="b", server="s").header()
    assert json.loads(base64.urlsafe_b64decode(header)) == {"username": "a", "password": "b", "serveraddress": "s"}
