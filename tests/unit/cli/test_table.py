from __future__ import annotations

import pytest

from enisle.cli import table
from enisle.cli.command import Context
from enisle.cli.flags import Options, UsageError, parse
from enisle.cli.listing import LIST_FLAGS, Listing, filters
from enisle.cli.table import Column

COLUMNS = (Column("ID"), Column("IMAGE", shrink=1, keep="end"), Column("COMMAND", shrink=2), Column("SIZE", right=True))
ROWS = (("abc", "registry.example/some/image:1", '"a long command line"', "1MB"), ("def", "x", '"y"', "999MB"))


def lines(limit: int | None) -> list[str]:
    return table.lines(COLUMNS, ROWS, limit=limit, colour=False)


def test_a_table_is_as_wide_as_it_is_when_nobody_limits_it() -> None:
    assert lines(None) == [
        "ID    IMAGE                           COMMAND                  SIZE",
        'abc   registry.example/some/image:1   "a long command line"     1MB',
        'def   x                               "y"                     999MB',
    ]


def test_a_table_fits_and_the_readiest_column_gives_way_first() -> None:
    fitted = lines(60)
    assert max(map(len, fitted)) <= 60
    assert "registry.example/some/image:1" in fitted[1]
    assert "…" in fitted[1]
    narrower = lines(40)
    assert max(map(len, narrower)) <= 40
    assert "…e/some/image:1" in narrower[1]


def test_the_least_important_columns_are_left_out_where_nothing_else_helps() -> None:
    columns = (Column("NAME", shrink=1), Column("COMMAND", shrink=2, drop=2), Column("CREATED", drop=1))
    rows = [("instance-1", "sleep 1000", "3 minutes ago")]
    assert table.lines(columns, rows, limit=40, colour=False)[1] == "instance-1   sleep 1000   3 minutes ago"
    assert table.lines(columns, rows, limit=30, colour=False)[1] == "instance-1   3 minutes ago"
    assert table.lines(columns, rows, limit=10, colour=False)[1] == "instance-1"
    assert table.lines(columns, rows, limit=8, colour=False) == ["NAME", "instanc…"]


def test_the_last_resort_is_to_leave_out_what_would_rather_stay() -> None:
    columns = [Column("CONTAINER ID", drop=-1), Column("STATE"), Column("NAME", shrink=1)]
    rows = [["0123456789ab", "running", "a-name-of-some-length"]]
    assert table.lines(columns, rows, limit=36, colour=False)[1] == "0123456789ab   running   a-name-of-…"
    assert table.lines(columns, rows, limit=30, colour=False)[1] == "running   a-name-of-some-leng…"


def test_wide_characters_count_double() -> None:
    assert table.cells("日本") == 4
    assert table.cut("日本語", 5) == "日本…"
    assert table.cells("e\N{COMBINING ACUTE ACCENT}") == 1


LISTING = Listing((("ID", Column("CONTAINER ID")), ("Names", Column("NAMES"))))


def options(*words: str) -> Options:
    return parse(LIST_FLAGS, words)[0]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), "CONTAINER ID   NAMES\n1              a\n2              b\n"),
        (("-q",), "1\n2\n"),
        (("--format", "{{.Names}}"), "a\nb\n"),
        (("--format", r"table {{.Names}}\t{{.ID}}"), "NAMES   CONTAINER ID\na       1\nb       2\n"),
        (("--format", "json"), '{"ID":"1","Names":"a"}\n{"ID":"2","Names":"b"}\n'),
        (("--json",), '[\n  {\n    "n": 1\n  },\n  {\n    "n": 2\n  }\n]\n'),
    ],
)
def test_lists_are_shown_as_flags_say(
    words: tuple[str, ...], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    objects = [{"n": 1}, {"n": 2}]
    LISTING.show(Context(), options(*words), objects, lambda item: {"ID": str(item["n"]), "Names": " ab"[item["n"]]})
    assert capsys.readouterr().out == expected


def test_filters_are_gathered_by_name() -> None:
    assert filters(["label=a=b", "label=c", "Status=exited"]) == {"label": ["a=b", "c"], "status": ["exited"]}
    with pytest.raises(UsageError, match="NAME=VALUE"):
        filters(["exited"])
