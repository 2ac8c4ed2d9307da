"""Words of a Dockerfile: quoting and expansion of variables (``$a``, ``${a:-b}``, ``${a#b}``, ``${a/b/c}``).

Source of the rules: Docker's Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from enisle.errors import Invalid
from enisle.formats.dockerfile import patterns

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SPECIAL = "@*#0123456789?-!"
MAX_RESULT = 1 << 20
"""How many characters the variables of one text come to: a value may name another one many times."""


class Expander:
    """Expands one text; ``escape`` is the Dockerfile's escape character."""

    def __init__(
        self, text: str, variables: Mapping[str, str], *, escape: str = "\\", keep_quotes: bool = False
    ) -> None:
        self._text = text
        self._at = 0
        self._variables = variables
        self._escape = escape
        self._keep_quotes = keep_quotes
        self._expanded = 0

    def word(self) -> str:
        """The text as one word, quotes removed and variables expanded."""
        return "".join(piece for piece, _ in self._pieces(""))

    def words(self) -> list[str]:
        """The text cut at blanks that are not quoted; an expansion is not cut again."""
        words: list[str] = []
        current: list[str] | None = None
        for piece, is_blank in self._pieces("", split=True):
            if is_blank:
                if current is not None:
                    words.append("".join(current))
                current = None
            else:
                current = [*(current or []), piece]
        if current is not None:
            words.append("".join(current))
        return words

    def heredoc(self) -> str:
        """The text with variables expanded and everything else as it is, but for escaped dollars."""
        out: list[str] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == "$":
                out.append(self._dollar())
            elif character == self._escape and self._text[self._at + 1 : self._at + 2] in ("$", self._escape):
                out.append(self._text[self._at + 1])
                self._at += 2
            else:
                out.append(character)
                self._at += 1
        return "".join(out)

    def _pieces(self, until: str, *, split: bool = False) -> list[tuple[str, bool]]:
        pieces: list[tuple[str, bool]] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            if until and character == until:
                break
            if character == "'":
                pieces.append((self._single_quoted(), False))
            elif character == '"':
                pieces.append((self._double_quoted(), False))
            elif character == "$":
                pieces.append((self._dollar(), False))
            elif character == self._escape:
                pieces.append((self._escaped(), False))
            else:
                self._at += 1
                pieces.append((character, split and character.isspace()))
        return pieces

    def _escaped(self) -> str:
        self._at += 1
        if self._at >= len(self._text):
            return self._escape
        character = self._text[self._at]
        self._at += 1
        return self._escape + character if self._keep_quotes else character

    def _single_quoted(self) -> str:
        end = self._text.find("'", self._at + 1)
        if end < 0:
            raise Invalid(f"unexpected end of statement while looking for matching single-quote: {self._text}")
        inner = self._text[self._at + 1 : end]
        self._at = end + 1
        return f"'{inner}'" if self._keep_quotes else inner

    def _double_quoted(self) -> str:
        self._at += 1
        out: list[str] = []
        while self._at < len(self._text):
            character = self._text[self._at]
            if character == '"':
                self._at += 1
                inner = "".join(out)
                return f'"{inner}"' if self._keep_quotes else inner
            if character == "$":
                out.append(self._dollar())
            elif character == self._escape and self._at + 1 < len(self._text):
                following = self._text[self._at + 1]
                drop = following in ('"', "$", self._escape) and not self._keep_quotes
                out.append(following if drop else self._escape + following)
                self._at += 2
            else:
                out.append(character)
                self._at += 1
        raise Invalid(f"unexpected end of statement while looking for matching double-quote: {self._text}")

    def _dollar(self) -> str:
        value = self._variable()
        self._expanded += len(value)
        if self._expanded > MAX_RESULT:
            raise Invalid(f"the variables of {self._text[:60]} are longer than {MAX_RESULT} characters")
        return value

    def _variable(self) -> str:
        self._at += 1
        if self._at >= len(self._text):
            return "$"
        if self._text[self._at] == "{":
            self._at += 1
            return self._braced()
        match = _NAME.match(self._text, self._at)
        if match is not None:
            self._at = match.end()
            return self._variables.get(match[0], "")
        if self._text[self._at] in _SPECIAL:
            self._at += 1
            return ""
        return "$"

    def _braced(self) -> str:
        match = _NAME.match(self._text, self._at) or re.compile(r"[0-9@*#?!-]").match(self._text, self._at)
        if match is None:
            raise Invalid(f"unsupported modifier or missing name in ${{…}}: {self._text}")
        name = match[0]
        self._at = match.end()
        value = self._variables.get(name)
        if self._peek() == "}":
            self._at += 1
            return value or ""
        operator = self._operator()
        argument = "".join(piece for piece, _ in self._pieces("/" if operator[0] == "/" else "}"))
        replacement = ""
        if operator[0] == "/" and self._peek() == "/":
            self._at += 1
            replacement = "".join(piece for piece, _ in self._pieces("}"))
        if self._peek() != "}":
            raise Invalid(f"syntax error: missing '}}' in: {self._text}")
        self._at += 1
        return _modified(name, value, operator, argument, replacement)

    def _peek(self) -> str:
        return self._text[self._at] if self._at < len(self._text) else ""

    def _operator(self) -> str:
        for operator in (":-", ":+", ":?", "##", "%%", "//", "-", "+", "?", "#", "%", "/"):
            if self._text.startswith(operator, self._at):
                self._at += len(operator)
                return operator
        raise Invalid(f"unsupported modifier ({self._peek()}) in substitution: {self._text}")


def _modified(name: str, value: str | None, operator: str, argument: str, replacement: str) -> str:
    given = bool(value) if operator.startswith(":") else value is not None
    match operator[-1]:
        case "-":
            return (value or "") if given else argument
        case "+":
            return argument if given else ""
        case "?":
            if not given:
                raise Invalid(f"{name}: {argument or 'not allowed to be unset'}")
            return value or ""
        case "#" | "%":
            trimmed = patterns.without_suffix if operator[0] == "%" else patterns.without_prefix
            return trimmed(value or "", argument, longest=len(operator) == 2)
        case _:
            return patterns.replaced(value or "", argument, replacement, every=operator == "//")


def split_words(text: str, escape: str) -> list[str]:
    """Cut at blanks outside of quotes; quotes, escapes and variables stay as they are."""
    words: list[str] = []
    current = ""
    quote = ""
    index = 0
    while index < len(text):
        character = text[index]
        if character == escape and quote != "'" and index + 1 < len(text):
            current += character + text[index + 1]
            index += 2
            continue
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character.isspace():
            words += [current] if current else []
            current = ""
            index += 1
            continue
        current += character
        index += 1
    if quote:
        raise Invalid(f"unexpected end of statement while looking for matching {quote}: {text}")
    return [*words, current] if current else words


def expand(text: str, variables: Mapping[str, str], *, escape: str = "\\") -> str:
    """The text as one word."""
    return Expander(text, variables, escape=escape).word()


def expand_heredoc(text: str, variables: Mapping[str, str], *, escape: str = "\\") -> str:
    """Variables expanded in a here-document; quotes are plain characters there."""
    return Expander(text, variables, escape=escape, keep_quotes=True).heredoc()
