"""Instructions that change an image's config and nothing else. Pure."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Callable
from dataclasses import replace

from enisle.errors import Invalid
from enisle.formats.dockerfile.instructions import (
    Command,
    Instruction,
    OnBuild,
    Pairs,
    SetCommand,
    SetHealthcheck,
    SetList,
    SetText,
)
from enisle.model.image import ImageConfig
from enisle.model.instance import Healthcheck
from enisle.model.signals import signal_number

DEFAULT_SHELL = ("/bin/sh", "-c")
_PORT = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?(?:/(tcp|udp|sctp))?", re.IGNORECASE)
Expand = Callable[[str], str]


def shell_of(config: ImageConfig) -> tuple[str, ...]:
    """What shell forms are run by."""
    return config.shell or DEFAULT_SHELL


def words_of(command: Command, config: ImageConfig) -> tuple[str, ...]:
    """A command's words; a shell form is one word for the shell."""
    return (*shell_of(config), command.line) if command.shell else command.words


def changed(config: ImageConfig, instruction: Instruction, expand: Expand) -> tuple[ImageConfig, str]:
    """The config after the instruction, and the instruction as the history shows it. Raises Invalid."""
    match instruction:
        case Pairs():
            return _pairs(config, instruction, expand)
        case SetCommand():
            return _command(config, instruction)
        case SetText():
            return _text(config, instruction, expand)
        case SetList():
            return _list(config, instruction, expand)
        case SetHealthcheck():
            return _healthcheck(config, instruction)
        case OnBuild():
            shown = f"ONBUILD {instruction.trigger}"
            return replace(config, on_build=(*config.on_build, instruction.trigger)), shown
        case _:
            raise Invalid(f"unknown instruction: {instruction.text}")


def _pairs(config: ImageConfig, instruction: Pairs, expand: Expand) -> tuple[ImageConfig, str]:
    pairs = {expand(name): expand(value) for name, value in instruction.pairs}
    if not all(pairs):
        raise Invalid(f"{instruction.kind} names can not be blank")
    shown = f"{instruction.kind} " + " ".join(f"{name}={value}" for name, value in pairs.items())
    if instruction.kind == "LABEL":
        return replace(config, labels={**config.labels, **pairs}), shown
    return replace(config, env=with_env(config.env, pairs)), shown


def with_env(env: tuple[str, ...], pairs: dict[str, str]) -> tuple[str, ...]:
    """Variables set in place, new ones at the end."""
    merged = {entry.partition("=")[0]: entry for entry in env}
    return tuple((merged | {name: f"{name}={value}" for name, value in pairs.items()}).values())


def _command(config: ImageConfig, instruction: SetCommand) -> tuple[ImageConfig, str]:
    words = words_of(instruction.command, config)
    shown = f"{instruction.kind} {json.dumps(list(words))}"
    if instruction.kind == "CMD":
        return replace(config, command=words), shown
    # An image's command belongs to its entrypoint: with another one it is gone, unless this file has set it before.
    return replace(config, entrypoint=words, command=None), shown


def _text(config: ImageConfig, instruction: SetText, expand: Expand) -> tuple[ImageConfig, str]:
    value = expand(instruction.value)
    shown = f"{instruction.kind} {value}"
    if instruction.kind == "USER":
        if not value:
            raise Invalid("USER requires exactly one argument")
        return replace(config, user=value), shown
    if instruction.kind == "STOPSIGNAL":
        signal_number(value)
        return replace(config, stop_signal=value), shown
    return config, shown  # MAINTAINER is the author, no part of the config


def working_directory(config: ImageConfig, value: str) -> str:
    """The absolute path a WORKDIR sets."""
    if not value:
        raise Invalid("cannot normalize nothing")
    return posixpath.normpath("/" + posixpath.join(config.working_dir or "/", value).lstrip("/"))


def _list(config: ImageConfig, instruction: SetList, expand: Expand) -> tuple[ImageConfig, str]:
    values = tuple(instruction.values)
    if instruction.kind == "SHELL":
        return replace(config, shell=values), f"SHELL {json.dumps(list(values))}"
    if instruction.kind == "VOLUME":
        paths = tuple(expand(value) for value in values)
        if not all(path.strip() for path in paths):
            raise Invalid("VOLUME specified can not be an empty string")
        return replace(config, volumes=_united(config.volumes, paths)), f"VOLUME {json.dumps(list(paths))}"
    ports = tuple(port for value in values for word in expand(value).split() for port in _ports(word))
    return replace(config, exposed_ports=_united(config.exposed_ports, ports)), f"EXPOSE {' '.join(ports)}"


def _ports(word: str) -> list[str]:
    match = _PORT.fullmatch(word)
    if match is None:
        raise Invalid(f"invalid containerPort: {word}")
    first, last = int(match[1]), int(match[2] or match[1])
    if not (first <= last <= 65535):
        raise Invalid(f"invalid containerPort: {word}")
    protocol = (match[3] or "tcp").lower()
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def _united(first: tuple[str, ...], second: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*first, *second)))


def _healthcheck(config: ImageConfig, instruction: SetHealthcheck) -> tuple[ImageConfig, str]:
    command = instruction.command
    if command is None:
        return replace(config, healthcheck=Healthcheck(test=("NONE",))), "HEALTHCHECK NONE"
    test = ("CMD-SHELL", command.line) if command.shell else ("CMD", *command.words)
    health = Healthcheck(
        test=test,
        interval_ns=instruction.interval_ns,
        timeout_ns=instruction.timeout_ns,
        start_period_ns=instruction.start_period_ns,
        start_interval_ns=instruction.start_interval_ns,
        retries=instruction.retries,
    )
    return replace(config, healthcheck=health), f"HEALTHCHECK {json.dumps(list(test))}"
