"""Lives of containers and images led by clients of a daemon that is killed again and again, and what must be true.

A client remembers what it was answered. After a kill, what was answered holds; a request whose answer never came has
happened or has not, wholly, and is then made again, as a person would. The killer of ``reign`` looks, too, while
nobody else talks to the engine.
"""

from __future__ import annotations

import http.client
import io
import tarfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import docker
import requests
import urllib3
from docker.errors import APIError, NotFound

from tests.daemon import Daemon

LINES = 40
_CUT = (requests.exceptions.RequestException, urllib3.exceptions.HTTPError, http.client.HTTPException, ConnectionError)
_SHORT = (
    f"n=0; while [ $n -lt {LINES} ]; do n=$((n+1)); echo line $n; done; echo $0 > /v/marker; sync; "
    "cat /put/file; exit $1"
)
_LONG = "trap 'exit '$1 TERM; echo $0 > /v/marker; while :; do sleep 0.1; done"


class Gate:
    """Open while the engine may be talked to. Who passes is counted until it leaves."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._open = True
        self._inside = 0
        self.kills = 0

    def __enter__(self) -> None:
        with self._changed:
            while not self._open:
                self._changed.wait()
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._inside -= 1
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._open = False
            self.kills += 1

    def wait_empty(self, within_s: float) -> None:
        """Until every request that was under way has failed or been answered."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._inside, within_s), "requests hang after the kill"

    def open(self) -> None:
        with self._changed:
            self._open = True
            self._changed.notify_all()


@dataclass
class Life:
    """One container, from create to remove, of one client. ``there`` and ``running``: None while it is open."""

    name: str
    code: int
    image: str
    wall: str = ""
    there: bool | None = False
    running: tuple[int, str] | None = None
    began: float = field(default_factory=time.time)

    @property
    def volume(self) -> str:
        return f"{self.name}-v"


@dataclass
class Broken:
    """What there is in place of an answer; false like an answer that is empty because it was cut off."""

    error: Exception

    def __bool__(self) -> bool:
        return False


