"""The instructions of a Dockerfile, as data. Nothing is expanded here: variables are known only while building."""

from __future__ import annotations

from dataclasses import dataclass, field

from enisle.formats.dockerfile.lines import Heredoc


@dataclass(frozen=True, kw_only=True, slots=True)
class Instruction:
    """What every instruction has: its line, and its text for the history and for messages."""

    number: int
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class From(Instruction):
    """``FROM [--platform=…] image [AS name]``."""

    image: str
    name: str = ""
    platform: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Command:
    """A command in exec form (``words``) or shell form (``line``)."""

    words: tuple[str, ...] = ()
    line: str = ""
    shell: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class RunMount:
    """``RUN --mount=type=…``; ``options`` are its further keys, unexpanded."""

    kind: str = "bind"
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Run(Instruction):
    command: Command
    mounts: tuple[RunMount, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Copy(Instruction):
    """COPY and ADD. ``source`` of --from: a stage, an image or a named context."""

    sources: tuple[str, ...]
    destination: str
    add: bool = False
    source: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    checksum: str = ""
    keep_git_dir: bool = False
    unpack: bool | None = None
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs(Instruction):
    """ENV and LABEL: ``key=value …`` unexpanded; ``kind`` says which."""

    kind: str
    pairs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Arg(Instruction):
    """``ARG name[=default] …``; None: no default."""

    arguments: tuple[tuple[str, str | None], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SetCommand(Instruction):
    """CMD and ENTRYPOINT."""

    kind: str
    command: Command


@dataclass(frozen=True, kw_only=True, slots=True)
class SetText(Instruction):
    """USER, WORKDIR, STOPSIGNAL and MAINTAINER."""

    kind: str
    value: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SetList(Instruction):
    """EXPOSE, VOLUME and SHELL."""

    kind: str
    values: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class OnBuild(Instruction):
    """An instruction kept for the images built from this one."""

    trigger: str


@dataclass(frozen=True, kw_only=True, slots=True)
class SetHealthcheck(Instruction):
    """``command`` None: HEALTHCHECK NONE. Times in nanoseconds, 0: not given."""

    command: Command | None
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """From one FROM to the next."""

    index: int
    base: From
    instructions: tuple[Instruction, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dockerfile:
    """A parsed Dockerfile. ``arguments``: the ARGs before the first FROM."""

    stages: tuple[Stage, ...]
    arguments: tuple[Arg, ...] = ()
    escape: str = "\\"
    directives: dict[str, str] = field(default_factory=dict)
