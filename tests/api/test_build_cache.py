"""What builds keep: shown, bounded, pruned, borrowed from images, whole after a crash."""

from __future__ import annotations

import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.daemon import Daemon, dispose, image_archive, new_daemon, run

KEEPS = """FROM busybox AS a
RUN --mount=type=cache,target=/c,id=own dd if=/dev/zero of=/c/z bs=1M count=3
RUN dd if=/dev/zero of=/big bs=1M count={size}
FROM busybox
COPY --from=a /etc/passwd /p
"""


@pytest.fixture
def small_daemon() -> Iterator[Daemon]:
    """A daemon that keeps at most 6 MiB for later builds."""
    daemon = new_daemon(extra_config=f"[build]\ncache_bytes = {6 << 20}\n")
    daemon.environment["DOCKER_BUILDKIT"] = "0"
    daemon.start()
    daemon.docker("load", "-i", str(image_archive("busybox")))
    yield daemon
    dispose(daemon)


@pytest.fixture(autouse=True)
def classic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")


def build(daemon: Daemon, context: Path, text: str, *args: str) -> str:
    (context / "Dockerfile").write_text(text)
    return daemon.docker("build", *args, str(context)).stdout


def ask(daemon: Daemon, method: str, path: str) -> dict[str, Any]:
    url = f"http://enisle/v1.47/{path}"
    return dict(json.loads(run("curl", "-gs", "--unix-socket", str(daemon.socket), "-X", method, url).stdout))


def kept(daemon: Daemon) -> list[dict[str, Any]]:
    return list(ask(daemon, "GET", "system/df?type=build-cache")["BuildCache"])


def test_what_is_kept_is_shown_and_pruned_by_filters(own_daemon: Daemon, tmp_path: Path) -> None:
    build(own_daemon, tmp_path, KEEPS.format(size=5), "-t", "result")
    build(own_daemon, tmp_path, KEEPS.format(size=5), "-t", "result")
    assert [entry["UsageCount"] for entry in kept(own_daemon)] == [0, 1, 1, 1]
    (mount,) = [entry for entry in kept(own_daemon) if entry["Type"] == "exec.cachemount"]
    (big,) = [entry for entry in kept(own_daemon) if 5 << 20 <= entry["Size"] < 11 << 20]
    assert mount["Size"] >= 3 << 20 and not mount["Shared"] and not big["Shared"]
    assert big["Parents"] is not None
    assert sum(entry["Shared"] for entry in kept(own_daemon)) == 1  # the one that "result" is
    whole = ask(own_daemon, "GET", "system/df")
    biggest = max(image["Size"] for image in whole["Images"])
    assert biggest <= whole["LayersSize"] < biggest + (64 << 10)  # configs of the steps and of the base
    until = "build/prune?filters=" + '{"until":{"1h":true}}'
    assert ask(own_daemon, "POST", until) == {"CachesDeleted": None, "SpaceReclaimed": 0}
    mounts = ask(own_daemon, "POST", 'build/prune?filters={"type":["exec.cachemount"]}')
    assert mounts["CachesDeleted"] == [mount["ID"]] and mounts["SpaceReclaimed"] >= 3 << 20
    assert ask(own_daemon, "POST", "build/prune?keep-storage=100000000")["CachesDeleted"] is None
    rest = ask(own_daemon, "POST", "build/prune")
    assert 5 << 20 <= rest["SpaceReclaimed"] < 11 << 20 and len(rest["CachesDeleted"]) == 2
    assert [entry["Shared"] for entry in kept(own_daemon)] == [True]
    assert len(ask(own_daemon, "POST", "build/prune?all=1")["CachesDeleted"]) == 1
    assert own_daemon.docker("run", "--rm", "result", "cat", "/p").stdout
    assert "invalid filter" in ask(own_daemon, "POST", 'build/prune?filters={"x":["y"]}')["message"]


