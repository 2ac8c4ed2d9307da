"""Command lines as Docker's client reads them (the rules of Go's pflag).

Neither argparse nor click: both resolve abbreviations and optional values differently (``--sig-proxy=false``,
``-itp80:80``, options that end at IMAGE), and cost 6 to 25 ms of start-up; the tables also serve help and completion.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from enisle.errors import Invalid


class UsageError(Invalid):
    """The command line cannot be read; the exit code is 125 as for Docker's client."""


class Flag(NamedTuple):
    """One flag. ``kind``: switch (takes a value only as ``--flag=false``), option (the last one wins), many (a list).

    ``value`` names the value in help, ``convert`` checks and converts it (raises ValueError with the reason).
    ``choices`` are offered by completion; ``completes`` names a kind of object to complete instead.
    """

    name: str
    short: str
    kind: str
    help: str
    value: str = ""
    default: Any = None
    convert: Callable[[str], Any] | None = None
    choices: tuple[str, ...] = ()
    completes: str = ""
    hidden: bool = False

    @property
    def key(self) -> str:
        """The name as an attribute of Options."""
        return self.name.replace("-", "_")

    @property
    def spelling(self) -> str:
        """As messages show it: ``-m, --memory``."""
        return f"-{self.short}, --{self.name}" if self.short else f"--{self.name}"


def switch(name: str, short: str = "", help: str = "", *, default: bool = False, hidden: bool = False) -> Flag:
    """A flag that is on or off."""
    return Flag(name, short, "switch", help, default=default, hidden=hidden)


def option(
    name: str,
    short: str = "",
    value: str = "string",
    help: str = "",
    *,
    default: Any = None,
    convert: Callable[[str], Any] | None = None,
    choices: tuple[str, ...] = (),
    completes: str = "",
    hidden: bool = False,
) -> Flag:
    """A flag with one value."""
    return Flag(name, short, "option", help, value, default, convert, choices, completes, hidden)


def many(
    name: str,
    short: str = "",
    value: str = "list",
    help: str = "",
    *,
    convert: Callable[[str], Any] | None = None,
    choices: tuple[str, ...] = (),
    completes: str = "",
) -> Flag:
    """A flag that may be repeated; its values are a list."""
    return Flag(name, short, "many", help, value, None, convert, choices, completes)


class Options:
    """The values of all flags of a command, as attributes; ``given`` holds the names of those on the command line."""

    def __init__(self, flags: Sequence[Flag]) -> None:
        self.given: set[str] = set()
        for flag in flags:
            setattr(self, flag.key, [] if flag.kind == "many" else flag.default)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(name)


_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def parse(flags: Sequence[Flag], words: Sequence[str], *, interspersed: bool = True) -> tuple[Options, list[str]]:
    """Values of flags and the arguments left. Raises UsageError.

    Without ``interspersed`` everything from the first argument on is an argument (run's COMMAND has flags of its own).
    """
    reader = _Reader(flags, words)
    return reader.read(interspersed=interspersed)


class _Reader:
    def __init__(self, flags: Sequence[Flag], words: Sequence[str]) -> None:
        self._long = {flag.name: flag for flag in flags}
        self._short = {flag.short: flag for flag in flags if flag.short}
        self._options = Options(flags)
        self._words = list(words)

    def read(self, *, interspersed: bool) -> tuple[Options, list[str]]:
        arguments: list[str] = []
        while self._words:
            word = self._words.pop(0)
            if word == "--":
                arguments += self._words
                break
            if not word.startswith("-") or word == "-":
                arguments.append(word)
                if not interspersed:
                    arguments += self._words
                    break
            elif word.startswith("--"):
                self._long_flag(word[2:])
            else:
                self._short_flags(word[1:])
        return self._options, arguments

    def _long_flag(self, word: str) -> None:
        name, equals, value = word.partition("=")
        flag = self._long.get(name)
        if flag is None:
            raise UsageError(f"unknown flag: --{name}{_suggestion(name, self._long)}")
        if equals:
            self._set(flag, value)
        elif flag.kind == "switch":
            self._set(flag, "true")
        else:
            self._set(flag, self._next(flag, f"--{name}"))

    def _short_flags(self, letters: str) -> None:
        position = 0
        while position < len(letters):
            flag = self._short.get(letters[position])
            position += 1
            if flag is None:
                name = letters[position - 1]
                raise UsageError(f"unknown shorthand flag: {name!r} in -{letters}")
            rest = letters[position:]
            if flag.kind == "switch":
                if rest.startswith("="):
                    self._set(flag, rest[1:])
                    return
                self._set(flag, "true")
            else:
                self._set(flag, rest.removeprefix("=") if rest else self._next(flag, f"-{flag.short}"))
                return

    def _next(self, flag: Flag, spelling: str) -> str:
        if not self._words:
            what = f"'{flag.short}' in {spelling}" if len(spelling) == 2 else spelling
            raise UsageError(f"flag needs an argument: {what}")
        return self._words.pop(0)

    def _set(self, flag: Flag, text: str) -> None:
        self._options.given.add(flag.name)
        try:
            value = _switch_value(text) if flag.kind == "switch" else flag.convert(text) if flag.convert else text
        except ValueError as error:
            raise UsageError(f'invalid argument "{text}" for "{flag.spelling}" flag: {error}') from error
        if flag.kind == "many":
            getattr(self._options, flag.key).append(value)
        else:
            setattr(self._options, flag.key, value)


def _switch_value(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError("expected true or false")


def _suggestion(name: str, known: dict[str, Flag]) -> str:
    close = nearest(name, [flag.name for flag in known.values() if not flag.hidden])
    return f"\nDid you mean --{close}?" if close else ""


def nearest(word: str, known: Sequence[str]) -> str:
    """The known word most like this one; "" when none is close."""
    import difflib

    matches = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    if matches:
        return matches[0]
    starts = [candidate for candidate in known if len(word) > 2 and candidate.startswith(word)]
    return starts[0] if starts else ""
