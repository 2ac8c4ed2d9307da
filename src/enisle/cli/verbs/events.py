"""``enisle events``."""

from __future__ import annotations

from typing import Any

from enisle.cli.command import Command, Context
from enisle.cli.flags import Options, many, option, switch
from enisle.cli.human import moment, timestamp
from enisle.cli.listing import filters, template_of
from enisle.cli.printing import json_text, printable


def events(context: Context, options: Options, arguments: list[str]) -> None:
    """Print events as they happen."""
    as_json = options.json or options.format == "json"
    template = template_of(options.format) if options.format and not as_json else None
    with context.client.system.open_events(
        since=options.since, until=options.until, filters=filters(options.filter)
    ) as exchange:
        for event in exchange.objects():
            if as_json:
                line = json_text(event)
            elif template is not None:
                line = template.render(event)
            else:
                line = printable(_text(event))
            print(line, flush=True)


def _text(event: dict[str, Any]) -> str:
    actor = event.get("Actor") or {}
    attributes = ", ".join(f"{name}={value}" for name, value in sorted((actor.get("Attributes") or {}).items()))
    when = timestamp(event.get("timeNano") or event.get("time", 0) * 1_000_000_000)
    text = f"{when} {event.get('Type', '')} {event.get('Action', '')} {actor.get('ID', '')}"
    return f"{text} ({attributes})" if attributes else text


EVENTS = Command(
    summary="Show what happens, as it happens",
    usage="[OPTIONS]",
    run=events,
    flags=(
        many(
            "filter",
            "f",
            "NAME=VALUE",
            "Show those that match (type=, event=, container=, image=, label=, ...)",
            choices=("container=", "event=", "image=", "label=", "network=", "type=", "volume="),
        ),
        option("format", "", "template", "A Go template, or json"),
        switch("json", "", "Print a JSON object a line"),
        option("since", "", "time", "From that time, or so long ago", default="", convert=moment),
        option("until", "", "time", "Up to that time", default="", convert=moment),
    ),
    most=0,
    examples=("enisle events --since 10m --filter type=container --filter event=die",),
)
