"""What is measured. Each measure takes an engine and a count and gives milliseconds (or KiB), one per round."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from benchmarks.engines import IMAGE, Engine
from benchmarks.http_unix import Api
from benchmarks.pace import paced

_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


def timed(action: Callable[[], object]) -> float:
    """Milliseconds that it takes."""
    begun = time.perf_counter()
    action()
    return (time.perf_counter() - begun) * 1000


def rounds(count: int, action: Callable[[], object], *, rest_s: float = 0.0) -> list[float]:
    """Times of ``count`` rounds, after two that do not count; ``rest_s``: seconds of doing nothing before each."""
    for _ in range(2):
        action()
    found = []
    for _ in paced(count):
        time.sleep(rest_s)
        found.append(timed(action))
    return found


def run_without_network(engine: Engine, count: int) -> list[float]:
    return rounds(count, lambda: engine.run("run", "--rm", "--network", "none", IMAGE, "true"))


def run_with_network(engine: Engine, count: int) -> list[float]:
    return rounds(count, lambda: engine.run("run", "--rm", IMAGE, "true"))


def api_life(engine: Engine, count: int, network: str, *, rest_s: float = 0.0) -> list[float]:
    """create + start + wait + remove over one kept connection; ``rest_s`` as of :func:`rounds`.

    Without a rest an engine is still busy with what it does after an answer, and with making ready for the next.
    """
    api = Api(engine.api_socket)

    def life() -> None:
        instance = api.create(IMAGE, ["true"], NetworkMode=network)
        api.start(instance)
        if api.wait(instance) != 0:
            raise RuntimeError(f"{engine.name}: true failed")
        api.remove(instance)

    return rounds(count, life, rest_s=rest_s)


def cpu_per_life(engine: Engine, count: int) -> list[float]:
    """CPU milliseconds of the engine per life without network: tells more than the clock where others work as well."""
    api = Api(engine.api_socket)
    used = []
    for _ in paced(count):
        before = engine.cpu_ms()
        instance = api.create(IMAGE, ["true"], NetworkMode="none")
        api.start(instance)
        api.wait(instance)
        api.remove(instance)
        used.append(engine.cpu_ms() - before)
    return used


def exec_client(engine: Engine, count: int) -> list[float]:
    """``exec CONTAINER true`` by the client."""
    instance = engine.run("run", "-d", "--network", "none", IMAGE, "sleep", "100000").strip()
    try:
        return rounds(count, lambda: engine.run("exec", instance, "true"))
    finally:
        engine.run("rm", "-f", instance)


def exec_api(engine: Engine, count: int) -> list[float]:
    """exec create + start + output + inspect over the API."""
    api = Api(engine.api_socket)
    instance = api.create(IMAGE, ["sleep", "100000"], NetworkMode="none")
    api.start(instance)
    try:
        return rounds(count, lambda: api.exec(instance, ["true"]))
    finally:
        api.remove(instance, force=True)


def memory_per_container(engine: Engine, _count: int) -> list[float]:
    """KiB of PSS of the engine's own process beside each of 20 idle containers."""
    ids = [engine.run("run", "-d", "--network", "none", IMAGE, "sleep", "100000").strip() for _ in range(20)]
    try:
        time.sleep(1)  # let them settle: garbage collectors and such
        pids = [int(engine.run("inspect", "--format", "{{.State.Pid}}", instance)) for instance in ids]
        return [pss_kib(_attendant(pid, engine.memory_of)) for pid in pids]
    finally:
        engine.run("rm", "-f", *ids)


def pss_kib(pid: int) -> float:
    """The proportional set size of a process (proc(5), smaps_rollup)."""
    match = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
    return float(match[1]) if match else 0.0


def _attendant(pid: int, name: str) -> int:
    """The process that looks after a container: the nearest ancestor of its main process by that name, or, where the
    workload was given to another parent, the one whose command line names the same container."""
    ancestor = pid
    while ancestor > 1:
        stat = Path(f"/proc/{ancestor}/stat").read_text()
        ancestor = int(stat.rpartition(")")[2].split()[1])
        with suppress(OSError):
            if name in Path(f"/proc/{ancestor}/comm").read_text():
                return ancestor
    raise RuntimeError(f"no {name} above process {pid}")


STORM_PHASES = ("start", "list", "remove")


def storm(engine: Engine, count: int, workers: int = 8) -> dict[str, float]:
    """Seconds to start, list and remove ``count`` containers as fast as the machine allows; none may fail."""
    found: dict[str, float] = {}

    def start(_number: int) -> str:
        api = Api(engine.api_socket)
        instance = api.create(IMAGE, ["sleep", "100000"], NetworkMode="bridge")
        api.start(instance)
        return instance

    def remove(instance: str) -> None:
        Api(engine.api_socket).remove(instance, force=True)

    with ThreadPoolExecutor(workers) as pool:
        ids: list[str] = []
        found["start"] = timed(lambda: ids.extend(pool.map(start, range(count)))) / 1000
        found["list"] = timed(lambda: _expect(len(engine.run("ps", "-q").split()), count)) / 1000
        found["remove"] = timed(lambda: list(pool.map(remove, ids))) / 1000
    _expect(len(engine.run("ps", "-aq").split()), 0)
    deadline = time.monotonic() + 20
    while left := engine.leftovers():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{engine.name} left behind: {left[:10]}")
        time.sleep(0.05)
    return found


def _expect(found: int, wanted: int) -> None:
    if found != wanted:
        raise RuntimeError(f"{found} containers, expected {wanted}")


def vm_first_output(engine: Engine, count: int) -> list[float]:
    """From the request to the end of a VM that prints one word."""

    def boot() -> None:
        if engine.run("run", "--rm", "--runtime", "vm", "--network", "none", IMAGE, "echo", "up").strip() != "up":
            raise RuntimeError("the VM said nothing")

    return [timed(boot) for _ in paced(count)]
