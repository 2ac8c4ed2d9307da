"""Verbs on the file system of an instance: diff, commit, export."""

from __future__ import annotations

from enisle.cli.archive_output import open_output, write_all
from enisle.cli.command import Command, Context
from enisle.cli.flags import Options, many, option, switch
from enisle.cli.printing import say, say_json
from enisle.sdk.images import split_reference

_CHANGE_LETTERS = "CAD"


def diff(context: Context, options: Options, arguments: list[str]) -> None:
    """Print what differs from the image."""
    changes = context.client.instances.changes(arguments[0]) or []
    if options.json:
        say_json(changes, indent=2)
        return
    for change in changes:
        say(f"{_CHANGE_LETTERS[change['Kind']]} {change['Path']}")


def commit(context: Context, options: Options, arguments: list[str]) -> None:
    """Make an image of an instance, and print its id."""
    repository, tag = split_reference(arguments[1]) if len(arguments) > 1 else ("", "")
    created = context.client.instances.commit(
        arguments[0],
        repository=repository,
        tag=tag,
        author=options.author or "",
        message=options.message or "",
        changes=tuple(options.change),
        pause=options.pause,
    )
    print(created["Id"])


def export(context: Context, options: Options, arguments: list[str]) -> None:
    """Write the root file system as a tar."""
    with open_output(options.output) as output, context.client.instances.open_export(arguments[0]) as exchange:
        write_all(exchange, output)


DIFF = Command(
    summary="Show what an instance has changed in its file system",
    usage="INSTANCE",
    run=diff,
    flags=(switch("json", "", "Print the changes as a JSON array"),),
    least=1,
    most=1,
    completes="instance",
    long="A: added, C: changed, D: deleted.",
)
COMMIT = Command(
    summary="Make an image of an instance's changes",
    usage="[OPTIONS] INSTANCE [REPOSITORY[:TAG]]",
    run=commit,
    flags=(
        option("author", "a", "string", 'Author ("Ann Example <ann@example.org>")'),
        many("change", "c", "instruction", "Apply a Dockerfile instruction to the image"),
        option("message", "m", "string", "What changed"),
        switch("pause", "p", "Pause the instance meanwhile", default=True),
    ),
    least=1,
    most=2,
    completes="instance none",
)
EXPORT = Command(
    summary="Write an instance's file system as a tar",
    usage="[OPTIONS] INSTANCE",
    run=export,
    flags=(option("output", "o", "file", "Write to a file instead of standard output", completes="file"),),
    least=1,
    most=1,
    completes="instance",
)
