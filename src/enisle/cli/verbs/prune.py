"""``prune`` of each group, and of everything."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from enisle.cli.command import Command, Context, Failed, warn
from enisle.cli.flags import Flag, Options, many, switch
from enisle.cli.human import bytes_text
from enisle.cli.listing import filters
from enisle.cli.printing import say_json
from enisle.sdk.client import Client

if TYPE_CHECKING:
    from enisle.sdk.types import Pruned

Filters = dict[str, list[str]]
Step = Callable[[Client, Filters, Options], "Pruned"]

_FILTER = many(
    "filter",
    "",
    "NAME=VALUE",
    "Remove those that match (until=, label=, label!=)",
    choices=("label=", "label!=", "until="),
)
_FORCE = switch("force", "f", "Do not ask")
_JSON = switch("json", "", "Print what was removed as JSON")
_ALL_IMAGES = switch("all", "a", "Remove all images nobody uses, not only nameless ones")


def _instances(client: Client, chosen: Filters, options: Options) -> Pruned:
    return client.instances.prune(filters=chosen)


def _images(client: Client, chosen: Filters, options: Options) -> Pruned:
    return client.images.prune(filters={**chosen, "dangling": ["false" if options.all else "true"]})


def _networks(client: Client, chosen: Filters, options: Options) -> Pruned:
    return client.networks.prune(filters=chosen)


def _volumes(client: Client, chosen: Filters, options: Options) -> Pruned:
    return client.volumes.prune(filters={**chosen, "all": ["true"]} if options.all else chosen)


def _prune(context: Context, options: Options, warning: str, steps: list[Step]) -> None:
    if not options.force:
        _confirm(warning)
    results = [step(context.client, filters(options.filter), options) for step in steps]
    if options.json:
        merged = {name: value for result in results for name, value in result.items() if name != "SpaceReclaimed"}
        merged["SpaceReclaimed"] = sum(result.get("SpaceReclaimed", 0) for result in results)
        say_json(merged, indent=2)
        return
    for result in results:
        _show(result)
    print(f"Total reclaimed space: {bytes_text(sum(result.get('SpaceReclaimed', 0) for result in results))}")


def _show(result: Pruned) -> None:
    named = {
        "Containers": result.get("ContainersDeleted"),
        "Networks": result.get("NetworksDeleted"),
        "Volumes": result.get("VolumesDeleted"),
    }
    for kind, names in named.items():
        if names:
            print(f"Deleted {kind}:", *names, "", sep="\n")
    if removed := result.get("ImagesDeleted"):
        print("Deleted Images:")
        for step in removed:
            print(f"untagged: {step['Untagged']}" if step.get("Untagged") else f"deleted: {step.get('Deleted', '')}")
        print()


def _confirm(warning: str) -> None:
    print(f"WARNING! {warning}\nAre you sure you want to continue? [y/N] ", end="", flush=True)
    answer = sys.stdin.readline().strip().lower()
    if answer not in ("y", "yes"):
        warn("Nothing was removed.")
        raise Failed(1)


def _command(what: str, warning: str, step: Step, *flags: Flag) -> Command:
    def run(context: Context, options: Options, arguments: list[str]) -> None:
        _prune(context, options, warning, [step])

    return Command(f"Remove {what}", "[OPTIONS]", run, (*flags, _FILTER, _FORCE, _JSON), most=0)


def _everything(context: Context, options: Options, arguments: list[str]) -> None:
    steps: list[Step] = [_instances, _networks]
    kinds = ["all stopped instances", "all networks not used by at least one instance"]
    if options.volumes:
        steps.append(lambda client, chosen, options: client.volumes.prune(filters=chosen))
        kinds.append("all anonymous volumes not used by at least one instance")
    steps.append(_images)
    kinds.append("all images without an instance" if options.all else "all nameless images")
    listed = "\n".join(f"  - {kind}" for kind in kinds)
    _prune(context, options, f"This will remove:\n{listed}\n", steps)


CONTAINER = _command("all stopped instances", "This will remove all stopped instances.", _instances)
IMAGE = _command("images nobody uses", "This will remove images that no instance uses.", _images, _ALL_IMAGES)
NETWORK = _command("networks nobody uses", "This will remove all networks that no instance uses.", _networks)
VOLUME = _command(
    "volumes nobody uses",
    "This will remove local volumes that no instance uses.",
    _volumes,
    switch("all", "a", "Remove named volumes too, not only anonymous ones"),
)
SYSTEM = Command(
    summary="Remove what nobody uses: instances, networks, images, volumes",
    usage="[OPTIONS]",
    run=_everything,
    flags=(_ALL_IMAGES, _FILTER, _FORCE, _JSON, switch("volumes", "", "Remove anonymous volumes too")),
    most=0,
)
