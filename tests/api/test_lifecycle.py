"""Health checks, restart policies, updates, execs and events, by the real docker client behind either wall."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.api.walls import WALLS, Wall, wait_until
from tests.daemon import Daemon

CHECK = ("--health-interval", "300ms", "--health-timeout", "5s", "--health-retries", "2")


def now() -> str:
    """For --until; the client's "0s" is the beginning of this second."""
    return f"{time.time():.9f}"


def events(daemon: Daemon, name: str, *filters: str) -> list[dict[str, object]]:
    """What has happened to an instance so far."""
    words = [word for each in (f"container={name}", *filters) for word in ("--filter", each)]
    done = daemon.docker("events", "--since", "1", "--until", now(), "--format", "{{json .}}", *words)
    return [json.loads(line) for line in done.stdout.splitlines()]


def health(wall: Wall, name: str) -> dict[str, object]:
    return json.loads(wall.inspect(name, "{{json .State.Health}}"))


def test_health_goes_up_and_down(wall: Wall) -> None:
    check = "test ! -e /sick || { head -c 9000 /dev/zero | tr '\\0' x; exit 3; }"
    name = wall.start("health", "--health-cmd", check, *CHECK, "--health-start-interval", "100ms")
    wait_until(lambda: health(wall, name)["Status"] == "healthy")
    wall.daemon.docker("exec", name, "touch", "/sick")
    wait_until(lambda: health(wall, name)["Status"] == "unhealthy")
    wait_until(lambda: int(str(health(wall, name)["FailingStreak"])) >= 6)
    entries = health(wall, name)["Log"]
    assert isinstance(entries, list)
    assert [(entry["ExitCode"], entry["Output"]) for entry in entries] == [(3, "x" * 4096 + "...")] * 5
    wall.daemon.docker("exec", name, "rm", "/sick")
    wait_until(lambda: health(wall, name)["Status"] == "healthy")
    actions = [event["Action"] for event in events(wall.daemon, name, "event=health_status")]
    assert actions == ["health_status: healthy", "health_status: unhealthy", "health_status: healthy"]
    listed = wall.daemon.docker("ps", "--filter", "health=healthy", "--filter", f"name={name}", "-q").stdout
    assert listed


def test_health_check_that_hangs(wall: Wall) -> None:
    name = wall.start(
        *("hang", "--health-cmd", "echo partly; sleep 100", "--health-timeout", "1s"),
        *("--health-interval", "200ms", "--health-retries", "1"),
    )
    wait_until(lambda: health(wall, name)["Status"] == "unhealthy")
    entries = health(wall, name)["Log"]
    assert isinstance(entries, list)
    assert (entries[-1]["ExitCode"], entries[-1]["Output"]) == (-1, "Health check exceeded timeout (1s): partly\n")


def test_health_checks_are_told_as_execs_to_who_listens(wall: Wall) -> None:
    name = wall.name("probed")
    environment = {**os.environ, "DOCKER_HOST": f"unix://{wall.daemon.socket}"}
    listening = ["docker", "events", "--filter", f"container={name}", "--format", "{{json .}}"]
    with subprocess.Popen(listening, env=environment, stdout=subprocess.PIPE, text=True) as listener:
        assert listener.stdout is not None
        time.sleep(0.5)  # nothing tells that the client listens
        check = ("--health-cmd", "exit 3", "--health-interval", "300ms", "--health-retries", "1")
        wall.run("-d", "--name", name, *check, "busybox", "sleep", "1000")
        told: list[dict[str, Any]] = []
        while not told or not told[-1]["Action"].startswith("health_status"):
            told.append(json.loads(listener.stdout.readline()))
        listener.terminate()
    created, started, died = [event for event in told if event["Action"].startswith("exec_")][:3]
    assert (created["Action"], started["Action"]) == ("exec_create: /bin/sh -c exit 3", "exec_start: /bin/sh -c exit 3")
    assert (died["Action"], died["Actor"]["Attributes"]["exitCode"]) == ("exec_die", "3")
    assert len({event["Actor"]["Attributes"]["execID"] for event in (created, started, died)}) == 1
    kept = events(wall.daemon, name)
    assert [event["Action"] for event in kept] == ["create", "start", "health_status: unhealthy"]


