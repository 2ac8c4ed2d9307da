"""One way to show a list of objects: as a table, as ids, as JSON, or through a template."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from enisle.cli import table
from enisle.cli.command import Context
from enisle.cli.flags import Flag, Options, option, switch
from enisle.cli.printing import for_output, say_json
from enisle.cli.template import Template
from enisle.cli.template_functions import to_json

Row = dict[str, Any]  # what a template sees: Docker's column names, and methods such as Label

FORMAT = option(
    "format", "", "string", "A Go template for each line ('table TEMPLATE' with headers, 'json' for JSON lines)"
)
JSON = switch("json", "", "Print the objects as a JSON array")
QUIET = switch("quiet", "q", "Print ids only")
NO_TRUNC = switch("no-trunc", "", "Do not shorten ids and texts")
OUTPUT_FLAGS: tuple[Flag, ...] = (FORMAT, JSON)
LIST_FLAGS: tuple[Flag, ...] = (FORMAT, JSON, QUIET, NO_TRUNC)

_FIELD = re.compile(r"\.([A-Za-z]\w*)")


class Listing:
    """``columns`` name the keys of a row in order; ``titles`` are the headers templates show for a key."""

    def __init__(self, columns: Sequence[tuple[str, table.Column]], *, identity: str = "ID") -> None:
        self._columns = columns
        self._identity = identity

    def show(
        self,
        context: Context,
        options: Options,
        objects: Sequence[Any],
        row: Callable[[Any], Row],
        *,
        hidden: frozenset[str] = frozenset(),
    ) -> None:
        """Print the objects as the flags say; ``hidden`` keys have no column in the table."""
        pattern = getattr(options, "format", None)
        if getattr(options, "json", False):
            say_json(list(objects), indent=2)
        elif getattr(options, "quiet", False):
            for item in objects:
                print(row(item)[self._identity])
        elif pattern and pattern != "table":
            self._show_template(pattern, [row(item) for item in objects])
        else:
            table.show(*self.cells(objects, row, hidden=hidden))

    def cells(
        self, objects: Sequence[Any], row: Callable[[Any], Row], *, hidden: frozenset[str] = frozenset()
    ) -> tuple[list[table.Column], list[list[str]]]:
        """Columns and rows of the table."""
        chosen = [(key, column) for key, column in self._columns if key not in hidden]
        lines = [row(item) for item in objects]
        return [column for _, column in chosen], [[str(line[key]) for key, _ in chosen] for line in lines]

    def _show_template(self, pattern: str, rows: list[Row]) -> None:
        if pattern in ("json", "{{json .}}"):
            for line in rows:
                print(to_json(line))
            return
        if not pattern.startswith("table "):
            template = template_of(pattern)
            for line in rows:
                print(template.render(line))
            return
        body = pattern[len("table ") :]
        titles = {key: column.title for key, column in self._columns}
        header = [titles.get(key, _spaced(key)) for key in _FIELD.findall(body)]
        template = template_of(body)
        lines = [template.render(line).split("\t") for line in rows]
        width = max([len(line) for line in lines], default=len(header))
        if len(header) != width:
            header = (header + [""] * width)[:width]
        columns = [table.Column(title, shrink=1) for title in header]
        table.show(columns, [(line + [""] * width)[:width] for line in lines])


def template_of(pattern: str) -> Template:
    """A --format for standard output. Raises Invalid when it cannot be read."""
    return Template(unescape(pattern), clean=for_output())


def unescape(text: str) -> str:
    """Backslash t and n as people write them in single quotes."""
    return text.replace("\\t", "\t").replace("\\n", "\n")


def _spaced(key: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", key).upper()


def label_method(labels: dict[str, str] | None) -> Callable[[str], str]:
    """``{{.Label "key"}}`` of a row."""
    return lambda key: (labels or {}).get(key, "")


def labels_text(labels: dict[str, str] | None) -> str:
    """Labels as one text, as Docker's columns have them."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items()))


def filters(values: Sequence[str]) -> dict[str, list[str]]:
    """``--filter name=value`` words as the API wants them. Raises Invalid for one without a value."""
    from enisle.cli.flags import UsageError

    found: dict[str, list[str]] = {}
    for value in values:
        name, equals, rest = value.partition("=")
        if not equals:
            raise UsageError(f"invalid filter '{value}': expected NAME=VALUE")
        found.setdefault(name.strip().lower(), []).append(rest.strip())
    return found
