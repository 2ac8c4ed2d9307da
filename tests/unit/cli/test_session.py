"""The command line on a real terminal (a pty), in a process of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading
from typing import Any

import pytest

from tests.unit.sdk.fake_server import Answer, Asked, FakeServer, frame

ID = "0123456789abcdef" * 4


class OnTerminal:
    """A command whose standard streams are a terminal of 24 rows and 80 columns."""

    def __init__(self, server: FakeServer, *words: str) -> None:
        self.master, slave = pty.openpty()
        self.resize(24, 80)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "enisle.cli.main", *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "ENISLE_HOST": server.host, "PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm"},
            preexec_fn=_own_terminal,
        )
        os.close(slave)
        self.text = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def read_until(self, wanted: bytes) -> None:
        while wanted not in self.text:
            try:
                self.text += os.read(self.master, 4096)
            except OSError:
                raise AssertionError(f"{wanted!r} did not come, but {self.text!r}") from None

    def end(self) -> int:
        code = self.process.wait(20)
        os.close(self.master)
        return code


def _own_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def interactive(server: FakeServer, talk: Any, ended: threading.Event, code: int = 0) -> None:
    def wait(asked: Asked) -> Answer:
        def pieces() -> Any:
            ended.wait(20)
            yield b'{"StatusCode": %d}' % code

        return Answer(pieces=pieces())

    server.on("POST", "/containers/create", Answer(201, {"Id": ID}))
    server.on("POST", f"/containers/{ID}/attach", Answer(hijack=talk))
    server.on("POST", f"/containers/{ID}/wait", wait)
    server.on("POST", f"/containers/{ID}/start", Answer(204))


def test_a_terminal_session_is_raw_resizes_and_gives_the_exit_code(server: FakeServer) -> None:
    ended = threading.Event()
    resized = threading.Event()
    sizes: list[tuple[str, str]] = []

    def on_resize(asked: Asked) -> Answer:
        sizes.append((asked.query["h"], asked.query["w"]))
        if len(sizes) == 2:
            resized.set()
        return Answer()

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"$ ")
        assert connection.recv(10) == b"\x03"  # Ctrl-C is a key, not a signal
        connection.sendall(b"got it\r\n")
        resized.wait(20)
        ended.set()

    interactive(server, talk, ended, code=5)
    server.on("POST", f"/containers/{ID}/resize", on_resize)
    shell = OnTerminal(server, "run", "-it", "debian", "sh")
    shell.read_until(b"$ ")
    shell.type(b"\x03")
    shell.read_until(b"got it")
    shell.resize(30, 100)
    assert shell.end() == 5
    assert sizes == [("24", "80"), ("30", "100")]
    assert server.asked[0].json()["HostConfig"]["ConsoleSize"] == [24, 80]


def test_detach_keys_leave_the_workload_alone(server: FakeServer) -> None:
    closed = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(b"$ ")
        data = b""
        while piece := connection.recv(10):
            data += piece
        assert data == b"a"
        closed.set()

    interactive(server, talk, threading.Event())
    server.on("POST", f"/containers/{ID}/resize", Answer())
    shell = OnTerminal(server, "run", "-it", "debian", "sh")
    shell.read_until(b"$ ")
    shell.type(b"a\x10\x11")
    shell.read_until(b"read escape sequence")
    assert shell.end() == 0
    assert closed.wait(20)
    assert not server.requests("POST", f"/containers/{ID}/kill")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_signals_are_passed_on(server: FakeServer, number: signal.Signals) -> None:
    ended = threading.Event()

    def talk(connection: socket.socket) -> None:
        connection.sendall(frame(1, b"ready\n"))
        ended.wait(20)

    def kill(asked: Asked) -> Answer:
        ended.set()
        return Answer(204)

    interactive(server, talk, ended, code=143)
    server.on("POST", f"/containers/{ID}/kill", kill)
    process = subprocess.Popen(
        [sys.executable, "-m", "enisle.cli.main", "run", "debian"],
        stdout=subprocess.PIPE,
        env={**os.environ, "ENISLE_HOST": server.host, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(number)
    assert process.wait(20) == 143
    process.stdout.close()
    assert server.requests("POST", f"/containers/{ID}/kill")[0].query == {"signal": number.name.removeprefix("SIG")}


def test_a_terminal_is_needed_for_it(server: FakeServer) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "enisle.cli.main", "run", "-it", "debian"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, "ENISLE_HOST": server.host, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, "the input device is not a TTY\n")
    assert not server.asked


def test_a_reader_that_goes_away_is_no_failure(server: FakeServer) -> None:
    server.on("GET", "/containers/x/json", {"Id": ID, "Config": {"Tty": True}})
    server.on("GET", f"/containers/{ID}/logs", Answer(pieces=[b"x\n" * 1000] * 1000))
    process = subprocess.Popen(
        [sys.executable, "-m", "enisle.cli.main", "logs", "x"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "ENISLE_HOST": server.host, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(20) == 141
