"""The pure rules: completion from the image, mounts, hosts, signals, restarts, health, changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from enisle.engine.addressing import exposed
from enisle.engine.completion import DEFAULT_PATH, complete, merge_env, merge_healthcheck
from enisle.engine.etc import hosts_file, split_extra_host
from enisle.engine.health import command_of, judge
from enisle.engine.links import Link, host_lines, with_variables
from enisle.engine.mounts import tmpfs_options
from enisle.engine.restart import backoff_s, should_restart, should_start_on_boot
from enisle.errors import Invalid
from enisle.formats.changes import apply_changes
from enisle.model.ids import ImageId, InstanceId
from enisle.model.image import Image, ImageConfig
from enisle.model.instance import (
    Endpoint,
    Health,
    Healthcheck,
    HealthResult,
    HealthStatus,
    Instance,
    InstanceSpec,
    Mount,
    MountKind,
    RestartKind,
    RestartPolicy,
)
from enisle.model.signals import signal_number


def spec(**fields: Any) -> InstanceSpec:
    return InstanceSpec(image="x", image_id=ImageId(""), **fields)


def image(**fields: Any) -> Image:
    return Image(id=ImageId("sha256:" + "a" * 64), config=ImageConfig(**fields))


@pytest.mark.parametrize(
    ("own_entrypoint", "own_command", "expected"),
    [
        (None, None, (("e",), ("c",))),
        (None, ("x",), (("e",), ("x",))),
        (("y",), None, (("y",), None)),
        (("y",), ("x",), (("y",), ("x",))),
        ((), ("x",), (None, ("x",))),
        (("",), ("x",), (None, ("x",))),
    ],
)
def test_entrypoint_and_command(own_entrypoint: Any, own_command: Any, expected: Any) -> None:
    done = complete(spec(entrypoint=own_entrypoint, command=own_command), image(entrypoint=("e",), command=("c",)))
    assert (done.entrypoint, done.command) == expected


def test_no_command_at_all() -> None:
    with pytest.raises(Invalid, match="no command specified"):
        complete(spec(), image())


def test_what_is_united_and_what_wins() -> None:
    done = complete(
        spec(user="me", labels={"a": "1"}, exposed_ports=("80/tcp",), volumes=("/v/../w",)),
        image(
            command=("c",),
            user="image",
            labels={"a": "0", "b": "2"},
            exposed_ports=("443/tcp", "80/tcp"),
            volumes=("/../../etc",),
            working_dir="/srv/",
            stop_signal="QUIT",
        ),
    )
    assert done.user == "me" and done.labels == {"a": "1", "b": "2"}
    assert done.exposed_ports == ("443/tcp", "80/tcp")
    assert done.volumes == ("/etc", "/w")
    assert (done.working_dir, done.stop_signal) == ("/srv", "QUIT")


def test_environment() -> None:
    assert merge_env(("A=1", "B=2"), ("B=3", "C=", "A")) == (DEFAULT_PATH, "A", "B=3", "C=")
    assert merge_env(("PATH=/x",), ()) == ("PATH=/x",)
    with pytest.raises(Invalid):
        merge_env((), ("=x",))


def test_healthcheck_of_image_and_user() -> None:
    base = Healthcheck(test=("CMD", "a"), interval_ns=5, retries=2)
    assert merge_healthcheck(None, base) == base
    assert merge_healthcheck(Healthcheck(retries=9), base) == replace(base, retries=9)
    none = Healthcheck(test=("NONE",))
    assert merge_healthcheck(none, base) == none and command_of(spec(healthcheck=none)) == ()
    shell = spec(healthcheck=Healthcheck(test=("CMD-SHELL", "a b")))
    assert command_of(shell) == ("/bin/sh", "-c", "a b")


def test_health_is_judged_by_its_streak() -> None:
    check = Healthcheck(test=("CMD", "x"), retries=2)
    bad, good = (HealthResult(started_at=1, ended_at=2, exit_code=code, output="") for code in (1, 0))
    health = judge(Health(), bad, check, in_start_period=True)
    assert (health.status, health.failing_streak) == (HealthStatus.STARTING, 0)
    health = judge(health, bad, check, in_start_period=False)
    assert (health.status, health.failing_streak) == (HealthStatus.STARTING, 1)
    health = judge(health, bad, check, in_start_period=False)
    assert (health.status, health.failing_streak) == (HealthStatus.UNHEALTHY, 2)
    health = judge(health, good, check, in_start_period=False)
    assert (health.status, health.failing_streak) == (HealthStatus.HEALTHY, 0)
    for _ in range(9):
        health = judge(health, good, check, in_start_period=False)
    assert len(health.log) == 5


@pytest.mark.parametrize(
    ("text", "number"),
    [("KILL", 9), ("sigterm", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), (" HUP ", 1), ("SIGRTMIN", 34)],
)
def test_signals(text: str, number: int) -> None:
    assert signal_number(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "-1", "SIGNOPE", "RTMIN+99", "9x"])
def test_no_signals(text: str) -> None:
    with pytest.raises(Invalid, match="Invalid signal"):
        signal_number(text)


@pytest.mark.parametrize(
    ("kind", "exit_code", "count", "now", "boot_after_stop"),
    [
        (RestartKind.NO, 1, 0, False, False),
        (RestartKind.ALWAYS, 0, 99, True, True),
        (RestartKind.UNLESS_STOPPED, 0, 0, True, False),
        (RestartKind.ON_FAILURE, 0, 0, False, False),
        (RestartKind.ON_FAILURE, 1, 1, True, False),
        (RestartKind.ON_FAILURE, 1, 2, False, False),
    ],
)
def test_restarts(kind: RestartKind, exit_code: int, count: int, now: bool, boot_after_stop: bool) -> None:
    policy = RestartPolicy(kind=kind, maximum_retries=2 if kind is RestartKind.ON_FAILURE else 0)
    facts = {"exit_code": exit_code, "restart_count": count}
    assert should_restart(policy, manually_stopped=False, **facts) is now
    assert not should_restart(policy, manually_stopped=True, **facts)
    assert should_start_on_boot(policy, manually_stopped=True, **facts) is boot_after_stop


def test_backoff_doubles_up_to_a_minute() -> None:
    assert [backoff_s(attempts) for attempts in (0, 1, 2, 9, 10, 10**6)] == [0.1, 0.2, 0.4, 51.2, 60.0, 60.0]


def test_tmpfs_options() -> None:
    mount = Mount(kind=MountKind.TMPFS, target="/t")
    assert tmpfs_options(mount) == ("noexec", "nosuid", "nodev")
    mount = replace(mount, options=("exec", "rw", "uid=5"), tmpfs_size_bytes=1024, tmpfs_mode=0o1777)
    assert tmpfs_options(mount) == ("nosuid", "nodev", "uid=5", "size=1024", "mode=1777")


def test_hosts_file() -> None:
    endpoint = Endpoint(network="bridge", network_id="n", ipv4="10.0.0.2/24", ipv6="fd00::2/64")
    text = hosts_file(
        spec(hostname="web", domainname="example.org", extra_hosts=("db:10.1.1.1", "gw=host-gateway", "six:[fe80::1]")),
        [endpoint],
        [("10.0.0.9", "alias other")],
        ["10.0.0.1", "fd00::1"],
    )
    assert text.splitlines()[6:] == [
        "10.1.1.1\tdb",
        "10.0.0.1\tgw",
        "fd00::1\tgw",
        "fe80::1\tsix",
        "10.0.0.9\talias other",
        "10.0.0.2\tweb.example.org web",
        "fd00::2\tweb.example.org web",
    ]
    for bad in ("", "x", "x:", ":1.2.3.4", "a b:1.2.3.4", "a:1\n2.3.4.5 evil"):
        with pytest.raises(Invalid):
            split_extra_host(bad)


def test_exposed_ports() -> None:
    assert [(port.container_port, port.protocol) for port in exposed("80-81/udp")] == [(80, "udp"), (81, "udp")]
    for bad in ("", "0", "90-80", "65536/tcp", "x/tcp"):
        with pytest.raises(Invalid):
            exposed(bad)


def test_changes() -> None:
    done = apply_changes(
        ImageConfig(env=("A=1",), entrypoint=("old",), command=("c",)),
        [
            'ENTRYPOINT ["/bin/x", "-y"]',
            "CMD echo hi",
            'ENV A=2 B="two words"',
            "ENV C three words",
            "LABEL k=v",
            "EXPOSE 80 53/udp",
            "WORKDIR /srv",
            "WORKDIR app",
            "USER me",
            "VOLUME /a /b",
            "STOPSIGNAL SIGQUIT",
            "ONBUILD RUN x",
            "HEALTHCHECK --interval=2s --retries=4 CMD true",
            "LABEL where=$B",
        ],
    )
    assert done.entrypoint == ("/bin/x", "-y") and done.command == ("/bin/sh", "-c", "echo hi")
    assert done.env == ("A=2", "B=two words", "C=three words") and done.labels == {"k": "v", "where": "two words"}
    assert done.exposed_ports == ("80/tcp", "53/udp") and done.working_dir == "/srv/app"
    assert done.volumes == ("/a", "/b") and done.user == "me" and done.stop_signal == "SIGQUIT"
    assert done.on_build == ("RUN x",) and done.healthcheck == Healthcheck(
        test=("CMD-SHELL", "true"), interval_ns=2 * 10**9, retries=4
    )
    assert apply_changes(done, ["CMD x", 'ENTRYPOINT ["y"]']).command == ("/bin/sh", "-c", "x")
    with pytest.raises(Invalid, match="run is not a valid change command"):
        apply_changes(ImageConfig(), ["RUN rm -rf /"])
    with pytest.raises(Invalid, match="can't find = in"):
        apply_changes(ImageConfig(), ["LABEL a=b c"])


def test_links_lend_addresses_ports_and_environment() -> None:
    lent = spec(env=("PATH=/x", "FOO=1", "BARE"), exposed_ports=("80/tcp", "53/udp", "22/tcp"), hostname="h")
    other = Instance(id=InstanceId("b" * 64), name="db", created_at=0, spec=lent)
    record = Instance(id=InstanceId("c" * 64), name="web", created_at=0, spec=spec(env=("OWN=1",)))
    links = [Link(alias="my-db", other=other, address="172.17.0.2")]
    assert with_variables(record, links).spec.env == (
        "MY_DB_PORT=tcp://172.17.0.2:22",
        *_port_variables(22, "tcp"),
        *_port_variables(80, "tcp"),
        *_port_variables(53, "udp"),
        "MY_DB_NAME=/web/my-db",
        "MY_DB_ENV_FOO=1",
        "OWN=1",
    )
    assert host_lines(links) == [("172.17.0.2", "my-db h db")]


def _port_variables(port: int, protocol: str) -> list[str]:
    name = f"MY_DB_PORT_{port}_{protocol.upper()}"
    return [
        f"{name}={protocol}://172.17.0.2:{port}",
        f"{name}_ADDR=172.17.0.2",
        f"{name}_PORT={port}",
        f"{name}_PROTO={protocol}",
    ]
