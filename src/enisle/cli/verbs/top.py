"""``enisle top``."""

from __future__ import annotations

from enisle.cli import table
from enisle.cli.command import Command, Context
from enisle.cli.flags import Options, switch
from enisle.cli.printing import say_json


def top(context: Context, options: Options, arguments: list[str]) -> None:
    """Print the processes of an instance."""
    found = context.client.instances.top(arguments[0], ps_args=" ".join(arguments[1:]))
    titles, rows = found.get("Titles") or [], found.get("Processes") or []
    if options.json:
        say_json([dict(zip(titles, row, strict=False)) for row in rows], indent=2)
        return
    columns = [table.Column(title, shrink=int(title in ("CMD", "COMMAND", "ARGS"))) for title in titles]
    table.show(columns, [(row + [""] * len(titles))[: len(titles)] for row in rows])


TOP = Command(
    summary="Show the processes of an instance",
    usage="[OPTIONS] INSTANCE [ps OPTIONS]",
    run=top,
    flags=(switch("json", "", "Print the processes as a JSON array"),),
    least=1,
    interspersed=False,
    completes="running none",
)
