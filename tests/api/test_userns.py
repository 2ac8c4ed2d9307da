"""User namespaces: root inside is nobody outside, and everything works all the same."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.drivers.container.idranges import FIRST, SIZE
from tests.daemon import Daemon, dispose, image_archive, new_daemon


@pytest.fixture(scope="module")
def private() -> Iterator[Daemon]:
    """An enisled that gives every container a user namespace of its own."""
    made = new_daemon(prefix="u", extra_config='[container]\nuserns = "private"\n')
    made.start()
    made.docker("load", "-q", "-i", str(image_archive("busybox")))
    yield made
    dispose(made)


def shell(daemon: Daemon, script: str, *flags: str) -> str:
    return daemon.docker("run", "--rm", *flags, "busybox", "sh", "-c", script).stdout


def test_root_inside_is_nobody_outside(private: Daemon) -> None:
    private.docker("run", "-d", "--name", "root", "busybox", "sleep", "1000")
    pid = private.docker("inspect", "-f", "{{.State.Pid}}", "root").stdout.strip()
    status = Path(f"/proc/{pid}/status").read_text()
    uid = int(status.partition("Uid:")[2].split()[0])
    assert FIRST <= uid < FIRST + 4096 * SIZE
    assert private.docker("exec", "root", "id", "-u").stdout == "0\n"
    assert private.docker("exec", "root", "cat", "/proc/self/uid_map").stdout.split() == ["0", str(uid), str(SIZE)]
    private.docker("rm", "-f", "root")


def test_two_containers_have_different_ids_and_share_a_volume(private: Daemon) -> None:
    maps = set()
    for name in ("one", "two"):
        output = shell(private, f"echo {name} >> /data/f; cat /proc/self/uid_map", "-v", "shared:/data")
        maps.add(output.split()[1])
    assert len(maps) == 2
    owner_and_text = shell(private, "stat -c %u:%g /data/f; cat /data/f", "-v", "shared:/data")
    assert owner_and_text.split() == ["0:0", "one", "two"]
    on_disk = private.data_root / "volumes" / "shared" / "_data" / "f"
    assert on_disk.stat().st_uid == 0
    private.docker("volume", "rm", "shared")


def test_the_root_file_system_is_its_own(private: Daemon, tmp_path: Path) -> None:
    source = tmp_path / "file"
    source.write_text("from outside\n")
    private.docker("run", "-d", "--name", "files", "busybox", "sh", "-c", "touch /made; chown 5:6 /made; sleep 1000")
    private.docker("cp", str(source), "files:/copied")
    private.docker("exec", "-u", "1000:1000", "files", "touch", "/tmp/mine")
    listed = private.docker("exec", "files", "stat", "-c", "%n %u:%g", "/copied", "/made", "/tmp/mine", "/etc").stdout
    assert listed.splitlines() == ["/copied 0:0", "/made 5:6", "/tmp/mine 1000:1000", "/etc 0:0"]
    assert "A /made" in private.docker("diff", "files").stdout
    private.docker("commit", "files", "committed")
    for mode in ("private", "host"):  # what is on the disk knows nothing of the ids it was made under
        flags = ("--userns", "host") if mode == "host" else ()
        output = private.docker("run", "--rm", *flags, "committed", "stat", "-c", "%u:%g", "/made").stdout
        assert output == "5:6\n"
    with subprocess.Popen(["tar", "-tvf", "-", "--numeric-owner", "made"], stdin=subprocess.PIPE, stdout=-1) as tar:
        archive = subprocess.run(
            ["docker", "export", "files"],
            env={**os.environ, "DOCKER_HOST": f"unix://{private.socket}"},
            capture_output=True,
            check=True,
        ).stdout
        assert b" 5/6 " in tar.communicate(archive)[0]
    private.docker("rm", "-f", "files")
    private.docker("rmi", "committed")


def test_stop_start_and_the_files_of_what_is_stopped(private: Daemon, tmp_path: Path) -> None:
    private.docker(
        "run", "-d", "--name", "stopped", "-v", "kept:/data", "busybox", "sh", "-c", "echo x >> /data/x; top"
    )
    private.docker("restart", "-t", "0", "stopped")
    private.docker("stop", "-t", "0", "stopped")
    private.docker("cp", "stopped:/data/x", str(tmp_path / "x"))
    assert (tmp_path / "x").read_text() == "x\nx\n"
    private.docker("start", "stopped")
    assert private.docker("exec", "stopped", "wc", "-l", "/data/x").stdout.split()[0] == "3"
    private.docker("rm", "-f", "stopped")
    private.docker("volume", "rm", "kept")


def test_an_image_as_a_mount(private: Daemon) -> None:
    private.docker("run", "--name", "layer", "busybox", "sh", "-c", "echo two > /added; chown 7:8 /added")
    private.docker("commit", "layer", "two-layers")
    private.docker("rm", "layer")
    flags = ["--mount", "type=image,source=two-layers,target=/image"]
    script = "cat /image/added; stat -c %u:%g /image/added /image/bin; touch /image/x || echo read-only"
    assert shell(private, script, *flags).split() == ["two", "7:8", "0:0", "read-only"]
    private.docker("rmi", "two-layers")


def test_no_descriptor_and_no_right_of_the_hosts(private: Daemon) -> None:
    assert shell(private, "ls /proc/1/fd; true").split() == ["0", "1", "2"]
    script = """
        cat /host/shadow && echo READ
        touch /host/enisle-was-here && echo WROTE
        mknod /null c 1 3 && echo NODE
        echo 1 > /proc/sys/kernel/panic && echo SYSCTL
        echo ok
    """
    assert shell(private, script, "-v", "/etc:/host").split() == ["ok"]
    assert not Path("/etc/enisle-was-here").exists()


def test_terminals_stdout_devices_and_sysctls(private: Daemon) -> None:
    flags = [
        "-t",
        "--device",
        "/dev/zero:/dev/mine",
        "--sysctl",
        "net.ipv4.ip_default_ttl=42",
        "--init",
        "--tmpfs",
        "/run",
    ]
    script = "tty; echo again > /dev/stdout; head -c 3 /dev/mine | wc -c; cat /proc/sys/net/ipv4/ip_default_ttl; id -u"
    assert shell(private, script, *flags).split() == ["/dev/pts/0", "again", "3", "42", "0"]
    assert shell(private, "echo again > /dev/stdout; echo x > /dev/null; id -u", "-u", "nobody").split() == [
        "again",
        "65534",
    ]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (["--privileged"], "privileged mode is incompatible with user namespaces"),
        (["--network", "host"], "cannot share the host's network namespace when user namespaces are enabled"),
        (["--pid", "host"], "cannot share the host's PID namespace when user namespaces are enabled"),
    ],
)
def test_what_needs_the_hosts_rights_is_refused(private: Daemon, flags: list[str], reason: str) -> None:
    done = private.docker("run", "--rm", *flags, "busybox", "true", check=False)
    assert done.returncode == 125
    assert reason in done.stderr
    assert private.docker("run", "--rm", *flags, "--userns", "host", "busybox", "id", "-u").stdout == "0\n"


def test_a_user_outside_of_the_range(private: Daemon) -> None:
    done = private.docker("run", "--rm", "-u", "70000", "busybox", "true", check=False)
    assert done.returncode != 0
    assert "invalid argument" in done.stderr


def test_one_instance_by_our_own_client(daemon: Daemon) -> None:
    output = daemon.enisle("run", "--rm", "--userns", "private", "busybox", "cat", "/proc/self/uid_map").stdout
    assert output.split()[0] == "0"
    assert FIRST <= int(output.split()[1]) < FIRST + 4096 * SIZE
    assert daemon.docker("run", "--rm", "busybox", "cat", "/proc/self/uid_map").stdout.split()[1] == "0"
