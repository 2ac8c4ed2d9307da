"""Verbs on images: images, history, tag, rmi."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from enisle.cli.command import Command, Context, warn
from enisle.cli.flags import Options, many, option, switch
from enisle.cli.human import ago, bytes_text, epoch
from enisle.cli.listing import LIST_FLAGS, Listing, Row, filters
from enisle.cli.table import Column
from enisle.errors import EnisleError, NotFound
from enisle.sdk.images import split_reference

if TYPE_CHECKING:
    from enisle.sdk.types import HistoryLine, ImageSummary

_NONE = "<none>"

_IMAGES = Listing(
    (
        ("Repository", Column("REPOSITORY", shrink=2, keep="end")),
        ("Tag", Column("TAG", shrink=1)),
        ("Digest", Column("DIGEST", shrink=3, drop=2)),
        ("ID", Column("IMAGE ID", drop=-1)),
        ("CreatedSince", Column("CREATED", drop=1)),
        ("Size", Column("SIZE", right=True)),
    )
)
_HISTORY = Listing(
    (
        ("ID", Column("IMAGE")),
        ("CreatedSince", Column("CREATED")),
        ("CreatedBy", Column("CREATED BY", shrink=3)),
        ("Size", Column("SIZE", right=True)),
        ("Comment", Column("COMMENT", shrink=2, drop=1)),
    )
)


def list_images(context: Context, options: Options, arguments: list[str]) -> None:
    """List images."""
    chosen = filters(options.filter)
    if arguments:
        chosen["reference"] = [arguments[0]]
    found = context.client.images.list(everything=options.all, filters=chosen, digests=options.digests)
    if options.json:
        _IMAGES.show(context, options, found, lambda item: {})
        return
    hidden = frozenset() if options.digests else frozenset({"Digest"})
    named = [(item, name) for item in found for name in _names(item, digests=options.digests)]
    if options.quiet:
        # Once per image, however many names it has.
        named = list({item["Id"]: (item, name) for item, name in named}.values())
    _IMAGES.show(context, options, named, lambda pair: _row(*pair, full=options.no_trunc), hidden=hidden)


def _names(item: ImageSummary, *, digests: bool) -> list[tuple[str, str, str]]:
    """(repository, tag, digest) of each name."""
    by_repository = {name.partition("@")[0]: name.partition("@")[2] for name in item.get("RepoDigests") or []}
    found = []
    for tag in item.get("RepoTags") or []:
        repository, name = split_reference(tag)
        if repository != _NONE:
            found.append((repository, name or _NONE, by_repository.get(repository, _NONE)))
    tagged = {repository for repository, _, _ in found}
    if digests or not found:
        found += [(name, _NONE, value) for name, value in by_repository.items() if name not in tagged | {_NONE}]
    return found or [(_NONE, _NONE, _NONE)]


def _row(item: ImageSummary, name: tuple[str, str, str], *, full: bool) -> Row:
    created = item.get("Created", 0)
    users = item.get("Containers", -1)
    return {
        "Repository": name[0],
        "Tag": name[1],
        "Digest": name[2],
        "ID": short_id(item["Id"], full=full),
        "CreatedSince": ago(created),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created)),
        "Size": bytes_text(item.get("Size", 0)),
        "VirtualSize": bytes_text(item.get("Size", 0)),
        "SharedSize": bytes_text(item["SharedSize"]) if item.get("SharedSize", -1) >= 0 else "N/A",
        "UniqueSize": "N/A",
        "Containers": str(users) if users >= 0 else "N/A",
    }


def short_id(text: str, *, full: bool) -> str:
    """An image's id in 12 digits."""
    return text if full else text.removeprefix("sha256:")[:12]


def history(context: Context, options: Options, arguments: list[str]) -> None:
    """Print how an image was made."""
    found = context.client.images.history(arguments[0], platform=options.platform or "")
    _HISTORY.show(context, options, found, lambda item: _step(item, full=options.no_trunc, human=options.human))


def _step(item: HistoryLine, *, full: bool, human: bool) -> Row:
    created = _created(item.get("Created", 0))
    text = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(created)) if created > 0 else ""
    by = " ".join(str(item.get("CreatedBy", "")).split())
    return {
        "ID": short_id(item.get("Id") or "<missing>", full=full),
        "CreatedSince": (ago(created) if created > 0 else "N/A") if human else text,
        "CreatedAt": text,
        "CreatedBy": by,
        "Size": bytes_text(item.get("Size", 0)) if human else str(item.get("Size", 0)),
        "Comment": item.get("Comment", ""),
    }


def _created(value: Any) -> float:
    return epoch(value) if isinstance(value, str) and value else float(value or 0)


def tag(context: Context, options: Options, arguments: list[str]) -> None:
    """Give an image another name."""
    repository, name = split_reference(arguments[1])
    context.client.images.tag(arguments[0], repository=repository, tag=name)


def remove(context: Context, options: Options, arguments: list[str]) -> int:
    """Remove names, and images that have none left."""
    failed = 0
    for reference in arguments:
        try:
            if options.platform:  # each is an image of its own
                reference = context.client.images.get(reference, platform=options.platform)["Id"]
            removed = context.client.images.remove(reference, force=options.force, no_prune=options.no_prune)
        except EnisleError as error:
            if options.force and isinstance(error, NotFound):
                warn(f"enisle: {error}")
                continue
            warn(f"enisle: {error}")
            failed = 1
            continue
        for step in removed or []:
            print(f"Untagged: {step['Untagged']}" if step.get("Untagged") else f"Deleted: {step.get('Deleted', '')}")
    return failed


IMAGES = Command(
    summary="List images",
    usage="[OPTIONS] [REPOSITORY[:TAG]]",
    run=list_images,
    flags=(
        switch("all", "a", "Show intermediate images too"),
        switch("digests", "", "Show digests"),
        many(
            "filter",
            "f",
            "NAME=VALUE",
            "Show those that match (dangling=, label=, before=, since=, reference=)",
            choices=("before=", "dangling=", "label=", "reference=", "since=", "until="),
        ),
        *LIST_FLAGS,
    ),
    most=1,
    completes="image",
)
HISTORY = Command(
    summary="Show how an image was made",
    usage="[OPTIONS] IMAGE",
    run=history,
    flags=(
        switch("human", "H", "Sizes and dates as people write them", default=True),
        option("platform", "", "string", "Platform of the image (os/arch[/variant])"),
        *LIST_FLAGS,
    ),
    least=1,
    most=1,
    completes="image",
)
TAG = Command(
    summary="Give an image another name",
    usage="IMAGE[:TAG] NAME[:TAG]",
    run=tag,
    least=2,
    most=2,
    completes="image none",
)
RMI = Command(
    summary="Remove images",
    usage="[OPTIONS] IMAGE [IMAGE...]",
    run=remove,
    flags=(
        switch("force", "f", "Remove it with all its names"),
        switch("no-prune", "", "Keep parents without a name"),
        option("platform", "", "string", "Only that platform (os/arch[/variant])"),
    ),
    least=1,
    completes="image",
)
