"""Schemathesis against an enisled of its own: ``python -m tests.api.contract.fuzz [--cases N] [--minutes M]``.

The engine runs in a network namespace of its own with nothing but loopback, so that no invented pull, build or push
gets out. Something to work on is always there: what the requests destroy is made again. Fails when :mod:`judge` has
found a fault, when the engine has died, and when something is left on the host.
"""

from __future__ import annotations

import argparse
import copy
import json
import signal
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, DockerException

from tests.api.contract.description import document
from tests.api.contract.judge import Judge
from tests.daemon import Daemon, dispose, image_archive, new_daemon, use_guest_cache

_LOOP = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done"]
_MAX_INSTANCES = 40  # more are removed, the seeds excepted
_TICK_S = 0.3
_BODIES: dict[str, dict[str, Any]] = {
    "POST /containers/create": {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"NetworkMode": "none"}},
    "POST /containers/{id}/update": {"CpuShares": 512, "RestartPolicy": {"Name": "no"}},
    "POST /containers/{id}/exec": {"Cmd": ["echo", "hello"], "AttachStdout": True},
    "POST /exec/{id}/start": {"Detach": False, "Tty": False},
    "POST /networks/create": {"Name": "fuzzed"},
    "POST /networks/{id}/connect": {"Container": "stopped"},
    "POST /networks/{id}/disconnect": {"Container": "stopped", "Force": True},
    "POST /volumes/create": {"Name": "fuzzed", "Driver": "local"},
    "POST /commit": {"Cmd": ["true"]},
}
"""An example of the body of each operation that has one."""

_SHARDS = (frozenset({"Container", "Exec"}), frozenset())  # by tag; the empty one is the rest
_SETTINGS = """
[phases.coverage]
unexpected-methods = ["PATCH", "OPTIONS", "TRACE", "QUERY"]
"""


Finished = tuple[int, str]


class Seeds:
    """Objects that requests can be about. A thread makes again what is gone."""

    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon
        self._client = docker.DockerClient(base_url=f"unix://{daemon.engine_socket}", version="1.47", timeout=30)
        self._done = threading.Event()
        self.exec_id = ""
        self.long_exec_id = ""
        self._renew()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Seeds:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._client.close()

    def examples(self, path: str) -> list[str]:
        """What a path parameter may stand for."""
        if path == "/exec/{id}/resize":  # one that was never started is waited for: minutes for all cases
            return [self.long_exec_id, "0" * 64]
        if path.startswith("/exec/"):
            return [self.exec_id, "0" * 64]
        for prefix, names in (
            ("/containers/", ["running", "stopped", "missing"]),
            ("/images/", ["busybox", "busybox:latest", "never/heard-of:it"]),
            ("/networks/", ["seednet", "bridge", "missing"]),
            ("/volumes/", ["seedvol", "missing"]),
            ("/distribution/", ["busybox", "localhost:1/none"]),
        ):
            if path.startswith(prefix):
                return names
        return ["missing"]

    def _run(self) -> None:
        while not self._done.wait(_TICK_S):
            with suppress(DockerException, OSError):
                self._renew()

    def _renew(self) -> None:
        api = self._client.api
        if not api.images("busybox"):
            with image_archive("busybox").open("rb") as archive:
                self._client.images.load(archive)
        present = {name: entry for entry in api.containers(all=True) for name in entry["Names"]}
        if len(present) > _MAX_INSTANCES:
            for name in set(present) - {"/running", "/stopped"}:
                with suppress(APIError):
                    api.remove_container(name[1:], force=True, v=True)
        if "/stopped" not in present:
            self._client.containers.create("busybox", "true", name="stopped")
        if "/running" not in present:
            self._client.containers.create("busybox", _LOOP, name="running", network_mode="none", tty=False)
        state = present.get("/running", {}).get("State")
        if state == "paused":
            api.unpause("running")
        if state != "running":
            api.start("running")
        if not self.exec_id:
            self.exec_id = api.exec_create("running", ["true"])["Id"]
            self.long_exec_id = api.exec_create("running", ["sleep", "1000000"])["Id"]
            api.exec_start(self.long_exec_id, detach=True)
        if not api.networks(names=["seednet"]):
            api.create_network("seednet")
        api.create_volume("seedvol")


