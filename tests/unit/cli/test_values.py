from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from enisle.cli import human, mounts, ports, values


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512m", 512 << 20), ("1.5g", 3 << 29), ("64KiB", 64 << 10), ("1024", 1024), ("2GB", 2 << 30), ("10b", 10)],
)
def test_sizes(text: str, expected: int) -> None:
    assert human.size(text) == expected


@pytest.mark.parametrize(
    ("count", "decimal", "binary"),
    [(0, "0B", "0B"), (999, "999B", "999B"), (1234, "1.23kB", "1.205KiB"), (74_800_000, "74.8MB", "71.33MiB")],
)
def test_sizes_for_people(count: int, decimal: str, binary: str) -> None:
    assert human.bytes_text(count) == decimal
    assert human.bytes_text(count, binary=True) == binary


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (61, "About a minute"),
        (600, "10 minutes"),
        (3700, "About an hour"),
        (7200, "2 hours"),
        (86400 * 3, "3 days"),
        (86400 * 20, "2 weeks"),
        (86400 * 90, "3 months"),
        (86400 * 800, "2 years"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert human.span(seconds) == text


def test_durations_and_times() -> None:
    assert human.duration_ns("1h30m") == 5400 * 10**9
    assert human.duration_ns("1.5s") == 1_500_000_000
    assert human.duration_ns("-250ms") == -250_000_000
    assert human.moment("10m", now=1000.0) == "400.000000000"
    assert human.moment("1700000000.5") == "1700000000.5"
    assert human.epoch("2024-05-01T12:00:00Z") == 1714564800
    assert human.epoch("2024-05-01T14:00:00.5+02:00") == 1714564800.5
    for text in ("x", "5", "1m2"):
        with pytest.raises(ValueError, match="invalid duration"):
            human.duration_ns(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80", {"80/tcp": [("", "")]}),
        ("8080:80", {"80/tcp": [("", "8080")]}),
        ("127.0.0.1:8080:80/udp", {"80/udp": [("127.0.0.1", "8080")]}),
        ("127.0.0.1::80", {"80/tcp": [("127.0.0.1", "")]}),
        ("[::1]:8080:80", {"80/tcp": [("::1", "8080")]}),
        ("8000-8001:80-81", {"80/tcp": [("", "8000")], "81/tcp": [("", "8001")]}),
        ("8000-8009:80", {"80/tcp": [("", "8000-8009")]}),
        ("80-81", {"80/tcp": [("", "")], "81/tcp": [("", "")]}),
        ("target=80,published=8080,protocol=udp", {"80/udp": [("", "8080")]}),
    ],
)
def test_published_ports(text: str, expected: dict[str, list[tuple[str, str]]]) -> None:
    found = {
        port: [(host["HostIp"], host["HostPort"]) for host in hosts] for port, hosts in ports.publish(text).items()
    }
    assert found == expected


@pytest.mark.parametrize(
    "text", ["", "x", "80/icmp", "1:2:3:4", "host:80:80", "70000:80", "8000-8002:80-81", "80:", "5-3:5-3", "[::1:80:80"]
)
def test_ports_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        ports.publish(text)


