"""The same commands of the real docker client, for an image behind either wall."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time
from pathlib import Path

import pytest

from tests.api.walls import WALLS, Wall
from tests.daemon import Daemon


def test_output_error_stream_and_exit_code(wall: Wall) -> None:
    done = wall.run("--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_kernel_is_the_walls(wall: Wall) -> None:
    inside = wall.run("--rm", "busybox", "uname", "-r").stdout.strip()
    assert (inside == os.uname().release) == (wall.kind != "vm")


def test_process_settings(wall: Wall) -> None:
    script = "hostname; pwd; id -u; id -g; echo $GREETING; ulimit -n; cat /etc/hosts | grep -c island; echo $HOME"
    done = wall.run(
        *("--rm", "--hostname", "island", "-w", "/srv/deep", "-u", "1234:4321", "-e", "GREETING=hello there"),
        *("--ulimit", "nofile=300:400", "busybox", "sh", "-c", script),
    )
    assert done.stdout.splitlines() == ["island", "/srv/deep", "1234", "4321", "hello there", "300", "1", "/"]


def test_named_user_and_groups(wall: Wall) -> None:
    done = wall.run("--rm", "-u", "root", "--group-add", "1555", "busybox", "id", "-G")
    assert set(done.stdout.split()) >= {"0", "1555"}


def test_stdin_reaches_the_program_and_its_end_too(wall: Wall) -> None:
    done = wall.run("--rm", "-i", "busybox", "wc", "-c", input="x" * 300_000)
    assert done.stdout.strip() == "300000"


def test_terminal(wall: Wall) -> None:
    done = subprocess.run(
        [
            "script",
            "-qec",
            f"docker run --rm -it {' '.join(WALLS[wall.kind])} busybox sh -c 'tty; stty size'",
            "/dev/null",
        ],
        env={**os.environ, "DOCKER_HOST": f"unix://{wall.daemon.socket}", "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert "/dev/pts/" in done.stdout or "/dev/console" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(("command", "code"), [("no-such-command", 127), ("/etc", 126)])
def test_command_that_cannot_run(wall: Wall, command: str, code: int) -> None:
    name = wall.name("bad")
    done = wall.run("--name", name, "busybox", command, check=False)
    assert done.returncode == code
    assert command in done.stderr
    assert wall.inspect(name, "{{.State.ExitCode}} {{.State.Status}}") == f"{code} created"


def test_memory_and_cpus_are_limited(wall: Wall) -> None:
    name = wall.start("limits", "-m", "256m", "--cpus", "1")
    if wall.kind == "vm":
        total = wall.daemon.docker("exec", name, "sh", "-c", "grep MemTotal /proc/meminfo").stdout.split()
        assert 150_000 < int(total[1]) <= 256 << 10
    assert wall.inspect(name, "{{.HostConfig.Memory}} {{.HostConfig.NanoCpus}}") == f"{256 << 20} 1000000000"
    stats = json.loads(wall.daemon.docker("stats", "--no-stream", "--format", "{{json .}}", name).stdout)
    assert stats["MemUsage"].endswith("256MiB")
    assert int(stats["PIDs"]) >= 1


def test_binds_volumes_and_tmpfs(wall: Wall, tmp_path: Path) -> None:
    (tmp_path / "given").write_text("from the host")
    script = (
        "cat /bind/given; echo back > /bind/made; echo kept > /data/file; mount | grep -c ' /scratch type tmpfs';"
        "echo x > /ro/y 2>/dev/null || echo refused"
    )
    volume = f"vol-{os.urandom(3).hex()}"
    options = [
        "-v",
        f"{tmp_path}:/bind",
        "-v",
        f"{volume}:/data",
        "--tmpfs",
        "/scratch:size=4m",
        "-v",
        f"{tmp_path}:/ro:ro",
    ]
    done = wall.run("--rm", *options, "busybox", "sh", "-c", script)
    assert done.stdout.splitlines() == ["from the host1", "refused"]
    assert (tmp_path / "made").read_text() == "back\n"
    again = wall.run("--rm", "-v", f"{volume}:/data", "busybox", "cat", "/data/file")
    assert again.stdout == "kept\n"
    wall.daemon.docker("volume", "rm", volume)


def test_named_volume_is_filled_from_the_image(wall: Wall) -> None:
    volume = f"vol-{os.urandom(3).hex()}"
    done = wall.run("--rm", "-v", f"{volume}:/bin", "busybox", "ls", "/bin/busybox")
    assert done.stdout == "/bin/busybox\n"
    wall.daemon.docker("volume", "rm", volume)


def test_read_only_root(wall: Wall) -> None:
    done = wall.run(
        "--rm", "--read-only", "--tmpfs", "/tmp", "busybox", "sh", "-c", "echo 1 > /tmp/a && echo 1 > /b", check=False
    )
    assert done.returncode != 0
    assert "Read-only file system" in done.stderr


def test_exec(wall: Wall) -> None:
    docker = wall.daemon.docker
    name = wall.start("exec", "-e", "A=1")
    assert docker("exec", "-e", "B=2", "-w", "/tmp", name, "sh", "-c", "echo $A$B; pwd").stdout == "12\n/tmp\n"
    assert docker("exec", "-i", name, "cat", input="through").stdout == "through"
    assert docker("exec", name, "sh", "-c", "exit 9", check=False).returncode == 9
    assert docker("exec", "-u", "1000", name, "id", "-u").stdout == "1000\n"
    missing = docker("exec", name, "no-such", check=False)
    assert missing.returncode == 127
    assert docker("exec", "-t", name, "tty").stdout.startswith("/dev/pts/")


def test_many_execs_at_once(wall: Wall) -> None:
    name = wall.start("execs")
    environment = {**os.environ, "DOCKER_HOST": f"unix://{wall.daemon.socket}"}
    running = [
        subprocess.Popen(
            ["docker", "exec", name, "sh", "-c", f"seq 20000; exit {n}"], env=environment, stdout=subprocess.PIPE
        )
        for n in range(8)
    ]
    outputs = [process.communicate(timeout=90)[0] for process in running]
    assert [process.returncode for process in running] == list(range(8))
    assert {output.count(b"\n") for output in outputs} == {20000}


def test_attach_reads_what_comes(wall: Wall) -> None:
    name = wall.name("attach")
    wall.run("-di", "--name", name, "busybox", "sh", "-c", "read line; echo got $line; exit 3")
    done = wall.daemon.docker("attach", name, input="word\n", check=False)
    assert (done.stdout, done.returncode) == ("got word\n", 3)


def test_stop_kill_restart_pause(wall: Wall) -> None:
    docker = wall.daemon.docker
    name = wall.start("life", command=("sh", "-c", "trap 'exit 5' TERM; echo up; while :; do sleep 0.1; done"))
    while "up" not in docker("logs", name).stdout:  # before its trap a process 1 ignores SIGTERM
        time.sleep(0.05)
    docker("pause", name)
    assert wall.inspect(name, "{{.State.Status}}") == "paused"
    docker("unpause", name)
    docker("stop", name)
    assert wall.inspect(name, "{{.State.Status}} {{.State.ExitCode}}") == "exited 5"
    docker("start", name)
    assert wall.inspect(name, "{{.State.Status}}") == "running"
    docker("restart", "-t", "2", name)
    assert wall.inspect(name, "{{.State.Status}}") == "running"
    deadline = time.monotonic() + 30
    while docker("logs", name).stdout.count("up\n") < 3 and time.monotonic() < deadline:
        time.sleep(0.05)
    docker("kill", name)
    assert docker("wait", name).stdout == "137\n"
    assert docker("logs", name).stdout.count("up\n") == 3


def test_files_of_a_running_and_a_stopped_instance(wall: Wall, tmp_path: Path) -> None:
    docker = wall.daemon.docker
    name = wall.start("files", command=("sh", "-c", "echo first > /made; rm /etc/passwd; sleep 1000"))
    source = tmp_path / "tree"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "leaf").write_text("leaf")
    for _ in range(200):
        if "/made" in docker("diff", name).stdout and "D /etc/passwd" in docker("diff", name).stdout:
            break
        time.sleep(0.05)
    assert {"A /made", "C /etc", "D /etc/passwd"} <= set(docker("diff", name).stdout.splitlines())
    docker("cp", str(source), f"{name}:/opt")
    assert docker("exec", name, "cat", "/opt/sub/leaf").stdout == "leaf"
    docker("cp", f"{name}:/opt", str(tmp_path / "out"))
    assert (tmp_path / "out" / "sub" / "leaf").read_text() == "leaf"
    docker("stop", "-t", "1", name)
    docker("cp", f"{name}:/made", str(tmp_path / "made"))
    assert (tmp_path / "made").read_text() == "first\n"
    missing = docker("cp", f"{name}:/nosuch", str(tmp_path), check=False)
    assert f"Could not find the file /nosuch in container {name}" in missing.stderr
    exported = subprocess.run(
        ["docker", "export", name],
        env={**os.environ, "DOCKER_HOST": f"unix://{wall.daemon.socket}"},
        capture_output=True,
        check=True,
        timeout=120,
    ).stdout
    with tarfile.open(fileobj=io.BytesIO(exported)) as archive:
        names = archive.getnames()
    assert "made" in names
    assert "etc/passwd" not in names


def test_commit_makes_an_image_for_both_walls(wall: Wall) -> None:
    docker = wall.daemon.docker
    name = wall.name("commit")
    wall.run("--name", name, "busybox", "sh", "-c", "echo layered > /file; rm /etc/passwd")
    tag = f"made-{os.urandom(3).hex()}"
    docker("commit", "-c", "CMD cat /file", name, tag)
    for other in WALLS.values():
        done = docker("run", "--rm", *other, tag, timeout_s=120)
        assert done.stdout == "layered\n"
    docker("rmi", tag)


def test_network_reaches_the_other_wall_and_the_host_reaches_it(wall: Wall) -> None:
    docker = wall.daemon.docker
    server = wall.start(
        "web",
        "-p",
        "127.0.0.1::8000",
        command=("sh", "-c", "mkdir /w; echo served > /w/index.html; httpd -f -p 8000 -h /w"),
    )
    port = docker("port", server, "8000").stdout.strip()
    address = wall.inspect(server, "{{.NetworkSettings.IPAddress}}")
    fetched = ""
    for _ in range(100):
        done = subprocess.run(
            ["curl", "-sS", "--max-time", "5", f"http://{port}/"], capture_output=True, text=True, check=False
        )
        fetched = done.stdout
        if fetched:
            break
        time.sleep(0.1)
    assert fetched == "served\n", done.stderr
    for other in WALLS.values():
        seen = docker(
            "run", "--rm", *other, "busybox", "timeout", "30", "wget", "-qO-", f"http://{address}:8000/", timeout_s=120
        )
        assert seen.stdout == "served\n"


def test_network_none_has_loopback_only(wall: Wall) -> None:
    links = wall.run("--rm", "--network", "none", "busybox", "ls", "/sys/class/net").stdout.split()
    assert links == ["lo"]


def test_name_servers_and_added_hosts(wall: Wall) -> None:
    done = wall.run(
        *("--rm", "--dns", "192.0.2.7", "--dns-search", "isle.example", "--add-host", "mainland:192.0.2.9"),
        *("busybox", "sh", "-c", "cat /etc/resolv.conf; grep mainland /etc/hosts"),
    )
    assert "nameserver 192.0.2.7" in done.stdout
    assert "search isle.example" in done.stdout
    assert done.stdout.split()[-2:] == ["192.0.2.9", "mainland"]


def test_logs_with_times_and_tail(wall: Wall) -> None:
    docker = wall.daemon.docker
    name = wall.name("logs")
    wall.run("--name", name, "busybox", "sh", "-c", "for n in 1 2 3 4 5; do echo line $n; done; printf tail")
    assert docker("logs", "--tail", "2", name).stdout == "line 5\ntail"
    stamped = docker("logs", "-t", name).stdout.splitlines()
    assert len(stamped) == 6
    since = stamped[-1].split()[0]
    assert "line 1" not in docker("logs", "--since", since, name).stdout or stamped[0].split()[0] == since


def test_top_and_ps(wall: Wall) -> None:
    name = wall.start("top", "-l", "purpose=shown", command=("sleep", "4321"))
    assert "sleep 4321" in wall.daemon.docker("top", name).stdout
    shown = wall.daemon.docker(
        "ps", "--filter", "label=purpose=shown", "--filter", f"name={name}", "--format", "{{.Names}}"
    )
    assert shown.stdout == f"{name}\n"


@pytest.mark.timeout(300)
def test_restart_policy(wall: Wall) -> None:
    name = wall.name("again")
    wall.run("-d", "--restart", "on-failure:2", "--name", name, "busybox", "sh", "-c", "exit 4")
    deadline = time.monotonic() + 200  # three boots, on a busy machine
    while wall.inspect(name, "{{.RestartCount}} {{.State.Status}}") != "2 exited" and time.monotonic() < deadline:
        time.sleep(0.1)
    assert wall.inspect(name, "{{.RestartCount}} {{.State.Status}} {{.State.ExitCode}}") == "2 exited 4"


def test_out_of_memory_is_reported(wall: Wall) -> None:
    if wall.kind == "vm":
        name = wall.name("oom")
        done = wall.run("--name", name, "-m", "160m", "busybox", "sh", "-c", "tail /dev/zero", check=False)
    else:
        name = wall.name("oom")
        done = wall.run("--name", name, "-m", "16m", "busybox", "sh", "-c", "tail /dev/zero", check=False)
    assert done.returncode == 137
    assert wall.inspect(name, "{{.State.OOMKilled}}") == "true"


@pytest.mark.parametrize(
    "flags",
    [("--network", "host"), ("--pid", "host"), ("--ipc", "host"), ("--uts", "host"), ("--device", "/dev/null")],
    ids=lambda flags: flags[0].strip("-"),
)
def test_vm_refuses_what_it_cannot_hold(daemon: Daemon, flags: tuple[str, ...]) -> None:
    done = daemon.docker("run", "--rm", "--runtime", "vm", *flags, "busybox", "true", check=False)
    assert done.returncode == 125
    assert len(done.stderr.strip().splitlines()) <= 3
    assert "VM" in done.stderr or "virtual machine" in done.stderr
