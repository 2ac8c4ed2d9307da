"""Images as files: save, load, import."""

from __future__ import annotations

from enisle.cli.archive_output import open_input, open_output, write_all
from enisle.cli.command import Command, Context
from enisle.cli.flags import Options, many, option, switch
from enisle.cli.progress import counted, follow
from enisle.sdk import images

_PLATFORM = option("platform", "", "string", "Platform (os/arch[/variant])")


def save(context: Context, options: Options, arguments: list[str]) -> None:
    """Write images as one tar."""
    with open_output(options.output) as output, context.client.images.open_save(tuple(arguments)) as exchange:
        write_all(exchange, output)


def load(context: Context, options: Options, arguments: list[str]) -> None:
    """Take in images from a tar."""
    with (
        open_input(options.input) as pieces,
        context.client.images.open_load(counted(pieces, "Sending the archive"), quiet=options.quiet) as exchange,
    ):
        follow(exchange.objects())


def import_image(context: Context, options: Options, arguments: list[str]) -> None:
    """Make an image of a root file system's tar, and print its id."""
    source = arguments[0]
    repository, tag = images.split_reference(arguments[1]) if len(arguments) > 1 else ("", "")
    remote = source.startswith(("http://", "https://"))
    with open_input("/dev/null" if remote else source) as pieces:
        exchange = context.client.images.open_import(
            b"" if remote else counted(pieces, "Sending the archive"),
            source=source if remote else "-",
            repository=repository,
            tag=tag,
            message=options.message or "",
            changes=tuple(options.change),
            platform=options.platform or "",
        )
        with exchange:
            follow(exchange.objects())


SAVE = Command(
    summary="Write images as a tar",
    usage="[OPTIONS] IMAGE [IMAGE...]",
    run=save,
    flags=(option("output", "o", "file", "Write to a file instead of standard output", completes="file"),),
    least=1,
    completes="image",
    examples=("enisle save debian:12 | zstd > debian.tar.zst",),
)
LOAD = Command(
    summary="Take in images from a tar",
    usage="[OPTIONS]",
    run=load,
    flags=(
        option("input", "i", "file", "Read from a file instead of standard input", completes="file"),
        switch("quiet", "q", "No progress"),
    ),
    most=0,
)
IMPORT = Command(
    summary="Make an image of a root file system's tar",
    usage="[OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]",
    run=import_image,
    flags=(
        many("change", "c", "instruction", "Apply a Dockerfile instruction to the image"),
        option("message", "m", "string", "What it is"),
        _PLATFORM,
    ),
    least=1,
    most=2,
    completes="file none",
)
