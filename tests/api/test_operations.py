"""The operations of the contract that no other test has a use for. Their answers are checked by the relay."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import APIError, NotFound

from tests.api.contract.description import Operation, operations
from tests.api.contract.http1 import parse_head
from tests.contracts.images_support import docker_registry, htpasswd_auth
from tests.daemon import Daemon

_ELSEWHERE = ("Swarm", "Node", "Service", "Task", "Secret", "Config", "Plugin")


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=f"unix://{daemon.socket}", version="1.47", timeout=60)
    yield made
    made.close()


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("docker")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(str(self._path))


def ask(daemon: Daemon, method: str, path: str, body: object = None) -> tuple[int, bytes]:
    """Status and body of one request."""
    connection = _Unix(daemon.socket)
    headers = {"Content-Type": "application/json"}
    connection.request(method, f"/v1.47{path}", json.dumps(body) if body is not None else None, headers)
    response = connection.getresponse()
    answer = response.read()
    connection.close()
    return response.status, answer


def test_prune_of_each_kind(own_daemon: Daemon) -> None:
    client = docker.DockerClient(base_url=f"unix://{own_daemon.socket}", version="1.47")
    made = client.containers.create("busybox", "true", network_mode="none")
    client.networks.create("unused")
    client.volumes.create("unused")
    assert client.containers.prune()["ContainersDeleted"] == [made.id]
    assert client.networks.prune()["NetworksDeleted"] == ["unused"]
    assert client.volumes.prune({"all": True})["VolumesDeleted"] == ["unused"]
    assert client.containers.prune()["SpaceReclaimed"] == 0
    client.close()


def test_resize(client: docker.DockerClient) -> None:
    container = client.containers.run("busybox", "sleep 1000", tty=True, detach=True, network_mode="none")
    try:
        container.resize(33, 77)
        session = client.api.exec_create(
            container.id, ["sh", "-c", "stty size; read x; stty size"], stdin=True, tty=True
        )
        stream = client.api.exec_start(session["Id"], tty=True, socket=True)
        client.api.exec_resize(session["Id"], 44, 88)
        stream._sock.sendall(b"\n")
        shown = b""
        while data := stream._sock.recv(4096):
            shown += data
        stream.close()
        assert b"44 88" in shown
    finally:
        container.remove(force=True)


def test_attach_by_web_socket(daemon: Daemon, client: docker.DockerClient) -> None:
    container = client.containers.run(
        "busybox", ["sh", "-c", "read x; echo got $x"], stdin_open=True, detach=True, network_mode="none"
    )
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(30)
            sock.connect(str(daemon.socket))
            sock.sendall(
                f"GET /v1.47/containers/{container.id}/attach/ws?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: docker\r\n"
                "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
            )
            reader = sock.makefile("rb")
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += reader.readline()
            assert parse_head(head).status == 101
            sock.sendall(b"\x81\x83\0\0\0\0hi\n")  # one text frame, masked with zeros
            assert reader.read(2 + len("got hi\n")) == b"\x82\x07got hi\n"
        status, answer = ask(daemon, "GET", f"/containers/{container.id}/attach/ws")
        assert status in (400, 409)
        assert b'"message"' in answer
    finally:
        container.remove(force=True)


async def test_registry_operations(client: docker.DockerClient, tmp_path: Path) -> None:
    auth = htpasswd_auth(tmp_path / "registry", "me", "secret")
    async with docker_registry(tmp_path / "registry", auth) as host:
        with pytest.raises(APIError) as caught:
            client.login("me", "wrong", registry=host)
        assert caught.value.status_code == 401
        assert client.login("me", "secret", registry=host)["Status"] == "Login Succeeded"
        client.images.get("busybox").tag(f"{host}/island", "one")
        credentials = {"username": "me", "password": "secret"}
        messages = list(client.images.push(f"{host}/island", "one", auth_config=credentials, stream=True, decode=True))
        pushed = next(message["aux"] for message in messages if "aux" in message)
        data = client.api.inspect_distribution(f"{host}/island:one", auth_config=credentials)
        assert data["Descriptor"]["digest"] == pushed["Digest"]
        assert data["Platforms"]
        client.images.remove(f"{host}/island:one")
        pulled = client.images.pull(f"{host}/island", "one", auth_config=credentials)
        assert pulled.tags == [f"{host}/island:one"] or f"{host}/island:one" in pulled.tags
        client.images.remove(f"{host}/island:one")


def test_refused_operations(daemon: Daemon, client: docker.DockerClient) -> None:
    assert ask(daemon, "GET", "/images/search?term=busybox")[0] == 501
    assert ask(daemon, "POST", "/session")[0] == 400  # nothing to upgrade to
    client.volumes.create("plain")
    assert ask(daemon, "PUT", "/volumes/plain?version=1", {})[0] in (400, 503)
    assert ask(daemon, "PUT", "/volumes/missing?version=1", {})[0] in (400, 404, 503)
    client.volumes.get("plain").remove()


@pytest.mark.parametrize(
    "operation", [pytest.param(each, id=each.name) for each in operations() if each.tag in _ELSEWHERE]
)
def test_swarm_and_plugins_answer_as_a_lone_dockerd(daemon: Daemon, operation: Operation) -> None:
    path = operation.name.split(" ")[1].replace("{id}", "one").replace("{name}", "one")
    status, answer = ask(daemon, operation.method, path, {} if operation.method == "POST" else None)
    assert status in (200, 404, 501, 503)
    if status == 200:
        assert json.loads(answer) == []
    else:
        assert json.loads(answer)["message"]


def test_operations_that_find_nothing(client: docker.DockerClient) -> None:
    for call in (client.containers.get, client.networks.get, client.volumes.get, client.images.get):
        with pytest.raises(NotFound):
            call("never-heard-of")
