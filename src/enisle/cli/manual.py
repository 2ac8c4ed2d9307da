"""Help texts: of enisle as a whole, of a group, of a verb."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Sequence

from enisle.cli import tree
from enisle.cli.command import Command
from enisle.cli.flags import Flag

_INDENT = 6  # room for "  -x, " before a long flag


def show(words: Sequence[str]) -> int:
    """Print the help for what the words name; all of it without words. The exit code."""
    from enisle.cli.main import GLOBAL_FLAGS, find

    if not words:
        print(_overview(GLOBAL_FLAGS))
        return 0
    if words[0] in tree.GROUPS and len(words) == 1:
        print(_group(words[0]))
        return 0
    name, command, _ = find(words)
    print(command_help(name, command))
    return 0


def command_help(name: str, command: Command) -> str:
    """Everything about one verb."""
    lines = [f"Usage:  enisle {name} {command.usage}".rstrip(), "", command.summary]
    if command.long:
        lines.append("")
        for paragraph in command.long.split("\n"):
            lines += textwrap.wrap(paragraph, _columns()) or [""]
    for title, flags in command.sections:
        lines += ["", f"{title}:", *_flag_lines(flags)]
    if not command.sections and any(not flag.hidden for flag in command.flags):
        lines += ["", "Options:", *_flag_lines(sorted(command.flags, key=lambda flag: flag.name))]
    if command.examples:
        lines += ["", "Examples:", *(f"  {example}" for example in command.examples)]
    return "\n".join(lines)


def _overview(flags: Sequence[Flag]) -> str:
    rest = sorted(set(tree.TOP) - set(tree.COMMON) - {"help"})
    lines = [
        "Usage:  enisle [OPTIONS] COMMAND",
        "",
        "One image, two walls: run it as a container, or with --vm as a virtual machine.",
        "",
        "Common commands:",
        *_verb_lines({name: tree.TOP[name] for name in tree.COMMON}),
        "",
        "Groups:",
        *(f"  {name:11} {group.summary}" for name, group in tree.GROUPS.items()),
        "",
        "Commands:",
        *_verb_lines({name: tree.TOP[name] for name in rest}),
        "",
        "Options:",
        *_flag_lines(flags),
        "",
        "Run 'enisle COMMAND --help' for more about a command.",
    ]
    return "\n".join(lines)


def _group(name: str) -> str:
    group = tree.GROUPS[name]
    verbs = {verb: path for verb, path in sorted(group.verbs.items()) if verb not in tree.ALIASES}
    lines = [f"Usage:  enisle {name} COMMAND", "", group.summary, "", "Commands:", *_verb_lines(verbs)]
    return "\n".join([*lines, "", f"Run 'enisle {name} COMMAND --help' for more about a command."])


def _verb_lines(verbs: dict[str, str]) -> list[str]:
    return [f"  {name:11} {tree.load(path).summary}" for name, path in verbs.items()]


def _flag_lines(flags: Sequence[Flag]) -> list[str]:
    shown = [(_spelling(flag), _text(flag)) for flag in flags if not flag.hidden]
    left = min(max((len(spelling) for spelling, _ in shown), default=0), 38) + 3
    lines = []
    for spelling, text in shown:
        wrapped = textwrap.wrap(text, max(_columns() - left, 24)) or [""]
        if len(spelling) > left - 3:
            lines.append(spelling)
            spelling = ""
        lines.append(f"{spelling:{left}}{wrapped[0]}".rstrip())
        lines += [" " * left + line for line in wrapped[1:]]
    return lines


def _spelling(flag: Flag) -> str:
    short = f"  -{flag.short}, " if flag.short else " " * _INDENT
    return f"{short}--{flag.name} {flag.value}".rstrip()


def _text(flag: Flag) -> str:
    if flag.kind == "switch" and flag.default:
        return f"{flag.help} (default true)"
    if flag.kind == "option" and flag.default not in (None, "", -1):
        return f"{flag.help} (default {flag.default})"
    return flag.help


def _columns() -> int:
    return min(shutil.get_terminal_size((100, 24)).columns, 110)
