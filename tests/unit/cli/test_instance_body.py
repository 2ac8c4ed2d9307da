from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enisle.cli.flags import UsageError, parse
from enisle.cli.instance_body import create_body
from enisle.cli.run_flags import RUN_FLAGS


def body(*words: str) -> dict[str, Any]:
    options, arguments = parse(RUN_FLAGS, words, interspersed=False)
    return create_body(options, arguments[0], arguments[1:], environ={"HOME": "/h"})


def test_the_plain_case_asks_for_little() -> None:
    made = body("debian:12")
    assert (made["Image"], "Cmd" in made, "Entrypoint" in made) == ("debian:12", False, False)
    assert (made["AttachStdin"], made["AttachStdout"], made["AttachStderr"]) == (False, True, True)
    assert made["HostConfig"]["NetworkMode"] == "default"
    assert "Runtime" not in made["HostConfig"]
    assert made["NetworkingConfig"] == {"EndpointsConfig": {}}


def test_streams_follow_docker() -> None:
    made = body("-it", "debian", "bash", "-c", "x")
    assert (made["OpenStdin"], made["StdinOnce"], made["Tty"], made["AttachStdin"]) == (True, True, True, True)
    assert made["Cmd"] == ["bash", "-c", "x"]
    made = body("-di", "debian")
    assert (made["OpenStdin"], made["StdinOnce"], made["AttachStdout"]) == (True, False, False)
    made = body("-a", "stdout", "-i", "debian")
    assert (made["AttachStdin"], made["AttachStdout"], made["AttachStderr"]) == (False, True, False)


@pytest.mark.parametrize("flag", [("--vm",), ("--runtime", "vm"), ("--isolation", "vm")])
def test_the_vm_wall_is_a_runtime(flag: tuple[str, ...]) -> None:
    assert body(*flag, "debian")["HostConfig"]["Runtime"] == "vm"


def test_every_flag_reaches_its_field() -> None:
    made = body(
        "-m", "512m", "--cpus", "1.5", "-p", "8080:80", "-p", "8081:80", "-v", "v:/data:ro", "-v", "/anonymous",
        "--tmpfs", "/run:size=1m", "--mount", "type=tmpfs,target=/t", "--ulimit", "nofile=1:2", "--cap-add", "ALL",
        "--restart", "on-failure:2", "--init", "--label", "a=b", "-e", "HOME", "-e", "X=1", "--dns", "1.1.1.1",
        "--add-host", "h:10.0.0.1", "--add-host", "g=[::1]", "--sysctl", "net.x=1", "--log-opt", "max-size=1m",
        "--health-cmd", "true", "--health-interval", "1s", "--entrypoint", "", "--stop-timeout", "3", "--read-only",
        "--shm-size", "1m", "--network", "n1", "--network-alias", "alias", "--ip", "10.0.0.9", "--memory-swap", "-1",
        "debian",
    )  # fmt: skip
    host = made["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (512 << 20, -1, 1_500_000_000)
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "", "HostPort": "8080"}, {"HostIp": "", "HostPort": "8081"}]}
    assert made["ExposedPorts"] == {"80/tcp": {}}
    assert (host["Binds"], made["Volumes"]) == (["v:/data:ro"], {"/anonymous": {}})
    assert host["Tmpfs"] == {"/run": "size=1m"}
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 1, "Hard": 2}]
    assert host["RestartPolicy"] == {"Name": "on-failure", "MaximumRetryCount": 2}
    assert (host["Init"], host["CapAdd"], host["ReadonlyRootfs"], host["ShmSize"]) == (True, ["ALL"], True, 1 << 20)
    assert (made["Labels"], made["Env"]) == ({"a": "b"}, ["HOME=/h", "X=1"])
    assert (host["Dns"], host["ExtraHosts"]) == (["1.1.1.1"], ["h:10.0.0.1", "g:::1"])
    assert host["LogConfig"] == {"Type": "", "Config": {"max-size": "1m"}}
    assert made["Healthcheck"]["Test"] == ["CMD-SHELL", "true"]
    assert made["Healthcheck"]["Interval"] == 10**9
    assert (made["Entrypoint"], made["StopTimeout"]) == ([""], 3)
    assert host["NetworkMode"] == "n1"
    assert made["NetworkingConfig"]["EndpointsConfig"] == {
        "n1": {"IPAMConfig": {"IPv4Address": "10.0.0.9"}, "Aliases": ["alias"]}
    }


def test_several_networks() -> None:
    made = body("--network", "name=n1,alias=a,ip=10.0.0.2", "--network", "n2", "debian")
    assert made["HostConfig"]["NetworkMode"] == "n1"
    assert made["NetworkingConfig"]["EndpointsConfig"] == {
        "n1": {"IPAMConfig": {"IPv4Address": "10.0.0.2"}, "Aliases": ["a"]},
        "n2": {},
    }


def test_seccomp_profiles_are_sent_as_json(tmp_path: Path) -> None:
    profile = tmp_path / "p.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    made = body("--security-opt", f"seccomp={profile}", "--security-opt", "no-new-privileges", "debian")
    assert made["HostConfig"]["SecurityOpt"] == ['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}', "no-new-privileges"]
    with pytest.raises(UsageError, match="seccomp profile"):
        body("--security-opt", "seccomp=/gone", "debian")


@pytest.mark.parametrize(
    "words",
    [
        ("--rm", "--restart", "always", "x"),
        ("--vm", "--runtime", "runc", "x"),
        ("--pull", "sometimes", "x"),
        ("-a", "stdmiddle", "x"),
        ("--no-healthcheck", "--health-cmd", "x", "x"),
        ("--add-host", "alone", "x"),
        ("--env-file", "/gone", "x"),
    ],
)
def test_contradictions_are_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError):
        body(*words)
