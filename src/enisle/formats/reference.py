"""Image references: the grammar of Docker's distribution/reference, and how references are shown."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from enisle.errors import Invalid
from enisle.model.ids import Digest, is_digest

DEFAULT_DOMAIN = "docker.io"
DEFAULT_TAG = "latest"
_LEGACY_DOMAIN = "index.docker.io"
_OFFICIAL = "library/"
_NAME_LIMIT = 255

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_DOMAIN = re.compile(rf"(?:{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_HEX_ID = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """A normalised reference. ``tag`` and ``digest`` are "" where not given."""

    domain: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Domain and path: docker.io/library/debian."""
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as Docker shows it: debian."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix(_OFFICIAL)
        return self.path if "/" in short else short

    @property
    def familiar(self) -> str:
        """The whole reference as Docker shows it: debian:12, debian@sha256:…"""
        return self.familiar_name + self._suffix

    def __str__(self) -> str:
        return self.name + self._suffix

    @property
    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_tag(self, tag: str) -> Reference:
        """The same repository under that tag."""
        return replace(self, tag=check_tag(tag), digest="")

    def with_digest(self, digest: Digest) -> Reference:
        """The same repository at that digest."""
        return replace(self, tag="", digest=digest)

    def or_latest(self) -> Reference:
        """With the tag latest if it has neither tag nor digest."""
        return self if self.tag or self.digest else replace(self, tag=DEFAULT_TAG)


def check_tag(tag: str) -> str:
    """The tag, if it is one. Raises Invalid."""
    if not _TAG.fullmatch(tag):
        raise Invalid("invalid tag format")
    return tag


def parse_reference(text: str) -> Reference:
    """The normalised reference of what a user wrote. Raises Invalid in Docker's wording."""
    if _HEX_ID.fullmatch(text):
        raise Invalid(f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings")
    domain, remainder = _split_domain(text)
    named, at, digest = remainder.partition("@")
    path, colon, tag = named.partition(":")
    if path.lower() != path:
        raise Invalid(f"invalid reference format: repository name ({path}) must be lowercase")
    if not _PATH.fullmatch(path) or not _DOMAIN.fullmatch(domain) or (colon and not _TAG.fullmatch(tag)):
        raise Invalid("invalid reference format")
    if at and not _DIGEST.fullmatch(digest):
        raise Invalid("invalid reference format")
    if at and not is_digest(digest):
        raise Invalid("invalid reference format: unsupported digest algorithm or length")
    if len(domain) + 1 + len(path) > _NAME_LIMIT:
        raise Invalid(f"repository name must not be more than {_NAME_LIMIT} characters")
    return Reference(domain=domain, path=path, tag=tag, digest=digest)


def is_domain(text: str) -> bool:
    """Whether it can be the host (and port) of a registry."""
    return _DOMAIN.fullmatch(text) is not None


def _split_domain(text: str) -> tuple[str, str]:
    """Registry and rest. What stands before the first slash is a registry only if it looks like a host."""
    first, slash, rest = text.partition("/")
    is_domain = slash and (any(c in first for c in ".:") or first == "localhost" or first.lower() != first)
    domain, remainder = (first, rest) if is_domain else (DEFAULT_DOMAIN, text)
    if domain == _LEGACY_DOMAIN:
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in remainder:
        remainder = _OFFICIAL + remainder
    return domain, remainder
