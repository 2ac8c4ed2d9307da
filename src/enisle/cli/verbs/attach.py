"""``enisle attach`` and ``enisle start``."""

from __future__ import annotations

import os

from enisle.cli.command import Command, Context, Failed, warn
from enisle.cli.each import each
from enisle.cli.flags import Options, UsageError, option, switch
from enisle.cli.session import Session, need_terminal
from enisle.cli.verbs.run import finish, start_exit_code
from enisle.errors import Conflict, EnisleError, NotModified

_KEYS = option("detach-keys", "", "keys", "Keys that detach (default: ctrl-p,ctrl-q)")
_PROXY = switch("sig-proxy", "", "Pass signals on to it", default=True)


def attach(context: Context, options: Options, arguments: list[str]) -> int:
    """Take over the streams of a running instance."""
    client = context.client
    details = client.instances.get(arguments[0])
    state = details["State"]
    if not state.get("Running"):
        raise Conflict("cannot attach to a stopped container, start it first")
    if state.get("Paused"):
        raise Conflict("cannot attach to a paused container, unpause it first")
    if state.get("Restarting"):
        raise Conflict("cannot attach to a restarting container, wait until it is running")
    tty = bool(details["Config"].get("Tty"))
    stdin = bool(details["Config"].get("OpenStdin")) and not options.no_stdin
    need_terminal(tty=tty, stdin=stdin)
    instance = details["Id"]
    with _session(context, options, instance, tty=tty, stdin=stdin) as session:
        exited = client.instances.open_wait(instance)
        connection, first = client.instances.attach(
            instance, stdin=stdin, stdout=True, stderr=True, detach_keys=options.detach_keys or ""
        )
        session.fit()
        return finish(session, connection, first, exited)


def start(context: Context, options: Options, arguments: list[str]) -> int:
    """Start instances; with -a or -i a single one, attached."""
    if options.attach or options.interactive:
        if len(arguments) > 1:
            raise UsageError("you cannot start and attach multiple containers at once")
        return _start_attached(context, options, arguments[0])
    keys = options.detach_keys or ""
    return each(arguments, lambda name: context.client.instances.start(name, detach_keys=keys))


def _start_attached(context: Context, options: Options, name: str) -> int:
    client = context.client
    details = client.instances.get(name)
    instance, config = details["Id"], details["Config"]
    tty = bool(config.get("Tty"))
    stdin = bool(options.interactive and config.get("OpenStdin"))
    if tty and stdin:
        need_terminal(tty=True, stdin=True)
    condition = "removed" if details["HostConfig"].get("AutoRemove") else "next-exit"
    if details["State"].get("Running"):
        condition = ""
    with _session(context, options, instance, tty=tty, stdin=stdin) as session:
        connection, first = client.instances.attach(
            instance, stdin=stdin, stdout=True, stderr=True, detach_keys=options.detach_keys or ""
        )
        exited = client.instances.open_wait(instance, condition=condition)
        try:
            client.instances.start(instance)
        except NotModified:
            # It runs already: this is an attach.
            pass
        except EnisleError as error:
            connection.close()
            warn(f"enisle: {error}")
            raise Failed(max(start_exit_code(error), 1)) from error
        session.fit()
        return finish(session, connection, first, exited)


def _session(context: Context, options: Options, instance: str, *, tty: bool, stdin: bool) -> Session:
    instances = context.client.instances
    return Session(
        tty=tty,
        stdin=stdin,
        detach_keys=options.detach_keys or "",
        resize=lambda rows, columns: instances.resize(instance, rows=rows, columns=columns),
        kill=(lambda name: instances.kill(instance, signal=name))
        if options.sig_proxy and not _is_raw(tty, stdin)
        else None,
    )


def _is_raw(tty: bool, stdin: bool) -> bool:
    """Whether Ctrl-C goes to the workload as a key, so that a signal to us is meant for us."""
    return tty and stdin and os.isatty(0)


ATTACH = Command(
    summary="Attach to a running instance",
    usage="[OPTIONS] INSTANCE",
    run=attach,
    flags=(_KEYS, switch("no-stdin", "", "Do not attach STDIN"), _PROXY),
    least=1,
    most=1,
    completes="running",
)

START = Command(
    summary="Start instances that do not run",
    usage="[OPTIONS] INSTANCE [INSTANCE...]",
    run=start,
    flags=(
        switch("attach", "a", "Attach STDOUT and STDERR, and forward signals"),
        _KEYS,
        switch("interactive", "i", "Attach STDIN"),
        switch("sig-proxy", "", "Pass signals on to it", default=True, hidden=True),
    ),
    least=1,
    completes="stopped",
)
