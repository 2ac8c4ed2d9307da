"""What ``docker system df`` says, and what prune says it has freed, is what du(1) sees of the data root."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.api.walls import WALLS
from tests.daemon import Daemon, run

RECORDS_BYTES = 128 << 10
"""What is in no figure: the records (images, build cache, state) and the directories that everything lies in."""


def du(path: Path) -> int:
    """Bytes on the disk."""
    return int(run("du", "-sB1", str(path)).stdout.split()[0])


def ask(daemon: Daemon, method: str, path: str) -> dict[str, Any]:
    url = f"http://enisle/v1.47/{path}"
    return dict(json.loads(run("curl", "-gs", "--unix-socket", str(daemon.socket), "-X", method, url).stdout))


def df(daemon: Daemon) -> dict[str, Any]:
    return ask(daemon, "GET", "system/df")


def is_close(figure: int, measured: int) -> bool:
    """Whether a figure is what du says, but for records."""
    return measured - RECORDS_BYTES <= figure <= measured


def freed(daemon: Daemon, *prune: str) -> tuple[int, int]:
    """What du sees going by a command of docker, and what the command says."""
    before = du(daemon.data_root)
    said = daemon.docker(*prune, "-f").stdout
    found = re.search(r"Total.*?:\s*([\d.]+)([kMG]?)B", said)
    assert found, said
    return before - du(daemon.data_root), int(float(found[1]) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[found[2]])


def check_freed(daemon: Daemon, *prune: str, at_least: int) -> None:
    seen, said = freed(daemon, *prune)
    assert seen >= at_least
    assert abs(seen - said) <= RECORDS_BYTES + said // 500, (seen, said)  # docker prints four digits


@pytest.mark.parametrize("kind", list(WALLS))
def test_instances_take_what_their_directories_take(own_daemon: Daemon, kind: str) -> None:
    docker = own_daemon.docker
    script = "head -c 6000000 /dev/urandom > /f; yes 0123456789 | head -c 700000; sync; truncate -s 1G /sparse"
    docker("run", "--name", "one", *WALLS[kind], "busybox", "sh", "-c", script, timeout_s=120)
    (row,) = df(own_daemon)["Containers"]
    assert is_close(row["SizeRw"], du(own_daemon.data_root / "instances"))
    assert row["SizeRw"] >= 6_700_000
    assert row["SizeRootFs"] > row["SizeRw"]
    check_freed(own_daemon, "container", "prune", at_least=6_700_000)


def test_images_take_blobs_layers_and_disks(
    own_daemon: Daemon, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOCKER_BUILDKIT", "0")
    docker, images = own_daemon.docker, own_daemon.data_root / "images"
    docker("run", "--rm", *WALLS["vm"], "busybox", "true", timeout_s=120)  # makes its disk
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN head -c 3000000 /dev/urandom > /a\nRUN echo > /b\nCMD c")
    docker("build", "-q", "-t", "built", str(tmp_path))
    usage = df(own_daemon)
    assert is_close(usage["LayersSize"], du(images))
    assert sorted(tag for row in usage["Images"] for tag in row["RepoTags"]) == ["built:latest", "busybox:latest"]
    base, built = sorted(usage["Images"], key=lambda row: int(row["Size"]))
    assert built["SharedSize"] == base["SharedSize"] > 0
    own = sum(row["Size"] - row["SharedSize"] for row in (base, built))
    assert is_close(own + base["SharedSize"], du(images))
    docker("rmi", "built")
    usage = df(own_daemon)
    steps = sum(entry["Size"] for entry in usage["BuildCache"] if not entry["Shared"])
    assert is_close(usage["LayersSize"] + steps, du(images))
    if steps:
        check_freed(own_daemon, "builder", "prune", at_least=0)
    check_freed(own_daemon, "image", "prune", "-a", at_least=base["Size"] // 2)
    assert df(own_daemon)["LayersSize"] == 0 and du(images) < RECORDS_BYTES


def test_volumes_take_what_their_directories_take(own_daemon: Daemon) -> None:
    docker = own_daemon.docker
    docker("volume", "create", "plain")
    docker("volume", "create", "-o", "size=64m", "limited")
    docker("volume", "create", "-o", "type=tmpfs", "-o", "device=tmpfs", "elsewhere")
    mounts = [word for name in ("plain", "limited", "elsewhere") for word in ("-v", f"{name}:/{name}")]
    fill = "for d in plain limited elsewhere; do head -c 5000000 /dev/urandom > /$d/f; done; truncate -s 1G /plain/big"
    docker("run", "--name", "user", *mounts, "busybox", "sh", "-c", f"{fill}; sync")
    sizes = {row["Name"]: row["UsageData"] for row in df(own_daemon)["Volumes"]}
    for name, usage in sizes.items():
        assert usage == {"Size": du(own_daemon.data_root / "volumes" / name), "RefCount": 1}
    assert sizes["plain"]["Size"] >= 5_000_000 and sizes["limited"]["Size"] >= 5_000_000
    assert sizes["elsewhere"]["Size"] < 10_000
    docker("rm", "user")
    check_freed(own_daemon, "volume", "prune", "-a", at_least=10_000_000)


def test_a_prune_of_everything_says_what_it_freed(own_daemon: Daemon) -> None:
    docker = own_daemon.docker
    fill = "head -c 2000000 /dev/urandom > /f; head -c 3000000 /dev/urandom > /v/f; sync"
    docker("run", "-v", "/v", "busybox", "sh", "-c", fill)
    kept = (
        "run",
        "-d",
        "--name",
        "kept",
        "-v",
        "stays:/v",
        "busybox",
        "sh",
        "-c",
        f"{fill}; touch /done; exec sleep 1000",
    )
    docker(*kept)
    docker("exec", "kept", "sh", "-c", "until [ -e /done ]; do sleep 0.1; done")
    check_freed(own_daemon, "system", "prune", "--volumes", "-a", at_least=5_000_000)
    assert docker("exec", "kept", "wc", "-c", "/v/f").stdout.split()[0] == "3000000"
    assert [row["Names"] for row in df(own_daemon)["Containers"]] == [["/kept"]]
