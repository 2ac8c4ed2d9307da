"""What users get wrong, and hosts that have run out: clear errors, and nothing half done."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, image_archive, new_daemon, run


def test_name_in_use(daemon: Daemon) -> None:
    daemon.docker("create", "--name", "taken", "busybox")
    done = daemon.docker("create", "--name", "taken", "busybox", check=False)
    assert done.returncode == 1
    assert 'The container name "/taken" is already in use by container' in done.stderr
    daemon.docker("rm", "taken")


def test_port_in_use(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = daemon.docker("run", "--name", "ported", "-p", f"127.0.0.1:{port}:80", "busybox", "true", check=False)
    assert done.returncode == 125
    assert "address already in use" in done.stderr or "port is already allocated" in done.stderr
    assert daemon.docker("inspect", "-f", "{{.State.Status}}", "ported").stdout == "created\n"
    daemon.docker("rm", "ported")


@pytest.mark.parametrize("reference", ["UPPER", "a b", "x@sha256:12", "-", "a//b", "busybox:" + "t" * 200])
def test_malformed_reference(daemon: Daemon, reference: str) -> None:
    done = daemon.docker("pull", reference, check=False)
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/containers/create", "{", 400),
        ("/containers/create", '{"Image": 5}', 400),
        ("/containers/create", "[]", 400),
        ("/containers/none/start", "", 404),
        ("/containers/create?name=a/b", '{"Image":"busybox"}', 400),
        ("/no/such/route", "", 404),
    ],
)
def test_bad_bodies_get_dockers_status(daemon: Daemon, path: str, body: str, status: int) -> None:
    done = run(
        *("curl", "-sS", "--unix-socket", str(daemon.socket), "-X", "POST", "-H", "Content-Type: application/json"),
        *("-d", body, "-w", "\n%{http_code}", f"http://localhost/v1.47{path}"),
    )
    answer, code = done.stdout.rsplit("\n", 1)
    assert int(code) == status, answer
    assert answer.startswith('{"message":'), answer


def test_a_start_that_fails_of_the_unforeseen_leaves_no_client_waiting(daemon: Daemon) -> None:
    """Its directory is a file: nobody has thought of that."""
    instance = daemon.docker("create", "--name", "hurt", "busybox", "echo", "well").stdout.strip()
    directory = daemon.data_root / "instances" / instance
    aside = directory.with_name("aside")
    directory.rename(aside)
    directory.write_text("")
    try:
        done = daemon.docker("start", "-a", "hurt", check=False, timeout_s=30)
        assert done.returncode == 1
        assert "Error response from daemon" in done.stderr
    finally:
        directory.unlink()
        aside.rename(directory)
    assert daemon.docker("start", "-a", "hurt").stdout == "well\n"
    daemon.docker("rm", "hurt")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Daemon]:
    """A daemon whose data root is a file system of 160 MB."""
    image = tmp_path / "disk"
    with image.open("wb") as file:
        file.truncate(160 << 20)
    run("mkfs.ext4", "-q", str(image))
    made = new_daemon(prefix="s")
    made.data_root.mkdir(mode=0o700)
    run("mount", "-o", "loop", str(image), str(made.data_root))
    try:
        made.start()
        made.docker("load", "-q", "-i", str(image_archive("busybox")))
        yield made
    finally:
        made.remove_everything()
        run("umount", str(made.data_root))
        dispose_quietly(made)


def dispose_quietly(daemon: Daemon) -> None:
    assert daemon.process is None
    assert daemon.census() == {}
    subprocess.run(["rm", "-rf", str(daemon.root)], check=True)


def test_full_data_root(small_disk: Daemon) -> None:
    daemon = small_disk
    fill = daemon.docker(
        "run", "--name", "filler", "busybox", "dd", "if=/dev/zero", "of=/fill", "bs=1M", check=False, timeout_s=120
    )
    assert "No space left on device" in fill.stderr
    assert daemon.docker("ps", "-a", "--format", "{{.Names}}").stdout == "filler\n"
    pulled = daemon.docker("load", "-q", "-i", str(image_archive("debian:12")), check=False, timeout_s=120)
    assert pulled.returncode != 0
    assert "no space left on device" in pulled.stderr.lower()
    daemon.docker("rm", "-f", "filler")
    assert daemon.docker("run", "--rm", "busybox", "echo", "works").stdout == "works\n"


def test_two_daemons_on_one_root_are_refused(own_daemon: Daemon) -> None:
    done = run(*own_daemon.command, check=False, timeout_s=20)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(own_daemon.root) in done.stderr
