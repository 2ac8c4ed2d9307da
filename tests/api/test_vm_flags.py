"""Every flag of `docker run` before the VM wall: it is honoured there, or refused in one sentence."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon

_OWN = "a virtual machine has a kernel of its own"

REFUSED = {
    "--cgroupns": (["--cgroupns", "host"], _OWN),
    "--cpu-rt-period": (["--cpu-rt-period", "1000"], "does not support CPU real-time scheduler"),
    "--cpu-rt-runtime": (["--cpu-rt-runtime", "500"], "does not support CPU real-time scheduler"),
    "--device": (["--device", "/dev/null"], "cannot be given to a virtual machine yet"),
    "--device-cgroup-rule": (["--device-cgroup-rule", "c 1:3 r"], _OWN),
    "--gpus": (["--gpus", "all"], "cannot be given to a virtual machine yet"),
    "--ipc": (["--ipc", "host"], _OWN),
    "--isolation": (["--isolation", "hyperv"], "Linux only supports the default"),
    "--oom-kill-disable": (["--oom-kill-disable"], _OWN),
    "--pid": (["--pid", "host"], _OWN),
    "--userns": (["--userns", "host"], _OWN),
    "--uts": (["--uts", "host"], _OWN),
}
"""Flag: how it is given, and what the refusal says."""

REFUSED_VALUES = [
    (["--network", "host"], "publish ports with -p instead"),
    (["--network", "container:{peer}"], "put both on one network instead"),
    (["--pid", "container:{peer}"], _OWN),
    (["--ipc", "container:{peer}"], _OWN),
    (["-m", "64m"], "Minimum memory limit allowed for a virtual machine is 128MB"),
    (["--cpus", "4096"], "range of CPUs is from 0.01"),
    (["--storage-opt", "colour=red"], "knows only size"),
    (["--storage-opt", "size=1k"], "64m to 16t"),
    (["--log-driver", "syslog"], "no log driver named 'syslog'"),
    (["--sysctl", "net.ipv4/../x=1"], "invalid sysctl"),
]
"""Values that cannot hold of flags that otherwise do."""

WITHOUT_EFFECT = {
    "--memory-reservation": (["--memory-reservation", "64m"], "without effect"),
    "--memory-swap": (["-m", "256m", "--memory-swap", "700m"], "without effect"),
    "--memory-swappiness": (["--memory-swappiness", "5"], "without effect"),
}
"""Accepted, and the answer of create warns that nothing comes of it."""

HONOURED = {
    "--add-host": ["--add-host", "far:10.9.8.7"],
    "--annotation": ["--annotation", "a=b"],
    "--attach": ["-a", "stdout"],
    "--blkio-weight": ["--blkio-weight", "300"],
    "--blkio-weight-device": ["--blkio-weight-device", "/dev/null:300"],
    "--cap-add": ["--cap-add", "SYS_TIME"],
    "--cap-drop": ["--cap-drop", "CHOWN"],
    "--cgroup-parent": ["--cgroup-parent", "{name}/below"],
    "--cpu-period": ["--cpu-period", "50000"],
    "--cpu-quota": ["--cpu-quota", "50000"],
    "--cpu-shares": ["--cpu-shares", "512"],
    "--cpus": ["--cpus", "0.5"],
    "--cpuset-cpus": ["--cpuset-cpus", "0"],
    "--cpuset-mems": ["--cpuset-mems", "0"],
    "--device-read-bps": ["--device-read-bps", "/dev/null:1mb"],
    "--device-read-iops": ["--device-read-iops", "/dev/null:100"],
    "--device-write-bps": ["--device-write-bps", "/dev/null:1mb"],
    "--device-write-iops": ["--device-write-iops", "/dev/null:100"],
    "--dns": ["--dns", "10.9.8.1"],
    "--dns-option": ["--dns-option", "ndots:3"],
    "--dns-search": ["--dns-search", "example.org"],
    "--domainname": ["--domainname", "example.org"],
    "--entrypoint": ["--entrypoint", "echo"],
    "--env": ["-e", "A=b"],
    "--env-file": ["--env-file", "{file}"],
    "--expose": ["--expose", "80"],
    "--group-add": ["--group-add", "29"],
    "--health-cmd": ["--health-cmd", "true"],
    "--health-interval": ["--health-cmd", "true", "--health-interval", "5s"],
    "--health-retries": ["--health-cmd", "true", "--health-retries", "3"],
    "--health-start-interval": ["--health-cmd", "true", "--health-start-interval", "1s"],
    "--health-start-period": ["--health-cmd", "true", "--health-start-period", "5s"],
    "--health-timeout": ["--health-cmd", "true", "--health-timeout", "5s"],
    "--hostname": ["-h", "island"],
    "--init": ["--init"],
    "--interactive": ["-i"],
    "--ip": ["--network", "{network}", "--ip", "10.177.66.9"],
    "--ip6": ["--network", "{network}", "--ip6", "fd00:177:66::9"],
    "--kernel-memory": ["--kernel-memory", "50m"],
    "--label": ["-l", "a=b"],
    "--label-file": ["--label-file", "{file}"],
    "--link": ["--link", "{peer}:other"],
    "--link-local-ip": ["--link-local-ip", "169.254.9.9"],
    "--log-driver": ["--log-driver", "none"],
    "--log-opt": ["--log-opt", "max-size=1m"],
    "--mac-address": ["--mac-address", "02:42:ac:11:00:77"],
    "--memory": ["-m", "256m"],
    "--mount": ["--mount", "type=tmpfs,dst=/scratch,tmpfs-size=1m"],
    "--name": ["--name", "{name}-named"],
    "--network": ["--network", "none"],
    "--network-alias": ["--network", "{network}", "--network-alias", "db"],
    "--no-healthcheck": ["--no-healthcheck"],
    "--oom-score-adj": ["--oom-score-adj", "500"],
    "--pids-limit": ["--pids-limit", "50"],
    "--platform": ["--platform", "linux/amd64"],
    "--privileged": ["--privileged"],
    "--publish": ["-p", "127.0.0.1::80"],
    "--publish-all": ["-P"],
    "--read-only": ["--read-only"],
    "--restart": ["--restart", "on-failure:3"],
    "--rm": ["--rm"],
    "--runtime": [],
    "--security-opt": ["--security-opt", "no-new-privileges"],
    "--shm-size": ["--shm-size", "16m"],
    "--stop-signal": ["--stop-signal", "USR1"],
    "--stop-timeout": ["--stop-timeout", "3"],
    "--storage-opt": ["--storage-opt", "size=1g"],
    "--sysctl": ["--sysctl", "net.ipv4.ip_forward=1"],
    "--tmpfs": ["--tmpfs", "/scratch:size=1m"],
    "--tty": ["-t"],
    "--ulimit": ["--ulimit", "nofile=100:200"],
    "--use-api-socket": ["-v", "{socket}:/var/run/docker.sock"],
    "--user": ["-u", "1000:29"],
    "--volume": ["-v", "{folder}:/mnt:ro"],
    "--volume-driver": ["--volume-driver", "local", "-v", "/fresh"],
    "--volumes-from": ["--volumes-from", "{peer}"],
    "--workdir": ["-w", "/tmp"],
}
"""Flag: how it is given to create, which takes it without a word."""

THE_CLIENTS_OWN = {"--cidfile", "--detach", "--detach-keys", "--disable-content-trust", "--help", "--pull", "--quiet"}
THE_CLIENTS_OWN |= {"--sig-proxy"}
WINDOWS = {"--cpu-count", "--cpu-percent", "--io-maxbandwidth", "--io-maxiops"}


@pytest.fixture(scope="module")
def words(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """What the flags name: a peer, a network, a file, a folder, a socket."""
    folder = tmp_path_factory.mktemp("flags")
    (folder / "file").write_text("KEY=value\n")
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(folder / "s"))
    peer, network = f"{daemon.name}-peer", f"{daemon.name}-flags"
    daemon.docker("create", "--name", peer, "-v", "/data", "busybox", "true")
    subnets = ("--subnet", "10.177.66.0/24", "--ipv6", "--subnet", "fd00:177:66::/64")
    daemon.docker("network", "create", *subnets, network)
    yield {
        "peer": peer,
        "network": network,
        "file": str(folder / "file"),
        "folder": str(folder),
        "socket": str(folder / "s"),
        "name": daemon.name,
    }
    daemon.docker("rm", "-v", peer)
    daemon.docker("network", "rm", network)
    listening.close()


def _create(daemon: Daemon, words: dict[str, str], flags: list[str]) -> tuple[int, str]:
    """(exit code, complaint) of `docker create --runtime vm`; what was made is removed."""
    given = [flag.format(**words) for flag in flags]
    done = daemon.docker("create", "--runtime", "vm", *given, "busybox", "true", check=False)
    if done.returncode == 0:
        daemon.docker("rm", "-v", done.stdout.split()[-1])
    return done.returncode, done.stderr


def test_every_flag_of_the_client_is_in_the_table(daemon: Daemon) -> None:
    """A new client brings new flags: somebody has to say what they mean for a VM."""
    listed = set(re.findall(r"^\s+(?:-\w, )?(--[a-z0-9-]+)", daemon.docker("run", "--help").stdout, re.MULTILINE))
    known = {*REFUSED, *WITHOUT_EFFECT, *HONOURED, *THE_CLIENTS_OWN, *WINDOWS}
    assert listed - known == set()


@pytest.mark.parametrize(
    ("flags", "reason"),
    [*REFUSED.values(), *REFUSED_VALUES],
    ids=lambda value: "_".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_hold_is_refused_in_one_sentence(
    daemon: Daemon, words: dict[str, str], flags: list[str], reason: str
) -> None:
    code, complaint = _create(daemon, words, flags)
    assert code != 0
    sentence = next(line for line in complaint.splitlines() if "Error response from daemon: " in line)
    assert reason in sentence
    assert "Traceback" not in complaint
    assert not daemon.docker("ps", "-aq", "--filter", "status=created", "--filter", "label=nobody").stdout


@pytest.mark.parametrize(("flags", "reason"), WITHOUT_EFFECT.values(), ids=WITHOUT_EFFECT)
def test_what_has_no_effect_is_said(daemon: Daemon, words: dict[str, str], flags: list[str], reason: str) -> None:
    code, complaint = _create(daemon, words, flags)
    assert code == 0, complaint
    assert reason in complaint


@pytest.mark.parametrize("flag", HONOURED)
def test_what_is_honoured_is_taken(daemon: Daemon, words: dict[str, str], flag: str) -> None:
    code, complaint = _create(daemon, words, HONOURED[flag])
    assert code == 0, complaint
    assert "virtual machine" not in complaint


@pytest.mark.timeout(300)
def test_flags_in_a_machine_that_runs(daemon: Daemon, words: dict[str, str], tmp_path: Path) -> None:
    """One boot with what can be seen from within."""
    (tmp_path / "seen").write_text("shared\n")
    tmp_path.chmod(0o755)
    script = """
        hostname -f; id -u; id -G; pwd; ulimit -n; cat /sys/fs/cgroup/pids.max 2>/dev/null; echo $A $KEY
        grep far /etc/hosts; cat /mnt/seen; touch /x 2>&1
        touch /scratch/y && echo tmp; df -k /dev/shm | tail -1 | awk '{print $2}'
        cat /proc/sys/net/ipv4/ip_forward; grep NoNewPrivs /proc/self/status
        tr a-f A-F </sys/class/net/eth0/address; ip -4 addr show eth0 | grep -o 10.177.66.9; exit 7
    """
    done = daemon.docker(
        *("run", "--rm", "--runtime", "vm", "-h", "island", "--domainname", "example.org", "-u", "1000:29"),
        *("--group-add", "44", "-w", "/tmp", "--ulimit", "nofile=100:200", "-e", "A=b", "--env-file", words["file"]),
        *("--add-host", "far:10.9.8.7", "--dns", "10.9.8.1", "-v", f"{tmp_path}:/mnt:ro", "--read-only"),
        *("--tmpfs", "/scratch:mode=1777", "--sysctl", "net.ipv4.ip_forward=1", "--security-opt", "no-new-privileges"),
        *("--shm-size", "16m", "--mac-address", "02:42:ac:11:00:77", "--network", words["network"]),
        *("--ip", "10.177.66.9", "--init", "-m", "256m", "--cpus", "1", "busybox", "sh", "-c", script),
        timeout_s=200,
        check=False,
    )
    assert done.returncode == 7, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:5] == ["island.example.org", "1000", "29 44", "/tmp", "100"], done.stdout
    text = done.stdout
    for expected in (
        "b value",
        "10.9.8.7",
        "shared",
        "Read-only file system",
        "NoNewPrivs:\t1",
        "16384",
        "10.177.66.9",
    ):
        assert expected in text, text
    assert "02:42:AC:11:00:77" in text
