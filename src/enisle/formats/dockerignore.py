"""``.dockerignore``: which paths of a build context are left out.

Rules as in Docker's documentation of the file: one pattern a line, ``#`` comments, ``!`` takes back, ``**`` spans
folders, the last pattern that fits decides, and a pattern that fits a folder fits what is in it.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass

from enisle.errors import Invalid


@dataclass(frozen=True, slots=True)
class Pattern:
    """One line: a compiled pattern, and whether it takes back."""

    expression: re.Pattern[str]
    negated: bool


class Ignore:
    """The decision for every path of one context."""

    def __init__(self, patterns: list[str]) -> None:
        self._patterns = [compiled for text in patterns if (compiled := _pattern(text)) is not None]
        self.has_exceptions = any(pattern.negated for pattern in self._patterns)

    def matches(self, path: str) -> bool:
        """Whether the path (relative, with slashes) is left out, by itself or because a folder above it is."""
        ignored = False
        parts = path.split("/")
        prefixes = ["/".join(parts[: count + 1]) for count in range(len(parts))]
        for pattern in self._patterns:
            if ignored != pattern.negated:
                continue
            if any(pattern.expression.fullmatch(prefix) for prefix in prefixes):
                ignored = not pattern.negated
        return ignored


def parse(text: str) -> Ignore:
    """The file's text. Raises Invalid on a malformed pattern."""
    return Ignore(lines(text))


def lines(text: str) -> list[str]:
    """The patterns in the file's text, as they are written there."""
    stripped = (line.strip() for line in text.removeprefix("\ufeff").splitlines() if not line.startswith("#"))
    return [line for line in stripped if line]


def _pattern(text: str) -> Pattern | None:
    negated = text.startswith("!")
    body = text[1:].strip() if negated else text
    if negated and not body:
        raise Invalid('illegal exclusion pattern: "!"')
    body = posixpath.normpath(body).lstrip("/")
    if body in ("", "."):
        return None
    return Pattern(compile_pattern(body), negated)


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern of Go's filepath.Match with ``**`` as a regular expression for whole paths.

    A stranger's pattern must not take long to fail: what lies between two stars is looked for once, at the first place
    it fits (an atomic group), since a later place leaves less for what follows.
    """
    sections = [[""]]  # cut at "**", each cut at "*"
    index = 0
    while index < len(pattern):
        if pattern.startswith("**", index):
            index += 2
            sections.append([""])
            continue
        if pattern[index] == "*":
            sections[-1].append("")
            index += 1
            continue
        piece, index = _character(pattern, index)
        sections[-1][-1] += piece
    try:
        return re.compile(_joined([_section(pieces) for pieces in sections]), re.DOTALL)
    except (re.error, OverflowError, RecursionError) as error:
        raise Invalid(f"syntax error in pattern: {pattern}") from error


def _section(pieces: list[str]) -> str:
    middle = "".join(f"(?>[^/]*?{piece})" for piece in pieces[1:-1] if piece)
    return pieces[0] if len(pieces) == 1 else f"{pieces[0]}{middle}[^/]*?{pieces[-1]}"


def _joined(sections: list[str]) -> str:
    if len(sections) == 1:
        return sections[0]
    out = [sections[0]]
    for position, section in enumerate(sections[1:], 2):
        is_last = position == len(sections)
        if section.startswith("/"):  # no directory at all is enough
            gap, section = "(?:.*/)?" if is_last else "(?:.*?/)??", section[1:]
        else:
            gap = ".*" if is_last else ".*?"
        out.append(gap + section if is_last else f"(?>{gap}{section})")
    return "".join(out)


def _character(pattern: str, index: int) -> tuple[str, int]:
    """What is no star, and where the next begins."""
    match pattern[index]:
        case "?":
            return "[^/]", index + 1
        case "[":
            return _character_class(pattern, index)
        case "\\" if index + 1 >= len(pattern):
            raise Invalid(f"syntax error in pattern: {pattern}")
        case "\\":
            return re.escape(pattern[index + 1]), index + 2
        case character:
            return re.escape(character), index + 1


def _character_class(pattern: str, index: int) -> tuple[str, int]:
    end = pattern.find("]", index + 2)
    if end < 0:
        raise Invalid(f"syntax error in pattern: {pattern}")
    body = pattern[index + 1 : end]
    negated = body.startswith("^")
    body = body[1:] if negated else body
    escaped = re.sub(r"([\[\]\\&~|])", r"\\\1", body.replace("\\", ""))
    escaped = escaped.replace("--", r"-\-")  # the same set, of which a future re would make a difference of sets
    return f"[{'^' if negated else ''}{escaped}]", end + 1
