"""Log drivers by the real docker client, behind either wall."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.walls import WALLS, Wall, wait_until
from tests.daemon import RUNTIMES, Daemon, dispose, image_archive, new_daemon, run, use_guest_cache

MIXED = ("sh", "-c", "echo out; echo err >&2; printf end")


def test_local_log(wall: Wall) -> None:
    docker = wall.daemon.docker
    name = wall.name("local")
    wall.run("--name", name, "--log-driver", "local", "busybox", *MIXED)
    again = docker("logs", name)
    assert (again.stdout, again.stderr) == ("out\nend", "err\n")
    assert wall.inspect(name, "{{.HostConfig.LogConfig.Type}} {{.LogPath}}") == "local"
    stamped = docker("logs", "-t", "--tail", "1", name).stdout + docker("logs", "-t", "--tail", "1", name).stderr
    assert "T" in stamped.split()[0]
    since = docker("logs", "-t", name).stdout.splitlines()[0].split()[0]
    assert docker("logs", "--since", since, name).stdout == "out\nend"
    assert docker("logs", "--until", "2020-01-01", name).stdout == ""


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_rotated_logs_are_read_as_one(wall: Wall, driver: str) -> None:
    docker = wall.daemon.docker
    name = wall.name("rotated")
    wanted = ("max-size=40k", "max-file=3", "compress=true")
    options = ("--log-driver", driver, *(word for option in wanted for word in ("--log-opt", option)))
    script = "i=0; while [ $i -lt 4000 ]; do i=$((i+1)); echo line $i of many; done"
    wall.run("-d", "--name", name, *options, "busybox", "sh", "-c", script)
    followed = docker("logs", "-f", name).stdout.splitlines()
    assert followed[-1] == "line 4000 of many"
    docker("wait", name)
    lines = docker("logs", name).stdout.splitlines()
    assert lines == [f"line {number} of many" for number in range(4001 - len(lines), 4001)]
    assert 500 < len(lines) < 4000
    assert docker("logs", "--tail", "700", name).stdout.splitlines() == lines[-700:]
    directory = wall.daemon.data_root / "instances" / wall.inspect(name, "{{.Id}}")
    files = sorted(path.name.partition(".log")[2] for path in directory.glob("*.log*"))
    assert files == ["", ".1.gz", ".2.gz"]
    assert all(path.stat().st_size < 42 << 10 for path in directory.glob("*.log*"))


def test_details_and_attributes(wall: Wall) -> None:
    name = wall.name("details")
    options = ("labels=team", "env=STAGE", "tag={{.Name}}", "mode=non-blocking", "max-buffer-size=2m")
    flags = [word for option in options for word in ("--log-opt", option)]
    wall.run("--name", name, *flags, "-l", "team=blue", "-e", "STAGE=live", "busybox", "echo", "said")
    shown = wall.daemon.docker("logs", "--details", name).stdout
    assert shown == f"STAGE=live,tag={name},team=blue said\n"


def test_no_log(wall: Wall) -> None:
    name = wall.name("nolog")
    assert wall.run("--name", name, "--log-driver", "none", "busybox", *MIXED).stdout == "out\nend"
    refused = wall.daemon.docker("logs", name, check=False)
    assert refused.stderr.strip().endswith("configured logging driver does not support reading")


@pytest.mark.parametrize(
    ("driver", "option", "words"),
    [
        ("splunk", "a=b", "logger: no log driver named 'splunk' is registered"),
        ("local", "tag=x", "unknown log opt 'tag' for local log driver"),
        ("json-file", "max-file=0", "max-file cannot be less than 1"),
    ],
)
def test_refused(daemon: Daemon, driver: str, option: str, words: str) -> None:
    for flags in WALLS.values():
        done = daemon.docker("create", *flags, "--log-driver", driver, "--log-opt", option, "busybox", check=False)
        assert words in done.stderr


def test_a_flood_ends_and_leaves_what_is_allowed(wall: Wall) -> None:
    name = wall.name("flood")
    flood = "head -c 60000000 /dev/zero | tr '\\0' x; echo; yes flood | head -n 300000"
    wall.run("-d", "--name", name, "--log-opt", "max-size=1m", "--log-opt", "max-file=2", "busybox", "sh", "-c", flood)
    pid = int(wall.inspect(name, "{{.State.Pid}}"))
    peak = 0
    while wall.inspect(name, "{{.State.Running}}") == "true":
        peak = max(peak, keeper_bytes(pid))
    assert wall.inspect(name, "{{.State.ExitCode}}") == "0"
    assert peak < 60 << 20, "the keeper holds what it should have written"
    directory = wall.daemon.data_root / "instances" / wall.inspect(name, "{{.Id}}")
    assert sum(path.stat().st_size for path in directory.glob("*.log*")) < 3 << 20
    assert wall.daemon.docker("logs", "--tail", "1", name).stdout == "flood\n"


def keeper_bytes(pid: int) -> int:
    """Resident memory of the parent of a workload's process; 0 when it has gone."""
    try:
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()[1])
        return int(Path(f"/proc/{parent}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


_JOURNALD = "/lib/systemd/systemd-journald"
_JOURNAL_SETUP = f"""
mkdir -p /run/systemd /run/log
mount -t tmpfs none /run/systemd && mount -t tmpfs none /run/log && mkdir -p /run/systemd/journal /run/log/journal
mkdir /run/systemd/journald.conf.d && printf '[Journal]\\nStorage=volatile\\nRateLimitBurst=0\\n' \
    > /run/systemd/journald.conf.d/test.conf
echo 0123456789abcdef0123456789abcdef > /run/systemd/machine-id
[ -e /etc/machine-id ] || : > /etc/machine-id
mount --bind /run/systemd/machine-id /etc/machine-id
exec {_JOURNALD}
"""


@pytest.fixture
def with_journal() -> Iterator[Daemon]:
    """A daemon in a mount namespace that has a systemd-journald of its own."""
    journal = subprocess.Popen(["unshare", "--mount", "sh", "-ec", _JOURNAL_SETUP], stderr=subprocess.DEVNULL)
    daemon = new_daemon(prefix="j", extra_config=RUNTIMES)
    daemon.prefix = ("nsenter", f"--mount=/proc/{journal.pid}/ns/mnt")
    use_guest_cache(daemon)
    try:
        wait_until(lambda: Path(f"/proc/{journal.pid}/root/run/systemd/journal/socket").is_socket())
        daemon.start()
        daemon.docker("load", "-q", "-i", str(image_archive("busybox")))
        yield daemon
    finally:
        dispose(daemon)
        journal.terminate()
        journal.wait()


def test_the_journal_gets_each_line(with_journal: Daemon) -> None:
    docker = with_journal.docker
    for kind, flags in WALLS.items():
        name = f"told-{kind}"
        options = ("--log-opt", "tag={{.Name}}/{{.ImageName}}", "--log-opt", "labels=colour", "--label", "colour=red")
        docker("run", *flags, "--name", name, "--log-driver", "journald", *options, "busybox", *MIXED)
        wait_until(lambda name=name: docker("logs", "--tail", "1", name).stdout == "end")  # type: ignore[misc]
        assert (docker("logs", name).stdout, docker("logs", name).stderr) == ("out\nend", "err\n")
        assert "COLOUR=red out" in docker("logs", "--details", name).stdout
        entries = [json.loads(line) for line in journalctl(with_journal, f"CONTAINER_NAME={name}").splitlines()]
        seen = {(entry["MESSAGE"], entry["PRIORITY"], entry.get("CONTAINER_PARTIAL_MESSAGE")) for entry in entries}
        assert seen == {("out", "6", None), ("err", "3", None), ("end", "6", "true")}
        full = docker("inspect", "-f", "{{.Id}}", name).stdout.strip()
        for entry in entries:
            assert (entry["CONTAINER_ID"], entry["CONTAINER_ID_FULL"], entry["COLOUR"]) == (full[:12], full, "red")
            assert entry["CONTAINER_TAG"] == entry["SYSLOG_IDENTIFIER"] == f"{name}/busybox"
            assert entry["IMAGE_NAME"] == "busybox"


def test_a_journal_is_followed_to_the_end(with_journal: Daemon) -> None:
    docker = with_journal.docker
    script = "seq 3000; head -c 40000 /dev/zero | tr '\\0' x; echo; sleep 1; echo last"
    docker("run", "-d", "--name", "long", "--log-driver", "journald", "busybox", "sh", "-c", script)
    docker("rename", "long", "renamed")
    whole = "".join(f"{n}\n" for n in range(1, 3001)) + "x" * 40000 + "\nlast\n"
    assert docker("logs", "-f", "renamed").stdout == whole
    assert docker("logs", "renamed").stdout == whole
    last = docker("logs", "-t", "--tail", "1", "renamed").stdout.split()
    assert last[1] == "last" and docker("logs", "--since", last[0], "renamed").stdout == "last\n"
    docker("rm", "renamed")


def journalctl(daemon: Daemon, match: str) -> str:
    return run(*daemon.prefix, "journalctl", "-o", "json", "--all", match).stdout
