from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from enisle.cli.main import main
from enisle.contracts import HostCapability
from enisle.doctor import cgroups, kernel, machines, networking, report, storage
from enisle.linux.cgroup.layout import Layout
from tests.unit.sdk.fake_server import FakeServer


def test_kernels_are_compared_as_numbers() -> None:
    assert kernel.release("6.1.0-18-amd64").ok
    assert kernel.release("5.12.1").ok
    assert not kernel.release("5.4.0").ok
    assert not kernel.release("strange").ok


def test_namespaces_are_one_line_and_user_namespaces_another() -> None:
    every, user = kernel.namespaces(
        {"namespace net": "", "namespace pid": "Operation not permitted", "namespace user": ""}
    )
    assert (every.ok, every.detail, every.wall) == (False, "pid: Operation not permitted", "container")
    assert (user.ok, user.wall) == (True, "")


def test_what_was_not_tried_is_no_failure(server: FakeServer, capsys: pytest.CaptureFixture[str]) -> None:
    lines = [*kernel.namespaces({}), kernel.overlay({}), networking.rules({})]
    assert not any(line.ok or line.tried or line.remedy for line in lines)
    assert report.failing_walls(lines) == {}
    server.on("GET", "/version", {"Version": "9"})
    server.on("GET", "/enisle/v1/doctor", [dataclasses.asdict(line) for line in lines])
    assert main(["-H", server.host, "doctor"]) == 0
    out = capsys.readouterr().out
    assert "? overlayfs        not tried: it takes root\n" in out
    assert "Whether this host can run containers is not known." in out


def test_a_guest_that_is_still_to_be_fetched_hinders_nothing(tmp_path: Path) -> None:
    line = machines.guest(tmp_path)
    assert (line.ok, line.wall) == (False, "")
    assert str(tmp_path) in line.remedy


def test_cgroups_of_every_kind() -> None:
    assert not cgroups.version(Layout()).ok
    assert cgroups.version(Layout({"cpu": "/x"}, "/y")).detail.startswith("version 1 (v2 beside it")
    assert cgroups.version(Layout({}, "/y")).detail == "version 2"
    lines = {line.name: line for line in cgroups.controllers(2, {"cpu", "memory", "io"})}
    assert lines["cgroup io"].ok
    assert not lines["cgroup pids"].ok
    assert "subtree_control" in lines["cgroup pids"].remedy
    assert {line.name: line for line in cgroups.controllers(1, {"blkio"})}["cgroup io"].ok


def test_a_firewall_that_drops_is_named() -> None:
    found = networking.forward_policy(["filter"])
    assert not found.ok and "'filter'" in found.detail
    assert networking.forward_policy([]).ok
    assert "not known" in networking.forward_policy(None).detail
    assert not networking.ip_forward("0").ok


def test_kvm_that_does_not_answer(tmp_path: Path) -> None:
    file = tmp_path / "kvm"
    file.write_text("")
    assert "does not answer" in machines.kvm(str(file)).detail
    assert not machines.kvm(str(tmp_path / "gone")).ok


def test_what_the_daemon_has_tried_counts(tmp_path: Path) -> None:
    assert machines.kvm_verdict(tmp_path) is None
    (tmp_path / "kvm.json").write_text('{"works": false, "why": "a guest under KVM did not boot within 8 s"}')
    assert machines.kvm_verdict(tmp_path) == {"works": False, "why": "a guest under KVM did not boot within 8 s"}
    assert not machines.guest(tmp_path).ok
    (tmp_path / "6.1-x").mkdir()
    (tmp_path / "current").symlink_to("6.1-x")
    assert machines.guest(tmp_path).detail == "6.1-x"


def test_file_systems_are_found_by_their_longest_mount_point() -> None:
    info = "1 0 0:1 / / rw - ext4 /dev/a rw\n2 1 0:2 / /var rw - xfs /dev/b rw\n3 1 0:3 / /va rw - tmpfs t rw\n"
    assert storage.file_system("/var/lib", info) == "xfs"
    assert storage.file_system("/varlib", info) == "ext4"
    assert not storage.fit(Path("/x"), "overlay").ok
    assert not storage.space(Path("/x"), 1 << 20).ok


def test_walls_fail_by_what_they_need() -> None:
    lines = [
        HostCapability(name="a", ok=False, detail="", wall="both"),
        HostCapability(name="b", ok=False, detail="", wall="vm"),
        HostCapability(name="c", ok=False, detail=""),
        HostCapability(name="d", ok=True, detail="", wall="container"),
        HostCapability(name="e", ok=False, detail="", wall="container", tried=False),
    ]
    assert report.failing_walls(lines) == {"container": ["a"], "vm": ["a", "b"]}


def test_the_report_of_this_host_is_whole() -> None:
    lines = report.report()
    names = [line.name for line in lines]
    assert len(names) == len(set(names))
    assert {"root", "kernel", "cgroups", "nftables", "kvm", "qemu", "disk space", "overlayfs"} <= set(names)
    assert all(line.remedy for line in lines if line.tried and not line.ok)


def test_the_command_asks_the_daemon_first(
    server: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENISLE_HOST", server.host)
    server.on("GET", "/version", {"Version": "9"})
    line = {"name": "kvm", "ok": False, "detail": "no", "remedy": "buy", "wall": "vm", "tried": True}
    server.on("GET", "/enisle/v1/doctor", [line])
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "✗ kvm              no\n                   → buy\n" in out
    assert "cannot run virtual machines: kvm" in out
    assert main(["doctor", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)[1] == line


def test_without_a_daemon_the_host_is_looked_at(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "enisle.cli.main", "-H", f"unix://{tmp_path}/gone", "doctor", "--json"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    lines = json.loads(done.stdout)
    assert lines[0]["name"] == "daemon"
    assert not lines[0]["ok"]
    assert done.returncode == (1 if any(not line["ok"] and line["wall"] for line in lines) else 0)
