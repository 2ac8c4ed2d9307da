"""Docker's tag Exec."""

from __future__ import annotations

import os
import socket
from typing import Any

from aiohttp import web

from enisle.api.call import Call
from enisle.api.docker.containers import terminal_size
from enisle.api.docker.detach_keys import raw_keys
from enisle.api.docker.request_types import ExecCreateBody, ExecStartBody
from enisle.api.framing import STDOUT, frame
from enisle.api.headread import wait_head_read
from enisle.api.reply import empty, json_response
from enisle.api.router import Route
from enisle.contracts import Connection
from enisle.errors import EnisleError, Invalid
from enisle.model.process import Exec, ExecSpec


async def create(call: Call) -> web.StreamResponse:
    body = await call.body(ExecCreateBody)
    command = (body.cmd,) if isinstance(body.cmd, str) else tuple(body.cmd)
    if not command or not command[0]:
        raise Invalid("No exec command specified")
    for text in (*command, *body.env):
        if "\0" in text:
            raise Invalid("invalid exec command: it holds a NUL character")
    for entry in body.env:
        if not entry or entry.startswith("="):
            raise Invalid(f"invalid environment variable: {entry[:100]}")
    exec_id = await call.engine.execs.create(
        call.name,
        ExecSpec(
            command=command,
            env=tuple(body.env),
            user=body.user,
            cwd=body.working_dir,
            tty=body.tty,
            attach_stdin=body.attach_stdin,
            attach_stdout=body.attach_stdout,
            attach_stderr=body.attach_stderr,
            privileged=body.privileged,
            detach_keys=raw_keys(body.detach_keys),
            console_size=_size(body.console_size),
        ),
    )
    return json_response({"Id": exec_id}, status=201)


async def start(call: Call) -> web.StreamResponse:
    body = await call.body_or_default(ExecStartBody)
    if body.console_size and not body.tty:
        raise Invalid("console size can only be set with a terminal")
    session = await call.engine.execs.check_start(call.name)
    if body.detach:
        await call.engine.execs.start(session.id, None, console_size=_size(body.console_size))
        return empty(200)
    framed = not body.tty
    taken = call.hijack(framed=framed)
    await wait_head_read(taken.fd)
    spare = os.dup(taken.fd)  # the engine owns and closes the other one, even when it fails
    connection = Connection(
        fd=taken.fd,
        stdin=session.spec.attach_stdin,
        stdout=session.spec.attach_stdout,
        stderr=session.spec.attach_stderr,
        framed=framed,
        detach_keys=session.spec.detach_keys,
        initial=taken.initial,
    )
    try:
        await call.engine.execs.start(session.id, connection, console_size=_size(body.console_size))
    except EnisleError as error:
        _tell(spare, f"{error}\r\n".encode(), framed=framed)
    finally:
        os.close(spare)
    return web.Response()


def _tell(fd: int, text: bytes, *, framed: bool) -> None:
    """dockerd writes the failure where the output would have been; clients find the exit code by inspecting.

    A keeper that did not answer in time has the connection as well: shut down, it ends for the client all the same.
    """
    with socket.socket(fileno=os.dup(fd)) as sock:
        sock.setblocking(False)
        try:
            sock.send(frame(STDOUT, text) if framed else text)
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # the client has gone, or reads nothing


def _size(size: list[int]) -> tuple[int, int]:
    return (size[0], size[1]) if len(size) == 2 else (0, 0)


async def resize(call: Call) -> web.StreamResponse:
    rows, columns = terminal_size(call)
    await call.engine.execs.resize(call.name, rows, columns)
    return empty(200)


async def inspect(call: Call) -> web.StreamResponse:
    return json_response(exec_json(call.engine.execs.get(call.name)))


def exec_json(session: Exec) -> dict[str, Any]:
    """What ``GET /exec/{id}/json`` answers."""
    spec = session.spec
    return {
        "ID": session.id,
        "Running": session.running,
        "ExitCode": session.exit_code,
        "ProcessConfig": {
            "tty": spec.tty,
            "entrypoint": spec.command[0],
            "arguments": list(spec.command[1:]),
            "privileged": spec.privileged,
            "user": spec.user,
        },
        "OpenStdin": spec.attach_stdin,
        "OpenStderr": spec.attach_stderr,
        "OpenStdout": spec.attach_stdout,
        "CanRemove": session.exit_code is not None,
        "ContainerID": session.instance,
        "DetachKeys": spec.detach_keys,
        "Pid": session.pid,
    }


ROUTES = [
    Route("POST", "containers/*/exec", create),
    Route("POST", "exec/*/start", start),
    Route("POST", "exec/*/resize", resize),
    Route("GET", "exec/*/json", inspect),
]
