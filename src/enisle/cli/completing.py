"""What could come next on a command line, for the shells' completion."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from enisle.cli import tree
from enisle.cli.command import Command, Context
from enisle.cli.flags import Flag, UsageError
from enisle.cli.main import GLOBAL_FLAGS
from enisle.errors import EnisleError

FILES = ":files"
"""Instead of candidates: let the shell complete file names."""


def candidates(words: Sequence[str], context: Context) -> list[str]:
    """Candidates for the last word, given those before it."""
    *before, current = words or [""]
    flags: Sequence[Flag] = GLOBAL_FLAGS
    command, rest = _find(before)
    if command is None:
        if current.startswith("-"):
            return _matching(_spellings(GLOBAL_FLAGS), current)
        return _matching(_names(before), current)
    flags = command.flags
    if value_of := _awaiting(flags, rest):
        return _matching(_values(value_of.completes, value_of.choices, context), current)
    if current.startswith("--") and "=" in current:
        name, _, value = current.partition("=")
        flag = next((flag for flag in flags if f"--{flag.name}" == name), None)
        found = _matching(_values(flag.completes, flag.choices, context), value) if flag else []
        return [item if item == FILES else f"{name}={item}" for item in found]
    arguments = _arguments(flags, rest)
    if not command.interspersed and len(arguments) >= command.least:
        return [FILES]
    if current.startswith("-"):
        return _matching([*_spellings(flags), "--help"], current)
    if command.most is not None and len(arguments) >= command.most:
        return []
    taken = set(arguments)
    return [item for item in _matching(_values(command.completes, (), context), current) if item not in taken]


def _find(before: Sequence[str]) -> tuple[Command | None, list[str]]:
    words = [word for word in before if not word.startswith("-")]
    if not words:
        return None, []
    group = tree.GROUPS.get(words[0])
    path = group.verbs.get(words[1], "") if group and len(words) > 1 else tree.TOP.get(words[0], "")
    if not path:
        return None, []
    last = words[1] if group else words[0]
    position = list(before).index(last)
    return tree.load(path), list(before[position + 1 :])


def _names(before: Sequence[str]) -> list[str]:
    words = [word for word in before if not word.startswith("-")]
    if not words:
        return sorted({*tree.TOP, *tree.GROUPS})
    group = tree.GROUPS.get(words[0])
    return sorted(set(group.verbs) - tree.ALIASES) if group and len(words) == 1 else []


def _spellings(flags: Iterable[Flag]) -> list[str]:
    return [f"--{flag.name}" for flag in flags if not flag.hidden]


def _awaiting(flags: Sequence[Flag], words: Sequence[str]) -> Flag | None:
    """The flag whose value the current word is."""
    if not words or not words[-1].startswith("-") or "=" in words[-1]:
        return None
    last = words[-1]
    for flag in flags:
        if flag.kind == "switch":
            continue
        if last == f"--{flag.name}" or (flag.short and not last.startswith("--") and last.endswith(flag.short)):
            return flag
    return None


def _arguments(flags: Sequence[Flag], words: Sequence[str]) -> list[str]:
    found = []
    skip = False
    for index, word in enumerate(words):
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = _awaiting(flags, words[: index + 1]) is not None
        else:
            found.append(word)
    return found


def _matching(names: Iterable[str], start: str) -> list[str]:
    return [name for name in names if name == FILES or name.startswith(start)]


def _values(kind: str, choices: Sequence[str], context: Context) -> list[str]:
    if choices:
        return list(choices)
    try:
        return _objects(kind, context)
    except EnisleError:
        return []


def _objects(kind: str, context: Context) -> list[str]:
    match kind:
        case "file":
            return [FILES]
        case "command":
            return sorted({*tree.TOP, *tree.GROUPS})
        case "running" | "stopped" | "instance":
            return _instances(kind, context)
        case "image":
            return [tag for item in context.client.images.list() for tag in item.get("RepoTags") or []]
        case "volume":
            return [item["Name"] for item in context.client.volumes.list()]
        case "network":
            return [item["Name"] for item in context.client.networks.list()]
        case "object":
            return [*_instances("instance", context), *_objects("image", context), *_objects("volume", context)]
    return []


def _instances(kind: str, context: Context) -> list[str]:
    found = context.client.instances.list(everything=kind != "running")
    wanted = [item for item in found if kind != "stopped" or item.get("State") not in ("running", "paused")]
    return [name.removeprefix("/") for item in wanted for name in item.get("Names") or []]


def reply(words: Sequence[str], context: Context) -> None:
    """Print candidates, one a line; nothing at all when the words make no sense."""
    try:
        print("\n".join(candidates(words, context)))
    except UsageError:
        return
