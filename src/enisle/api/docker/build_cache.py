"""What builds keep, as Docker's API shows and prunes it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from aiohttp import web

from enisle.api.call import Call
from enisle.api.query import Filters, flag_filter
from enisle.api.reply import json_response
from enisle.api.times import parse_time, rfc3339
from enisle.build.usage import CacheEntry
from enisle.errors import Invalid

_ACCEPTED = frozenset({"until", "unused-for", "id", "parent", "type", "description", "inuse", "shared", "private"})


def entry_json(entry: CacheEntry) -> dict[str, Any]:
    """One object of Docker's BuildCache."""
    return {
        "ID": entry.id,
        "Parents": [entry.parent] if entry.parent else None,
        "Type": entry.kind,
        "Description": entry.text,
        "InUse": entry.in_use,
        "Shared": entry.shared,
        "Size": entry.size_bytes,
        "CreatedAt": rfc3339(entry.created_ns),
        "LastUsedAt": rfc3339(entry.used_ns) if entry.count else None,
        "UsageCount": entry.count,
    }


async def prune(call: Call) -> web.StreamResponse:
    """POST /build/prune. ``reserved-space`` is the younger name of ``keep-storage``; of both limits the lower holds."""
    if call.builder is None:
        return json_response({"CachesDeleted": None, "SpaceReclaimed": 0})
    query = call.query
    limits = [query.number(name) or 0 for name in ("keep-storage", "reserved-space", "max-used-space")]
    if min(limits) < 0:
        raise Invalid("invalid keep-storage: it is a number of bytes")
    keep = min((limit for limit in limits if limit), default=0)
    match = _matcher(query.filters(_ACCEPTED))
    gone, freed = await call.builder.usage.prune(match, everything=query.flag("all"), keep_bytes=keep)
    return json_response({"CachesDeleted": gone or None, "SpaceReclaimed": freed})


def _matcher(filters: Filters) -> Callable[[CacheEntry], bool]:
    limits = [parse_time(text) for name in ("until", "unused-for") for text in filters.get(name, [])]
    if len(limits) > 1:
        raise Invalid("filters expect only one value: until")
    flags = {name: flag_filter(filters, name) for name in ("inuse", "shared", "private")}
    texts = {
        name: [_pattern(text) for text in filters.get(name, [])] for name in ("id", "parent", "type", "description")
    }

    def match(entry: CacheEntry) -> bool:
        states = {"inuse": entry.in_use, "shared": entry.shared, "private": not entry.shared}
        words = {"id": entry.id, "parent": entry.parent, "type": entry.kind, "description": entry.text}
        return (
            all(entry.used_ns < limit for limit in limits)
            and all(wanted is None or states[name] is wanted for name, wanted in flags.items())
            and all(not found or any(one(words[name]) for one in found) for name, found in texts.items())
        )

    return match


def _pattern(text: str) -> Callable[[str], bool]:
    """A value of a filter: "~" and a regular expression, or the text itself."""
    if not text.startswith("~"):
        return lambda value: value == text
    if len(text) > 200:
        raise Invalid("invalid filter: the regular expression is too long")
    try:
        expression = re.compile(text[1:])
    except re.error as error:
        raise Invalid(f"invalid filter: {text[1:]!r} is no regular expression: {error}") from error
    return lambda value: expression.search(value) is not None
