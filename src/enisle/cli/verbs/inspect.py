"""``enisle inspect``, and ``inspect`` of each group."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from enisle.cli.command import Command, Context, Run, warn
from enisle.cli.flags import Flag, Options, UsageError, option, switch
from enisle.cli.listing import template_of
from enisle.cli.printing import say_json
from enisle.errors import EnisleError, NotFound

_FORMAT = option("format", "f", "template", "A Go template for each object, or json")
_SIZE = switch("size", "s", "Show sizes of instances")
_VERBOSE = switch("verbose", "v", "Show more of networks")
_JSON = switch("json", "", "Print JSON (the default)", hidden=True)
_KINDS = ("container", "image", "network", "volume")

Get = Callable[[str], Any]


def _getters(context: Context, options: Options) -> dict[str, Get]:
    client = context.client
    size = bool(getattr(options, "size", False))
    return {
        "container": lambda ref: client.instances.get(ref, size=size),
        "image": lambda ref: client.images.get(ref, platform=getattr(options, "platform", "") or ""),
        "network": client.networks.get,
        "volume": client.volumes.get,
    }


def inspect(context: Context, options: Options, arguments: list[str]) -> int:
    """Whatever has that name: an instance, else an image, a network, a volume."""
    kind = options.type or ""
    if kind and kind not in _KINDS:
        raise UsageError(f'"{kind}" is not a valid value for --type: expected {", ".join(_KINDS)}')
    getters = _getters(context, options)
    kinds = [kind] if kind else list(_KINDS)

    def find(ref: str) -> Any:
        for name in kinds:
            try:
                return getters[name](ref)
            except NotFound:
                if kind:
                    raise
            except EnisleError:
                # Not a name that this kind can have (an image's, say): another kind's.
                if name == kinds[-1]:
                    raise
        raise NotFound(f"No such object: {ref}")

    return _show(options, arguments, find)


def _inspect_kind(kind: str) -> Run:
    def run(context: Context, options: Options, arguments: list[str]) -> int:
        return _show(options, arguments, _getters(context, options)[kind])

    return run


def _show(options: Options, refs: list[str], get: Get) -> int:
    template = template_of(options.format) if options.format and options.format != "json" else None
    found = []
    failed = 0
    for ref in refs:
        try:
            found.append(get(ref))
        except EnisleError as error:
            failed = 1
            warn(f"enisle: {error}")
    if template is not None:
        for item in found:
            print(template.render(item))
    elif options.format == "json":
        for item in found:
            say_json(item)
    else:
        say_json(found, indent=4)
    return failed


def _command(what: str, kind: str, completes: str, *further: Flag) -> Command:
    return Command(
        summary=f"Show everything about {what}",
        usage="[OPTIONS] NAME|ID [NAME|ID...]",
        run=_inspect_kind(kind),
        flags=(_FORMAT, _JSON, *further),
        least=1,
        completes=completes,
    )


INSPECT = Command(
    summary="Show everything about instances, images, networks or volumes",
    usage="[OPTIONS] NAME|ID [NAME|ID...]",
    run=inspect,
    flags=(_FORMAT, _JSON, _SIZE, option("type", "", "kind", "Only objects of that kind", choices=_KINDS)),
    least=1,
    completes="object",
    examples=("enisle inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' web",),
)
CONTAINER = _command("instances", "container", "instance", _SIZE)
IMAGE = _command(
    "images", "image", "image", option("platform", "", "string", "Platform of the image (os/arch[/variant])")
)
NETWORK = _command("networks", "network", "network", _VERBOSE)
VOLUME = _command("volumes", "volume", "volume")