def test_ports_on_one_line() -> None:
    listed = [
        {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
        {"IP": "0.0.0.0", "PrivatePort": 81, "PublicPort": 8081, "Type": "tcp"},
        {"IP": "127.0.0.1", "PrivatePort": 90, "PublicPort": 9000, "Type": "udp"},
        {"PrivatePort": 5432, "Type": "tcp"},
        {"PrivatePort": 5433, "Type": "tcp"},
    ]
    assert ports.summary(listed) == "0.0.0.0:8080-8081->80-81/tcp, 127.0.0.1:9000->90/udp, 5432-5433/tcp"


@pytest.mark.parametrize(
    ("convert", "text", "expected"),
    [
        (values.cpus, "1.5", 1_500_000_000),
        (values.swap, "-1", -1),
        (values.device, "/dev/a", {"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "rwm"}),
        (values.device, "/dev/a:r", {"PathOnHost": "/dev/a", "PathInContainer": "/dev/a", "CgroupPermissions": "r"}),
        (
            values.device,
            "/dev/a:/dev/b:rw",
            {"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "rw"},
        ),
        (values.device_rate, "/dev/sda:1mb", {"Path": "/dev/sda", "Rate": 1 << 20}),
        (values.ulimit, "nofile=10:20", {"Name": "nofile", "Soft": 10, "Hard": 20}),
        (values.ulimit, "core=-1", {"Name": "core", "Soft": -1, "Hard": -1}),
        (values.restart_policy, "on-failure:3", {"Name": "on-failure", "MaximumRetryCount": 3}),
        (values.network, "net1", {"name": "net1"}),
        (values.gpus, "all", {"Count": -1, "Capabilities": [["gpu"]]}),
        (values.volume, "./a:/b", f"{os.path.abspath('a')}:/b"),
        (values.volume, "name:/b:ro", "name:/b:ro"),
        (mounts.tmpfs, "/run:size=1m", ("/run", "size=1m")),
    ],
)
def test_values(convert: Callable[[str], Any], text: str, expected: Any) -> None:
    assert convert(text) == expected


@pytest.mark.parametrize(
    ("convert", "text"),
    [
        (values.cpus, "x"),
        (values.cpus, "-1"),
        (values.swappiness, "101"),
        (values.device, "/dev/a:/dev/b:x"),
        (values.device_rate, "sda:1"),
        (values.device_weight, "/dev/sda:5"),
        (values.ulimit, "nofile"),
        (values.ulimit, "nofile=20:10"),
        (values.restart_policy, "sometimes"),
        (values.restart_policy, "always:3"),
        (values.network, "alias=x"),
        (values.signal, "a b"),
        (mounts.tmpfs, "relative"),
        (mounts.mount, "type=bind,target=/b"),
        (mounts.mount, "type=volume"),
        (mounts.mount, "type=cloud,target=/a"),
        (mounts.mount, "type=tmpfs,source=x,target=/a"),
        (mounts.mount, "type=tmpfs,target=/a,bind-propagation=shared"),
        (mounts.mount, "target=/a,nonsense=1"),
        (human.size, "12q"),
        (ports.expose, "80/x"),
    ],
)
def test_values_that_are_refused(convert: Callable[[str], Any], text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        convert(text)


def test_mounts() -> None:
    assert mounts.mount("type=bind,src=/a,dst=/b,readonly,bind-propagation=rslave") == {
        "Type": "bind",
        "Source": "/a",
        "Target": "/b",
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rslave"},
    }
    assert mounts.mount('"type=tmpfs",target=/t,tmpfs-size=1m,tmpfs-mode=1770') == {
        "Type": "tmpfs",
        "Source": "",
        "Target": "/t",
        "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770},
    }
    volume = mounts.mount("source=v,target=/t,volume-opt=o=uid=1,volume-driver=local,volume-nocopy")
    assert volume["VolumeOptions"] == {"DriverConfig": {"Options": {"o": "uid=1"}, "Name": "local"}, "NoCopy": True}


def test_environment_is_inherited_and_read_from_files(tmp_path: Path) -> None:
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=1\n  B=two words \nHOME\nUNSET_HERE\n")
    found = values.environment(["C=3", "HOME", "GONE"], [str(file)], {"HOME": "/h"})
    assert found == ["A=1", "B=two words ", "HOME=/h", "C=3", "HOME=/h", "GONE"]
    file.write_text("BAD NAME=1\n")
    with pytest.raises(ValueError, match="white space"):
        values.environment([], [str(file)], {})
    with pytest.raises(ValueError, match="cannot be read"):
        values.environment([], [str(tmp_path / "gone")], {})
    with pytest.raises(ValueError, match="invalid environment"):
        values.environment(["=x"], [], {})
