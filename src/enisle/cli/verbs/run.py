"""``enisle run`` and ``enisle create``."""

from __future__ import annotations

import os
import socket
from typing import Any

from enisle.cli import progress, terminal
from enisle.cli.command import Command, Context, Failed, warn
from enisle.cli.flags import Options, UsageError
from enisle.cli.instance_body import create_body
from enisle.cli.run_flags import CREATE_FLAGS, CREATE_SECTIONS, RUN_FLAGS, RUN_SECTIONS
from enisle.cli.session import End, Session, need_terminal
from enisle.errors import EnisleError, NotFound
from enisle.sdk import images
from enisle.sdk.client import Exchange
from enisle.sdk.credentials import for_image

DAEMON_FAILED = 125  # exit codes of docker run: it could not be run, command not executable, command not found
NOT_EXECUTABLE = 126
NOT_FOUND = 127


def run(context: Context, options: Options, arguments: list[str]) -> int:
    """Create, attach, start, wait."""
    if options.detach and options.attach:
        raise UsageError("conflicting options: cannot specify both --attach and --detach")
    if not options.detach:
        need_terminal(tty=options.tty, stdin=options.interactive)
    try:
        instance, body = _create(context, options, arguments)
    except UsageError:
        raise
    except EnisleError as error:
        warn(f"enisle: {error}")
        raise Failed(DAEMON_FAILED) from error
    if options.detach:
        _start(context, options, instance)
        print(instance)
        return 0
    return _run_attached(context, options, instance, body)


def create(context: Context, options: Options, arguments: list[str]) -> None:
    """Create it and print its id."""
    instance, _ = _create(context, options, arguments)
    print(instance)


def _create(context: Context, options: Options, arguments: list[str]) -> tuple[str, dict[str, Any]]:
    image, *command = arguments
    body = create_body(options, image, command, environ=os.environ)
    if body["Tty"] and (size := terminal.size()):
        body["HostConfig"]["ConsoleSize"] = list(size)
    cidfile = _reserve_cidfile(options.cidfile)
    name, platform = options.name or "", options.platform or ""
    try:
        if options.pull == "always":
            pull(context, image, platform=platform, quiet=options.quiet)
        try:
            created = context.client.instances.create(body, name=name, platform=platform)
        except NotFound as error:
            if options.pull != "missing" or "image" not in str(error).lower():
                raise
            warn(f"Unable to find image '{with_tag(image)}' locally")
            pull(context, image, platform=platform, quiet=options.quiet)
            created = context.client.instances.create(body, name=name, platform=platform)
    except BaseException:
        if cidfile is not None:
            os.close(cidfile)
            os.unlink(options.cidfile)
        raise
    for warning in created.get("Warnings") or []:
        warn(f"WARNING: {warning}")
    if cidfile is not None:
        os.write(cidfile, created["Id"].encode())
        os.close(cidfile)
    return created["Id"], body


def _reserve_cidfile(path: str | None) -> int | None:
    if not path:
        return None
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise UsageError(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        ) from None
    except OSError as error:
        raise UsageError(f"failed to create the container ID file {path}: {error.strerror}") from error


def pull(context: Context, image: str, *, platform: str, quiet: bool) -> None:
    """Fetch an image, with progress on standard error: standard output is the workload's."""
    request = images.pull(image, platform=platform, credentials=for_image(image))
    with context.client.open(request) as exchange:
        progress.follow(exchange.objects(), descriptor=2, quiet=quiet)


def with_tag(image: str) -> str:
    """The name with the tag that is meant when there is none."""
    return image if images.split_reference(image)[1] else f"{image}:latest"


def _start(context: Context, options: Options, instance: str) -> None:
    try:
        context.client.instances.start(instance)
    except EnisleError as error:
        if options.rm:
            remove_quietly(context, instance)
        warn(f"enisle: {error}")
        raise Failed(start_exit_code(error)) from error


def _run_attached(context: Context, options: Options, instance: str, body: dict[str, Any]) -> int:
    client = context.client
    with Session(
        tty=body["Tty"],
        stdin=body["AttachStdin"],
        detach_keys=options.detach_keys or "",
        resize=lambda rows, columns: client.instances.resize(instance, rows=rows, columns=columns),
        kill=(lambda name: client.instances.kill(instance, signal=name)) if options.sig_proxy else None,
    ) as session:
        # Attached, and waiting, before the start: no byte and no exit code of the shortest command is missed.
        connection, first = client.instances.attach(
            instance,
            stdin=body["AttachStdin"],
            stdout=body["AttachStdout"],
            stderr=body["AttachStderr"],
            detach_keys=options.detach_keys or "",
        )
        exited = client.instances.open_wait(instance, condition="removed" if options.rm else "next-exit")
        try:
            _start(context, options, instance)
        except Failed:
            connection.close()
            raise
        session.fit()
        return finish(session, connection, first, exited)


def finish(session: Session, connection: socket.socket, first: bytes, exited: Exchange) -> int:
    """Carry the session to its end; the exit code of the workload, 0 when the user detached."""
    if session.pump(connection, first) is End.DETACHED:
        warn("read escape sequence")
        return 0
    session.await_answer(exited)
    answer = exited.reply().json() or {}
    if problem := (answer.get("Error") or {}).get("Message"):
        warn(f"enisle: {problem}")
        return DAEMON_FAILED
    return int(answer.get("StatusCode", 0))


def remove_quietly(context: Context, instance: str) -> None:
    """Remove what --rm would have removed; it may be gone already."""
    try:
        context.client.instances.remove(instance, force=True, volumes=True)
    except EnisleError:
        return


def start_exit_code(error: EnisleError) -> int:
    """The exit code for a workload that could not be started, told from the daemon's words as Docker's client does."""
    text = str(error).lower()
    if "executable file not found" in text or "no such file or directory" in text:
        return NOT_FOUND
    if "permission denied" in text or "is a directory" in text or "exec format error" in text:
        return NOT_EXECUTABLE
    return DAEMON_FAILED


RUN = Command(
    summary="Create and run a new instance from an image",
    usage="[OPTIONS] IMAGE [COMMAND] [ARG...]",
    run=run,
    flags=RUN_FLAGS,
    sections=RUN_SECTIONS,
    least=1,
    interspersed=False,
    completes="image",
    long="""The instance is a container, or with --vm a virtual machine with a kernel of its own; all else is the same.

The exit code is the command's. 125: it could not be run; 126: the command cannot be executed; 127: it is not there.
Detach from a terminal with Ctrl-P Ctrl-Q.""",
    examples=(
        "enisle run --rm -it debian:12 bash",
        "enisle run --rm --vm -m 512m debian:12 uname -r",
        "enisle run -d --name web -p 8080:80 -v ./site:/srv:ro busybox httpd -f -h /srv",
        "enisle run --rm -i debian:12 sha256sum < file",
    ),
)

CREATE = Command(
    summary="Create a new instance without starting it",
    usage="[OPTIONS] IMAGE [COMMAND] [ARG...]",
    run=create,
    flags=CREATE_FLAGS,
    sections=CREATE_SECTIONS,
    least=1,
    interspersed=False,
    completes="image",
    examples=("enisle create --name job debian:12 sleep 10 && enisle start -a job",),
)
