from __future__ import annotations

import pytest

from enisle.errors import Invalid, NotSupported
from enisle.sdk.address import DEFAULT, from_environment, parse


def test_the_environment_is_asked_in_order() -> None:
    assert from_environment({}).text == DEFAULT
    assert from_environment({"DOCKER_HOST": "unix:///d"}).path == "/d"
    assert from_environment({"DOCKER_HOST": "unix:///d", "ENISLE_HOST": "unix:///e"}).path == "/e"


def test_addresses_are_read() -> None:
    assert parse("/a/b", {}).path == "/a/b"
    assert parse("tcp://127.0.0.1:2375", {})[2:4] == ("127.0.0.1", 2375)
    assert parse("tcp://[::1]:2375", {}).host == "::1"
    assert parse("tcp://h:1", {"DOCKER_TLS_VERIFY": "1", "HOME": "/h"}).certificates == "/h/.docker"
    assert parse("tcp://h:1", {"DOCKER_CERT_PATH": "/c"}).certificates == "/c"


def test_ssh_takes_a_host_for_nothing_else() -> None:
    assert parse("ssh://host", {}).ssh[-5:] == ("--", "host", "enisle", "system", "dial-stdio")
    assert parse("ssh://-oProxyCommand=x@-v:22", {}).ssh[3:9] == (
        "ConnectTimeout=30",
        "-l",
        "-oProxyCommand=x",
        "-p",
        "22",
        "--",
    )


def test_what_is_no_address_is_refused() -> None:
    with pytest.raises(NotSupported, match="npipe"):
        parse("npipe:////./pipe/docker_engine", {})
    for text in ("ssh://", "ssh://host/path", "ssh://user:secret@host", "ssh://host:port"):
        with pytest.raises(Invalid):
            parse(text, {})
    for text in ("tcp://host", "tcp://host:port", "host"):
        with pytest.raises(Invalid):
            parse(text, {})