def test_a_health_check_of_the_image(wall: Wall) -> None:
    docker, image = wall.daemon.docker, f"checked-{wall.kind}"
    base = wall.name("base")
    docker("create", "--name", base, "busybox")
    line = "HEALTHCHECK --interval=300ms --start-period=60s --start-interval=100ms --retries=1 CMD test -e /well"
    docker("commit", "--change", line, base, image)
    flags = WALLS[wall.kind]
    names = [wall.name(suffix) for suffix in ("asis", "none", "own")]
    docker("run", "-d", "--name", names[0], *flags, image, "sleep", "1000", timeout_s=120)
    docker("create", "--name", names[1], *flags, "--no-healthcheck", image)
    docker("create", "--name", names[2], *flags, "--health-retries", "7", "--health-cmd", "true", image)
    found = [json.loads(wall.inspect(name, "{{json .Config.Healthcheck}}")) for name in names]
    times = {"Interval": 300_000_000, "StartPeriod": 60_000_000_000, "StartInterval": 100_000_000}
    assert found[0] == {"Test": ["CMD-SHELL", "test -e /well"], "Retries": 1, **times}
    assert found[1]["Test"] == ["NONE"]
    assert found[2] == {"Test": ["CMD-SHELL", "true"], "Retries": 7, **times}
    wait_until(lambda: len(health(wall, names[0])["Log"] or []) == 5)  # type: ignore[arg-type]
    assert health(wall, names[0])["Status"] == "starting"  # failures in the start period do not count
    docker("exec", names[0], "touch", "/well")
    wait_until(lambda: health(wall, names[0])["Status"] == "healthy")
    docker("exec", names[0], "rm", "/well")
    wait_until(lambda: health(wall, names[0])["Status"] == "unhealthy")
    docker("rm", "-f", *names, base)
    docker("rmi", image)


def test_no_health_check(wall: Wall) -> None:
    name = wall.name("none")
    wall.daemon.docker("create", "--name", name, "--no-healthcheck", "busybox", "true")
    assert wall.inspect(name, "{{json .State.Health}} {{.Config.Healthcheck.Test}}") == "null [NONE]"


@pytest.mark.parametrize("asked", [("--restart", "unhealthy"), ("--label", "enisle.restart=unhealthy")])
def test_unhealthy_is_restarted(wall: Wall, asked: tuple[str, ...]) -> None:
    check = ("--health-cmd", "test ! -e /tmp/sick", *CHECK, "--tmpfs", "/tmp")
    name = wall.start("sick", *check, "--stop-timeout", "1", *asked)
    wait_until(lambda: health(wall, name)["Status"] == "healthy")
    wall.daemon.docker("update", "--restart", "unless-stopped", name) if asked[0] == "--label" else None
    wall.daemon.docker("exec", name, "touch", "/tmp/sick")
    wait_until(lambda: wall.inspect(name, "{{.RestartCount}} {{.State.Status}}") == "1 running", timeout_s=90)
    wait_until(lambda: health(wall, name)["Status"] == "healthy")
    wall.daemon.docker("stop", "-t", "0", name)
    assert wall.inspect(name, "{{.State.Status}}") == "exited"


