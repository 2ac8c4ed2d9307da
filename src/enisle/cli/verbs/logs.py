"""``enisle logs``."""

from __future__ import annotations

from enisle.cli.command import Command, Context, write
from enisle.cli.flags import Options, UsageError, option, switch
from enisle.cli.human import moment
from enisle.sdk.framing import STDERR


def logs(context: Context, options: Options, arguments: list[str]) -> None:
    """Print what an instance has written."""
    if options.tail != "all" and not options.tail.lstrip("-").isdigit():
        raise UsageError(f"invalid --tail '{options.tail}': expected a number of lines, or all")
    details = context.client.instances.get(arguments[0])
    exchange = context.client.instances.open_logs(
        details["Id"],
        follow=options.follow,
        timestamps=options.timestamps,
        details=options.details,
        since=options.since,
        until=options.until,
        tail=options.tail,
    )
    with exchange:
        if details["Config"].get("Tty"):
            for piece in exchange:
                write(piece)
            return
        for stream, piece in exchange.frames():
            write(piece, descriptor=2 if stream == STDERR else 1)


LOGS = Command(
    summary="Show what an instance has written",
    usage="[OPTIONS] INSTANCE",
    run=logs,
    flags=(
        switch("details", "", "Show the attributes of each line"),
        switch("follow", "f", "Go on as it writes"),
        option(
            "since",
            "",
            "time",
            "From that time, or so long ago (2024-05-01T12:00:00Z, 42m)",
            default="",
            convert=moment,
        ),
        option("tail", "n", "lines", "Only so many lines from the end", default="all"),
        switch("timestamps", "t", "Show when each line was written"),
        option("until", "", "time", "Up to that time, or so long ago", default="", convert=moment),
    ),
    least=1,
    most=1,
    completes="instance",
)
