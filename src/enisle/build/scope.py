"""Variables of a build: ARG before and after FROM, ENV, what is predefined, what the client gave. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from enisle.formats.dockerfile.instructions import Arg
from enisle.formats.dockerfile.words import expand
from enisle.model.image import Platform

PROXIES = frozenset(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
"""May be given without being declared; they are no part of the history and of the cache's keys."""

EPOCH = "SOURCE_DATE_EPOCH"


class Arguments:
    """What holds for a whole build: the client's arguments, and the ARGs before the first FROM."""

    def __init__(self, given: Mapping[str, str | None], target: Platform, host: Platform, escape: str) -> None:
        self.given = {name: value for name, value in given.items() if value is not None}
        self.escape = escape
        self.automatic = _platforms("TARGET", target) | _platforms("BUILD", host)
        self.globals: dict[str, str] = {}
        self._consumed: set[str] = set()

    def declare_global(self, instruction: Arg) -> None:
        """An ARG before the first FROM."""
        for name, default in instruction.arguments:
            self._consumed.add(name)
            if name in self.given:
                self.globals[name] = self.given[name]
            elif default is not None:
                self.globals[name] = expand(default, self.automatic | self.globals, escape=self.escape)

    def expand_global(self, text: str) -> str:
        """The text of a FROM."""
        return expand(text, self.automatic | self.globals, escape=self.escape)

    def value_of(self, name: str, default: str | None) -> str | None:
        """What an ARG of a stage has; ``default`` is already expanded."""
        self._consumed.add(name)
        for source in (self.given, {} if default is None else {name: default}, self.globals, self.automatic):
            if name in source:
                return source[name]
        return None

    @property
    def proxies(self) -> dict[str, str]:
        """Predefined variables that were given."""
        return {name: value for name, value in self.given.items() if name in PROXIES}

    def unused(self) -> list[str]:
        """Arguments that no ARG has asked for."""
        known = PROXIES | self._consumed | {EPOCH}
        return sorted(name for name in self.given if name not in known and not name.startswith("BUILDKIT_"))


class Scope:
    """The variables of one stage."""

    def __init__(self, arguments: Arguments) -> None:
        self._shared = arguments
        self.declared: dict[str, str] = {}

    def declare(self, instruction: Arg, env: tuple[str, ...]) -> None:
        """An ARG of the stage."""
        for name, default in instruction.arguments:
            text = None if default is None else self.expand(default, env)
            value = self._shared.value_of(name, text)
            if value is not None:
                self.declared[name] = value

    def expand(self, text: str, env: tuple[str, ...]) -> str:
        """The text as one word."""
        return expand(text, self.variables(env), escape=self._shared.escape)

    def variables(self, env: tuple[str, ...]) -> dict[str, str]:
        """ENV wins over ARG."""
        return self.declared | dict(_pair(entry) for entry in env)

    def run_arguments(self, env: tuple[str, ...]) -> dict[str, str]:
        """The ARGs a RUN sees besides the ENV; they are part of its key."""
        names = {_pair(entry)[0] for entry in env}
        return {name: value for name, value in sorted(self.declared.items()) if name not in names}

    def run_environment(self, env: tuple[str, ...]) -> tuple[str, ...]:
        """All that a RUN sees besides the ENV of the image."""
        names = {_pair(entry)[0] for entry in env}
        proxies = {name: value for name, value in self._shared.proxies.items() if name not in names}
        return tuple(f"{name}={value}" for name, value in (proxies | self.run_arguments(env)).items())


def _pair(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition("=")
    return name, value


def _platforms(prefix: str, platform: Platform) -> dict[str, str]:
    whole = f"{platform.os}/{platform.architecture}" + (f"/{platform.variant}" if platform.variant else "")
    return {
        f"{prefix}PLATFORM": whole,
        f"{prefix}OS": platform.os,
        f"{prefix}ARCH": platform.architecture,
        f"{prefix}VARIANT": platform.variant,
    }
