"""What users get wrong, and hosts that have run out: clear errors, and nothing half done."""

from __future__ import annotations

import socket

import pytest

from tests.daemon import Daemon, run


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


def test_two_daemons_on_one_root_are_refused(own_daemon: Daemon) -> None:
    done = run(*own_daemon.command, check=False, timeout_s=20)
    assert done.returncode != 0
    assert len(done.stderr.strip().splitlines()) == 1
    assert str(own_daemon.root) in done.stderr
