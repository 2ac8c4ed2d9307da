"""All filters of ``docker ps``."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.walls import wait_until
from tests.daemon import Daemon, dispose, image_archive, new_daemon, use_guest_cache

ALL = {"one", "two", "three", "four", "five"}


@pytest.fixture(scope="module")
def five() -> Iterator[Daemon]:
    """A daemon with five instances that differ in all that can be filtered by."""
    daemon = new_daemon(prefix="f")
    use_guest_cache(daemon)
    daemon.start()
    docker = daemon.docker
    docker("load", "-q", "-i", str(image_archive("busybox")))
    docker("network", "create", "net")
    one = ("--label", "x=1", "--label", "y", "-p", "127.0.0.1::80", "--expose", "90", "-v", "vol:/data", "--network")
    docker("run", "-d", "--name", "one", *one, "net", "busybox", "sleep", "1000")
    docker("run", "--name", "two", "--label", "x=2", "busybox", "sh", "-c", "exit 3", check=False)
    docker("tag", "busybox", "other")
    health = ("--health-cmd", "true", "--health-interval", "200ms")
    docker("run", "-d", "--name", "three", *health, "other", "sleep", "1000")
    docker("create", "--name", "four", "--runtime", "vm", "busybox")
    docker("run", "-d", "--name", "five", "busybox", "sleep", "1000")
    docker("pause", "five")
    wait_until(lambda: docker("inspect", "-f", "{{.State.Health.Status}}", "three").stdout.strip() == "healthy")
    yield daemon
    docker("unpause", "five")
    dispose(daemon)


def names(daemon: Daemon, *filters: str) -> set[str]:
    words = [word for each in filters for word in ("--filter", each)]
    return set(daemon.docker("ps", "-a", "--format", "{{.Names}}", *words).stdout.split())


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        (["name=on"], "one"),
        (["name=^o"], "one"),
        (["name=one", "name=two"], "one two"),
        (["label=x"], "one two"),
        (["label=x=2"], "two"),
        (["label=x", "label=y"], "one"),
        (["exited=3"], "two"),
        (["exited=0"], ""),
        (["status=running"], "one three"),
        (["status=paused", "status=created"], "five four"),
        (["status=exited", "exited=3"], "two"),
        (["ancestor=busybox"], "one two three four five"),
        (["ancestor=other:latest"], "one two three four five"),
        (["ancestor=nosuch"], ""),
        (["before=three"], "one two"),
        (["since=three"], "four five"),
        (["since=one", "before=four"], "two three"),
        (["volume=vol"], "one"),
        (["volume=/data"], "one"),
        (["network=net"], "one"),
        (["network=bridge", "status=running"], "three"),
        (["expose=80"], "one"),
        (["expose=90/tcp"], "one"),
        (["expose=85-95"], "one"),
        (["expose=90/udp"], ""),
        (["publish=1-65535"], "one"),
        (["publish=1-65535/udp"], ""),
        (["health=healthy"], "three"),
        (["health=none"], "one two four five"),
        (["is-task=true"], ""),
        (["is-task=false"], "one two three four five"),
        (["isolation=default"], "one two three four five"),
    ],
)
def test_filters(five: Daemon, filters: list[str], expected: str) -> None:
    assert names(five, *filters) == set(expected.split())


def test_ids_limits_and_what_is_wrong(five: Daemon) -> None:
    docker = five.docker
    ident = docker("inspect", "-f", "{{.Id}}", "two").stdout
    assert names(five, f"id={ident[:8]}") == {"two"}
    assert docker("ps", "-n", "2", "--format", "{{.Names}}").stdout.split() == ["five", "four"]
    assert docker("ps", "-l", "--format", "{{.Names}}").stdout.split() == ["five"]
    port = docker("port", "one", "80").stdout.rpartition(":")[2].strip()
    assert names(five, f"publish={port}") == {"one"} and names(five, "publish=80") == set()
    for wrong, words in {
        "status=nope": "invalid filter 'status=nope'",
        "health=nope": "unrecognised filter value for health: nope",
        "is-task=nope": "invalid filter 'is-task=[nope]'",
        "before=nosuch": "No such container: nosuch",
        "expose=x": 'invalid port specification: "x"',
        "nope=1": "invalid filter 'nope'",
    }.items():
        done = docker("ps", "--filter", wrong, check=False)
        assert (done.returncode, words in done.stderr) == (1, True), done.stderr
