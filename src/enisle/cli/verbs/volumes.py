"""Verbs on volumes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from enisle.cli import values
from enisle.cli.command import Command, Context
from enisle.cli.each import each
from enisle.cli.flags import Options, many, option, switch
from enisle.cli.human import bytes_text
from enisle.cli.listing import FORMAT, JSON, QUIET, Listing, Row, filters, label_method, labels_text
from enisle.cli.table import Column
from enisle.errors import NotFound

if TYPE_CHECKING:
    from enisle.sdk.types import VolumeDetails

_LISTING = Listing(
    (("Driver", Column("DRIVER")), ("Name", Column("VOLUME NAME", shrink=1))),
    identity="Name",
)


def list_volumes(context: Context, options: Options, arguments: list[str]) -> None:
    """List volumes."""
    found = sorted(context.client.volumes.list(filters=filters(options.filter)), key=lambda item: item["Name"])
    _LISTING.show(context, options, found, _row)


def _row(item: VolumeDetails) -> Row:
    usage = item.get("UsageData") or {}
    return {
        "Driver": item.get("Driver", ""),
        "Name": item["Name"],
        "Scope": item.get("Scope", ""),
        "Mountpoint": item.get("Mountpoint", ""),
        "Labels": labels_text(item.get("Labels")),
        "Label": label_method(item.get("Labels")),
        "Size": bytes_text(usage["Size"]) if usage.get("Size", -1) >= 0 else "N/A",
    }


def create(context: Context, options: Options, arguments: list[str]) -> None:
    """Make a volume, and print its name."""
    made = context.client.volumes.create(
        arguments[0] if arguments else options.name or "",
        driver=options.driver,
        options=values.pairs(options.opt) | ({"size": options.size} if options.size else {}),
        labels=values.pairs(options.label),
    )
    print(made["Name"])


def remove(context: Context, options: Options, names: list[str]) -> int:
    """Remove volumes."""

    def one(name: str) -> None:
        try:
            context.client.volumes.remove(name, force=options.force)
        except NotFound:
            if not options.force:
                raise

    return each(names, one)


LS = Command(
    summary="List volumes",
    usage="[OPTIONS]",
    run=list_volumes,
    flags=(
        many(
            "filter",
            "f",
            "NAME=VALUE",
            "Show those that match (dangling=, driver=, label=, name=)",
            choices=("dangling=", "driver=", "label=", "name="),
        ),
        FORMAT,
        JSON,
        QUIET,
    ),
    most=0,
)
CREATE = Command(
    summary="Make a volume",
    usage="[OPTIONS] [NAME]",
    run=create,
    flags=(
        option("driver", "d", "string", "Driver", default="local"),
        many("label", "", "KEY=VALUE", "Set a label"),
        option("name", "", "string", "Name", hidden=True),
        many("opt", "o", "KEY=VALUE", "Options of the driver (type=, device=, o=, size=)"),
        option("size", "", "bytes", "Size limit (2g)"),
    ),
    most=1,
)
RM = Command(
    summary="Remove volumes with all they hold",
    usage="[OPTIONS] VOLUME [VOLUME...]",
    run=remove,
    flags=(switch("force", "f", "It is no error when one is not there"),),
    least=1,
    completes="volume",
)
