"""Text of a Dockerfile -> stages and instructions. Errors name the line, in Docker's wording."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping

from enisle.errors import Invalid
from enisle.formats.dockerfile.instructions import (
    Arg,
    Command,
    Copy,
    Dockerfile,
    From,
    Instruction,
    OnBuild,
    Pairs,
    Run,
    RunMount,
    SetCommand,
    SetHealthcheck,
    SetList,
    SetText,
    Stage,
)
from enisle.formats.dockerfile.lines import Line, fail, split
from enisle.formats.dockerfile.words import split_words
from enisle.formats.duration import parse_duration
from enisle.model.numbers import decimal

_FLAG = re.compile(r"--([a-z][a-z-]*)(?:=(.*))?", re.DOTALL)
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_MOUNT_KINDS = frozenset({"bind", "cache", "tmpfs", "secret", "ssh"})
_RESERVED = frozenset({"context", "scratch"})


def parse(text: str) -> Dockerfile:
    """The Dockerfile. Raises Invalid naming the line."""
    cut = split(text)
    before: list[Arg] = []
    stages: list[Stage] = []
    base: From | None = None
    body: list[Instruction] = []
    for line in cut.lines:
        instruction = parse_line(line, escape=cut.escape)
        if isinstance(instruction, From):
            if base is not None:
                stages.append(Stage(index=len(stages), base=base, instructions=tuple(body)))
            base, body = instruction, []
        elif base is not None:
            body.append(instruction)
        elif isinstance(instruction, Arg):
            before.append(instruction)
        else:
            raise fail(line.number, "no build stage in current context: only ARG may come before FROM")
    if base is None:
        raise fail(cut.lines[-1].number, "no build stage in current context")
    stages.append(Stage(index=len(stages), base=base, instructions=tuple(body)))
    return Dockerfile(stages=tuple(stages), arguments=tuple(before), escape=cut.escape, directives=cut.directives)


def parse_line(line: Line, *, escape: str = "\\") -> Instruction:
    """One instruction. Raises Invalid naming the line."""
    reader = _READERS.get(line.keyword)
    if reader is None:
        raise fail(line.number, f"unknown instruction: {line.keyword}")
    if not line.rest:
        raise fail(line.number, f"{line.keyword} requires at least one argument")
    flags, rest = take_flags(line)
    try:
        return reader(line, flags, rest, escape)
    except Invalid as error:
        if str(error).startswith("dockerfile parse error"):
            raise
        raise fail(line.number, str(error)) from error


Flags = dict[str, list[str]]
_ALLOWED: Mapping[str, frozenset[str]] = {
    "FROM": frozenset({"platform"}),
    "RUN": frozenset({"mount", "network", "security"}),
    "COPY": frozenset({"from", "chown", "chmod", "link", "parents", "exclude"}),
    "ADD": frozenset({"chown", "chmod", "link", "checksum", "keep-git-dir", "exclude", "unpack"}),
    "HEALTHCHECK": frozenset({"interval", "timeout", "start-period", "start-interval", "retries"}),
}
_REPEATABLE = frozenset({"mount", "exclude"})


def take_flags(line: Line) -> tuple[Flags, str]:
    """The ``--flag=value`` words at the beginning, and what follows them."""
    flags: Flags = {}
    rest = line.rest
    allowed = _ALLOWED.get(line.keyword)
    while allowed is not None and rest.startswith("--"):
        word, remainder = _first_word(rest)
        if word == "--":
            rest = remainder
            break
        match = _FLAG.fullmatch(word)
        if match is None or match[1] not in allowed:
            raise fail(line.number, f"unknown flag: {word.partition('=')[0]}")
        name = match[1]
        if name in flags and name not in _REPEATABLE:
            raise fail(line.number, f"duplicate flag specified: {name}")
        flags.setdefault(name, []).append("true" if match[2] is None else match[2])
        rest = remainder
    return flags, rest


def _first_word(text: str) -> tuple[str, str]:
    """The first word, quotes respected and removed, and the rest."""
    out: list[str] = []
    quote = ""
    for index, character in enumerate(text):
        if quote:
            if character == quote:
                quote = ""
            else:
                out.append(character)
        elif character in "'\"":
            quote = character
        elif character.isspace():
            return "".join(out), text[index:].lstrip()
        else:
            out.append(character)
    return "".join(out), ""


def json_words(text: str) -> tuple[str, ...] | None:
    """The words of an exec form, or None when the text is no JSON list of strings."""
    if not text.startswith("["):
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        return None
    return tuple(value)


def command(text: str) -> Command:
    """Exec form when it is JSON, else shell form."""
    words = json_words(text)
    return Command(line=text, shell=True) if words is None else Command(words=words)


def one(flags: Flags, name: str, default: str = "") -> str:
    return flags.get(name, [default])[0]


def boolean(flags: Flags, name: str) -> bool:
    value = one(flags, name, "false").lower()
    if value not in ("true", "false", "1", "0", "t", "f"):
        raise Invalid(f"expecting boolean value for flag {name}, not: {value}")
    return value in ("true", "1", "t")


def _text(line: Line) -> str:
    return f"{line.keyword} {line.rest}"


def _from(line: Line, flags: Flags, rest: str, _escape: str) -> Instruction:
    words = rest.split()
    name = ""
    if len(words) == 3 and words[1].upper() == "AS":
        name = words[2].lower()
        if not _STAGE_NAME.fullmatch(name) or name in _RESERVED:
            raise Invalid(
                f'invalid name for build stage: "{words[2]}", name can\'t start with a number or contain symbols'
            )
    elif len(words) != 1:
        raise Invalid("FROM requires either one or three arguments")
    return From(number=line.number, text=_text(line), image=words[0], name=name, platform=one(flags, "platform"))


def _run(line: Line, flags: Flags, rest: str, _escape: str) -> Instruction:
    mounts = tuple(_mount(text) for text in flags.get("mount", ()))
    network = one(flags, "network", "default")
    security = one(flags, "security", "sandbox")
    if not rest:
        raise Invalid("RUN requires at least one argument")
    return Run(
        number=line.number,
        text=_text(line),
        command=command(rest),
        mounts=mounts,
        network=network,
        security=security,
        heredocs=line.heredocs,
    )


def _mount(text: str) -> RunMount:
    kind, options = "bind", {}
    for item in text.split(","):
        key, separator, value = item.partition("=")
        key = key.strip().lower()
        if key == "type":
            kind = value.lower()
        elif key in ("readonly", "ro", "rw", "readwrite", "required") and not separator:
            options[key] = "true"
        elif not separator:
            raise Invalid(f"invalid field '{item}' must be a key=value pair")
        else:
            options[key] = value
    if kind not in _MOUNT_KINDS:
        raise Invalid(f'unsupported mount type "{kind}"')
    return RunMount(kind=kind, options=options)


def _copy(line: Line, flags: Flags, rest: str, escape: str) -> Instruction:
    words = json_words(rest) or tuple(split_words(rest, escape))
    if len(words) < 2:
        raise Invalid(f"{line.keyword} requires at least two arguments, but only one was provided")
    unpack = boolean(flags, "unpack") if "unpack" in flags else None
    return Copy(
        number=line.number,
        text=_text(line),
        sources=tuple(_written(word, line) if word.startswith("<<") else word for word in words[:-1]),
        destination=words[-1],
        add=line.keyword == "ADD",
        source=one(flags, "from"),
        chown=one(flags, "chown"),
        chmod=one(flags, "chmod"),
        link=boolean(flags, "link"),
        parents=boolean(flags, "parents"),
        exclude=tuple(flags.get("exclude", ())),
        checksum=one(flags, "checksum"),
        keep_git_dir=boolean(flags, "keep-git-dir"),
        unpack=unpack,
        heredocs=line.heredocs,
    )


def _written(word: str, line: Line) -> str:
    """A source that is a here-document, as "<<" and its plain name."""
    name = re.sub(r"['\"\\`]", "", word.removeprefix("<<").removeprefix("-"))
    if name not in [heredoc.name for heredoc in line.heredocs]:
        raise Invalid(f"{word} is no here-document of this instruction")
    return f"<<{name}"


def _pairs(line: Line, _flags: Flags, rest: str, escape: str) -> Instruction:
    words = split_words(rest, escape)
    if "=" not in words[0]:
        parts = rest.split(None, 1)
        if len(parts) < 2:
            raise Invalid(f"{line.keyword} must have two arguments")
        pairs: tuple[tuple[str, str], ...] = ((parts[0], parts[1]),)
    else:
        missing = next((word for word in words if "=" not in word), None)
        if missing is not None:
            raise Invalid(f"Syntax error - can't find = in {missing!r}. Must be of the form: name=value")
        pairs = tuple((word.partition("=")[0], word.partition("=")[2]) for word in words)
    if any(not key for key, _ in pairs):
        raise Invalid(f"{line.keyword} names can not be blank")
    return Pairs(number=line.number, text=_text(line), kind=line.keyword, pairs=pairs)


def _arg(line: Line, _flags: Flags, rest: str, escape: str) -> Instruction:
    arguments = []
    for word in split_words(rest, escape):
        name, separator, value = word.partition("=")
        if not name:
            raise Invalid("ARG names can not be blank")
        arguments.append((name, value if separator else None))
    return Arg(number=line.number, text=_text(line), arguments=tuple(arguments))


def _set_command(line: Line, _flags: Flags, rest: str, _escape: str) -> Instruction:
    return SetCommand(number=line.number, text=_text(line), kind=line.keyword, command=command(rest))


def _set_text(line: Line, _flags: Flags, rest: str, _escape: str) -> Instruction:
    if line.keyword == "STOPSIGNAL" and len(rest.split()) != 1:
        raise Invalid("STOPSIGNAL requires exactly one argument")
    return SetText(number=line.number, text=_text(line), kind=line.keyword, value=rest)


def _set_list(line: Line, _flags: Flags, rest: str, escape: str) -> Instruction:
    words = json_words(rest)
    if line.keyword == "SHELL" and not words:
        raise Invalid("SHELL requires the arguments to be in JSON form")
    values = words if words is not None and line.keyword != "EXPOSE" else tuple(split_words(rest, escape))
    if any(not value.strip() for value in values):
        raise Invalid(f"{line.keyword} specified can not be an empty string")
    return SetList(number=line.number, text=_text(line), kind=line.keyword, values=values)


def _on_build(line: Line, _flags: Flags, rest: str, _escape: str) -> Instruction:
    trigger = rest.split(None, 1)[0].upper()
    if trigger == "ONBUILD":
        raise Invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if trigger in ("FROM", "MAINTAINER"):
        raise Invalid(f"{trigger} isn't allowed as an ONBUILD trigger")
    if trigger not in _READERS:
        raise Invalid(f"unknown instruction: {trigger}")
    text = rest
    for heredoc in line.heredocs:
        text += f"\n{heredoc.content}{heredoc.name}"
    return OnBuild(number=line.number, text=_text(line), trigger=text)


def _healthcheck(line: Line, flags: Flags, rest: str, _escape: str) -> Instruction:
    kind, *others = rest.split(None, 1)
    kind, remainder = kind.upper(), others[0] if others else ""
    if kind == "NONE":
        if remainder:
            raise Invalid("HEALTHCHECK NONE takes no arguments")
        return SetHealthcheck(number=line.number, text=_text(line), command=None)
    if kind != "CMD":
        raise Invalid(f"Unknown type {kind!r} in HEALTHCHECK (try CMD)")
    if not remainder:
        raise Invalid("Missing command after HEALTHCHECK CMD")
    retries = one(flags, "retries", "0")
    if decimal(retries) is None:
        raise Invalid(f"--retries={retries[:40]} must be a whole number")
    times = {
        name: parse_duration(one(flags, name, "0s"))
        for name in ("interval", "timeout", "start-period", "start-interval")
    }
    return SetHealthcheck(
        number=line.number,
        text=_text(line),
        command=command(remainder),
        interval_ns=times["interval"],
        timeout_ns=times["timeout"],
        start_period_ns=times["start-period"],
        start_interval_ns=times["start-interval"],
        retries=int(retries),
    )


_READERS: dict[str, Callable[[Line, Flags, str, str], Instruction]] = {
    "FROM": _from,
    "RUN": _run,
    "COPY": _copy,
    "ADD": _copy,
    "ENV": _pairs,
    "LABEL": _pairs,
    "ARG": _arg,
    "CMD": _set_command,
    "ENTRYPOINT": _set_command,
    "USER": _set_text,
    "WORKDIR": _set_text,
    "STOPSIGNAL": _set_text,
    "MAINTAINER": _set_text,
    "EXPOSE": _set_list,
    "VOLUME": _set_list,
    "SHELL": _set_list,
    "ONBUILD": _on_build,
    "HEALTHCHECK": _healthcheck,
}
