"""``enisle info``."""

from __future__ import annotations

from typing import Any

from enisle.cli import table
from enisle.cli.command import Command, Context, warn
from enisle.cli.flags import Options, option, switch
from enisle.cli.human import bytes_text
from enisle.cli.listing import template_of
from enisle.cli.printing import say_json


def info(context: Context, options: Options, arguments: list[str]) -> None:
    """Print facts about the daemon and its host."""
    found = context.client.system.info()
    if options.json or options.format == "json":
        say_json(found, indent=2 if options.json else None)
        return
    if options.format:
        print(template_of(options.format).render(found))
        return
    table.show_fields(_fields(found))
    for warning in found.get("Warnings") or []:
        warn(f"WARNING: {warning}")


def _fields(found: dict[str, Any]) -> dict[str, Any]:
    states = {
        " Running": found.get("ContainersRunning", 0),
        " Paused": found.get("ContainersPaused", 0),
        " Stopped": found.get("ContainersStopped", 0),
    }
    security = [str(option).removeprefix("name=") for option in found.get("SecurityOptions") or []]
    return {
        "Server Version": found.get("ServerVersion", ""),
        "Instances": found.get("Containers", 0),
        **states,
        "Images": found.get("Images", 0),
        "Storage Driver": found.get("Driver", ""),
        "Cgroups": f"version {found.get('CgroupVersion', '?')}, {found.get('CgroupDriver', '')}",
        "Runtimes": " ".join(sorted(found.get("Runtimes") or {})),
        "Default Runtime": found.get("DefaultRuntime", ""),
        "Security Options": ", ".join(security),
        "Kernel Version": found.get("KernelVersion", ""),
        "Operating System": found.get("OperatingSystem", ""),
        "Architecture": found.get("Architecture", ""),
        "CPUs": found.get("NCPU", 0),
        "Total Memory": bytes_text(found.get("MemTotal", 0), binary=True),
        "Name": found.get("Name", ""),
        "ID": found.get("ID", ""),
        "Data Root": found.get("DockerRootDir", ""),
        "Insecure Registries": " ".join((found.get("RegistryConfig") or {}).get("InsecureRegistryCIDRs") or []),
        "Live Restore": str(bool(found.get("LiveRestoreEnabled"))).lower(),
    }


INFO = Command(
    summary="Show facts about the daemon and its host",
    usage="[OPTIONS]",
    run=info,
    flags=(option("format", "f", "template", "A Go template, or json"), switch("json", "", "Print JSON")),
    most=0,
)
