"""The program to run: arguments, environment, rlimits. The same for both walls; each adds its own security."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from enisle.errors import Invalid
from enisle.model.instance import Instance
from enisle.model.process import ExecSpec
from enisle.model.resources import Ulimit
from enisle.wire.plans import ProcessPlan

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
RLIMITS = frozenset(
    "as core cpu data fsize locks memlock msgqueue nice nofile nproc rss rtprio rttime sigpending stack".split()
)
# Few programs need more descriptors than the soft limit, and some walk through all of them; the hard limit lets those
# that know raise it. No core files: they would fill the host's disk.
_DEFAULT_RLIMITS: dict[str, list[Any]] = {"NOFILE": ["NOFILE", 1024, 524288], "CORE": ["CORE", 0, -1]}
MAX_TEXT_BYTES = 128 << 10  # the kernel's limit for one argument or variable (MAX_ARG_STRLEN)


def environment(instance: Instance, hostname: str) -> list[str]:
    """Docker's order: PATH, HOSTNAME, TERM, then what the image and the user set. HOME is set by who knows passwd."""
    values: dict[str, str] = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if instance.spec.tty:
        values["TERM"] = "xterm"
    return merge_environment(values, instance.spec.env)


def merge_environment(values: dict[str, str], entries: Iterable[str]) -> list[str]:
    """``values`` with NAME=value entries over them; a bare NAME removes it."""
    merged = dict(values)
    for entry in entries:
        name, equals, value = entry.partition("=")
        if equals:
            merged[name] = value
        else:
            merged.pop(name, None)
    return [f"{name}={value}" for name, value in merged.items()]


def rlimits(ulimits: Iterable[Ulimit]) -> list[list[Any]]:
    """The defaults, and over them what the user asked for."""
    planned = dict(_DEFAULT_RLIMITS)
    for limit in ulimits:
        name = limit.name.upper()
        planned[name] = [name, limit.soft, limit.hard]
    return [planned[name] for name in sorted(planned)]


def check_ulimits(ulimits: Iterable[Ulimit]) -> None:
    """Refuse what setrlimit(2) would."""
    for limit in ulimits:
        if limit.name.lower() not in RLIMITS:
            raise Invalid(f"invalid ulimit type: {limit.name}")
        if limit.hard != -1 and (limit.soft == -1 or limit.soft > limit.hard):
            raise Invalid(f"ulimit soft limit must be less than or equal to hard limit: {limit.soft} > {limit.hard}")
        if limit.soft < -1 or limit.hard < -1:
            raise Invalid(f"ulimit {limit.name}: {limit.soft}:{limit.hard} is out of range")


def check_text(what: str, values: Iterable[str]) -> None:
    """Refuse text that the kernel could not pass on: NUL bytes, over-long strings."""
    for value in values:
        if "\0" in value:
            raise Invalid(f"{what} must not hold a NUL byte: {value[:80]!r}")
        if len(value.encode("utf-8", "surrogateescape")) >= MAX_TEXT_BYTES:
            raise Invalid(f"{what} is longer than {MAX_TEXT_BYTES} bytes: {value[:80]!r}...: argument list too long")


def main_process(instance: Instance, hostname: str) -> ProcessPlan:
    """The main process, but for capabilities and seccomp."""
    spec = instance.spec
    return ProcessPlan(
        args=list(instance.args),
        env=environment(instance, hostname),
        cwd=spec.working_dir or "/",
        user=spec.user,
        groups=list(spec.group_add),
        terminal=spec.tty,
        terminal_size=list(spec.console_size),
        stdin=spec.open_stdin,
        stdin_once=spec.stdin_once,
        rlimits=rlimits(spec.ulimits),
        init=bool(spec.init),
    )


def exec_process(instance: Instance, hostname: str, spec: ExecSpec) -> ProcessPlan:
    """A further process: the instance's environment, user and directory where none of its own were asked for."""
    if not spec.command:
        raise Invalid("No exec command specified")
    check_text("exec command", spec.command)
    check_text("exec environment", spec.env)
    values = dict(entry.partition("=")[::2] for entry in environment(instance, hostname))
    if spec.tty:
        values["TERM"] = values.get("TERM", "xterm")
    return ProcessPlan(
        args=list(spec.command),
        env=merge_environment(values, spec.env),
        cwd=spec.cwd or instance.spec.working_dir or "/",
        user=spec.user or instance.spec.user,
        groups=list(instance.spec.group_add),
        terminal=spec.tty,
        terminal_size=list(spec.console_size),
        stdin=spec.attach_stdin,
        stdin_once=spec.attach_stdin,
        privileged=spec.privileged,
        rlimits=rlimits(instance.spec.ulimits),
        detach_keys=spec.detach_keys,
    )
