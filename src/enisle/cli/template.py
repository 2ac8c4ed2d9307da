"""Go's text/template, as far as ``--format`` needs it, over decoded JSON.

Text, fields and chains, pipelines, functions, parentheses, variables, ``if``/``else if``/``else``, ``range`` and
``with``, comments and ``{{- trims -}}``. (Go's grammar: https://pkg.go.dev/text/template.)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from enisle.cli.template_functions import FUNCTIONS, Missing, show, truth
from enisle.errors import Invalid

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<string>"(?:\\.|[^"\\])*"|`[^`]*`)
      | (?P<number>[-+]?\d+(?:\.\d+)?)
      | (?P<declare>:=)
      | (?P<chain>(?:\$[A-Za-z0-9_]*|\))?(?:\.[A-Za-z_][A-Za-z0-9_]*)+|\$[A-Za-z0-9_]*|\.)
      | (?P<symbol>[|(),=])
      | (?P<word>[A-Za-z_][A-Za-z0-9_]*)
    )""",
    re.VERBOSE,
)
_ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)

Scope = dict[str, Any]  # variables by name with $, and "." for the current value
Value = Callable[[Scope], Any]
Node = Callable[[Scope], str]


class Template:
    """A compiled template; ``clean`` is applied to what it shows of the data. Raises Invalid if it cannot be read."""

    def __init__(self, source: str, *, clean: Callable[[str], str] = str) -> None:
        self._clean = clean
        self._pieces = _split(source)
        self._position = 0
        nodes, end = self._nodes()
        if end:
            raise Invalid(f"template parsing error: unexpected {{{{{end}}}}}")
        self._run = _sequence(nodes)

    def render(self, data: Any) -> str:
        """The text for this value."""
        try:
            return self._run({".": data, "$": data})
        except (TypeError, KeyError, IndexError, ValueError, AttributeError) as error:
            raise Invalid(f"template cannot be applied: {error}") from error

    def _nodes(self) -> tuple[list[Node], str]:
        """Nodes up to an ``end`` or ``else`` of the enclosing block, and that word."""
        nodes: list[Node] = []
        while self._position < len(self._pieces):
            kind, text = self._pieces[self._position]
            self._position += 1
            if kind == "text":
                nodes.append(_text(text))
                continue
            keyword, _, rest = text.partition(" ")
            if keyword in ("end", "else"):
                return nodes, text
            if keyword in _BLOCKS:
                nodes.append(self._block(keyword, rest))
            elif keyword in ("define", "template", "block", "break", "continue"):
                raise Invalid(f"template parsing error: {keyword} is not supported")
            else:
                nodes.append(_cleaned(_Expression(text).action(), self._clean))
        return nodes, ""

    def _block(self, keyword: str, head: str) -> Node:
        names, value = _Expression(head).declaration()
        body, end = self._nodes()
        otherwise: list[Node] = []
        if end.startswith("else"):
            inner, _, rest = end[4:].strip().partition(" ")
            if inner:
                otherwise = [self._block(inner, rest)]
                end = "end"
            else:
                otherwise, end = self._nodes()
        if end != "end":
            raise Invalid(f"template parsing error: {{{{{keyword}}}}} without {{{{end}}}}")
        return _BLOCKS[keyword](names, value, _sequence(body), _sequence(otherwise))


def _split(source: str) -> list[tuple[str, str]]:
    pieces: list[tuple[str, str]] = []
    position = 0
    trim = False
    for match in _ACTION.finditer(source):
        text = source[position : match.start()]
        if trim:
            text = text.lstrip()
        if match[1]:
            text = text.rstrip()
        pieces.append(("text", text))
        action = match[2].strip()
        if not action.startswith("/*"):
            pieces.append(("action", re.sub(r"^(\w+)\s+", r"\1 ", action)))
        trim = bool(match[3])
        position = match.end()
    tail = source[position:]
    if "{{" in tail:
        raise Invalid("template parsing error: unclosed action")
    pieces.append(("text", tail.lstrip() if trim else tail))
    return pieces


def _text(text: str) -> Node:
    return lambda scope: text


def _cleaned(node: Node, clean: Callable[[str], str]) -> Node:
    return lambda scope: clean(node(scope))


def _sequence(nodes: Sequence[Node]) -> Node:
    return lambda scope: "".join(node(scope) for node in nodes)


def _if(names: list[str], value: Value, body: Node, otherwise: Node) -> Node:
    def run(scope: Scope) -> str:
        result = value(scope)
        inner = scope | dict.fromkeys(names, result)
        return body(inner) if truth(result) else otherwise(inner)

    return run


def _with(names: list[str], value: Value, body: Node, otherwise: Node) -> Node:
    def run(scope: Scope) -> str:
        result = value(scope)
        inner = scope | dict.fromkeys(names, result)
        return body(inner | {".": result}) if truth(result) else otherwise(inner)

    return run


def _range(names: list[str], value: Value, body: Node, otherwise: Node) -> Node:
    def run(scope: Scope) -> str:
        items = value(scope)
        if not truth(items):
            return otherwise(scope)
        if isinstance(items, int):
            items = range(items)
        pairs = sorted(items.items()) if isinstance(items, dict) else list(enumerate(items))
        out = []
        for key, item in pairs:
            bound = dict(zip(names, (key, item) if len(names) == 2 else (item,), strict=False))
            out.append(body(scope | bound | {".": item}))
        return "".join(out)

    return run


