"""Dockerfile instructions that change an image's config alone, as `commit --change` and `import --change` take them."""

from __future__ import annotations

import json
import posixpath
import re
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace

from enisle.errors import Invalid
from enisle.model.image import ImageConfig
from enisle.model.instance import Healthcheck

_PORT = re.compile(r"\d{1,5}(-\d{1,5})?(/(tcp|udp|sctp))?")


def apply_changes(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """The config after the instructions. Invalid in Docker's wording for any other instruction."""
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        apply = _INSTRUCTIONS.get(word.upper())
        if apply is None:
            raise Invalid(f"{word.lower()} is not a valid change command")
        config = apply(config, rest.strip())
    return config


def _arguments(text: str) -> tuple[str, ...] | None:
    """The exec form (a JSON array of strings), or None: then it is the shell form."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        return tuple(values)
    return None


def _command(config: ImageConfig, text: str) -> tuple[str, ...]:
    return _arguments(text) or (*(config.shell or ("/bin/sh", "-c")), text)


def _pairs(text: str, what: str) -> dict[str, str]:
    """name=value ...; or, as of old, "name value"."""
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise Invalid(f"{what} {text!r}: {error}") from error
    if words and "=" not in words[0]:
        name, _, value = text.partition(" ")
        return {name: value.strip()}
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name:
            raise Invalid(f"Syntax error - can't find = in {word!r}. Must be of the form: name=value")
        pairs[name] = value
    return pairs


def _env(config: ImageConfig, text: str) -> ImageConfig:
    merged = {entry.partition("=")[0]: entry for entry in config.env}
    merged |= {name: f"{name}={value}" for name, value in _pairs(text, "ENV").items()}
    return replace(config, env=tuple(merged.values()))


def _expose(config: ImageConfig, text: str) -> ImageConfig:
    for word in text.split():
        if not _PORT.fullmatch(word):
            raise Invalid(f"invalid containerPort: {word}")
    ports = (word if "/" in word else f"{word}/tcp" for word in text.split())
    return replace(config, exposed_ports=tuple(dict.fromkeys((*config.exposed_ports, *ports))))


def _volume(config: ImageConfig, text: str) -> ImageConfig:
    paths = _arguments(text) or tuple(text.split())
    return replace(config, volumes=tuple(dict.fromkeys((*config.volumes, *paths))))


def _healthcheck(config: ImageConfig, text: str) -> ImageConfig:
    words = text.split(maxsplit=1)
    if [word.upper() for word in words] == ["NONE"]:
        return replace(config, healthcheck=Healthcheck(test=("NONE",)))
    if len(words) == 2 and words[0].upper() == "CMD":
        return replace(config, healthcheck=Healthcheck(test=_test(words[1])))
    raise Invalid(f"Unknown type {text!r} in HEALTHCHECK (try CMD)")


def _test(text: str) -> tuple[str, ...]:
    arguments = _arguments(text)
    return ("CMD", *arguments) if arguments else ("CMD-SHELL", text)


def _onbuild(config: ImageConfig, text: str) -> ImageConfig:
    return replace(config, on_build=(*config.on_build, text))


_INSTRUCTIONS: dict[str, Callable[[ImageConfig, str], ImageConfig]] = {
    "CMD": lambda config, text: replace(config, command=_command(config, text)),
    "ENTRYPOINT": lambda config, text: replace(config, entrypoint=_command(config, text), command=None),
    "ENV": _env,
    "EXPOSE": _expose,
    "HEALTHCHECK": _healthcheck,
    "LABEL": lambda config, text: replace(config, labels={**config.labels, **_pairs(text, "LABEL")}),
    "ONBUILD": _onbuild,
    "STOPSIGNAL": lambda config, text: replace(config, stop_signal=text),
    "USER": lambda config, text: replace(config, user=text),
    "VOLUME": _volume,
    "WORKDIR": lambda config, text: replace(config, working_dir=posixpath.join(config.working_dir or "/", text)),
}