def test_what_is_kept_stays_within_its_limit(small_daemon: Daemon, tmp_path: Path) -> None:
    for size in (4, 5):
        build(small_daemon, tmp_path, KEEPS.format(size=size), "-t", "result")
    deadline = time.monotonic() + 20
    while (size := sum(e["Size"] for e in kept(small_daemon) if not e["Shared"])) > 6 << 20:
        assert time.monotonic() < deadline, size
        time.sleep(0.05)
    assert small_daemon.docker("run", "--rm", "result", "cat", "/p").stdout


def test_a_run_that_locks_one_cache_twice_does_not_wait_for_itself(own_daemon: Daemon, tmp_path: Path) -> None:
    mount = "--mount=type=cache,sharing=locked,id=twice,target="
    text = f"FROM busybox\nRUN {mount}/a {mount}/b touch /a/x && ls /b"
    assert "\nx\n" in build(own_daemon, tmp_path, text)


def test_an_image_without_a_name_that_was_asked_for_is_no_mere_step(own_daemon: Daemon, tmp_path: Path) -> None:
    image = build(own_daemon, tmp_path, "FROM busybox\nRUN echo 1 > /1", "-q").strip()
    ask(own_daemon, "POST", "build/prune?all=1")
    assert own_daemon.docker("run", "--rm", image, "cat", "/1").stdout == "1\n"
    own_daemon.docker("image", "prune", "-f")
    assert own_daemon.docker("run", image, check=False).returncode


def test_results_are_borrowed_from_an_image_that_is_trusted(own_daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f").write_text("1")
    text = "FROM busybox\nARG A=1\nENV B=2\nRUN echo $A $(date +%N) > /t\nCOPY sub /s\nWORKDIR /w\nCMD x"
    first = build(own_daemon, tmp_path, text, "-q", "-t", "source")
    own_daemon.docker("save", "-o", str(tmp_path / "saved"), "source")
    own_daemon.docker("rmi", "source")
    own_daemon.docker("load", "-i", str(tmp_path / "saved"))
    (tmp_path / "saved").unlink()
    # What was loaded is no cache by itself, whatever its history says (CVE-2024-24557).
    own_daemon.docker("builder", "prune", "-af")
    assert "Using cache" not in build(own_daemon, tmp_path, text + "\nLABEL a=b")
    own_daemon.docker("image", "prune", "-f")
    assert build(own_daemon, tmp_path, text, "-q", "--cache-from", "source") == first
    own_daemon.docker("builder", "prune", "-af")
    (tmp_path / "sub" / "f").write_text("2")
    assert build(own_daemon, tmp_path, text, "--cache-from", "source").count("Using cache") == 2
    own_daemon.docker("builder", "prune", "-af")
    assert "Using cache" not in build(own_daemon, tmp_path, text, "--no-cache", "--cache-from", "source")
    said = build(own_daemon, tmp_path, text + uuid.uuid4().hex, "--cache-from", "127.0.0.1:1/no/such")
    assert "127.0.0.1:1/no/such is no source of the cache" in said


def test_the_cache_is_whole_after_a_kill(own_daemon: Daemon, tmp_path: Path) -> None:
    text = "FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2"
    build(own_daemon, tmp_path, text, "-t", "result")
    mark = uuid.uuid4().hex
    (tmp_path / "Dockerfile").write_text(f"{text}\nRUN echo {mark} > /3\nRUN echo here; sleep 1000")
    environment = {**os.environ, "DOCKER_HOST": f"unix://{own_daemon.socket}"}
    process = subprocess.Popen(
        ["docker", "build", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        text=True,
    )
    assert process.stdout is not None
    assert any(line == "here\n" for line in process.stdout)
    own_daemon.kill()
    process.wait()
    with (own_daemon.data_root / "build" / "cache").open("a") as file:
        file.write('["put", "cut o')
    own_daemon.start()
    said = build(own_daemon, tmp_path, f"{text}\nRUN cat /1 /2", "-t", "result")
    assert said.count("Using cache") == 2 and "1\n2\n" in said
    assert build(own_daemon, tmp_path, f"{text}\nRUN cat /1 /2").count("Using cache") == 3
