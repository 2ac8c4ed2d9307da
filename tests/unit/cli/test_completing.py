from __future__ import annotations

import pytest

from enisle.cli.command import Context
from enisle.cli.completing import FILES, candidates
from tests.unit.sdk.fake_server import FakeServer


@pytest.fixture
def context(server: FakeServer) -> Context:
    server.on(
        "GET",
        "/containers/json",
        [{"Id": "1", "Names": ["/web"], "State": "running"}, {"Id": "2", "Names": ["/job"], "State": "exited"}],
    )
    server.on("GET", "/images/json", [{"Id": "x", "RepoTags": ["debian:12", "busybox:latest"]}])
    server.on("GET", "/networks", [{"Name": "bridge"}, {"Name": "back"}])
    return Context(host=server.host)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ru"], ["run"]),
        (["image", "pu"], ["pull", "push"]),
        (["run", "--memory-s"], ["--memory-swap", "--memory-swappiness"]),
        (["run", "deb"], ["debian:12"]),
        (["run", "--network", "ba"], ["back"]),
        (["run", "--network=br"], ["--network=bridge"]),
        (["run", "--pull", ""], ["always", "missing", "never"]),
        (["run", "-v", "x"], [FILES]),
        (["run", "-it", "debian:12", "ba"], [FILES]),
        (["start", "j"], ["job"]),
        (["rm", "web", ""], ["job"]),
        (["--ho"], ["--host"]),
        (["rename", "a", "b", ""], []),
        (["nonsense", "x"], []),
    ],
)
def test_candidates(context: Context, words: list[str], expected: list[str]) -> None:
    assert candidates(words, context) == expected


def test_no_daemon_no_candidates() -> None:
    assert candidates(["rm", ""], Context(host="unix:///nonexistent/socket")) == []
