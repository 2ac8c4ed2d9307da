"""``enisle ps``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from enisle.cli import ports, values
from enisle.cli.command import Command, Context
from enisle.cli.flags import Options, many, option, switch
from enisle.cli.human import ago, bytes_text
from enisle.cli.listing import LIST_FLAGS, Listing, Row, filters, label_method, labels_text
from enisle.cli.table import Column

if TYPE_CHECKING:
    from enisle.sdk.types import InstanceSummary

_SHORT_ID = 12


def _status_style(text: str) -> str:
    if text.startswith("Up"):
        colour = "33" if "(Paused)" in text or "unhealthy" in text else "32"
    elif text.startswith(("Exited (0)", "Created")):
        colour = "2"
    else:
        colour = "31"
    return f"\x1b[{colour}m{text}\x1b[0m"


def _wall_style(text: str) -> str:
    return f"\x1b[36m{text}\x1b[0m" if text == "vm" else text


_LISTING = Listing(
    (
        ("ID", Column("CONTAINER ID", drop=-2)),
        ("Image", Column("IMAGE", shrink=2, drop=-1, keep="end")),
        ("Command", Column("COMMAND", shrink=4, drop=3)),
        ("CreatedAgo", Column("CREATED", drop=2)),
        ("Status", Column("STATUS", shrink=1, style=_status_style)),
        ("Wall", Column("WALL", style=_wall_style)),
        ("Ports", Column("PORTS", shrink=3, drop=1)),
        ("Names", Column("NAMES", shrink=1)),
        ("Size", Column("SIZE")),
    )
)


def ps(context: Context, options: Options, arguments: list[str]) -> None:
    """List instances."""
    limit = 1 if options.latest else max(options.last, 0)
    found = context.client.instances.list(
        everything=options.all or limit > 0, limit=limit, size=options.size, filters=filters(options.filter)
    )
    hidden = frozenset() if options.size else frozenset({"Size"})
    _LISTING.show(context, options, found, lambda item: row(item, full=options.no_trunc), hidden=hidden)


def wall(item: InstanceSummary | dict[str, Any]) -> str:
    """container or vm, from our own field or, of another daemon, from the runtime."""
    own = item.get("Isolation")
    if own:
        return str(own)
    runtime = (item.get("HostConfig") or {}).get("Runtime", "")
    return "vm" if runtime == "vm" else "container"


def row(item: InstanceSummary, *, full: bool) -> Row:
    """One instance as Docker's columns."""
    labels = item.get("Labels") or {}
    created = item.get("Created", 0)
    networks = (item.get("NetworkSettings") or {}).get("Networks") or {}
    names = sorted((name.removeprefix("/") for name in item.get("Names") or []), key=lambda name: name.count("/"))
    return {
        "ID": item["Id"] if full else item["Id"][:_SHORT_ID],
        "Image": _image(item, full=full),
        "Command": f'"{item.get("Command", "")}"',
        "CreatedAgo": ago(created),
        "RunningFor": ago(created),
        "CreatedAt": time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(created)),
        "Status": item.get("Status", ""),
        "State": item.get("State", ""),
        "Wall": wall(item),
        "Ports": ports.summary(item.get("Ports") or []),
        "Names": ",".join(names),
        "Size": _size(item),
        "Labels": labels_text(labels),
        "Label": label_method(labels),
        "Mounts": ",".join(mount.get("Name") or mount.get("Source", "") for mount in item.get("Mounts") or []),
        "LocalVolumes": str(sum(mount.get("Driver") == "local" for mount in item.get("Mounts") or [])),
        "Networks": ",".join(sorted(networks)),
        "Platform": None,
    }


def _image(item: InstanceSummary, *, full: bool) -> str:
    image = item.get("Image") or "<no image>"
    if not full and image.startswith("sha256:"):
        return image[7 : 7 + _SHORT_ID]
    return image if full else image.partition("@")[0]


def _size(item: InstanceSummary) -> str:
    own = bytes_text(item.get("SizeRw", 0))
    return f"{own} (virtual {bytes_text(item['SizeRootFs'])})" if item.get("SizeRootFs") else own


_FILTERS = (
    *"ancestor= before= exited= expose= health= id= isolation= label= name= network= publish= since= volume=".split(),
    *(f"status={state}" for state in ("created", "exited", "paused", "restarting", "running", "dead", "removing")),
)

PS = Command(
    summary="List instances",
    usage="[OPTIONS]",
    run=ps,
    flags=(
        switch("all", "a", "Show all, not only those that run"),
        many(
            "filter",
            "f",
            "NAME=VALUE",
            "Show those that match (status=, name=, label=, ancestor=, network=, ...)",
            choices=_FILTERS,
        ),
        option("last", "n", "int", "Show the N created last", default=-1, convert=values.whole),
        switch("latest", "l", "Show the one created last"),
        switch("size", "s", "Show sizes"),
        *LIST_FLAGS,
    ),
    most=0,
    examples=(
        "enisle ps -a",
        "enisle ps --filter status=exited -q | xargs enisle rm",
        "enisle ps --json | jq -r '.[].Id'",
    ),
)
