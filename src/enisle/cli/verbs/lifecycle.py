"""Verbs that change the state of instances: stop, kill, restart, pause, unpause, wait, rm, rename, update."""

from __future__ import annotations

from enisle.cli import values
from enisle.cli.command import Command, Context, warn
from enisle.cli.each import each
from enisle.cli.flags import Flag, Options, UsageError, option, switch
from enisle.cli.instance_body import update_body
from enisle.cli.run_flags import CREATE_FLAGS
from enisle.errors import NotFound

_SIGNAL = option(
    "signal", "s", "signal", "Signal to send", convert=values.signal, choices=("TERM", "INT", "HUP", "KILL")
)
_TIMEOUT = option(
    "timeout", "t", "seconds", "How long to wait before killing it; -1: as long as it takes", convert=values.whole
)
_TIME = option("time", "", "seconds", "Same as --timeout", convert=values.whole, hidden=True)
_MANY = "INSTANCE [INSTANCE...]"


def _timeout(options: Options) -> int | None:
    chosen: int | None = options.timeout if options.timeout is not None else options.time
    return chosen


def stop(context: Context, options: Options, names: list[str]) -> int:
    """Stop each."""
    timeout, signal = _timeout(options), options.signal or ""
    return each(names, lambda name: context.client.instances.stop(name, timeout_s=timeout, signal=signal))


def restart(context: Context, options: Options, names: list[str]) -> int:
    """Restart each."""
    timeout, signal = _timeout(options), options.signal or ""
    return each(names, lambda name: context.client.instances.restart(name, timeout_s=timeout, signal=signal))


def kill(context: Context, options: Options, names: list[str]) -> int:
    """Signal each."""
    return each(names, lambda name: context.client.instances.kill(name, signal=options.signal or ""))


def pause(context: Context, options: Options, names: list[str]) -> int:
    """Freeze each."""
    return each(names, context.client.instances.pause)


def unpause(context: Context, options: Options, names: list[str]) -> int:
    """Let each go on."""
    return each(names, context.client.instances.unpause)


def wait(context: Context, options: Options, names: list[str]) -> int:
    """Print the exit code of each, once it has ended."""

    def one(name: str) -> None:
        answer = context.client.instances.wait(name, condition=options.condition or "")
        if problem := (answer.get("Error") or {}).get("Message"):
            warn(f"enisle: {problem}")
        print(answer.get("StatusCode", 0), flush=True)

    return each(names, one, say=False)


def remove(context: Context, options: Options, names: list[str]) -> int:
    """Remove each."""

    def one(name: str) -> None:
        try:
            context.client.instances.remove(name, force=options.force, volumes=options.volumes, link=options.link)
        except NotFound:
            # With --force what counts is that it is not there.
            if not options.force:
                raise
            warn(f"enisle: No such container: {name}")

    return each(names, one)


def rename(context: Context, options: Options, names: list[str]) -> None:
    """Give it another name."""
    context.client.instances.rename(names[0], names[1])


def update(context: Context, options: Options, names: list[str]) -> int:
    """Change limits of each."""
    changes = update_body(options)
    if not changes:
        raise UsageError("you must provide one or more flags when using this command")

    def one(name: str) -> None:
        for warning in context.client.instances.update(name, changes).get("Warnings") or []:
            warn(f"WARNING: {warning}")

    return each(names, one)


_UPDATABLE = (
    "blkio-weight cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpuset-cpus cpuset-mems cpus memory "
    "memory-reservation memory-swap pids-limit restart"
).split()
_UPDATE_FLAGS: tuple[Flag, ...] = tuple(flag for flag in CREATE_FLAGS if flag.name in _UPDATABLE)

STOP = Command(
    "Stop running instances", _MANY, stop, (_SIGNAL, _TIMEOUT, _TIME), least=1, completes="running",
    long="Sends the instance's stop signal, and kills it when it has not ended after the timeout (10 seconds).",
)  # fmt: skip
RESTART = Command("Restart instances", _MANY, restart, (_SIGNAL, _TIMEOUT, _TIME), least=1, completes="instance")
KILL = Command("Send a signal to running instances (KILL)", _MANY, kill, (_SIGNAL,), least=1, completes="running")
PAUSE = Command("Freeze instances", _MANY, pause, least=1, completes="running")
UNPAUSE = Command("Let frozen instances go on", _MANY, unpause, least=1, completes="running")
WAIT = Command(
    "Wait until instances end, then print their exit codes", _MANY, wait,
    (option("condition", "", "string", "What to wait for", choices=("not-running", "next-exit", "removed")),),
    least=1, completes="running",
)  # fmt: skip
RM = Command(
    "Remove instances", _MANY, remove,
    (
        switch("force", "f", "Kill those that run"),
        switch("link", "l", "Remove the link of that name"),
        switch("volumes", "v", "Remove their anonymous volumes"),
    ),
    least=1, completes="instance",
)  # fmt: skip
RENAME = Command("Give an instance another name", "INSTANCE NAME", rename, least=2, most=2, completes="instance none")
UPDATE = Command(
    "Change limits and the restart policy of instances", "[OPTIONS] " + _MANY, update, _UPDATE_FLAGS,
    least=1, completes="instance",
)  # fmt: skip
