"""Verbs on the content of volumes: export, import, clone, snapshots, rename, resize."""

from __future__ import annotations

from enisle.cli.archive_output import open_input, open_output, write_all
from enisle.cli.command import Command, Context
from enisle.cli.each import each
from enisle.cli.flags import Options, option, switch
from enisle.cli.printing import say_json
from enisle.cli.progress import counted

_RUNNING = "While instances write to the volume, each file is as it is at the moment when it is read."
_SIZE = option("size", "", "bytes", "Size limit (2g)")
_SNAPSHOT = option("snapshot", "", "string", "Take the files of this snapshot")


def export(context: Context, options: Options, arguments: list[str]) -> None:
    """Write a volume's files as a tar."""
    with (
        open_output(options.output) as output,
        context.client.volumes.open_export(arguments[0], snapshot=options.snapshot or "") as exchange,
    ):
        write_all(exchange, output)


def import_volume(context: Context, options: Options, arguments: list[str]) -> None:
    """Make a volume of a tar, and print its name."""
    with open_input(arguments[1] if len(arguments) > 1 else None) as pieces:
        made = context.client.volumes.import_tar(
            arguments[0], counted(pieces, "Sending the archive"), replace=options.replace, size=options.size or ""
        )
    print(made["Name"])


def clone(context: Context, options: Options, arguments: list[str]) -> None:
    """Copy a volume, and print the new one's name."""
    made = context.client.volumes.clone(
        arguments[0], arguments[1], snapshot=options.snapshot or "", size=options.size or ""
    )
    print(made["Name"])


def rename(context: Context, options: Options, arguments: list[str]) -> None:
    """Give a volume another name."""
    context.client.volumes.rename(arguments[0], arguments[1])


def resize(context: Context, options: Options, arguments: list[str]) -> None:
    """Change a volume's size limit."""
    context.client.volumes.resize(arguments[0], arguments[1])


def snapshot(context: Context, options: Options, arguments: list[str]) -> None:
    """Take a snapshot, and print its name."""
    taken = context.client.volumes.take_snapshot(arguments[0], arguments[1] if len(arguments) > 1 else "")
    print(taken["Name"])


def snapshots(context: Context, options: Options, arguments: list[str]) -> None:
    """List a volume's snapshots, oldest first."""
    found = context.client.volumes.snapshots(arguments[0])
    if options.json:
        say_json(found, indent=2)
        return
    for each_one in found:
        print(each_one["Name"] if options.quiet else f"{each_one['Name']}\t{each_one['CreatedAt']}")


def restore(context: Context, options: Options, arguments: list[str]) -> None:
    """Put a snapshot's files in the place of the volume's."""
    context.client.volumes.restore(arguments[0], arguments[1])


def remove_snapshots(context: Context, options: Options, arguments: list[str]) -> int:
    """Remove snapshots."""

    def one(name: str) -> None:
        context.client.volumes.remove_snapshot(arguments[0], name)

    return each(arguments[1:], one)


EXPORT = Command(
    summary="Write a volume's files as a tar",
    usage="[OPTIONS] VOLUME",
    run=export,
    flags=(
        option("output", "o", "file", "Write to a file instead of standard output", completes="file"),
        _SNAPSHOT,
    ),
    least=1,
    most=1,
    completes="volume",
    long=f"Equal files give equal archives. Sockets are left out. {_RUNNING}",
)
IMPORT = Command(
    summary="Make a volume of a tar",
    usage="[OPTIONS] VOLUME [FILE|-]",
    run=import_volume,
    flags=(switch("replace", "", "Put it in the place of what the volume has"), _SIZE),
    least=1,
    most=2,
    completes="volume file",
    long="The volume has all of the archive or, when that fails, is what it was. It may be compressed.",
)
CLONE = Command(
    summary="Copy a volume",
    usage="[OPTIONS] VOLUME NEW_NAME",
    run=clone,
    flags=(_SIZE, _SNAPSHOT),
    least=2,
    most=2,
    completes="volume none",
    long=_RUNNING,
)
RENAME = Command(
    summary="Rename a volume that no instance mentions",
    usage="VOLUME NEW_NAME",
    run=rename,
    least=2,
    most=2,
    completes="volume none",
)
RESIZE = Command(
    summary="Change a volume's size limit",
    usage="VOLUME SIZE",
    run=resize,
    least=2,
    most=2,
    completes="volume none",
    long="More is given at once. Less needs a volume that no running instance uses, unless its file system has quotas.",
)
SNAPSHOT = Command(
    summary="Keep a volume's files as they are",
    usage="VOLUME [NAME]",
    run=snapshot,
    least=1,
    most=2,
    completes="volume none",
    long=_RUNNING,
)
SNAPSHOTS = Command(
    summary="List a volume's snapshots",
    usage="[OPTIONS] VOLUME",
    run=snapshots,
    flags=(switch("json", "", "Print a JSON array"), switch("quiet", "q", "Only names")),
    least=1,
    most=1,
    completes="volume",
)
RESTORE = Command(
    summary="Put a snapshot's files in the place of a volume's",
    usage="VOLUME SNAPSHOT",
    run=restore,
    least=2,
    most=2,
    completes="volume none",
)
RM_SNAPSHOT = Command(
    summary="Remove snapshots",
    usage="VOLUME SNAPSHOT [SNAPSHOT...]",
    run=remove_snapshots,
    least=2,
    completes="volume none",
)
