from __future__ import annotations

import pytest

from enisle.cli.command import Context
from enisle.cli.completing import FILES, Candidate, candidates, reply
from tests.unit.sdk.fake_server import FakeServer


@pytest.fixture
def context(server: FakeServer) -> Context:
    server.on(
        "GET",
        "/containers/json",
        [
            {"Id": "1", "Names": ["/web"], "State": "running"},
            {"Id": "2", "Names": ["/job"], "State": "exited", "Image": "busybox", "Status": "Exited (0)"},
        ],
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
        (["run", "-v", "x"], [":files"]),
        (["run", "-it", "debian:12", "ba"], [":files"]),
        (["exec", "web", "l"], [":files"]),
        (["cp", "w"], [":files", "web:"]),
        (["network", "connect", "back", "w"], ["web"]),
        (["ps", "--filter", "na"], ["name="]),
        (["ps", "--filter", "status=r"], ["status=restarting", "status=running", "status=removing"]),
        (["completion", ""], ["bash", "fish", "zsh"]),
        (["-D", "--config", "/x", "rena"], ["rename"]),
        (["--config", ""], [":files"]),
        (["-D", "--ho"], ["--host"]),
        (["start", "j"], ["job"]),
        (["rm", "web", ""], ["job"]),
        (["--ho"], ["--host"]),
        (["rename", "a", "b", ""], []),
        (["nonsense", "x"], []),
    ],
)
def test_candidates(context: Context, words: list[str], expected: list[str]) -> None:
    assert [item.text for item in candidates(words, context)] == expected


def test_what_a_candidate_is(context: Context, capsys: pytest.CaptureFixture[str]) -> None:
    assert candidates(["sto"], context) == [Candidate("stop", "Stop running instances")]
    reply(["rm", "j"], context)
    assert capsys.readouterr().out == "job\tbusybox, Exited (0)\n"
    reply(["load", "-i", ""], context)
    assert capsys.readouterr().out == FILES.text + "\n"


def test_the_host_on_the_line_is_asked(context: Context) -> None:
    elsewhere = Context(host="unix:///nonexistent/socket")
    words = ["-H", str(context.host), "start", ""]
    assert [item.text for item in candidates(words, elsewhere)] == ["job"]


def test_names_that_would_steer_a_terminal_are_no_candidates(server: FakeServer) -> None:
    server.on("GET", "/volumes", {"Volumes": [{"Name": "a\x1b[2J"}, {"Name": "b"}]})
    assert candidates(["volume", "rm", ""], Context(host=server.host)) == [Candidate("b")]


def test_no_daemon_no_candidates() -> None:
    assert candidates(["rm", ""], Context(host="unix:///nonexistent/socket")) == []
