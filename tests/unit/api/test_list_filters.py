"""ps: filters and the words of the STATUS column."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enisle.api.docker.list_filters import Named, matcher, prune_matcher
from enisle.api.docker.state_body import status_text
from enisle.api.times import SECOND_NS
from enisle.model.ids import ImageId, InstanceId
from enisle.model.instance import (
    BoundPort,
    Endpoint,
    Health,
    HealthStatus,
    Instance,
    InstanceSpec,
    InstanceState,
    MountKind,
    ResolvedMount,
    Status,
)

WEB = Instance(
    id=InstanceId("abc" + "0" * 61),
    name="web-1",
    created_at=100,
    spec=InstanceSpec(
        image="busybox", image_id=ImageId("sha256:1"), labels={"tier": "front"}, exposed_ports=("80/tcp", "53/udp")
    ),
    state=InstanceState(
        status=Status.EXITED, exit_code=3, started_at=SECOND_NS, finished_at=2 * SECOND_NS, health=Health()
    ),
    endpoints=(Endpoint(network="blue", network_id="n1"),),
    bound_ports=(BoundPort(container_port=80, protocol="tcp", host_ip="0.0.0.0", host_port=8080),),
    mounts=(ResolvedMount(kind=MountKind.VOLUME, target="/data", name="vol"),),
)


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("id", ["abc"], True),
        ("id", ["bc"], False),
        ("name", ["eb"], True),
        ("name", ["^/web-1$"], True),
        ("name", ["^web$"], False),
        ("name", ["x", "1$"], True),
        ("label", ["tier"], True),
        ("label", ["tier=front"], True),
        ("label", ["tier=front", "other"], False),
        ("status", ["running", "exited"], True),
        ("exited", ["0"], False),
        ("exited", ["3"], True),
        ("health", ["starting"], True),
        ("health", ["none"], False),
        ("ancestor", ["busybox"], True),
        ("volume", ["vol"], True),
        ("volume", ["/data"], True),
        ("network", ["blue"], True),
        ("network", ["red"], False),
        ("publish", ["8000-8090"], True),
        ("publish", ["8080/udp"], False),
        ("expose", ["53/udp"], True),
        ("is-task", ["true"], False),
    ],
)
def test_filter(name: str, values: list[str], expected: bool) -> None:
    assert matcher({name: values}, Named())(WEB) is expected


def test_before_and_since() -> None:
    assert matcher({"before": ["x"]}, Named(before=200))(WEB)
    assert not matcher({"since": ["x"]}, Named(since=100))(WEB)


def test_prune_filters() -> None:
    assert not prune_matcher({"label!": ["tier"]})(WEB)
    assert prune_matcher({"label": ["tier=front"], "until": ["24h"]})(WEB)


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (InstanceState(status=Status.CREATED), "Created"),
        (InstanceState(status=Status.RUNNING, started_at=5 * SECOND_NS), "Up 5 seconds"),
        (
            InstanceState(status=Status.RUNNING, started_at=5 * SECOND_NS, health=Health(status=HealthStatus.HEALTHY)),
            "Up 5 seconds (healthy)",
        ),
        (
            InstanceState(status=Status.RUNNING, started_at=5 * SECOND_NS, health=Health()),
            "Up 5 seconds (health: starting)",
        ),
        (InstanceState(status=Status.PAUSED, started_at=5 * SECOND_NS), "Up 5 seconds (Paused)"),
        (InstanceState(status=Status.EXITED, exit_code=137, finished_at=7 * SECOND_NS), "Exited (137) 3 seconds ago"),
        (
            InstanceState(status=Status.RESTARTING, exit_code=1, finished_at=9 * SECOND_NS),
            "Restarting (1) 1 second ago",
        ),
        (InstanceState(status=Status.DEAD), "Dead"),
    ],
)
def test_status_text(state: InstanceState, words: str) -> None:
    assert status_text(replace(WEB, state=state), 10 * SECOND_NS) == words
