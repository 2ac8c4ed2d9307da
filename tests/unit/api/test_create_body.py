"""Create bodies -> specs, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enisle.api.decode import decode
from enisle.api.docker.create_body import instance_spec
from enisle.api.docker.host_config_body import config_json, host_config_json
from enisle.api.docker.request_types import CreateBody
from enisle.errors import Invalid
from enisle.model.instance import InstanceSpec, MountKind, PublishedPort, RestartKind
from enisle.model.resources import Ulimit


def spec(host: dict[str, Any] | None = None, **config: Any) -> InstanceSpec:
    body = {"Image": "busybox", "HostConfig": host or {}, **config}
    return instance_spec(decode(json.dumps(body).encode(), CreateBody), cpus=2, warnings=[])


def refused(host: dict[str, Any] | None = None, **config: Any) -> str:
    with pytest.raises(Invalid) as caught:
        spec(host, **config)
    return str(caught.value)


def test_go_semantics() -> None:
    body = b'{"image":"x","CMD":"ls","Unknown":{"a":1},"Env":null,"HostConfig":{"binds":null,"PidMode":null}}'
    made = instance_spec(decode(body, CreateBody), cpus=1, warnings=[])
    assert (made.image, made.command, made.env) == ("x", ("ls",), ())


def test_an_exact_name_wins_over_a_folded_one() -> None:
    assert decode(b'{"Image":"right","IMAGE":"wrong"}', CreateBody).image == "right"


def test_entrypoint_says_three_things() -> None:
    assert spec(Entrypoint=None).entrypoint is None
    assert spec(Entrypoint=[""]).entrypoint == ("",)
    assert spec(Entrypoint="/x").entrypoint == ("/x",)


def test_defaults() -> None:
    made = spec()
    assert (made.network_mode, made.shm_size_bytes, made.stop_timeout_s) == ("default", 64 << 20, None)
    assert made.restart.kind is RestartKind.NO
    assert made.masked_paths is None


@pytest.mark.parametrize(
    ("text", "kind", "source", "target", "read_only"),
    [
        ("/data", MountKind.VOLUME, "", "/data", False),
        ("vol:/data", MountKind.VOLUME, "vol", "/data", False),
        ("vol:/data:ro,nocopy", MountKind.VOLUME, "vol", "/data", True),
        ("/host/:/data/", MountKind.BIND, "/host", "/data", False),
        ("/host:/data:ro,rslave,z", MountKind.BIND, "/host", "/data", True),
    ],
)
def test_binds(text: str, kind: MountKind, source: str, target: str, read_only: bool) -> None:
    (mount,) = spec({"Binds": [text]}).mounts
    assert (mount.kind, mount.source, mount.target, mount.read_only) == (kind, source, target, read_only)
    assert mount.create_source is (kind is MountKind.BIND)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "invalid volume specification: ''"),
        ("a:b:c:d", "invalid volume specification: 'a:b:c:d'"),
        ("vol:rel", "invalid volume specification: 'vol:rel': invalid mount path: 'rel' mount path must be absolute"),
        ("/h:/", "destination can't be '/'"),
        ("/h:/x/..", "destination can't be '/'"),
        ("/h:/x:bogus", "invalid mode: bogus"),
        ("/h:/x:ro,rw", "invalid mode: ro,rw"),
        ("/h:/x:nocopy", "invalid mode: nocopy"),
        ("v:/x", "volume name is too short"),
        ("../h:/x", "includes invalid characters for a local volume name"),
    ],
)
def test_bad_binds(text: str, words: str) -> None:
    assert words in refused({"Binds": [text]})


def test_duplicate_mount_points() -> None:
    host = {"Binds": ["/a:/x"], "Mounts": [{"Type": "volume", "Target": "/x/"}]}
    assert refused(host) == "Duplicate mount point: /x"


def test_mounts() -> None:
    made = spec(
        {
            "Mounts": [
                {"Type": "bind", "Source": "/h", "Target": "/b", "BindOptions": {"Propagation": "rshared"}},
                {"Type": "volume", "Target": "/v", "VolumeOptions": {"NoCopy": True, "Labels": {"a": "b"}}},
                {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 448}},
            ],
            "Tmpfs": {"/run": "size=64m,mode=755"},
        }
    )
    by_target = {mount.target: mount for mount in made.mounts}
    assert by_target["/b"].propagation == "rshared"
    assert by_target["/b"].create_source is False
    assert by_target["/v"].anonymous
    assert by_target["/v"].no_copy
    assert (by_target["/t"].tmpfs_size_bytes, by_target["/t"].tmpfs_mode) == (1024, 0o700)
    assert by_target["/run"].options == ("size=64m", "mode=755")


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        ({"Type": "x", "Target": "/a"}, 'mount type unknown: "x"'),
        ({"Type": "bind", "Source": "/a"}, 'invalid mount config for type "bind": field Target must not be empty'),
        ({"Type": "bind", "Target": "/a"}, "field Source must not be empty"),
        ({"Type": "bind", "Source": "a", "Target": "/a"}, "invalid mount path: 'a' mount path must be absolute"),
        ({"Type": "tmpfs", "Source": "/a", "Target": "/a"}, "field Source must not be specified"),
        ({"Type": "volume", "Target": "/a", "BindOptions": {}}, "field BindOptions must not be specified"),
        ({"Type": "volume", "Source": "vol", "Target": "/a", "VolumeOptions": {"Subpath": "../x"}}, "relative path"),
    ],
)
def test_bad_mounts(mount: dict[str, Any], words: str) -> None:
    assert words in refused({"Mounts": [mount]})


def test_ports() -> None:
    made = spec(
        {
            "PortBindings": {
                "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostPort": ""}],
                "53/udp": [{"HostPort": "5000-5010"}],
                "90": None,
            }
        },
        ExposedPorts={"9000-9001/tcp": {}, "80/tcp": None},
    )
    assert set(made.ports) == {
        PublishedPort(container_port=80, host_ip="127.0.0.1", host_port=8080),
        PublishedPort(container_port=80),
        PublishedPort(container_port=53, protocol="udp", host_port=5000, host_port_end=5010),
        PublishedPort(container_port=90),
    }
    assert set(made.exposed_ports) == {"80/tcp", "9000/tcp", "9001/tcp", "53/udp", "90/tcp"}


@pytest.mark.parametrize(
    ("bindings", "words"),
    [
        ({"x/tcp": []}, 'invalid port specification: "x"'),
        ({"80/icmp": []}, "invalid proto: icmp"),
        ({"80": [{"HostPort": "70000"}]}, 'invalid port specification: "70000"'),
        ({"80": [{"HostPort": "9-8"}]}, 'invalid port specification: "9-8"'),
        ({"80": [{"HostIp": "localhost", "HostPort": "80"}]}, "invalid IP address: localhost"),
    ],
)
def test_bad_ports(bindings: dict[str, Any], words: str) -> None:
    assert words in refused({"PortBindings": bindings})


@pytest.mark.parametrize(
    ("host", "words"),
    [
        ({"Memory": 1 << 20}, "Minimum memory limit allowed is 6MB"),
        ({"MemorySwap": 1 << 30}, "You should always set the Memory limit when using Memoryswap limit, see usage"),
        ({"Memory": 1 << 30, "MemorySwap": 1 << 29}, "Minimum memoryswap limit should be larger than memory limit"),
        ({"MemorySwappiness": 101}, "valid memory swappiness range is 0-100"),
        ({"NanoCpus": 3 * 10**9}, "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        ({"NanoCpus": 10**9, "CpuQuota": 5000}, "Nano CPUs and CPU Quota cannot both be set"),
        ({"CpuPeriod": 10}, "CPU cfs period can not be less than 1ms"),
        ({"CpusetCpus": "a-b"}, "Invalid value a-b for cpuset cpus"),
        ({"BlkioWeight": 5}, "Range of blkio weight is from 10 to 1000"),
        ({"OomScoreAdj": 2000}, "range for oom score adj is [-1000, 1000]"),
        ({"ShmSize": -1}, "SHM size can not be less than 0"),
        ({"RestartPolicy": {"Name": "sometimes"}}, "unknown policy 'sometimes'"),
        ({"RestartPolicy": {"Name": "always", "MaximumRetryCount": 3}}, "can only be used with 'on-failure'"),
        ({"AutoRemove": True, "RestartPolicy": {"Name": "always"}}, "can't create 'AutoRemove' container"),
        ({"CapAdd": ["NET_EVERYTHING"]}, 'invalid CapAdd: unknown capability: "NET_EVERYTHING"'),
        ({"SecurityOpt": ["bogus=1"]}, 'invalid --security-opt 2: "bogus=1"'),
        ({"SecurityOpt": ["bogus"]}, 'invalid --security-opt 1: "bogus"'),
        ({"PidMode": "bogus"}, "invalid PID mode: bogus"),
        ({"IpcMode": "container:"}, "invalid IPC mode: container:"),
        ({"Ulimits": [{"Name": "bogus"}]}, "invalid ulimit type: bogus"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 9, "Hard": 8}]}, "soft limit must be less than or equal"),
        ({"Devices": [{"PathOnHost": "/dev/x", "CgroupPermissions": "x"}]}, "invalid device mode: x"),
        ({"DeviceCgroupRules": ["x"]}, "invalid device cgroup rule format: 'x'"),
        ({"ExtraHosts": ["a"]}, 'bad format for add-host: "a"'),
        ({"Dns": ["a"]}, 'invalid DNS server: "a"'),
        ({"NetworkMode": "container:x", "Dns": ["1.1.1.1"]}, "conflicting options: dns and the network mode"),
        ({"NetworkMode": "container:x", "PublishAllPorts": True}, "port publishing and the container type network"),
        ({"NetworkMode": "host", "Links": ["a:b"]}, "host type networking can't be used with links"),
    ],
)
def test_refused_host_configs(host: dict[str, Any], words: str) -> None:
    assert words in refused(host)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"WorkingDir": "x"}, "the working directory 'x' is invalid, it needs to be an absolute path"),
        ({"Env": ["=x"]}, "invalid environment variable: =x"),
        ({"Healthcheck": {"Interval": 5}}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"Cmd": ["a\0b"]}, "NUL"),
        ({"Hostname": "a b"}, "invalid hostname: a b"),
        ({"MacAddress": "xx"}, "invalid MAC address: xx"),
        (
            {"NetworkingConfig": {"EndpointsConfig": {"n": {"IPAMConfig": {"IPv4Address": "::1"}}}}},
            "invalid IPv4 address: ::1",
        ),
    ],
)
def test_refused_configs(config: dict[str, Any], words: str) -> None:
    assert words in refused(**config)


def test_warnings() -> None:
    warnings: list[str] = []
    body = CreateBody(image="x")
    body.host_config.oom_kill_disable = True
    instance_spec(body, cpus=1, warnings=warnings)
    assert warnings[0].startswith("OOM killer is disabled for the container, but no memory limit is set")


def test_what_was_asked_for_is_shown_again() -> None:
    host = {
        "Binds": ["/h:/x:ro", "vol:/y"],
        "Memory": 64 << 20,
        "NanoCpus": 500_000_000,
        "PidsLimit": 10,
        "Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 6}],
        "PortBindings": {"80/tcp": [{"HostIp": "", "HostPort": "8000-8010"}]},
        "CapAdd": ["NET_ADMIN"],
        "ExtraHosts": ["a:1.2.3.4", "b:host-gateway"],
        "Tmpfs": {"/run": ""},
        "Mounts": [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1024, "Mode": 448}}],
        "Sysctls": {"net.core.somaxconn": "5"},
        "MaskedPaths": [],
        "Init": True,
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10m"}},
        "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "BlkioDeviceReadBps": [{"Path": "/dev/sda", "Rate": 5}],
        "Runtime": "vm",
    }
    made = spec(host, Labels={"a": None, "b": "c"}, StopSignal="INT", StopTimeout=4)
    shown = host_config_json(made)
    for name, value in host.items():
        assert shown[name] == value, name
    assert made.ulimits == (Ulimit(name="nofile", soft=5, hard=6),)
    config = config_json(made, "name")
    assert (config["Labels"], config["StopSignal"], config["StopTimeout"]) == ({"a": "", "b": "c"}, "INT", 4)
