"""What a user sees when memory runs out, or is taken back, behind either wall."""

from __future__ import annotations

import json
import time

from tests.api.walls import Wall, wait_until


def actions(wall: Wall, name: str) -> list[str]:
    words = (
        "--since",
        "1",
        "--until",
        f"{time.time():.9f}",
        "--filter",
        f"container={name}",
        "--format",
        "{{.Action}}",
    )
    return wall.daemon.docker("events", *words).stdout.split()


def test_a_child_that_takes_too_much(wall: Wall) -> None:
    script = "for n in 1 2; do until [ -e /tmp/go$n ]; do sleep 0.1; done; tail /dev/zero; echo $?; done; sleep 1000"
    name = wall.start("child", "-m", "160m", "--memory-swap", "160m", command=("sh", "-c", script))
    for number in (1, 2):
        wall.daemon.docker("exec", name, "touch", f"/tmp/go{number}")
        wait_until(lambda count=number: wall.daemon.docker("logs", name).stdout.split() == ["137"] * count)  # type: ignore[misc]
        wait_until(lambda: "oom" in actions(wall, name))
    assert wall.inspect(name, "{{.State.Status}} {{.State.OOMKilled}}") == "running true"
    wall.daemon.docker("stop", "-t", "0", name)
    assert wall.inspect(name, "{{.State.Status}} {{.State.OOMKilled}}") == "exited true"
    wall.daemon.docker("start", name)
    assert wall.inspect(name, "{{.State.OOMKilled}}") == "false"


def test_a_limit_that_is_lowered_holds(wall: Wall) -> None:
    docker = wall.daemon.docker
    name = wall.start("lowered", "-m", "300m", "--memory-swap", "300m", "--pids-limit", "50")
    fill = ("exec", name, "dd", "if=/dev/zero", "of=/dev/null", "bs=170M", "count=1")  # a buffer, all of it written
    assert docker(*fill, check=False).returncode == 0
    docker("update", "-m", "150m", "--memory-swap", "150m", "--pids-limit", "20", name)
    limits = json.loads(docker("stats", "--no-stream", "--format", "{{json .MemUsage}}", name).stdout)
    assert limits.endswith("/ 150MiB")
    wait_until(lambda: docker(*fill, check=False).returncode == 137)
    many = docker("exec", name, "sh", "-c", "for n in $(seq 30); do sleep 100 & done", check=False)
    assert "can't fork" in many.stdout + many.stderr
    if wall.kind == "vm":
        docker("update", "-m", "300m", "--memory-swap", "300m", "--pids-limit", "100", name)
        wait_until(lambda: docker(*fill, check=False).returncode == 0)