def prepared(seeds: Seeds, tags: frozenset[str]) -> dict[str, Any]:
    """The description of the operations of these tags (or of no shard's) with our own examples, so that requests get
    past "no such container"."""
    described = copy.deepcopy(document())
    elsewhere = frozenset().union(*_SHARDS)
    for path, item in list(described["paths"].items()):
        for method, operation in list(item.items()):
            tag = operation["tags"][0]
            if tag not in tags and (tags or tag in elsewhere):
                del item[method]
                continue
            if "application/x-tar" in operation.get("consumes", []):  # Schemathesis cannot write that
                operation["consumes"] = ["application/octet-stream"]
            for parameter in operation.get("parameters", []):
                if parameter["in"] == "path":
                    parameter["enum"] = seeds.examples(path)
                    parameter["x-example"] = parameter["enum"][0]
                elif parameter["in"] == "body" and (example := _BODIES.get(f"{method.upper()} {path}")):
                    parameter["schema"]["example"] = example
        if not item:
            del described["paths"][path]
    described["definitions"]["ContainerConfig"]["properties"]["Image"]["enum"] = ["busybox"]
    return described


def run_schemathesis(
    judge: Judge, described: dict[str, Any], *, cases: int, limit_s: float, more: list[str]
) -> Finished:
    """Its exit code and output. What it finds is in ``judge``, too."""
    with tempfile.TemporaryDirectory(prefix="enisle-fuzz-", dir="/var/tmp") as directory:
        Path(directory, "description.json").write_text(json.dumps(described))
        Path(directory, "schemathesis.toml").write_text(_SETTINGS)
        process = subprocess.Popen(
            [
                *(str(Path(sys.executable).with_name("st")), "--config-file", "schemathesis.toml", "run"),
                *("description.json", "--url", f"http://127.0.0.1:{judge.port}/v1.47"),
                *("--checks", "not_a_server_error", "--phases", "examples,coverage,fuzzing,stateful"),
                *("--mode", "all", "--max-examples", str(cases), "--workers", "1"),
                *("--continue-on-failure", "--no-shrink", "--suppress-health-check", "all", "--warnings", "off"),
                *("--generation-database", "none", "--request-timeout", "20", "--no-color", *more),
            ],
            cwd=directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)  # it says how far it has come
            output, _ = process.communicate()
            return 0, f"{output}\nstopped after {limit_s:.0f} s, not all cases were made"
    return process.returncode, output


def run_shards(judge: Judge, seeds: Seeds, *, cases: int, limit_s: float, more: list[str]) -> list[Finished]:
    """A process for each shard: Schemathesis' own workers are threads, which share one interpreter."""
    descriptions = [prepared(seeds, tags) for tags in _SHARDS]
    with ThreadPoolExecutor(len(descriptions)) as pool:
        options = {"cases": cases, "limit_s": limit_s, "more": more}
        runs = [pool.submit(run_schemathesis, judge, each, **options) for each in descriptions]
        return [run.result() for run in runs]


def summary(judge: Judge) -> str:
    """How many answers of each status class, the slowest operations, and the faults."""
    classes: dict[str, int] = {}
    for name, count in judge.answers.items():
        kind = f"{name.rpartition(' ')[2][0]}xx"
        classes[kind] = classes.get(kind, 0) + count
    slowest = sorted(judge.slowest.items(), key=lambda entry: -entry[1])[:5]
    lines = [f"answers: {classes}", "slowest: " + ", ".join(f"{name} {took:.2f} s" for name, took in slowest)]
    for fault, request in judge.faults.items():
        lines += [f"FAULT {fault}", *(f"    {line}" for line in request.splitlines())]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=200, help="per operation")
    parser.add_argument("--minutes", type=float, default=600, help="stop after that, with what was found till then")
    parser.add_argument("--output", type=Path, help="what schemathesis says goes to this file")
    parser.add_argument("more", nargs="*", help="further arguments for schemathesis")
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it, and so would ours
    daemon = new_daemon(prefix="z")
    daemon.prefix = ("unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh")
    use_guest_cache(daemon)
    try:
        daemon.start()
        judge = Judge(daemon.engine_socket)
        with Seeds(daemon) as seeds:
            limit_s = options.minutes * 60
            finished = run_shards(judge, seeds, cases=options.cases, limit_s=limit_s, more=options.more)
        judge.close()
        assert daemon.process is not None
        alive = daemon.process.poll() is None
        if options.output:
            options.output.write_text("\n".join(output for _, output in finished))
            (options.output.parent / "enisled.log").write_text(daemon.log)
        print(*(output[-800:] for _, output in finished), summary(judge), sep="\n")
        print("Traceback in the log" if (broken := "Traceback" in daemon.log) else "no traceback in the log")
        print("the engine is alive" if alive else f"THE ENGINE HAS DIED\n{daemon.log[-4000:]}")
    finally:
        dispose(daemon)
    passed = all(code == 0 for code, _ in finished)
    return 0 if alive and passed and not judge.faults and not broken and judge.answers else 1


if __name__ == "__main__":
    sys.exit(main())
