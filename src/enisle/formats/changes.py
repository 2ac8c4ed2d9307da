"""Dockerfile instructions that change an image's config alone, as `commit --change` and `import --change` take them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from enisle.errors import Invalid
from enisle.formats.dockerfile.config import changed, working_directory
from enisle.formats.dockerfile.instructions import SetCommand, SetText
from enisle.formats.dockerfile.lines import split
from enisle.formats.dockerfile.parse import parse_line
from enisle.formats.dockerfile.words import expand
from enisle.model.image import ImageConfig

_ALLOWED = frozenset(
    "CMD ENTRYPOINT ENV EXPOSE HEALTHCHECK LABEL ONBUILD STOPSIGNAL USER VOLUME WORKDIR".split()
)  # dockerd's


def apply_changes(config: ImageConfig, changes: Sequence[str]) -> ImageConfig:
    """The config after the instructions. Invalid in Docker's wording for any other instruction."""
    has_command = False
    for line in split("\n".join(changes)).lines if changes else ():
        if line.keyword not in _ALLOWED:
            raise Invalid(f"{line.keyword.lower()} is not a valid change command")
        variables = dict(_pair(entry) for entry in config.env)

        def expanded(text: str, variables: dict[str, str] = variables) -> str:
            return expand(text, variables)

        instruction, before = parse_line(line), config.command
        if isinstance(instruction, SetText) and instruction.kind == "WORKDIR":
            config = replace(config, working_dir=working_directory(config, expanded(instruction.value)))
            continue
        config, _ = changed(config, instruction, expanded)
        if isinstance(instruction, SetCommand):
            has_command = has_command or instruction.kind == "CMD"
            if has_command and instruction.kind == "ENTRYPOINT":  # which drops only the command of the parent
                config = replace(config, command=before)
    return config


def _pair(entry: str) -> tuple[str, str]:
    name, _, value = entry.partition("=")
    return name, value
