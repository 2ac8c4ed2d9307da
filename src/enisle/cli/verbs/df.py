"""``enisle system df``."""

from __future__ import annotations

from typing import Any

from enisle.cli import table
from enisle.cli.command import Command, Context
from enisle.cli.flags import Options, switch
from enisle.cli.human import ago, bytes_text, epoch
from enisle.cli.listing import FORMAT, Listing, Row
from enisle.cli.printing import say_json
from enisle.cli.table import Column

_LISTING = Listing(
    (
        ("Type", Column("TYPE")),
        ("TotalCount", Column("TOTAL", right=True)),
        ("Active", Column("ACTIVE", right=True)),
        ("Size", Column("SIZE", right=True)),
        ("Reclaimable", Column("RECLAIMABLE", right=True)),
    )
)
_ALIVE = frozenset({"running", "paused", "restarting"})


def disk_usage(context: Context, options: Options, arguments: list[str]) -> None:
    """Print what images, instances and volumes take."""
    found = context.client.system.disk_usage()
    if options.json:
        say_json(found, indent=2)
        return
    if options.verbose:
        _show_each(found)
        return
    _LISTING.show(
        context, options, [_images(found), _instances(found), _volumes(found), _builds(found)], lambda row: row
    )


def _line(kind: str, count: int, active: int, size: int, reclaimable: int) -> Row:
    share = f" ({reclaimable * 100 // size}%)" if size else ""
    return {
        "Type": kind,
        "TotalCount": str(count),
        "Active": str(active),
        "Size": bytes_text(size),
        "Reclaimable": f"{bytes_text(max(reclaimable, 0))}{share}",
    }


def _images(found: dict[str, Any]) -> Row:
    images = found.get("Images") or []
    total = found.get("LayersSize") or 0
    used = sum(
        item.get("Size", 0) - max(item.get("SharedSize", 0), 0) for item in images if item.get("Containers", 0) > 0
    )
    active = sum(item.get("Containers", 0) > 0 for item in images)
    return _line("Images", len(images), active, total, max(total - used, 0) if len(images) > active else 0)


def _instances(found: dict[str, Any]) -> Row:
    instances = found.get("Containers") or []
    alive = [item for item in instances if item.get("State") in _ALIVE]
    total = sum(item.get("SizeRw", 0) for item in instances)
    return _line("Instances", len(instances), len(alive), total, total - sum(item.get("SizeRw", 0) for item in alive))


def _volumes(found: dict[str, Any]) -> Row:
    volumes = [item.get("UsageData") or {} for item in found.get("Volumes") or []]
    used = [item for item in volumes if item.get("RefCount", 0) > 0]
    total = sum(max(item.get("Size", 0), 0) for item in volumes)
    return _line("Volumes", len(volumes), len(used), total, total - sum(max(item.get("Size", 0), 0) for item in used))


def _builds(found: dict[str, Any]) -> Row:
    kept = found.get("BuildCache") or []
    own = [item for item in kept if not item.get("Shared")]
    total = sum(item.get("Size", 0) for item in own)
    used = sum(item.get("Size", 0) for item in own if item.get("InUse"))
    return _line("Builds", len(kept), sum(bool(item.get("InUse")) for item in kept), total, total - used)


def _show_each(found: dict[str, Any]) -> None:
    print("Images:\n")
    columns = [Column("IMAGE", shrink=1), Column("CREATED"), Column("SIZE", right=True), Column("SHARED", right=True)]
    rows = [
        [
            ",".join(item.get("RepoTags") or []) or item["Id"].removeprefix("sha256:")[:12],
            ago(item.get("Created", 0)),
            bytes_text(item.get("Size", 0)),
            bytes_text(max(item.get("SharedSize", 0), 0)),
        ]
        for item in found.get("Images") or []
    ]
    table.show(columns, rows)
    print("\nInstances:\n")
    columns = [Column("NAME", shrink=1), Column("IMAGE", shrink=1), Column("STATUS"), Column("SIZE", right=True)]
    rows = [
        [
            item["Names"][0].removeprefix("/"),
            item.get("Image", ""),
            item.get("Status", ""),
            bytes_text(item.get("SizeRw", 0)),
        ]
        for item in found.get("Containers") or []
    ]
    table.show(columns, rows)
    print("\nVolumes:\n")
    columns = [Column("NAME", shrink=1), Column("CREATED"), Column("USERS", right=True), Column("SIZE", right=True)]
    rows = [
        [
            item.get("Name", ""),
            ago(epoch(item["CreatedAt"])) if item.get("CreatedAt") else "N/A",
            str((item.get("UsageData") or {}).get("RefCount", 0)),
            bytes_text(max((item.get("UsageData") or {}).get("Size", 0), 0)),
        ]
        for item in found.get("Volumes") or []
    ]
    table.show(columns, rows)
    print("\nBuilds:\n")
    columns = [Column("ID"), Column("TYPE"), Column("USED"), Column("SIZE", right=True), Column("STEP", shrink=1)]
    rows = [
        [
            item.get("ID", "")[:12],
            item.get("Type", ""),
            ago(epoch(item.get("LastUsedAt") or item["CreatedAt"])),
            bytes_text(item.get("Size", 0)),
            item.get("Description", ""),
        ]
        for item in found.get("BuildCache") or []
    ]
    table.show(columns, rows)


DF = Command(
    summary="Show what images, instances and volumes take on disk",
    usage="[OPTIONS]",
    run=disk_usage,
    flags=(FORMAT, switch("json", "", "Print JSON"), switch("verbose", "v", "Show each object")),
    most=0,
)
