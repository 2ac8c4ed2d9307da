"""The WWW-Authenticate header of registries (RFC 9110 section 11.6.1; distribution's token specification)."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9-]*)(?:\s+|$)")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_LIMIT = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Challenge:
    """One way to authenticate; ``scheme`` and the names of ``parameters`` in lower case."""

    scheme: str
    parameters: dict[str, str] = field(default_factory=dict)


def parse_challenges(header: str) -> list[Challenge]:
    """All challenges of a header; what cannot be understood ends the list."""
    header = header[:_LIMIT]
    found: list[Challenge] = []
    position = 0
    while match := _SCHEME.match(header, position):
        position = match.end()
        parameters: dict[str, str] = {}
        while parameter := _PARAMETER.match(header, position):
            name, quoted, token = parameter.groups()
            parameters[name.lower()] = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else token
            position = parameter.end()
        found.append(Challenge(scheme=match.group(1).lower(), parameters=parameters))
    return found
