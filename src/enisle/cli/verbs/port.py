"""``enisle port``."""

from __future__ import annotations

from enisle.cli.command import Command, Context
from enisle.cli.flags import Options, switch
from enisle.cli.printing import say_json
from enisle.errors import NotFound


def port(context: Context, options: Options, arguments: list[str]) -> None:
    """Print where ports of an instance are published."""
    details = context.client.instances.get(arguments[0])
    bound = (details.get("NetworkSettings") or {}).get("Ports") or {}
    if options.json:
        say_json(bound, indent=2)
        return
    if len(arguments) == 1:
        for inside, hosts in sorted(bound.items(), key=lambda item: (int(item[0].partition("/")[0]), item[0])):
            for host in hosts or []:
                print(f"{inside} -> {_address(host)}")
        return
    wanted = arguments[1] if "/" in arguments[1] else f"{arguments[1]}/tcp"
    if not bound.get(wanted):
        raise NotFound(f"No public port '{wanted}' published for {arguments[0]}")
    for host in bound[wanted]:
        print(_address(host))


def _address(host: dict[str, str]) -> str:
    ip = host.get("HostIp") or "0.0.0.0"
    return f"[{ip}]:{host.get('HostPort')}" if ":" in ip else f"{ip}:{host.get('HostPort')}"


PORT = Command(
    summary="Show where ports of an instance are published",
    usage="INSTANCE [PORT[/PROTO]]",
    run=port,
    flags=(switch("json", "", "Print the bindings as JSON"),),
    least=1,
    most=2,
    completes="instance none",
)
