"""Log drivers by the real docker client, behind either wall."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.walls import WALLS, Wall, wait_until
from tests.daemon import RUNTIMES, Daemon, dispose, image_archive, new_daemon, use_guest_cache

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


class Journal:
    """Takes entries as systemd-journald does."""

    def __init__(self, path: Path) -> None:
        self.entries: list[bytes] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._thread = threading.Thread(target=self._take)
        self._thread.start()

    def _take(self) -> None:
        while data := self._socket.recv(1 << 18):
            self.entries.append(data)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()


@pytest.fixture
def with_journal(tmp_path: Path) -> Iterator[tuple[Daemon, Journal]]:
    daemon = new_daemon(prefix="j", extra_config=RUNTIMES)
    use_guest_cache(daemon)
    journal = Journal(tmp_path / "journal")
    daemon.environment["ENISLE_JOURNAL_SOCKET"] = str(tmp_path / "journal")
    daemon.start()
    daemon.docker("load", "-q", "-i", str(image_archive("busybox")))
    yield daemon, journal
    dispose(daemon)
    journal.close()


def test_the_journal_gets_each_line(with_journal: tuple[Daemon, Journal]) -> None:
    daemon, journal = with_journal
    for kind, flags in WALLS.items():
        journal.entries.clear()
        daemon.docker("run", *flags, "--name", f"told-{kind}", "--log-driver", "journald", "busybox", *MIXED)
        wait_until(lambda: len(journal.entries) == 3)
        texts = [b"\nMESSAGE=out\n", b"\nMESSAGE=err\n", b"\nMESSAGE=end\n"]
        assert all(any(text in entry for entry in journal.entries) for text in texts)
        assert all(f"CONTAINER_NAME=told-{kind}\n".encode() in entry for entry in journal.entries)
