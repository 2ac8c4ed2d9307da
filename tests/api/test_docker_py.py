"""docker-py, the other client that everybody uses, against a real enisled."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import tarfile
import threading
from collections.abc import Callable, Iterator

import docker
import pytest
from docker.errors import APIError, ImageNotFound, NotFound
from docker.types import Mount, Ulimit
from docker.utils.socket import frames_iter

from tests.daemon import Daemon

Containers = Callable[..., "docker.models.containers.Container"]


@pytest.fixture
def client(daemon: Daemon) -> Iterator[docker.DockerClient]:
    made = docker.DockerClient(base_url=f"unix://{daemon.socket}", version="1.47", timeout=60)
    yield made
    made.close()


@pytest.fixture
def run(client: docker.DockerClient) -> Iterator[Containers]:
    """Run busybox in the background; removed at the end."""
    made = []

    def start(command: str | list[str] = "sleep 1000", **options: object) -> docker.models.containers.Container:
        options = {"network_mode": "none", "name": f"py-{os.urandom(4).hex()}", **options}
        made.append(client.containers.create("busybox", command, **options))
        made[-1].start()
        return made[-1]

    yield start
    for container in made:
        with contextlib.suppress(NotFound):  # removed by the test itself
            container.remove(force=True, v=True)


def test_output_and_failure(client: docker.DockerClient) -> None:
    assert client.containers.run("busybox", "echo hello", remove=True, network_mode="none") == b"hello\n"
    with pytest.raises(docker.errors.ContainerError) as caught:
        client.containers.run("busybox", ["sh", "-c", "echo bad >&2; exit 9"], remove=True, network_mode="none")
    assert (caught.value.exit_status, caught.value.stderr) == (9, b"bad\n")


def test_missing_image(client: docker.DockerClient) -> None:
    with pytest.raises(ImageNotFound, match="No such image"):
        client.images.get("never-heard-of")
    with pytest.raises(NotFound, match="No such container"):
        client.containers.get("never-heard-of")


def test_spec_comes_back(run: Containers) -> None:
    container = run(
        environment={"A": "b"},
        labels={"x": "y"},
        mem_limit="64m",
        nano_cpus=500_000_000,
        ulimits=[Ulimit(name="nofile", soft=100, hard=200)],
        mounts=[Mount("/scratch", None, type="tmpfs", tmpfs_size=1 << 20)],
        cap_drop=["ALL"],
        hostname="island",
        user="1000:1000",
        working_dir="/tmp",
        stop_signal="SIGINT",
        init=True,
    )
    container.reload()
    config, host = container.attrs["Config"], container.attrs["HostConfig"]
    assert "A=b" in config["Env"]
    assert (config["Hostname"], config["User"], config["WorkingDir"]) == ("island", "1000:1000", "/tmp")
    assert (host["Memory"], host["NanoCpus"], host["CapDrop"], host["Init"]) == (64 << 20, 500_000_000, ["ALL"], True)
    assert host["Ulimits"] == [{"Name": "nofile", "Soft": 100, "Hard": 200}]
    shown = container.exec_run(["sh", "-c", "hostname; pwd; id -u; ulimit -n; df -k /scratch | tail -1"])
    lines = shown.output.decode().split("\n")
    assert lines[:4] == ["island", "/tmp", "1000", "100"]
    assert lines[4].split()[1] == "1024"


def test_exec_streams_apart(run: Containers) -> None:
    container = run()
    done = container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 4"], demux=True)
    assert (done.exit_code, done.output) == (4, (b"out\n", b"err\n"))


def test_exec_with_input_and_half_close(client: docker.DockerClient, run: Containers) -> None:
    container = run()
    session = client.api.exec_create(container.id, "cat", stdin=True)
    stream = client.api.exec_start(session["Id"], socket=True)
    raw: socket.socket = stream._sock
    raw.sendall(b"typed")
    raw.shutdown(socket.SHUT_WR)
    assert b"".join(data for _, data in frames_iter(stream, tty=False)) == b"typed"
    stream.close()
    assert client.api.exec_inspect(session["Id"])["ExitCode"] == 0


def test_exec_of_a_missing_command(run: Containers) -> None:
    done = run().exec_run("never-heard-of")
    assert done.exit_code == 127
    assert b"executable file not found" in done.output


def test_attach_socket(run: Containers) -> None:
    container = run(["sh", "-c", "read x; echo got $x"], stdin_open=True)
    stream = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    stream._sock.sendall(b"line\n")
    assert b"".join(data for _, data in frames_iter(stream, tty=False)) == b"got line\n"
    stream.close()


def test_logs_follow_to_the_end(run: Containers) -> None:
    container = run(["sh", "-c", "for i in 1 2 3; do echo $i; sleep 0.1; done"])
    assert b"".join(container.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    assert container.logs(tail=1) == b"3\n"
    assert container.logs(timestamps=True).split(b" ")[1].startswith(b"1\n")


def test_wait_and_state(run: Containers) -> None:
    container = run(["sh", "-c", "exit 6"])
    assert container.wait()["StatusCode"] == 6
    container.reload()
    assert (container.status, container.attrs["State"]["ExitCode"]) == ("exited", 6)


def test_life(run: Containers, client: docker.DockerClient) -> None:
    container = run()
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.rename(f"{container.name}-b")
    container.update(mem_limit="32m", memswap_limit="32m")
    container.restart(timeout=0)
    container.reload()
    assert container.attrs["HostConfig"]["Memory"] == 32 << 20
    assert container.top()["Processes"][0][-1] == "sleep 1000"
    assert container.stats(stream=False)["memory_stats"]["limit"] == 32 << 20
    container.kill()
    container.wait()
    with pytest.raises(APIError) as caught:
        container.kill()
    assert caught.value.status_code == 409


def test_archives(run: Containers) -> None:
    container = run()
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        entry = tarfile.TarInfo("note")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"hello"))
    assert container.put_archive("/tmp", data.getvalue())
    chunks, stat = container.get_archive("/tmp/note")
    assert (stat["name"], stat["size"]) == ("note", 5)
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        member = archive.extractfile("note")
        assert member is not None
        assert member.read() == b"hello"
    assert {"Path": "/tmp/note", "Kind": 1} in container.diff()


def test_commit_and_save(run: Containers, client: docker.DockerClient) -> None:
    container = run()
    container.exec_run("touch /made")
    name = f"py{os.urandom(4).hex()}"
    image = container.commit(repository=name, tag="one", changes='CMD ["ls", "/made"]')
    try:
        assert image.tags == [f"{name}:one"]
        assert client.containers.run(f"{name}:one", remove=True, network_mode="none") == b"/made\n"
        assert sum(len(chunk) for chunk in image.save()) > 1 << 20
    finally:
        client.images.remove(image.id, force=True)


def test_events_tell_a_life(run: Containers, client: docker.DockerClient) -> None:
    name = f"py-{os.urandom(4).hex()}"
    events = client.events(decode=True, filters={"container": name, "type": "container"})
    seen: list[str] = []

    def listen() -> None:
        for event in events:
            seen.append(event["Action"])
            if event["Action"] == "die":
                return

    listener = threading.Thread(target=listen)
    listener.start()
    run("true", name=name).wait()
    listener.join(20)
    events.close()
    assert seen == ["create", "start", "die"]


def test_networks_and_volumes(client: docker.DockerClient, run: Containers) -> None:
    name = f"py{os.urandom(3).hex()}"
    network = client.networks.create(name, labels={"a": "b"})
    volume = client.volumes.create(name, labels={"a": "b"})
    try:
        server = run(network_mode=None, network=name, volumes={name: {"bind": "/data", "mode": "rw"}}, name=f"{name}-s")
        server.exec_run(["sh", "-c", "echo kept > /data/f"])
        network.reload()
        assert [container.name for container in network.containers] == [f"{name}-s"]
        answer = client.containers.run("busybox", f"ping -c1 -W5 {name}-s", network=name, remove=True)
        assert b"1 packets received" in answer
        read = client.containers.run(
            "busybox", "cat /data/f", volumes=[f"{name}:/data:ro"], remove=True, network_mode="none"
        )
        assert read == b"kept\n"
        with pytest.raises(APIError, match="volume is in use"):
            volume.remove()
        server.remove(force=True)
    finally:
        network.remove()
        volume.remove(force=True)


def test_info_and_version(client: docker.DockerClient) -> None:
    assert client.ping()
    assert client.version()["ApiVersion"] == "1.47"
    assert client.info()["OSType"] == "linux"
    assert {"Images", "Containers", "Volumes"} <= set(client.df())


def test_no_output_is_lost_however_fast_it_comes(run: Containers) -> None:
    """docker-py reads the head of a hijacked answer through a buffer, and past it what follows."""
    container = run()
    assert [container.exec_run(["echo", str(each)]).output for each in range(50)] == [
        b"%d\n" % each for each in range(50)
    ]
    short = run(["echo", "logged"])
    short.wait()
    for _each in range(20):
        stream = short.attach_socket(params={"stdout": 1, "logs": 1})
        assert b"".join(data for _, data in frames_iter(stream, tty=False)) == b"logged\n"
        stream.close()


def test_a_log_is_there_right_after_a_short_run(run: Containers) -> None:
    assert [run(["echo", str(each)]).logs() for each in range(5)] == [b"%d\n" % each for each in range(5)]
