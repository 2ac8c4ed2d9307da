"""enisled is killed at random moments of many lives led at once, also while it recovers: nothing that was answered is
lost, nothing is done twice, nothing is left over (F1 and F4 of the plan in docs/SECURITY.md)."""

from __future__ import annotations

import io
import json
import logging
import os
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import docker
import pytest

from tests.counts import count, timeout_s
from tests.daemon import Daemon
from tests.faults.lives import Client, Gate, Life, archive
from tests.faults.registry import running_registry

WORKERS = 16
LIVES = count(40, 200)
KILLS = count(6, 20)
KILLS_IN_RECOVERY = count(3, 50)
log = logging.getLogger("tests.faults")
READY_S = 30.0  # five are asked for; a busy machine is no fault


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """docker-registry on loopback."""
    with running_registry(tmp_path) as host:
        yield host


def push_images(daemon: Daemon, registry: str, numbers: range) -> None:
    """An image of some megabytes for each number: busybox and a file of its own."""
    api = docker.APIClient(base_url=f"unix://{daemon.socket}", version="1.47", timeout=120)
    for number in numbers:
        context = archive({"Dockerfile": b"FROM busybox\nCOPY weight /weight\n", "weight": os.urandom(3 << 20)})
        tag = f"{registry}/f1:{number}"
        list(api.build(fileobj=io.BytesIO(context), custom_context=True, tag=tag, decode=True))
        assert not [line for line in api.push(tag, stream=True, decode=True) if "error" in line]
        api.remove_image(tag)
    api.prune_builds()
    api.close()


class Killer:
    """Ends enisled when nobody expects it, and looks whether all is as it was told."""

    def __init__(self, daemon: Daemon, gate: Gate, clients: list[Client], seed: int) -> None:
        self._daemon, self._gate, self._clients = daemon, gate, clients
        self._random = random.Random(seed)
        self.ready_s: list[float] = []

    def kill(self, *, recoveries: int = 0) -> None:
        """One kill; then so many more while it starts again."""
        self._gate.close()
        try:
            self._daemon.kill()
            self._gate.wait_empty(60)
            for _ in range(recoveries):
                self._daemon.launch()
                time.sleep(self._random.uniform(0.0, 0.8))
                self._daemon.kill()
            begun = time.monotonic()
            self._daemon.start(timeout_s=READY_S)
            self.ready_s.append(time.monotonic() - begun)
            for client in self._clients:
                client.judge()
        finally:
            self._gate.open()

    def until(self, work: Future[object], kills: int, recoveries: int) -> None:
        """Kill at random moments until the work is done, ``kills`` times at most."""
        for number in range(kills):
            if wait([work], self._random.uniform(0.1, 2.5), FIRST_EXCEPTION).done:
                break
            self.kill(recoveries=2 if number < recoveries else 0)


@pytest.mark.timeout(timeout_s(400, 3600))
def test_killed_at_any_moment(own_daemon: Daemon, registry: str) -> None:
    seed = int(os.environ.get("ENISLE_TEST_SEED", "0")) or random.randrange(1 << 30)
    log.info("ENISLE_TEST_SEED=%d", seed)
    push_images(own_daemon, registry, range(LIVES // 5 + 1))
    before = kept(own_daemon)
    began = int(time.time())
    gate = Gate()
    clients = [Client(own_daemon, gate, registry) for _ in range(WORKERS)]
    killer = Killer(own_daemon, gate, clients, seed)
    work: list[Future[None]] = []
    turn, numbers = threading.Lock(), iter(range(LIVES))

    def lead(client: Client) -> None:
        while True:
            with turn:
                number = next(numbers, None)
            if number is None or any(each.done() and each.exception() for each in list(work)):
                return
            client.lead(number, str(number // 5))

    with ThreadPoolExecutor(WORKERS + 1) as pool:
        work += [pool.submit(lead, client) for client in clients]
        everything = pool.submit(wait, work, return_when=FIRST_EXCEPTION)
        killer.until(everything, KILLS, KILLS_IN_RECOVERY)
        for done in work:
            done.result()
    retries = sum(client.retries for client in clients)
    log.info("%d kills, %d unanswered, ready after %.1f s at most", gate.kills, retries, max(killer.ready_s))
    judge_events(own_daemon, [life for client in clients for life in client.lives], began)
    assert own_daemon.docker("ps", "-aq").stdout == ""
    assert own_daemon.docker("volume", "ls", "-q").stdout == ""
    own_daemon.docker("builder", "prune", "-af")
    own_daemon.docker("image", "prune", "-f")  # what broken pulls have left to go on from
    assert kept(own_daemon) == before


def kept(daemon: Daemon) -> dict[str, list[str]]:
    """What the data root holds of instances, volumes and images."""
    places = ("instances", "volumes", *(f"images/{part}" for part in ("blobs/sha256", "layers", "staging", "ingest")))
    return {place: sorted(path.name for path in (daemon.data_root / place).iterdir()) for place in places}


def judge_events(daemon: Daemon, lives: list[Life], began: int) -> None:
    """Each life is told from beginning to end, and its end once, with its exit code."""
    told = daemon.docker(
        "events", "--since", str(began), "--until", str(int(time.time()) + 1), "--format", "{{json .}}"
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for line in told.stdout.splitlines():
        event = json.loads(line)
        if event["Type"] == "container":
            found.setdefault(event["Actor"]["Attributes"]["name"], []).append(event)
    for life in lives:
        actions = [event["Action"] for event in found[life.name]]
        assert {"create", "start", "die", "destroy"} <= set(actions), (life, actions)
        codes = [event["Actor"]["Attributes"]["exitCode"] for event in found[life.name] if event["Action"] == "die"]
        assert codes == [str(life.code)], (life, actions)