def test_exec_detaches_by_the_keys_asked_for(wall: Wall) -> None:
    name = wall.start("detach")
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["docker", "exec", "-it", "--detach-keys", "ctrl-x,q", name, "sh"],
        env={**os.environ, "DOCKER_HOST": f"unix://{wall.daemon.socket}", "TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    seen = b""
    os.write(ours, b"echo he''re\n")
    while b"here" not in seen:
        assert select.select([ours], [], [], 60)[0], seen
        seen += os.read(ours, 4096)
    os.write(ours, b"\x18q")
    assert process.wait(60) == 1  # the client sees the keys itself, and ends with an error
    os.close(ours)
    os.close(theirs)
    assert "sh" in wall.daemon.docker("top", name).stdout


def test_exec_fails_in_dockers_words(wall: Wall) -> None:
    docker = wall.daemon.docker
    name = wall.start("refused")
    user = docker("exec", "-u", "nosuch", name, "true", check=False)
    assert (user.returncode, "unable to find user nosuch" in user.stdout + user.stderr) == (126, True)
    missing = docker("exec", name, "/nowhere", check=False)
    assert missing.returncode == 127
    assert "OCI runtime exec failed: exec failed: unable to start container process" in missing.stdout + missing.stderr
    docker("pause", name)
    paused = docker("exec", name, "true", check=False)
    assert (paused.returncode, "is paused, unpause the container before exec" in paused.stderr) == (1, True)
    docker("unpause", name)
    docker("exec", "-d", name, "touch", "/tmp/made")
    wait_until(lambda: docker("exec", name, "ls", "/tmp/made", check=False).returncode == 0)


def test_exec_does_not_make_its_directory(wall: Wall) -> None:
    daemon = wall.daemon
    name = wall.start("cwd", "-w", "/made/by/start")
    assert daemon.docker("exec", name, "pwd").stdout == "/made/by/start\n"
    done = daemon.docker("exec", "-w", "/not/there", name, "true", check=False)
    assert (done.returncode, 'chdir to cwd ("/not/there")' in done.stdout + done.stderr) == (127, True)
    assert daemon.docker("exec", name, "ls", "-d", "/not", check=False).returncode == 1


def test_update_while_it_runs(wall: Wall) -> None:
    docker = wall.daemon.docker
    name = wall.start("update", "-m", "200m")
    assert docker("update", "--restart", "on-failure:2", name).stdout == f"{name}\n"
    docker("update", "--cpus", "0.7", name)
    docker("update", "--cpu-shares", "300", "--cpuset-cpus", "0", "--pids-limit", "70", "-m", "190m", name)
    facts = "{{.HostConfig.NanoCpus}} {{.HostConfig.CpuShares}} {{.HostConfig.CpusetCpus}} {{.HostConfig.PidsLimit}}"
    assert wall.inspect(name, facts) == "700000000 300 0 70"
    assert wall.inspect(name, "{{.HostConfig.Memory}} {{.HostConfig.RestartPolicy.Name}}") == f"{190 << 20} on-failure"
    quota = docker("update", "--cpu-quota", "50000", name, check=False)
    assert "CPU Quota/Period cannot be updated as NanoCPUs has already been set" in quota.stderr
    rate = docker("update", "--cpu-rt-runtime", "1000", name, check=False)
    assert rate.returncode == 1
    grown = docker("update", "-m", "400m", "--memory-swap", "-1", name, check=False)
    assert (grown.returncode == 0) == (wall.kind != "vm")
    if wall.kind == "vm":
        assert "cannot grow beyond the 200 MiB it started with" in grown.stderr
        assert wall.inspect(name, "{{.HostConfig.Memory}}") == str(190 << 20)


def test_update_warns_of_what_it_was_asked_for_only(daemon: Daemon) -> None:
    wall = Wall(daemon, "vm")
    name = wall.name("warned")
    daemon.docker("create", "--name", name, "--runtime", "vm", "-m", "200m", "--memory-reservation", "100m", "busybox")
    assert "reservations" not in daemon.docker("update", "--restart", "always", name).stdout
    assert "swap" in daemon.docker("update", "--memory-swap", "300m", name).stdout
    wall.clean()


def test_events_of_a_life(wall: Wall, tmp_path: Path) -> None:
    docker = wall.daemon.docker
    volume = f"v{os.urandom(3).hex()}"
    name = wall.start("told", "-l", "colour=blue", "-v", f"{volume}:/data")
    docker("exec", name, "true")
    docker("top", name)
    docker("cp", f"{name}:/etc/passwd", str(tmp_path / "copy"))
    docker("cp", str(tmp_path / "copy"), f"{name}:/copied")
    docker("export", "-o", str(tmp_path / "all.tar"), name)
    docker("pause", name)
    docker("unpause", name)
    docker("update", "--restart", "no", name)
    docker("rename", name, f"{name}x")
    docker("restart", "-t", "0", f"{name}x")
    docker("stop", "-t", "0", f"{name}x")
    ident = wall.inspect(f"{name}x", "{{.Id}}")
    docker("rm", f"{name}x")
    found = events(wall.daemon, ident)
    assert [str(event["Action"]).partition(":")[0] for event in found] == [
        *("create", "start", "exec_create", "exec_start", "exec_die", "top", "archive-path", "extract-to-dir"),
        *("export", "pause", "unpause", "update", "rename", "kill", "kill", "die", "start", "restart"),
        *("kill", "kill", "die", "stop", "destroy"),
    ]
    assert {event["from"] for event in found} == {"busybox"}
    labelled = events(wall.daemon, ident, "label=colour=blue", "type=container", "image=busybox")
    assert len(labelled) == len(found)
    assert events(wall.daemon, ident, "label=colour=red") == []
    mounted = docker(
        "events", "--since", "1", "--until", now(), "--filter", f"volume={volume}", "--format", "{{.Action}}"
    )
    assert mounted.stdout.split() == ["create", "mount", "unmount", "mount", "unmount"]
    docker("volume", "rm", volume)


def test_events_outlive_enisled(own_daemon: Daemon) -> None:
    docker = own_daemon.docker
    docker("create", "--name", "kept", "busybox")
    own_daemon.kill()
    own_daemon.start()
    assert "create" in [event["Action"] for event in events(own_daemon, "kept")]
    week = docker("events", "--since", "168h", "--until", now(), "--filter", "type=image", "--format", "{{.Action}}")
    assert "load" in week.stdout.split()


def test_checkpoints_are_refused(daemon: Daemon) -> None:
    wall = Wall(daemon, "container")
    name = wall.start("checked")
    done = daemon.docker("checkpoint", "ls", name, check=False)
    assert done.returncode == 1
    url = f"http://d/v1.47/containers/{name}/checkpoints"
    for method, path, status in (("GET", "", 501), ("POST", "", 501), ("DELETE", "/one", 404)):
        asked = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", method, "--unix-socket"]
        answer = subprocess.run([*asked, str(daemon.socket), url + path], capture_output=True, text=True, check=True)
        assert (method, answer.stdout) == (method, str(status))
    wall.clean()


def host_restarts(daemon: Daemon) -> None:
    """All processes die and the run root is empty, as after a loss of power."""
    daemon.kill()

    def none_left() -> bool:
        processes = daemon.census().get("processes", [])
        for line in processes:
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line.split()[0]), signal.SIGKILL)
        return not processes

    wait_until(none_left)
    for entry in daemon.run_root.iterdir():
        shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def test_a_restart_of_the_host(own_daemon: Daemon) -> None:
    docker = own_daemon.docker
    sleep = ("busybox", "sleep", "1000")

    def run(name: str, *flags: str, command: tuple[str, ...] = sleep) -> None:
        docker("run", "-d", "--name", name, *flags, *command)

    # Named against the order that they depend on each other in, and made in it.
    run("z-db", "--restart", "always", "--health-cmd", "test -e /proc/1", *CHECK)
    run("y-linked", "--restart", "unless-stopped", "--link", "z-db:db")
    run("x-net", "--restart", "always", "--network", "container:y-linked")
    compose = ("--label", "com.docker.compose.project=p", "--label", "com.docker.compose.service")
    run("w-service", "--restart", "always", "--health-cmd", "sleep 1", *CHECK, *compose[:3], f"{compose[3]}=late")
    depends = "com.docker.compose.depends_on=late:service_healthy:false"
    run("v-after", "--restart", "always", *compose[:3], f"{compose[3]}=after", "--label", depends)
    run("vm", "--restart", "always", "--runtime", "vm")
    run("never")
    run("stopped-unless", "--restart", "unless-stopped")
    run("stopped-always", "--restart", "always")
    run("failed", "--restart", "on-failure:3")
    docker("stop", "-t", "0", "stopped-unless", "stopped-always")
    host_restarts(own_daemon)
    since = str(int(time.time()))
    own_daemon.start()
    expected = {"z-db", "y-linked", "x-net", "w-service", "v-after", "vm", "stopped-always", "failed"}
    wait_until(lambda: set(docker("ps", "--format", "{{.Names}}").stdout.split()) == expected, timeout_s=120)
    told = docker(
        "events", "--since", since, "--until", now(), "--format", "{{.Action}} {{index .Actor.Attributes `name`}}"
    )
    order = told.stdout.splitlines()
    for first, second in (
        ("start z-db", "start y-linked"),
        ("start y-linked", "start x-net"),
        ("health_status: healthy w-service", "start v-after"),
    ):
        assert order.index(first) < order.index(second), order


