"""A shell's patterns in substitutions: ``*``, ``?`` and plain characters; a backslash takes the next one literally.

Whoever writes a Dockerfile chooses pattern and text, so the time has to stay in proportion to both: a pattern is cut at
its stars into pieces of a fixed length, each of which is looked for once, from where the one before it ended.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class _Pattern(NamedTuple):
    """The piece before the first star, and all that follows it; None: there is no star."""

    head: re.Pattern[str]
    shortest: re.Pattern[str] | None
    longest: re.Pattern[str] | None

    def end(self, text: str, begin: int, *, longest: bool) -> int | None:
        """Where the match ends that begins exactly there."""
        head = self.head.match(text, begin)
        return None if head is None else self._rest(text, head.end(), longest=longest)

    def span(self, text: str, begin: int) -> tuple[int, int] | None:
        """The first match, as long as it can be. What does not follow the first place does not follow a later one."""
        head = self.head.search(text, begin)
        end = None if head is None else self._rest(text, head.end(), longest=True)
        return None if head is None or end is None else (head.start(), end)

    def _rest(self, text: str, at: int, *, longest: bool) -> int | None:
        rest = self.longest if longest else self.shortest
        if rest is None:
            return at
        found = rest.match(text, at)
        return None if found is None else found.end()


def without_prefix(text: str, pattern: str, *, longest: bool) -> str:
    """The text without what the pattern matches at its beginning."""
    end = _compiled(_tokens(pattern)).end(text, 0, longest=longest)
    return text if end is None else text[end:]


def without_suffix(text: str, pattern: str, *, longest: bool) -> str:
    """The text without what the pattern matches at its end: a prefix of everything the other way round."""
    end = _compiled(_tokens(pattern)[::-1]).end(text[::-1], 0, longest=longest)
    return text if end is None else text[: len(text) - end]


def replaced(text: str, pattern: str, replacement: str, *, every: bool) -> str:
    """The text with the first match, or every one, replaced. An empty pattern matches nothing."""
    compiled = _compiled(_tokens(pattern))
    out: list[str] = []
    at = 0
    while pattern and at < len(text):
        span = compiled.span(text, at)
        if span is None:
            break
        out += [text[at : span[0]], replacement]
        at = span[1]
        if not every:
            break
    return "".join(out) + text[at:]


def _tokens(pattern: str) -> list[str]:
    """Regular expressions of single characters; "*" is a star."""
    out: list[str] = []
    characters = iter(pattern)
    for character in characters:
        if character == "?":
            out.append(".")
        elif character == "*":
            out.append("*")
        else:
            out.append(re.escape(next(characters, "\\") if character == "\\" else character))
    return out


def _compiled(tokens: list[str]) -> _Pattern:
    pieces = [""]
    for token in tokens:
        if token == "*":
            pieces.append("")
        else:
            pieces[-1] += token
    head, *others = [re.compile(pieces[0], re.DOTALL), *pieces[1:]]
    if not others:
        return _Pattern(head, None, None)
    middle = "".join(f"(?>.*?{piece})" for piece in others[:-1] if piece)
    return _Pattern(
        head,
        re.compile(f"{middle}.*?{others[-1]}", re.DOTALL),
        re.compile(f"{middle}.*{others[-1]}", re.DOTALL),
    )
