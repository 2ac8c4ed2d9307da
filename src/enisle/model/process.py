"""Processes run inside an instance besides its main one."""

from __future__ import annotations

from dataclasses import dataclass

from enisle.model.ids import ExecId, InstanceId


@dataclass(frozen=True, kw_only=True, slots=True)
class ExecSpec:
    """What an exec session is to run. ``env`` is added to the instance's, ``user`` "" and ``cwd`` "" inherit.

    ``detach_keys``: the bytes a terminal sends, as latin-1 text; "" is the default.
    """

    command: tuple[str, ...]
    env: tuple[str, ...] = ()
    user: str = ""
    cwd: str = ""
    tty: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    privileged: bool = False
    detach_keys: str = ""
    console_size: tuple[int, int] = (0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Exec:
    """One exec session. ``exit_code`` None: not ended (or not started)."""

    id: ExecId
    instance: InstanceId
    spec: ExecSpec
    running: bool = False
    pid: int = 0
    exit_code: int | None = None
    created_at: int = 0
