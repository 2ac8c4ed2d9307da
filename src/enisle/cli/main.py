"""``enisle``: read the command line, run the verb, turn failures into one sentence and an exit code."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Sequence

from enisle.cli import tree
from enisle.cli.command import Command, Context, Failed, warn
from enisle.cli.flags import Flag, UsageError, nearest, option, parse, switch
from enisle.errors import EnisleError

USAGE_EXIT_CODE = 125  # what Docker's client ends with when the command line is wrong
_UNWRITABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

GLOBAL_FLAGS: tuple[Flag, ...] = (
    option("host", "H", "address", "The daemon's address (default: ENISLE_HOST, DOCKER_HOST, /run/enisle/enisle.sock)"),
    switch("debug", "D", "Show the traceback of an unexpected failure"),
    option("config", "", "directory", "Where config.json with credentials is (default: ~/.docker)", completes="file"),
    switch("version", "v", "Print the version and quit"),
    switch("help", "h", "Show help"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit code. Never raises for what a user can cause."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _never_fail_to_print()
    code = _main(words, debug="ENISLE_DEBUG" in os.environ)
    return code if _flush() else code or 1


def _main(words: list[str], *, debug: bool) -> int:
    try:
        options, rest = parse(GLOBAL_FLAGS, words, interspersed=False)
        debug = debug or options.debug
        if options.config:
            os.environ["DOCKER_CONFIG"] = options.config
        if options.version:
            from enisle.cli.verbs.version import own_version

            print(f"enisle {own_version()}")
            return 0
        if options.help or not rest:
            from enisle.cli import manual

            return manual.show(rest)
        return _run(rest, Context(host=options.host, debug=debug))
    except Failed as failed:
        return failed.exit_code
    except UsageError as error:
        warn(f"enisle: {error}\n\nTry 'enisle --help'.")
        return USAGE_EXIT_CODE
    except EnisleError as error:
        warn(f"enisle: {error}")
        return 1
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone: nothing to say, and nothing to say it to.
        _silence_stdout()
        return 128 + signal.SIGPIPE
    except Exception as error:
        if debug:
            raise
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno in _UNWRITABLE and error.filename is None:
        _tell_unwritable(error)
    else:
        warn(f"enisle: unexpected failure: {type(error).__name__}: {error}. Run with --debug for the traceback.")
    return 1


def _run(words: list[str], context: Context) -> int:
    name, command, rest = find(words)
    if "--help" in _own_words(command, rest) or ("-h" in rest[:1] and not _has_short(command, "h")):
        from enisle.cli import manual

        return manual.show(name.split())
    try:
        options, arguments = parse(command.flags, rest, interspersed=command.interspersed)
        command.check_arguments(name, arguments)
        return command.run(context, options, arguments) or 0
    except UsageError as error:
        warn(f"enisle: {error}\n\nUsage:  enisle {name} {command.usage}\n\nRun 'enisle {name} --help' for more.")
        return USAGE_EXIT_CODE
    finally:
        context.close()


def find(words: Sequence[str]) -> tuple[str, Command, list[str]]:
    """The verb that the words begin with: its full name, itself, and the words after it. Raises UsageError."""
    first, *rest = words
    group = tree.GROUPS.get(first)
    if group is None:
        path = tree.TOP.get(first) or tree.HIDDEN.get(first)
        if path is None:
            close = nearest(first, [*tree.TOP, *tree.GROUPS])
            hint = f"\nDid you mean 'enisle {close}'?" if close else ""
            raise UsageError(f"'{first}' is not an enisle command.{hint}")
        return first, tree.load(path), rest
    if not rest or rest[0].startswith("-"):
        from enisle.cli import manual

        raise Failed(manual.show([first]))
    path = group.verbs.get(rest[0])
    if path is None:
        close = nearest(rest[0], list(group.verbs))
        hint = f"\nDid you mean 'enisle {first} {close}'?" if close else ""
        raise UsageError(f"'{rest[0]}' is not a command of 'enisle {first}'.{hint}")
    return f"{first} {rest[0]}", tree.load(path), rest[1:]


def _own_words(command: Command, words: list[str]) -> list[str]:
    """The words up to the first argument of a verb whose arguments have flags of their own (run, exec, top)."""
    if command.interspersed:
        return words[: words.index("--")] if "--" in words else words
    takes_value = {f"--{flag.name}" for flag in command.flags if flag.kind != "switch"}
    takes_value |= {f"-{flag.short}" for flag in command.flags if flag.kind != "switch" and flag.short}
    own: list[str] = []
    for word in words:
        if (not word.startswith("-") and not (own and own[-1] in takes_value)) or word == "--":
            break
        own.append(word)
    return own


def _has_short(command: Command, letter: str) -> bool:
    return any(flag.short == letter for flag in command.flags)


def _never_fail_to_print() -> None:
    """A locale without … or ✓, or a name that is no UTF-8, costs a character, not the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def _flush() -> bool:
    """Whether what was printed has reached standard output, or a reader who has gone."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence_stdout()
    except OSError as error:
        _tell_unwritable(error)
        return False
    return True


def _tell_unwritable(error: OSError) -> None:
    warn(f"enisle: standard output cannot be written: {error.strerror}.")
    _silence_stdout()


def _silence_stdout() -> None:
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


if __name__ == "__main__":
    sys.exit(main())
