"""What could come next on a command line, for the shells' completion.

Kinds of things to be completed: instance, running, stopped, image, volume, network, object (any of these), runtime,
place (of ``cp``), file, command, shell, none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from enisle.cli import tree
from enisle.cli.command import Command, Context
from enisle.cli.flags import Flag, UsageError, parse
from enisle.cli.main import GLOBAL_FLAGS
from enisle.cli.printing import printable
from enisle.errors import EnisleError

SHELLS = ("bash", "fish", "zsh")


class Candidate(NamedTuple):
    """``about`` is a line that shells show beside it. Text that ends in = or : wants to be gone on with."""

    text: str
    about: str = ""


FILES = Candidate(":files")
"""Among candidates: let the shell complete file names."""


def candidates(words: Sequence[str], context: Context) -> list[Candidate]:
    """Candidates for the last word, given those before it."""
    *before, current = words or [""]
    try:
        options, before = parse(GLOBAL_FLAGS, before, interspersed=False)
    except UsageError:
        # The last word may be the value of one of our own flags, which is all that can be missing.
        flag = _awaiting(GLOBAL_FLAGS, before)
        return _matching(_values(flag, context), current) if flag else []
    if options.host:
        context.host = options.host
    command, rest = _find(before)
    if command is None:
        if current.startswith("-") and not before:
            return _matching(_spellings(GLOBAL_FLAGS), current)
        return _matching(_names(before), current)
    return _of_command(command, rest, current, context)


def _of_command(command: Command, before: Sequence[str], current: str, context: Context) -> list[Candidate]:
    flags = command.flags
    if awaiting := _awaiting(flags, before):
        return _matching(_values(awaiting, context), current)
    if current.startswith("--") and "=" in current:
        name, _, value = current.partition("=")
        flag = next((flag for flag in flags if f"--{flag.name}" == name), None)
        found = _matching(_values(flag, context), value) if flag else []
        return [item if item == FILES else item._replace(text=f"{name}={item.text}") for item in found]
    arguments = _arguments(flags, before)
    if not command.interspersed and len(arguments) >= command.least:
        return [FILES]
    if current.startswith("-"):
        return _matching([*_spellings(flags), Candidate("--help", "Show help")], current)
    if command.most is not None and len(arguments) >= command.most:
        return []
    kinds = command.completes.split() or ["none"]
    kind = kinds[min(len(arguments), len(kinds) - 1)]
    return [item for item in _matching(_objects(kind, context), current) if item.text not in arguments]


def _find(words: Sequence[str]) -> tuple[Command | None, Sequence[str]]:
    if not words:
        return None, []
    group = tree.GROUPS.get(words[0])
    path = group.verbs.get(words[1], "") if group and len(words) > 1 else tree.TOP.get(words[0], "")
    return (tree.load(path), words[2 if group else 1 :]) if path else (None, [])


def _names(before: Sequence[str]) -> list[Candidate]:
    if not before:
        return _commands()
    group = tree.GROUPS.get(before[0])
    if group is None or len(before) > 1:
        return []
    return [Candidate(verb, tree.load(group.verbs[verb]).summary) for verb in sorted(set(group.verbs) - tree.ALIASES)]


def _commands() -> list[Candidate]:
    about = {verb: tree.load(path).summary for verb, path in tree.TOP.items()}
    return [Candidate(*item) for item in sorted((about | {name: g.summary for name, g in tree.GROUPS.items()}).items())]


def _spellings(flags: Iterable[Flag]) -> list[Candidate]:
    return [Candidate(f"--{flag.name}", flag.help) for flag in flags if not flag.hidden]


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


def _matching(found: Iterable[Candidate], start: str) -> list[Candidate]:
    return [item for item in found if item == FILES or item.text.startswith(start)]


def _values(flag: Flag, context: Context) -> list[Candidate]:
    return [Candidate(choice) for choice in flag.choices] or _objects(flag.completes, context)


def _objects(kind: str, context: Context) -> list[Candidate]:
    try:
        found = _KINDS.get(kind, _nothing)(context)
    except EnisleError:
        return []
    return [Candidate(item.text, printable(item.about)) for item in found if item.text.isprintable()]


def _nothing(context: Context) -> list[Candidate]:
    return []


def _instances(context: Context, *, running: bool | None = None) -> list[Candidate]:
    found = context.client.instances.list(everything=running is not True)
    return [
        Candidate(name.removeprefix("/"), f"{item.get('Image', '')}, {item.get('Status', '')}")
        for item in found
        if running is not False or item.get("State") not in ("running", "paused")
        for name in item.get("Names") or []
    ]


def _images(context: Context) -> list[Candidate]:
    return [Candidate(tag) for item in context.client.images.list() for tag in item.get("RepoTags") or []]


def _volumes(context: Context) -> list[Candidate]:
    return [Candidate(item["Name"]) for item in context.client.volumes.list()]


def _networks(context: Context) -> list[Candidate]:
    return [Candidate(item["Name"], item.get("Driver", "")) for item in context.client.networks.list()]


def _everything(context: Context) -> list[Candidate]:
    return [*_instances(context), *_images(context), *_volumes(context), *_networks(context)]


def _runtimes(context: Context) -> list[Candidate]:
    return [Candidate(name) for name in sorted(context.client.system.info().get("Runtimes") or {})]


def _places(context: Context) -> list[Candidate]:
    return [FILES, *(item._replace(text=f"{item.text}:") for item in _instances(context))]


_KINDS: dict[str, Callable[[Context], list[Candidate]]] = {
    "instance": _instances,
    "running": lambda context: _instances(context, running=True),
    "stopped": lambda context: _instances(context, running=False),
    "image": _images,
    "volume": _volumes,
    "network": _networks,
    "object": _everything,
    "runtime": _runtimes,
    "place": _places,
    "file": lambda context: [FILES],
    "command": lambda context: _commands(),
    "shell": lambda context: [Candidate(name) for name in SHELLS],
}


def reply(words: Sequence[str], context: Context) -> None:
    """Print candidates, one a line, with a tab before what they are; nothing at all when the words make no sense."""
    try:
        found = candidates(words, context)
    except UsageError:
        return
    print("\n".join(f"{item.text}\t{item.about}" if item.about else item.text for item in found))
