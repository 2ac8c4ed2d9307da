"""testcontainers, which test suites of many projects start their databases with, against a real enisled."""

from __future__ import annotations

import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from testcontainers.core import wait_strategies as waits
from testcontainers.core.config import testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network

from tests.daemon import Daemon

SERVER = "sh -c 'mkdir /www; echo served > /www/index.html; echo begins; exec httpd -f -p 8000 -h /www'"
SLEEP = "sleep 1000"
BOTH_WALLS = pytest.mark.parametrize("runtime", ["runc", "vm"])


@pytest.fixture(autouse=True)
def _environment(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Its reaper (Ryuk) is an image of its own, which these tests cannot pull."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{daemon.socket}")
    disabled = testcontainers_config.ryuk_disabled
    testcontainers_config.ryuk_disabled = True
    yield
    testcontainers_config.ryuk_disabled = disabled


def container(command: str, **options: object) -> DockerContainer:
    """busybox, killed at the end instead of asked to stop."""
    return DockerContainer("busybox", stop_signal="SIGKILL", **options).with_command(command)


def url_of(server: DockerContainer) -> str:
    return f"http://{server.get_container_host_ip()}:{server.get_exposed_port(8000)}/"


@BOTH_WALLS
def test_a_server_is_waited_for(runtime: str) -> None:
    wait = waits.HttpWaitStrategy(8000).for_status_code(200).with_startup_timeout(100)
    with container(SERVER, runtime=runtime).with_exposed_ports(8000).waiting_for(wait) as server:
        with urllib.request.urlopen(url_of(server), timeout=30) as answer:
            assert answer.read() == b"served\n"
        assert server.exec(["cat", "/www/index.html"]).output == b"served\n"
        assert server.get_logs()[0] == b"begins\n"


@pytest.mark.parametrize(
    "wait",
    [waits.PortWaitStrategy(8000), waits.LogMessageWaitStrategy("begins"), waits.ContainerStatusWaitStrategy()],
    ids=["port", "log", "status"],
)
def test_other_things_to_wait_for(wait: waits.WaitStrategy) -> None:
    with container(SERVER).with_exposed_ports(8000).waiting_for(wait.with_startup_timeout(60)) as server:
        assert server.get_exposed_port(8000)


def test_a_health_check_is_waited_for() -> None:
    check = {"test": ["CMD-SHELL", "test -e /ready"], "interval": 100_000_000, "retries": 1000}
    wait = waits.HealthcheckWaitStrategy().with_startup_timeout(60)
    with container("sh -c 'touch /ready; exec sleep 1000'", healthcheck=check).waiting_for(wait) as checked:
        checked.get_wrapped_container().reload()
        assert checked.get_wrapped_container().attrs["State"]["Health"]["Status"] == "healthy"


def test_networks_and_aliases() -> None:
    wait = waits.LogMessageWaitStrategy("begins").with_startup_timeout(60)
    with Network() as network:
        server = container(SERVER).with_network(network).with_network_aliases("server", "other").waiting_for(wait)
        with server, container(SLEEP).with_network(network) as client:
            for name in ("server", "other"):
                script = f"until wget -qO- http://{name}:8000/; do sleep 0.1; done"
                assert client.exec(["sh", "-c", script]).output.endswith(b"served\n")


def test_files_and_environment(tmp_path: Path) -> None:
    with container(SLEEP).with_env("WHO", "it").with_copy_into_container(b"early", "/tmp/early") as held:
        held.copy_into_container(b"late", "/tmp/late")
        assert held.exec(["sh", "-c", "cat /tmp/early /tmp/late; echo $WHO"]).output == b"earlylateit\n"
        held.copy_from_container("/tmp/late", tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == b"late"


def test_an_image_is_built_and_goes_again(daemon: Daemon, tmp_path: Path) -> None:
    tag = f"tc{os.urandom(3).hex()}:1"
    (tmp_path / "Dockerfile").write_text('FROM busybox\nRUN echo built > /f\nCMD ["cat", "/f"]\n')
    with DockerImage(path=str(tmp_path), tag=tag) as image:
        wait = waits.LogMessageWaitStrategy("built").with_startup_timeout(60)
        with DockerContainer(str(image)).waiting_for(wait):
            pass
    assert daemon.docker("images", "-q", tag).stdout == ""
