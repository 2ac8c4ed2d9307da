"""``enisle help``."""

from __future__ import annotations

from enisle.cli import manual
from enisle.cli.command import Command, Context
from enisle.cli.flags import Options


def show_help(context: Context, options: Options, arguments: list[str]) -> int:
    """Show the help for a command."""
    return manual.show(arguments)


HELP = Command("Show help about a command", "[COMMAND]", show_help, most=2, completes="command")