def test_signals_of_stop_and_restart(wall: Wall) -> None:
    docker = wall.daemon.docker
    script = 'trap "echo usr1; exit 3" USR1; trap "echo hup; exit 4" HUP; echo up; while :; do sleep 0.1; done'
    flags = ("--stop-signal", "USR1", "--stop-timeout", "60")
    name = wall.start("signals", *flags, command=("sh", "-c", script))
    wait_until(lambda: docker("logs", name).stdout == "up\n")
    docker("stop", name)
    assert wall.inspect(name, "{{.State.ExitCode}}") == "3"
    docker("start", name)
    wait_until(lambda: docker("logs", name).stdout.count("up") == 2)
    docker("restart", "-s", "HUP", name)
    wait_until(lambda: docker("logs", name).stdout.split() == ["up", "usr1", "up", "hup", "up"])
    docker("kill", "-s", "USR1", name)
    assert docker("wait", name).stdout == "3\n"


def test_removal_races_with_anything(wall: Wall) -> None:
    names = [wall.name(f"race{number}") for number in range(3)]
    environment = {**os.environ, "DOCKER_HOST": f"unix://{wall.daemon.socket}"}
    for name in names:
        wall.run("-d", "--restart", "always", "--name", name, "busybox", "sh", "-c", "exit 1")
    verbs = (["rm", "-f"], ["start"], ["restart", "-t", "0"], ["kill"], ["stop", "-t", "0"], ["rm", "-f"], ["pause"])
    racing = [
        subprocess.Popen(
            ["docker", *verb, name], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        for name in names
        for verb in verbs
    ]
    said = [process.communicate(timeout=100)[1] for process in racing]
    assert not [text for text in said if "internal" in text.lower() or "Traceback" in text]
    for name in names:
        wall.daemon.docker("rm", "-f", name, check=False)
    listed = wall.daemon.docker("ps", "-a", "--format", "{{.Names}}").stdout.split()
    assert not set(names) & set(listed)


def test_waiting_for_several_and_for_removal(wall: Wall) -> None:
    docker = wall.daemon.docker
    first = wall.start("wait1", command=("sh", "-c", "exit 4"))
    second = wall.start("wait2", command=("sh", "-c", "exit 5"))
    assert docker("wait", first, second).stdout.split() == ["4", "5"]
    with socket.socket(socket.AF_UNIX) as waiting:
        waiting.connect(str(wall.daemon.socket))
        waiting.settimeout(60)
        path = f"/v1.47/containers/{first}/wait?condition=removed"
        waiting.sendall(f"POST {path} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode())
        answer = waiting.recv(4096)
        assert b"200 OK" in answer
        docker("rm", first)
        while b"StatusCode" not in answer:
            answer += waiting.recv(4096)
    assert b'{"StatusCode":4}' in answer
