from __future__ import annotations

import json

import pytest

from enisle import errors
from enisle.sdk import images, instances, system
from enisle.sdk.images import split_reference
from enisle.sdk.request import Reply, failure


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (304, errors.NotModified),
        (400, errors.Invalid),
        (401, errors.Unauthenticated),
        (403, errors.Denied),
        (404, errors.NotFound),
        (409, errors.Conflict),
        (500, errors.Internal),
        (501, errors.NotSupported),
        (503, errors.Unavailable),
        (507, errors.Exhausted),
        (418, errors.Invalid),
    ],
)
def test_statuses_become_errors_in_the_servers_words(status: int, kind: type[errors.EnisleError]) -> None:
    error = failure(Reply(status, {}, json.dumps({"message": "No such container: x"}).encode()))
    assert type(error) is kind
    assert str(error) == "No such container: x"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"message": ""}'])
def test_an_error_always_says_something(body: bytes) -> None:
    assert str(failure(Reply(500, {}, body)))


def test_targets_carry_version_and_query() -> None:
    request = instances.list_all(everything=True, filters={"status": ["exited"]})
    assert request.target() == "/v1.47/containers/json?all=1&filters=%7B%22status%22%3A%5B%22exited%22%5D%7D"
    assert system.ping().target() == "/_ping"
    assert instances.stats("a", stream=False).target().endswith("/stats?stream=0")


def test_names_cannot_leave_their_place_in_the_path() -> None:
    assert instances.get("a/../b").path == "/containers/a%2F..%2Fb/json"
    assert instances.get("/web").path == "/containers/web/json"
    assert images.get("registry:5000/a/b:1").path == "/images/registry:5000/a/b:1/json"
    for name in ("", "/x", "a/../b"):
        with pytest.raises(errors.Invalid):
            images.get(name)
    with pytest.raises(errors.Invalid):
        instances.get("")


@pytest.mark.parametrize(
    ("reference", "parts"),
    [
        ("debian", ("debian", "")),
        ("debian:12", ("debian", "12")),
        ("host:5000/a/b", ("host:5000/a/b", "")),
        ("host:5000/a/b:1", ("host:5000/a/b", "1")),
        ("a@sha256:00", ("a", "sha256:00")),
        ("a:1@sha256:00", ("a", "sha256:00")),
    ],
)
def test_references_are_split(reference: str, parts: tuple[str, str]) -> None:
    assert split_reference(reference) == parts


def test_text_that_is_no_utf8_is_refused_in_bodies_and_kept_in_paths() -> None:
    with pytest.raises(errors.Invalid, match="not UTF-8"):
        instances.create({"Cmd": ["a\udcffb"]})
    assert instances.stat("x", "/a\udcff").target().endswith("path=%2Fa%FF")
    assert instances.create({"Cmd": ["é"]}).body == '{"Cmd":["é"]}'.encode()


def test_platforms_are_sent_as_documents() -> None:
    for request in (images.get("a", platform="linux/arm/v7"), images.history("a", platform="linux/arm/v7")):
        assert request.query["platform"] == '{"os": "linux", "architecture": "arm", "variant": "v7"}'
    assert images.push("a", platform="arm64").query["platform"] == '{"os": "linux", "architecture": "arm64"}'
    assert images.get("a").query["platform"] is None
