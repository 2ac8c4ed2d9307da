"""``enisle image bootstrap``."""

from __future__ import annotations

from enisle.cli import progress
from enisle.cli.command import Command, Context
from enisle.cli.flags import Options, switch


def bootstrap(context: Context, options: Options, arguments: list[str]) -> None:
    """Make a base image of the distribution's packages."""
    with context.client.images.open_bootstrap(arguments[0]) as exchange:
        progress.follow(exchange.objects(), quiet=options.quiet)


BOOTSTRAP = Command(
    summary="Make a base image from the distribution's packages",
    usage="[OPTIONS] debian:12|debian:13|busybox",
    run=bootstrap,
    flags=(switch("quiet", "q", "No progress"),),
    least=1,
    most=1,
    long="For places where no registry is in reach: the daemon's host fetches packages and makes the image of them.",
    examples=("enisle image bootstrap debian:12",),
)
