"""What a command of the command line is, and what it is given to run with."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, TextIO

from enisle.cli.flags import Flag, Options, UsageError
from enisle.cli.printing import visible

if TYPE_CHECKING:
    from enisle.sdk.client import Client


class Failed(Exception):
    """The command has said what was wrong and ends with this exit code."""

    def __init__(self, exit_code: int) -> None:
        super().__init__(f"exit code {exit_code}")
        self.exit_code = exit_code


class Context:
    """What commands work with: the client (made on first use), the streams, how to write."""

    def __init__(self, *, host: str | None = None, debug: bool = False) -> None:
        self.host = host
        self.debug = debug
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """The connection to the daemon."""
        if self._client is None:
            from enisle.sdk.client import Client

            self._client = Client(self.host)
        return self._client

    @property
    def out(self) -> TextIO:
        return sys.stdout

    def close(self) -> None:
        """Close connections that idle."""
        if self._client is not None:
            self._client.close()


Run = Callable[[Context, Options, list[str]], int | None]


class Command(NamedTuple):
    """One verb. ``usage`` follows the name in help; ``run`` returns the exit code (None is 0).

    ``least`` and ``most`` bound the number of arguments (``most`` None: any number). ``completes`` names what the
    arguments are (kinds of ``completing``): one word for all, or a word for each ("network instance"); "" for nothing.
    ``sections``: the flags by subject, for a help that would be too long in one piece.
    """

    summary: str
    usage: str
    run: Run
    flags: tuple[Flag, ...] = ()
    least: int = 0
    most: int | None = None
    interspersed: bool = True
    completes: str = ""
    long: str = ""
    examples: tuple[str, ...] = ()
    sections: tuple[tuple[str, tuple[Flag, ...]], ...] = ()

    def check_arguments(self, name: str, arguments: list[str]) -> None:
        """Raises UsageError when there are too few or too many."""
        count = len(arguments)
        if self.least <= count and (self.most is None or count <= self.most):
            return
        if self.most == 0:
            wanted = "accepts no arguments"
        elif self.least == self.most:
            wanted = f"requires exactly {self.least} argument{'s' if self.least > 1 else ''}"
        elif count < self.least:
            wanted = f"requires at least {self.least} argument{'s' if self.least > 1 else ''}"
        else:
            wanted = f"requires at most {self.most} argument{'s' if self.most != 1 else ''}"
        raise UsageError(f"enisle {name} {wanted}.")


def write(data: bytes, *, descriptor: int = 1) -> None:
    """All of data to a descriptor, past Python's buffers: workload output is bytes, not text."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def warn(text: str) -> None:
    """A sentence on standard error. It may hold words of others: a registry's, a workload's."""
    print(visible(text), file=sys.stderr)
