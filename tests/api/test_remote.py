"""Clients that come over the network: TCP with mutual TLS, and SSH."""

from __future__ import annotations

import hashlib
import os
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enisle.errors import Unavailable
from enisle.sdk.client import Client
from tests.certificates import Authority
from tests.daemon import REPOSITORY, Daemon, dispose, image_archive, new_daemon, run, use_guest_cache


class Remote:
    """A daemon that listens on loopback, and how the clients get there."""

    def __init__(self, daemon: Daemon, authority: Authority, port: int) -> None:
        self.daemon = daemon
        self.authority = authority
        self.port = port
        self.certificates = authority.issue("alice")

    def environment(self) -> dict[str, str]:
        host = f"tcp://127.0.0.1:{self.port}"
        named = {"DOCKER_HOST": host, "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(self.certificates)}
        return {**os.environ, **named, "DOCKER_CONFIG": str(self.daemon.root / "docker")}

    def docker(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return run("docker", *words, env=self.environment(), **options)

    def enisle(self, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return run(sys.executable, "-m", "enisle.cli.main", *words, env=self.environment(), **options)

    def context(self, certificates: Path | None, ca: Path | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(ca or self.authority.ca))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        if certificates is not None:
            context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
        return context


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Remote]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    server, port = authority.issue("server", server=True), free_port()
    files = f'ca = "{server}/ca.pem"\ncertificate = "{server}/cert.pem"\nkey = "{server}/key.pem"\n'
    daemon = new_daemon(prefix="r", extra_config=f'[api]\nlisten = ["127.0.0.1:{port}"]\n{files}')
    try:
        use_guest_cache(daemon)
        daemon.start()
        daemon.docker("load", "-i", str(image_archive("busybox")))
        yield Remote(daemon, authority, port)
    finally:
        dispose(daemon)


@pytest.mark.parametrize("client", ["docker", "enisle"])
@pytest.mark.parametrize("runtime", ["runc", "vm"])
def test_a_session_with_its_end_of_input(remote: Remote, client: str, runtime: str) -> None:
    words = ("run", "--rm", "-i", "--runtime", runtime, "busybox", "sh", "-c", "cat; echo end; echo no >&2; exit 3")
    done = getattr(remote, client)(*words, input="one\ntwo\n", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("one\ntwo\nend\n", "no\n", 3)


@pytest.mark.parametrize("client", ["docker", "enisle"])
def test_much_data_both_ways_at_once(remote: Remote, client: str) -> None:
    name = getattr(remote, client)("run", "-d", "busybox", "sleep", "600").stdout.strip()
    try:
        text = "0123456789abcde\n" * (1 << 20)
        done = getattr(remote, client)("exec", "-i", name, "cat", input=text)
        assert hashlib.sha256(done.stdout.encode()).digest() == hashlib.sha256(text.encode()).digest()
        done = getattr(remote, client)("exec", name, "sh", "-c", "head -c 30000000 /dev/zero | tr '\\0' x")
        assert len(done.stdout) == 30_000_000
    finally:
        remote.docker("rm", "-f", name)


def test_who_has_no_certificate_of_ours_is_turned_away(remote: Remote, tmp_path: Path) -> None:
    strangers = Authority(tmp_path / "strangers", "somebody else")
    for certificates in (None, strangers.issue("mallory")):
        with (
            pytest.raises((ssl.SSLError, ConnectionError)),
            socket.create_connection(("127.0.0.1", remote.port), timeout=10) as plain,
            remote.context(certificates).wrap_socket(plain, server_hostname="127.0.0.1") as tls,
        ):
            tls.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
            assert not tls.recv(100)
            raise ConnectionError("closed without a word")
    with socket.create_connection(("127.0.0.1", remote.port), timeout=10) as plain:
        plain.sendall(b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        answer = b""
        while data := plain.recv(1000):
            answer += data
        assert b"HTTP" not in answer
    assert "turned away" in remote.daemon.log
    assert remote.docker("version", "--format", "{{.Server.Version}}").stdout


def test_a_server_of_another_authority_is_not_spoken_to(remote: Remote, tmp_path: Path) -> None:
    other = Authority(tmp_path / "other").issue("alice")
    done = run(
        sys.executable, "-m", "enisle.cli.main", "ps", check=False,
        env={**remote.environment(), "DOCKER_CERT_PATH": str(other)},
    )  # fmt: skip
    assert done.returncode == 1
    assert "certificate verify failed" in done.stderr
    assert "Traceback" not in done.stderr


def test_new_files_serve_new_connections(remote: Remote) -> None:
    server = remote.authority.directory / "server"
    before = (server / "cert.pem").read_bytes(), (server / "key.pem").read_bytes()
    fresh = remote.authority.issue("fresh", server=True)
    try:
        for name in ("cert.pem", "key.pem"):
            os.replace(fresh / name, server / name)
        with (
            socket.create_connection(("127.0.0.1", remote.port), timeout=10) as plain,
            remote.context(remote.certificates).wrap_socket(plain, server_hostname="127.0.0.1") as tls,
        ):
            assert "fresh" in str(tls.getpeercert())
        (server / "cert.pem").write_text("rubbish")
        assert remote.docker("ps", "-q").returncode == 0
    finally:
        (server / "cert.pem").write_bytes(before[0])
        (server / "key.pem").write_bytes(before[1])


def test_a_client_that_hangs_up_ends_its_stream(remote: Remote) -> None:
    name = remote.docker("create", "busybox").stdout.strip()
    command = ["docker", "events", "--since", "1h", "--filter", f"container={name}"]
    process = subprocess.Popen(command, env=remote.environment(), stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert name.encode() in process.stdout.readline()
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()
    remote.docker("rm", name)


def test_tcp_without_certificates_is_refused() -> None:
    daemon = new_daemon(prefix="r", extra_config='[api]\nlisten = ["127.0.0.1:1"]\n')
    try:
        with pytest.raises(AssertionError, match="TCP is served with mutual TLS only"):
            daemon.start()
    finally:
        daemon.process = None
        daemon.extra_config = ""
        dispose(daemon)


@pytest.fixture
def ssh(remote: Remote, tmp_path: Path) -> Iterator[dict[str, str]]:
    """An ssh that logs in here: it runs the command that it would run there."""
    script = tmp_path / "ssh"
    script.write_text(
        "#!/bin/sh\n"
        f'printf "%s\\n" "$*" >>{tmp_path}/calls\n'
        'while [ "$1" != -- ]; do shift; done; shift 3\n'
        f"export ENISLE_HOST=unix://{remote.daemon.socket} PYTHONPATH={REPOSITORY}/src:{REPOSITORY}\n"
        f'exec {sys.executable} -m enisle.cli.main "$@"\n'
    )
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    yield {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "ENISLE_HOST": "ssh://bob@there:2222"}


def test_our_client_comes_by_ssh(ssh: dict[str, str], tmp_path: Path) -> None:
    command = (sys.executable, "-m", "enisle.cli.main", "run", "--rm", "-i", "busybox", "sh", "-c", "cat; exit 4")
    done = run(*command, env=ssh, input="by ssh\n", check=False)
    assert (done.stdout, done.returncode) == ("by ssh\n", 4)
    called = (tmp_path / "calls").read_text().splitlines()[0]
    assert called == "-T -o ConnectTimeout=30 -l bob -p 2222 -- there enisle system dial-stdio"


def test_an_ssh_that_fails_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "ssh"
    script.write_text("#!/bin/sh\necho 'no route to host' >&2\nexit 255\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with Client("ssh://there") as client, pytest.raises(Unavailable, match=r"closed the connection|broke off"):
        client.instances.list()
