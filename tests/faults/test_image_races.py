"""Many clients pull, push, remove and prune the same images at once (F17)."""

from __future__ import annotations

import contextlib
import io
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest
from docker.errors import APIError, NotFound

from tests.counts import count, timeout_s
from tests.daemon import Daemon
from tests.faults.lives import archive
from tests.faults.registry import running_registry


def new_client(daemon: Daemon) -> docker.APIClient:
    return docker.APIClient(base_url=f"unix://{daemon.socket}", version="1.47", timeout=100)


def pull(api: docker.APIClient, image: str) -> list[str]:
    """What went wrong."""
    return [line["error"] for line in api.pull(image, stream=True, decode=True) if "error" in line]


@pytest.fixture
def images(own_daemon: Daemon, tmp_path: Path) -> Iterator[list[str]]:
    """Three images that share a base and a layer, in a registry."""
    with running_registry(tmp_path) as registry:
        api = new_client(own_daemon)
        names = [f"{registry}/race:{number}" for number in range(3)]
        shared = os.urandom(4 << 20)
        for name in names:
            files = {
                "Dockerfile": b"FROM busybox\nCOPY shared /shared\nCOPY own /own\n",
                "shared": shared,
                "own": os.urandom(1 << 20),
            }
            list(api.build(fileobj=io.BytesIO(archive(files)), custom_context=True, tag=name, decode=True))
            assert not [line for line in api.push(name, stream=True, decode=True) if "error" in line]
        for name in names:
            api.remove_image(name)
        api.prune_builds()
        api.prune_images()
        yield names
        api.close()


def test_eight_pull_the_same_and_three_give_up(own_daemon: Daemon, images: list[str]) -> None:
    def give_up(number: int) -> None:
        api = new_client(own_daemon)
        stream = api.pull(images[0], stream=True, decode=True)
        for _ in range(number):
            next(stream)
        stream.close()
        api.close()

    for _ in range(count(2, 20)):
        with ThreadPoolExecutor(8) as pool:
            leaving = [pool.submit(give_up, number + 1) for number in range(3)]
            staying = [pool.submit(pull, new_client(own_daemon), images[0]) for _ in range(5)]
            assert [done.result() for done in staying] == [[]] * 5
            for done in leaving:
                done.result()
        assert own_daemon.docker("run", "--rm", images[0], "ls", "/own").stdout == "/own\n"
        own_daemon.docker("rmi", images[0])


@pytest.mark.timeout(timeout_s(300, 3000))
def test_pull_push_tag_run_remove_and_prune_race(own_daemon: Daemon, images: list[str]) -> None:
    """Whatever there is works; what a container uses is never taken away."""
    own_daemon.docker("pull", "-q", images[0])
    own_daemon.docker("run", "-d", "--name", "holder", images[0], "sh", "-c", "sleep 100000")
    stop, turns = threading.Event(), iter(range(count(60, 500)))
    lock = threading.Lock()

    def run(api: docker.APIClient, image: str) -> None:
        try:
            made = api.create_container(image, ["cat", "/shared", "/own"], host_config=api.create_host_config())
        except NotFound:
            return
        try:
            api.start(made["Id"])
            assert api.wait(made["Id"])["StatusCode"] == 0
        finally:
            api.remove_container(made["Id"], force=True)

    def remove(api: docker.APIClient, image: str) -> None:
        try:
            api.remove_image(image, force=random.random() < 0.3)
        except APIError as error:
            assert error.status_code in (404, 409), error

    def push(api: docker.APIClient, image: str) -> None:
        with contextlib.suppress(NotFound):
            errors = [line["error"] for line in api.push(image, stream=True, decode=True) if "error" in line]
            assert all("does not exist" in error for error in errors), errors

    def get(api: docker.APIClient, image: str) -> None:
        assert pull(api, image) == []

    def prune(api: docker.APIClient, _image: str) -> None:
        api.prune_images(filters={"dangling": False})

    def tag(api: docker.APIClient, image: str) -> None:
        with contextlib.suppress(NotFound):
            api.tag(image, f"other-{random.randrange(3)}")

    def work(seed: int) -> None:
        api, chance = new_client(own_daemon), random.Random(seed)
        while not stop.is_set():
            with lock:
                if next(turns, None) is None:
                    return
            act = chance.choice([get, get, get, run, run, remove, prune, push, tag])
            try:
                act(api, chance.choice(images))
            except BaseException:
                stop.set()
                raise

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(work, time.time_ns() + number) for number in range(6)]:
            done.result()
    assert own_daemon.docker("exec", "holder", "ls", "/own").stdout == "/own\n"
    own_daemon.docker("restart", "-t", "0", "holder")
    for image in images:
        own_daemon.docker("pull", "-q", image)
        assert own_daemon.docker("run", "--rm", image, "ls", "/own", "/shared").stdout == "/own\n/shared\n"