class Client:
    """Makes requests until each is answered. One per thread."""

    def __init__(self, daemon: Daemon, gate: Gate, registry: str) -> None:
        self._gate = gate
        self._registry = registry
        self.api = docker.APIClient(base_url=f"unix://{daemon.socket}", version="1.47", timeout=120)
        self.lives: list[Life] = []
        self.images: dict[str, bool | None] = {}
        self.retries = 0

    def ask(self, request: Callable[[], Any], happened: Callable[[], Any]) -> Any:
        """Make a request until it is answered, or has ``happened`` although the answer was lost."""
        while True:
            kills, answer = self._try(request)
            if answer:
                return answer
            self._was_killed(kills, answer)
            self.retries += 1
            found = self.look(happened)
            if found:
                return found

    def look(self, question: Callable[[], Any]) -> Any:
        """Ask something that changes nothing, as often as it takes."""
        while True:
            kills, answer = self._try(question)
            if self._gate.kills == kills and not isinstance(answer, Broken):
                return answer
            self._was_killed(kills, answer)

    def _try(self, request: Callable[[], Any]) -> tuple[int, Any]:
        """The number of the reign it was made in, and the answer."""
        with self._gate:
            kills = self._gate.kills
            try:
                return kills, request()
            except APIError:
                raise
            except _CUT as error:
                return kills, Broken(error)

    def _was_killed(self, kills: int, answer: Any) -> None:
        with self._gate:  # closed until the engine is back
            assert self._gate.kills > kills, f"no answer although nobody was killed: {answer!r}"

    # --- what a client does ----------------------------------------------------------------------------------------

    def lead(self, number: int, pulled: str) -> None:
        """One life, its kind by its number."""
        kind = number % 10
        name = f"life{number}"
        if kind in (2, 7):
            image = self._pull(pulled)
        elif kind == 4:
            image = self._build(number)
        else:
            image = "busybox"
        life = Life(name, number % 200, image, wall="vm" if number % 25 == 8 else "")
        self.lives.append(life)
        self._create(life, _LONG if kind % 2 else _SHORT)
        self._put(life)
        self._start(life)
        if kind % 2:
            self._exec(life)
            self._stop(life)
        else:
            self._wait(life)
            self._judge_log(life)
        self._judge_marker(life)
        self._remove(life)
        if image != "busybox":
            self._remove_image(image)

    def _create(self, life: Life, script: str) -> None:
        command = ["sh", "-c", script, life.name, str(life.code)]
        host_config = self.api.create_host_config(
            binds=[f"{life.volume}:/v"], network_mode=None if life.code % 3 else "none", runtime=life.wall or None
        )

        def create() -> Any:
            return self.api.create_container(life.image, command, name=life.name, host_config=host_config)

        life.there = None
        self.ask(create, lambda: self.state(life))
        life.there = True

    def state(self, life: Life) -> dict[str, Any] | None:
        """State as inspect shows it; None when there is no such container."""
        try:
            return dict(self.api.inspect_container(life.name)["State"])
        except NotFound:
            return None

    def _put(self, life: Life) -> None:
        data = archive({"put/file": f"file of {life.name}\n".encode()})
        assert self.ask(lambda: self.api.put_archive(life.name, "/", data), lambda: None)

    def _start(self, life: Life) -> None:
        def begun() -> bool:
            state = self.state(life)
            assert state is not None, f"{life.name} is lost"
            assert state["Status"] in ("created", "running", "exited"), state
            return bool(state["Status"] != "created")

        def start() -> bool:
            try:
                self.api.start(life.name)
            except APIError as error:
                if error.status_code != 304:
                    raise
            return True

        self.ask(start, begun)
        state = self.look(lambda: self.state(life))
        assert state is not None
        if state["Running"]:
            life.running = (state["Pid"], state["StartedAt"])

    def _exec(self, life: Life) -> None:
        def execute() -> dict[str, Any]:
            script = f"grep -q '^file of {life.name}$' /put/file && echo exec >> /v/execs"
            made = self.api.exec_create(life.name, ["sh", "-c", script])
            self.api.exec_start(made["Id"])  # docker-py may lose what is printed: its code is what counts
            return dict(self.api.exec_inspect(made["Id"]))

        found = self.ask(execute, lambda: None)
        assert (found["Running"], found["ExitCode"]) == (False, 0), found

    def _stop(self, life: Life) -> None:
        life.running = None

        def stopped() -> bool:
            state = self.state(life)
            assert state is not None, f"{life.name} is lost"
            return not state["Running"]

        self.ask(lambda: self.api.stop(life.name, timeout=60) or True, stopped)
        self._judge_exit(life)

    def _wait(self, life: Life) -> None:
        life.running = None  # it ends when it likes
        answer = self.ask(lambda: self.api.wait(life.name), lambda: None)
        assert answer["StatusCode"] == life.code, (life, answer)
        self._judge_exit(life)

    def _remove(self, life: Life) -> None:
        def remove(request: Callable[[], Any]) -> bool:
            try:
                request()
            except NotFound:
                pass
            return True

        life.there = None
        self.ask(lambda: remove(lambda: self.api.remove_container(life.name)), lambda: self.state(life) is None)
        life.there = False
        self.ask(lambda: remove(lambda: self.api.remove_volume(life.volume)), lambda: None)

    def _pull(self, tag: str) -> str:
        image = f"{self._registry}/f1:{tag}"
        self.images[image] = None
        self.ask(lambda: list(self.api.pull(image, stream=True, decode=True)) and self.has(image), lambda: None)
        assert self.look(lambda: self.has(image)), f"{image} was pulled and is not there"
        self.images[image] = True
        return image

    def _build(self, number: int) -> str:
        tag = f"built:{number}"
        context = archive(
            {"Dockerfile": b"FROM busybox\nCOPY part /part\nRUN cat /part > /made\n", "part": tag.encode()}
        )

        def build() -> bool:
            lines = list(
                self.api.build(fileobj=io.BytesIO(context), custom_context=True, tag=tag, rm=True, decode=True)
            )
            errors = [line for line in lines if "error" in line]
            assert not errors, errors
            return self.has(tag)

        self.images[tag] = None
        self.ask(build, lambda: None)
        self.images[tag] = True
        return tag

    def _remove_image(self, image: str) -> None:
        def gone() -> bool:
            return not self.has(image)

        self.images[image] = None
        self.ask(lambda: (self.has(image) and self.api.remove_image(image)) or True, gone)
        self.images[image] = False

    def has(self, image: str) -> bool:
        try:
            self.api.inspect_image(image)
        except NotFound:
            return False
        return True

    # --- what must be true -----------------------------------------------------------------------------------------

    def _judge_exit(self, life: Life) -> None:
        state = self.look(lambda: self.state(life))
        assert state is not None, f"{life.name} is lost"
        assert (state["Status"], state["ExitCode"], state["Pid"]) == ("exited", life.code, 0), (life, state)

    def _judge_log(self, life: Life) -> None:
        lines = bytes(self.look(lambda: self.api.logs(life.name))).decode().splitlines()
        expected = [f"line {n}" for n in range(1, LINES + 1)] + [f"file of {life.name}"]
        assert lines == expected, (life, lines)

    def _judge_marker(self, life: Life) -> None:
        data = self.look(lambda: b"".join(self.api.get_archive(life.name, "/v/marker")[0]))
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            member = tar.extractfile("marker")
            assert member is not None
            assert member.read() == f"{life.name}\n".encode()

    def judge(self) -> None:
        """What was answered so far holds; nobody else talks to the engine."""
        listed = {entry["Names"][0][1:]: entry for entry in self.api.containers(all=True)}
        for life in self.lives:
            assert life.there is None or life.there == (life.name in listed), (life, listed.get(life.name))
            if life.running and life.there:
                state = self.state(life)
                assert state is not None
                assert (state["Pid"], state["StartedAt"]) == life.running, (life, state)
                assert listed[life.name]["State"] == "running"
        for image, there in self.images.items():
            assert there is None or there == self.has(image), (image, there)


def archive(files: dict[str, bytes]) -> bytes:
    """A tar of these files."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return sink.getvalue()
