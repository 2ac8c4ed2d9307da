"""The lines of a Dockerfile: parser directives, comments, continuations and here-documents.

Source of the rules: Docker's Dockerfile reference ("Parser directives", "Here-documents").
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import NamedTuple

from enisle.errors import Invalid
from enisle.formats.dockerfile.words import split_words

MAX_BYTES = 16 << 20
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_DIRECTIVES = frozenset({"syntax", "escape", "check"})
_HEREDOC = re.compile(r"\d*<<(-?)([^<]+)")
_ENDS_NAME = re.compile(r"[;|&()>]")  # in a shell's words, where no blank has to follow the name
_WITH_HEREDOC = frozenset({"RUN", "COPY", "ADD"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Heredoc:
    """A here-document: its name, its text, and whether variables in it are to be expanded (name not quoted)."""

    name: str
    content: str
    expand: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One instruction with its continuations joined. ``number`` and ``end`` count from 1."""

    keyword: str
    rest: str
    number: int
    end: int
    source: str = ""
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Lines:
    """A whole Dockerfile, cut into instructions."""

    lines: tuple[Line, ...]
    escape: str = "\\"
    directives: dict[str, str] = field(default_factory=dict)


def fail(number: int, message: str) -> Invalid:
    """The error of a Dockerfile line, in Docker's form."""
    return Invalid(f"dockerfile parse error on line {number}: {message}")


def split(text: str) -> Lines:
    """Cut a Dockerfile into instructions. Raises Invalid with the line's number."""
    if len(text) > MAX_BYTES:
        raise Invalid(f"the Dockerfile has {len(text)} characters; at most {MAX_BYTES} are read")
    rows = text.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    directives = _directives(rows)
    escape = directives.get("escape", "\\")
    if escape not in ("\\", "`"):
        raise Invalid(f"invalid ESCAPE '{escape}': it is \\ or `")
    lines = []
    position = 0
    while position < len(rows):
        line, position = _instruction(rows, position, escape)
        if line is not None:
            lines.append(line)
    if not lines:
        raise Invalid("the Dockerfile has no instruction (file with no instructions)")
    return Lines(lines=tuple(lines), escape=escape, directives=directives)


def _directives(rows: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for row in rows:
        match = _DIRECTIVE.fullmatch(row.strip())
        if match is None or match[1].lower() not in _DIRECTIVES:
            break
        name = match[1].lower()
        if name in found:
            raise Invalid(f"only one {name} parser directive can be used")
        found[name] = match[2]
    return found


def _instruction(rows: list[str], position: int, escape: str) -> tuple[Line | None, int]:
    """The instruction that begins at ``position`` (None for comments and blank rows) and where the next one begins."""
    first = rows[position]
    if not first.strip() or first.lstrip().startswith("#"):
        return None, position + 1
    continued = re.compile(re.escape(escape) + r"[ \t]*$")
    begin = position
    parts: list[str] = []
    row = first.lstrip()
    while True:
        position += 1
        match = continued.search(row)
        if match is None:
            parts.append(row)
            break
        parts.append(row[: match.start()])
        while position < len(rows) and (not rows[position].strip() or rows[position].lstrip().startswith("#")):
            position += 1  # comments and blank rows inside a continuation are passed over
        if position >= len(rows):
            break
        row = rows[position]
    joined = "".join(parts).strip()
    keyword, _, rest = joined.partition(" ") if "\t" not in joined.split(" ", 1)[0] else joined.partition("\t")
    keyword, rest = keyword.upper(), rest.strip()
    heredocs: tuple[Heredoc, ...] = ()
    command, words = keyword, rest
    if keyword == "ONBUILD" and rest:
        command, *others = rest.split(None, 1)
        command, words = command.upper(), "".join(others)
    if command in _WITH_HEREDOC and "<<" in words:
        names = _heredoc_names(words, escape, in_shell=command == "RUN")
        heredocs, position = _heredocs(rows, position, names, begin + 1)
    source = "\n".join(rows[begin:position])
    return Line(keyword=keyword, rest=rest, number=begin + 1, end=position, source=source, heredocs=heredocs), position


class _Name(NamedTuple):
    """``<<NAME`` of an instruction. ``quoted``: nothing is to be expanded; ``tabs``: leading ones go (``<<-``)."""

    name: str
    quoted: bool
    tabs: bool


def _heredoc_names(rest: str, escape: str, *, in_shell: bool) -> list[_Name]:
    """Only a whole word begins a here-document: ``$((1<<n))`` and ``"<<EOF"`` are the shell's own affair."""
    try:
        words = split_words(rest, escape)
    except Invalid:
        return []
    found = []
    for word in words:
        match = _HEREDOC.fullmatch(word)
        if match is None:
            continue
        raw = _ENDS_NAME.split(match[2], maxsplit=1)[0] if in_shell else match[2]
        name = re.sub(f"['\"{re.escape(escape)}]", "", raw)
        if name:
            found.append(_Name(name, name != raw, bool(match[1])))
    return found


def _heredocs(rows: list[str], position: int, names: list[_Name], number: int) -> tuple[tuple[Heredoc, ...], int]:
    found = []
    for name, quoted, tabs in names:
        content: list[str] = []
        while True:
            if position >= len(rows):
                raise fail(number, f"unterminated heredoc {name}")
            row = rows[position].lstrip("\t") if tabs else rows[position]
            position += 1
            if row == name:
                break
            content.append(row)
        text = "".join(f"{row}\n" for row in content)
        found.append(Heredoc(name=name, content=text, expand=not quoted))
    return tuple(found), position
