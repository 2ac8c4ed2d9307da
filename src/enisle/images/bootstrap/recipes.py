"""Which images can be made from the distribution's packages, and where those come from on this machine."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from enisle.errors import Invalid, NotFound
from enisle.formats.reference import Reference, parse_reference

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
_FALLBACK_MIRROR = "http://deb.debian.org/debian"
_FALLBACK_SECURITY = "http://deb.debian.org/debian-security"
_FIELD = re.compile(r"^([A-Za-z-]+):[ \t]*(.*)$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Suite:
    """A Debian release; ``epoch`` is its day, to which files made while building are dated."""

    codename: str
    version: str
    epoch: int


SUITES = (
    Suite(codename="bookworm", version="12", epoch=1686355200),
    Suite(codename="trixie", version="13", epoch=1754697600),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """What to make. ``suite`` None: busybox."""

    reference: Reference
    suite: Suite | None


def recipe_for(name: str) -> Recipe:
    """The recipe for an image name. NotFound for names nothing is known of."""
    reference = parse_reference(name).or_latest()
    if reference.familiar_name == "busybox":
        return Recipe(reference=reference, suite=None)
    if reference.familiar_name == "debian":
        for suite in SUITES:
            if reference.tag in (suite.version, suite.codename, f"{suite.codename}-slim", f"{suite.version}-slim"):
                return Recipe(reference=reference, suite=suite)
    raise NotFound(
        f"no recipe for the image {reference.familiar}.", remedy="debian:12, debian:13 and busybox can be made."
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One line of APT sources."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


def read_sources(root: Path = Path("/etc/apt")) -> list[Source]:
    """The package sources this machine is configured with, in both of APT's formats."""
    found: list[Source] = []
    lists = [root / "sources.list", *sorted((root / "sources.list.d").glob("*.list"))]
    for path in lists:
        if path.is_file():
            found += parse_list(path.read_text(errors="replace"))
    for path in sorted((root / "sources.list.d").glob("*.sources")):
        found += parse_deb822(path.read_text(errors="replace"))
    return found


def parse_list(text: str) -> list[Source]:
    """One-line format: deb [options] uri suite component..."""
    found = []
    for line in text.splitlines():
        words = re.sub(r"\[[^\]]*\]", " ", line.partition("#")[0]).split()
        if len(words) >= 3 and words[0] == "deb":
            found.append(Source(uri=words[1], suites=(words[2],), components=tuple(words[3:])))
    return found


def parse_deb822(text: str) -> list[Source]:
    """Stanzas of fields."""
    found = []
    for stanza in re.split(r"\n[ \t]*\n", text):
        fields: dict[str, str] = {}
        last = ""
        for line in stanza.splitlines():
            if line.startswith("#"):
                continue
            if match := _FIELD.match(line):
                last = match.group(1).lower()
                fields[last] = match.group(2)
            elif last and line[:1] in " \t":
                fields[last] += " " + line.strip()
        if fields.get("enabled", "yes").lower() in ("no", "false", "0") or "deb" not in fields.get("types", "").split():
            continue
        suites, components = tuple(fields.get("suites", "").split()), tuple(fields.get("components", "").split())
        found += [Source(uri=uri, suites=suites, components=components) for uri in fields.get("uris", "").split()]
    return found


def sources_for(suite: Suite, configured: Sequence[Source]) -> list[str]:
    """Source lines for a suite, from the mirrors that this machine takes Debian from (whatever its own release is)."""
    mirror = _mirror(configured, security=False) or _FALLBACK_MIRROR
    security = _mirror(configured, security=True)
    if security is None:
        security = _FALLBACK_SECURITY if mirror == _FALLBACK_MIRROR else ""
    for uri in (mirror, security):
        if any(c in uri for c in " \t\n[]"):
            raise Invalid(f"the package source {uri!r} cannot be used")
    name, options = suite.codename, f"[signed-by={_KEYRING}]"
    lines = [f"deb {options} {mirror} {name} main", f"deb {options} {mirror} {name}-updates main"]
    if security:
        lines.append(f"deb {options} {security} {name}-security main")
    return lines


def _mirror(configured: Iterable[Source], *, security: bool) -> str | None:
    known = {suite.codename for suite in SUITES} | {"bullseye", "sid", "stable", "testing", "unstable", "forky"}
    for source in configured:
        if "main" not in source.components:
            continue
        for name in source.suites:
            base, _, pocket = name.partition("-")
            if base in known and (pocket == "security") == security and pocket in ("", "security"):
                return source.uri
    return None