_BLOCKS: dict[str, Callable[[list[str], Value, Node, Node], Node]] = {"if": _if, "with": _with, "range": _range}


class _Expression:
    """The inside of one pair of braces, read by recursive descent."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._position = 0

    def action(self) -> Node:
        """A pipeline to print, or a variable to set."""
        names, value = self.declaration()
        if not names:
            return lambda scope: show(value(scope))

        def assign(scope: Scope) -> str:
            scope[names[0]] = value(scope)
            return ""

        return assign

    def declaration(self) -> tuple[list[str], Value]:
        """``$a, $b := pipeline`` or a pipeline alone."""
        names: list[str] = []
        start = self._position
        while self._peek()[0] == "chain" and self._peek()[1].startswith("$"):
            names.append(self._take()[1])
            if self._peek()[1] == ",":
                self._take()
        if names and self._peek()[1] in (":=", "="):
            self._take()
        else:
            self._position, names = start, []
        value = self._pipeline()
        if self._position < len(self._tokens):
            raise self._error(f"unexpected {self._peek()[1]!r}")
        return names, value

    def _pipeline(self) -> Value:
        value = self._call(None)
        while self._peek()[1] == "|" and self._peek()[0] == "symbol":
            self._take()
            value = self._call(value)
        return value

    def _call(self, piped: Value | None) -> Value:
        """A function or field with its arguments, or a single operand."""
        kind, text = self._peek()
        if kind == "word" and text not in _CONSTANTS:
            self._take()
            function = FUNCTIONS.get(text)
            if function is None:
                raise self._error(f'function "{text}" not defined')
            arguments = self._arguments()
            return _applied(function, [*arguments, piped] if piped else arguments)
        operand = self._operand()
        arguments = self._arguments()
        if not arguments and piped is None:
            return _plainly(operand)
        return _method(operand, [*arguments, piped] if piped else arguments)

    def _arguments(self) -> list[Value]:
        found: list[Value] = []
        while self._position < len(self._tokens):
            kind, text = self._peek()
            if kind == "symbol" and text != "(":
                break
            if kind == "chain" and text.startswith(")"):
                break
            if kind == "word" and text not in _CONSTANTS:
                self._take()
                if text not in FUNCTIONS:
                    raise self._error(f'function "{text}" not defined')
                found.append(_applied(FUNCTIONS[text], []))
            else:
                found.append(_plainly(self._operand()))
        return found

    def _operand(self) -> Value:
        kind, text = self._take()
        if kind == "string":
            value = _unquote(text)
            return lambda scope: value
        if kind == "number":
            number = float(text) if "." in text else int(text)
            return lambda scope: number
        if kind == "word" and text in _CONSTANTS:
            return lambda scope: _CONSTANTS[text]
        if kind == "chain" and not text.startswith(")"):
            start, *fields = text.split(".")
            fields = [field for field in fields if field]
            return _lookup(start or ".", fields)
        if text == "(":
            inner = self._pipeline()
            kind, text = self._peek()
            self._position += 1
            if not text.startswith(")"):
                raise self._error("unclosed left paren")
            fields = text[1:].split(".")[1:]
            return lambda scope: _follow(inner(scope), fields)
        raise self._error(f"unexpected {text!r}")

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._position] if self._position < len(self._tokens) else ("", "")

    def _take(self) -> tuple[str, str]:
        token = self._peek()
        if not token[0]:
            raise self._error("missing value")
        self._position += 1
        return token

    def _error(self, reason: str) -> Invalid:
        return Invalid(f"template parsing error: {reason} in {{{{{self._text}}}}}")


_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "nil": None}


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens = []
    position = 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise Invalid(f"template parsing error: unexpected {text[position:].strip()[:1]!r} in {{{{{text}}}}}")
        tokens.append((match.lastgroup, match[match.lastgroup]))
        position = match.end()
    return tokens


_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}


def _unquote(text: str) -> str:
    if text.startswith("`"):
        return text[1:-1]
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), text[1:-1])


def _lookup(start: str, fields: list[str]) -> Value:
    def run(scope: Scope) -> Any:
        if start not in scope:
            raise Invalid(f"template parsing error: undefined variable {start!r}")
        return _follow(scope[start], fields)

    return run


def _follow(value: Any, fields: Sequence[str]) -> Any:
    for field in fields:
        value = _plain(value)
        if isinstance(value, dict) and field in value:
            value = value[field]
        elif value is None or isinstance(value, dict | Missing):
            value = Missing(field)
        else:
            raise Invalid(f"template cannot be applied: can't evaluate field {field} in a {type(value).__name__}")
    return value


def _plain(value: Any) -> Any:
    """A field that is a method, called without arguments."""
    return value() if callable(value) else value


def _plainly(operand: Value) -> Value:
    return lambda scope: _plain(operand(scope))


def _applied(function: Callable[..., Any], arguments: list[Value]) -> Value:
    return lambda scope: function(*[argument(scope) for argument in arguments])


def _method(operand: Value, arguments: list[Value]) -> Value:
    def run(scope: Scope) -> Any:
        value = operand(scope)
        if not callable(value):
            raise Invalid("template cannot be applied: a value that is no function was given arguments")
        return value(*[argument(scope) for argument in arguments])

    return run
