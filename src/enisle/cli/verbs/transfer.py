"""``enisle pull`` and ``enisle push``."""

from __future__ import annotations

from typing import Any

from enisle.cli import progress
from enisle.cli.command import Command, Context
from enisle.cli.flags import Options, UsageError, option, switch
from enisle.cli.verbs.run import with_tag
from enisle.sdk import images
from enisle.sdk.credentials import for_image
from enisle.sdk.request import Request

_TRUST = switch("disable-content-trust", "", "Skip image verification", default=True, hidden=True)


def pull(context: Context, options: Options, arguments: list[str]) -> None:
    """Fetch an image, and print its name."""
    image = arguments[0]
    if options.all_tags and images.split_reference(image)[1]:
        raise UsageError("tag can't be used with --all-tags/-a")
    build = images.pull_all if options.all_tags else images.pull
    if not options.all_tags and not options.quiet and not images.split_reference(image)[1]:
        print("Using default tag: latest", flush=True)
    _follow(context, build(image, platform=options.platform or "", credentials=for_image(image)), quiet=options.quiet)
    print(image if options.all_tags else with_tag(image))


def push(context: Context, options: Options, arguments: list[str]) -> None:
    """Send an image to its registry."""
    image = arguments[0]
    if options.all_tags and images.split_reference(image)[1]:
        raise UsageError("tag can't be used with --all-tags/-a")
    request = images.push(
        image, every_tag=options.all_tags, platform=options.platform or "", credentials=for_image(image)
    )
    _follow(context, request, quiet=options.quiet)
    if options.quiet:
        print(with_tag(image))


def _follow(context: Context, request: Request[Any], *, quiet: bool) -> None:
    with context.client.open(request) as exchange:
        progress.follow(exchange.objects(), quiet=quiet)


PULL = Command(
    summary="Fetch an image from a registry",
    usage="[OPTIONS] NAME[:TAG|@DIGEST]",
    run=pull,
    flags=(
        switch("all-tags", "a", "Fetch all tags of the repository"),
        _TRUST,
        option("platform", "", "string", "Platform (os/arch[/variant])"),
        switch("quiet", "q", "No progress"),
    ),
    least=1,
    most=1,
    completes="image",
)
PUSH = Command(
    summary="Send an image to a registry",
    usage="[OPTIONS] NAME[:TAG]",
    run=push,
    flags=(
        switch("all-tags", "a", "Send all tags of the repository"),
        _TRUST,
        option("platform", "", "string", "That platform alone (os/arch[/variant])"),
        switch("quiet", "q", "No progress"),
    ),
    least=1,
    most=1,
    completes="image",
)
