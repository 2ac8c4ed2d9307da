"""``enisle exec``."""

from __future__ import annotations

import os

from enisle.cli import terminal
from enisle.cli.command import Command, Context, Failed, warn
from enisle.cli.flags import Options, UsageError, many, option, switch
from enisle.cli.instance_body import exec_body
from enisle.cli.session import End, Session, need_terminal
from enisle.cli.verbs.run import DAEMON_FAILED, start_exit_code
from enisle.errors import EnisleError


def exec_command(context: Context, options: Options, arguments: list[str]) -> int:
    """Run a command inside; its exit code."""
    name, *command = arguments
    if not options.detach:
        need_terminal(tty=options.tty, stdin=options.interactive)
    body = exec_body(options, command, environ=os.environ)
    client = context.client
    size = terminal.size() if options.tty else None
    if size:
        body["ConsoleSize"] = list(size)
    session_id = client.execs.create(name, body)["Id"]
    try:
        if options.detach:
            client.execs.start_detached(session_id, tty=options.tty)
            return 0
        with Session(
            tty=options.tty,
            stdin=options.interactive,
            detach_keys=options.detach_keys or "",
            resize=lambda rows, columns: client.execs.resize(session_id, rows=rows, columns=columns),
        ) as session:
            connection, first = client.execs.start(session_id, tty=options.tty, console_size=size)
            session.fit()
            ended = session.pump(connection, first)
    except EnisleError as error:
        if isinstance(error, UsageError):
            raise
        warn(f"enisle: {error}")
        code = start_exit_code(error)
        raise Failed(1 if code == DAEMON_FAILED else code) from error
    if ended is End.DETACHED:
        warn("read escape sequence")
        return 0
    return int(client.execs.get(session_id).get("ExitCode") or 0)


EXEC = Command(
    summary="Run a command in a running instance",
    usage="[OPTIONS] INSTANCE COMMAND [ARG...]",
    run=exec_command,
    flags=(
        switch("detach", "d", "Run it in the background"),
        option("detach-keys", "", "keys", "Keys that detach (default: ctrl-p,ctrl-q)"),
        many("env", "e", "NAME[=VALUE]", "Set environment variables"),
        many("env-file", "", "file", "Read environment variables from a file", completes="file"),
        switch("interactive", "i", "Keep STDIN open"),
        switch("privileged", "", "All capabilities"),
        switch("tty", "t", "Give it a terminal"),
        option("user", "u", "string", "User and group: NAME|UID[:GROUP|GID]"),
        option("workdir", "w", "path", "Working directory inside"),
    ),
    least=2,
    interspersed=False,
    completes="running file",
    examples=("enisle exec -it web sh", "enisle exec -u 1000 -w /tmp web id"),
)
