"""The keeper's side of the program in C (program/program.h): what it is told to become, and what its failures mean."""

from __future__ import annotations

import binascii
import errno
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from enisle.launcher.container import identity, packing
from enisle.launcher.container.execute import DEFAULT_PATH, environment_of
from enisle.launcher.container.failure import (
    MAX_PACKET_BYTES,
    NO_COMMAND,
    NO_INTERPRETER,
    NO_MULTIPLEXER,
    NOT_FOUND,
    NOT_ON_PATH,
    OUTSIDE,
    PREFIX_CREATE,
    PREFIX_EXEC,
    ChildFailure,
    no_directory,
    not_executed,
    reason_of,
)
from enisle.launcher.container.setup import Step
from enisle.launcher.wall import WallError
from enisle.linux import capabilities, rlimits
from enisle.wire.plans import ProcessPlan


class _Flag(IntEnum):
    TERMINAL = 1
    NO_NEW_PRIVS = 2
    NUMERIC_USER = 4
    NUMERIC_GROUP = 8
    HAS_GROUP = 16
    WANTS_HOME = 32
    INIT = 64


class Stage(IntEnum):
    """Where it failed (enum stage in program/program.h)."""

    REQUEST = 1
    KEYRING = 2
    CGROUP = 3
    NAMESPACES = 4
    TERMINAL = 5
    PTMX = 6
    USER = 7
    GROUP = 8
    ROOT = 9
    DIRECTORY = 10
    LIMIT = 11
    STDIO = 12
    IDENTITY = 13
    ENTER_DIRECTORY = 14
    OUTSIDE = 15
    CAPABILITIES = 16
    FILTER = 17
    NOT_ON_PATH = 18
    DENIED = 19
    STATUS = 20
    IS_DIRECTORY = 21
    EXEC = 22
    BIRTH = 23
    JOIN = 24
    STEP = 25
    INIT = 26


@dataclass(slots=True)
class Entrance:
    """One process to be: ``doors`` are the files that move it into the container's cgroup, ``namespaces`` what it joins
    of the first process; 0 for that itself, whose root is made by ``steps``."""

    process: ProcessPlan
    doors: list[str] = field(default_factory=list)
    namespaces: int = 0
    steps: list[Step] = field(default_factory=list)

    def request(self) -> bytes | None:
        """What it reads; None when it is longer than a packet. ChildFailure for what can never be."""
        process = self.process
        user, group = identity.words(process.user, process.groups)
        flags = _Flag.TERMINAL if process.terminal else 0
        flags |= _Flag.INIT if process.init else 0
        flags |= _Flag.NO_NEW_PRIVS if process.no_new_privileges else 0
        flags |= _Flag.NUMERIC_USER if user.number is not None else 0
        flags |= _Flag.HAS_GROUP if group is not None else 0
        flags |= _Flag.NUMERIC_GROUP if group is not None and group.number is not None else 0
        environment = environment_of(process.env)
        flags |= _Flag.WANTS_HOME if not environment.get(b"HOME") else 0
        if flags & _Flag.WANTS_HOME:
            environment.pop(b"HOME", None)
        if not process.args or not process.args[0]:
            raise ChildFailure(NO_COMMAND, exit_code=127)
        keep = capabilities.mask(process.capabilities)
        numbers = [flags, self.namespaces, process.oom_score_adj & 0xFFFFFFFF, process.umask, *process.terminal_size]
        numbers += [user.number or 0, (group.number if group is not None else 0) or 0, capabilities.LAST]
        parts = [struct.pack(f"={len(numbers)}I", *numbers)]
        with_filter = keep | capabilities.mask(["SYS_ADMIN"])
        parts.append(struct.pack("=QQQ", keep, capabilities.held(keep), capabilities.held(with_filter)))
        parts.append(struct.pack("=I", len(process.rlimits)))
        parts += [struct.pack("=Iqq", rlimits.NUMBERS[name], soft, hard) for name, soft, hard in process.rlimits]
        path = environment.get(b"PATH", DEFAULT_PATH.encode())
        for text in (user.name, group.name if group is not None else "", process.cwd or "/"):
            parts.append(packing.text(text))
        parts += [packing.text(path), packing.texts(self.doors), packing.texts(process.groups)]
        parts.append(packing.texts(process.args))
        parts.append(packing.texts(key + b"=" + value for key, value in environment.items()))
        program = binascii.a2b_base64(process.seccomp_bpf)
        parts += [struct.pack("=I", len(program)), program]
        data = b"".join(parts)
        return data if len(data) <= MAX_PACKET_BYTES else None

    def failure(self, message: dict[str, Any]) -> WallError:
        """What a failure that it told of means."""
        error = self._failure(Stage(message["stage"]), int(message["errno"]), int(message["which"]))
        prefix = PREFIX_EXEC if self.namespaces else PREFIX_CREATE
        return WallError(error.kind, error.sentence(prefix), error.exit_code)

    def _failure(self, stage: Stage, number: int, which: int) -> ChildFailure:
        process = self.process
        command, directory = (process.args or [""])[0], process.cwd or "/"
        reason = reason_of(OSError(number, ""))
        match stage:
            case Stage.STEP:
                return self.steps[which & 0xFFFF].failure(number, which >> 16)
            case Stage.USER if not number:
                return identity.no_user(process.user.partition(":")[0])
            case Stage.GROUP if not number:
                return identity.no_group(process.groups[which - 1] if which else process.user.partition(":")[2])
            case Stage.DIRECTORY if number == errno.ENOENT:
                return no_directory(directory, NOT_FOUND, 127)
            case Stage.DIRECTORY | Stage.ENTER_DIRECTORY:
                return no_directory(directory, reason)
            case Stage.OUTSIDE:
                return no_directory(directory, OUTSIDE)
            case Stage.PTMX:
                return ChildFailure(NO_MULTIPLEXER)
            case Stage.NOT_ON_PATH:
                return not_executed(command, NOT_ON_PATH, 127)
            case Stage.DENIED:
                return not_executed(command, "permission denied")
            case Stage.IS_DIRECTORY:
                return not_executed(command, "is a directory")
            case Stage.STATUS if number == errno.ENOENT:
                return not_executed(command, f"stat {command}: {NOT_FOUND}", 127)
            case Stage.EXEC if number == errno.ENOENT:
                return not_executed(command, NO_INTERPRETER, 127)
            case Stage.STATUS | Stage.EXEC:
                return not_executed(command, reason)
            case Stage.CGROUP:
                return ChildFailure(f"{self.doors[which]}: {reason}")
            case Stage.LIMIT:
                return ChildFailure(f"ulimit {process.rlimits[which][0].lower()}: {reason}")
            case Stage.NAMESPACES:
                return ChildFailure(f"setns {self.namespaces:#x}: {reason}")
            case Stage.FILTER:
                return ChildFailure(f"seccomp filter: {reason}")
            case _:
                return ChildFailure(f"{stage.name.lower()}: {reason}")

    def warning(self, message: dict[str, Any]) -> str:
        """What it told of that it could not do, and went on."""
        if "clamped" in message:
            name, _soft, hard = self.process.rlimits[message["clamped"]]
            return rlimits.clamped(name, int(message["to"]), hard)
        reason = reason_of(OSError(message["oom_score"], ""))
        return f"oom_score_adj {self.process.oom_score_adj} is not set: {reason}"
