"""``enisle version``."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import Any

from enisle.cli import table
from enisle.cli.command import Command, Context, Failed, warn
from enisle.cli.flags import Options, option, switch
from enisle.cli.listing import template_of
from enisle.cli.printing import say_json
from enisle.errors import EnisleError
from enisle.sdk.request import API_VERSION


def own_version() -> str:
    """The version of this installation."""
    try:
        return metadata.version("enisle")
    except metadata.PackageNotFoundError:
        return "0.1.0"


def version(context: Context, options: Options, arguments: list[str]) -> None:
    """Print the versions of client and daemon; fails when there is no daemon."""
    client = {
        "Version": own_version(),
        "ApiVersion": API_VERSION,
        "Python": platform.python_version(),
        "Os": sys.platform,
        "Arch": platform.machine(),
    }
    server: dict[str, Any] | None = None
    failure = ""
    try:
        server = context.client.system.version()
    except EnisleError as error:
        failure = str(error)
    found = {"Client": client, "Server": server}
    if options.json or options.format == "json":
        say_json(found, indent=2 if options.json else None)
    elif options.format:
        print(template_of(options.format).render(found))
    else:
        _show(client, server)
    if failure:
        warn(f"enisle: {failure}")
        raise Failed(1)


def _show(client: dict[str, str], server: dict[str, Any] | None) -> None:
    table.show_fields({"Client": {name: value for name, value in client.items() if name != "Os"}})
    if server is None:
        return
    names = ("Version", "ApiVersion", "MinAPIVersion", "GitCommit", "KernelVersion", "Arch", "BuildTime")
    print()
    table.show_fields({"Server": {name: server[name] for name in names if server.get(name)}})
    for component in server.get("Components") or []:
        if component.get("Name") not in ("Engine", "Enisle"):
            print(f" {component.get('Name')}: {component.get('Version')}")


VERSION = Command(
    summary="Show the versions of client and daemon",
    usage="[OPTIONS]",
    run=version,
    flags=(option("format", "f", "template", "A Go template, or json"), switch("json", "", "Print JSON")),
    most=0,
)
