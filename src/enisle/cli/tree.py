"""All verbs by name, loaded when they are used: a verb's module is imported only for that verb."""

from __future__ import annotations

from importlib import import_module
from typing import NamedTuple

from enisle.cli.command import Command


class Group(NamedTuple):
    """A noun with verbs of its own. ``verbs``: name to module and attribute."""

    summary: str
    verbs: dict[str, str]


TOP: dict[str, str] = {
    "run": "run:RUN",
    "exec": "exec:EXEC",
    "ps": "ps:PS",
    "logs": "logs:LOGS",
    "stop": "lifecycle:STOP",
    "rm": "lifecycle:RM",
    "pull": "transfer:PULL",
    "push": "transfer:PUSH",
    "images": "images:IMAGES",
    "doctor": "doctor:DOCTOR",
    "attach": "attach:ATTACH",
    "build": "build:BUILD",
    "commit": "files:COMMIT",
    "completion": "completion:COMPLETION",
    "cp": "cp:CP",
    "create": "run:CREATE",
    "diff": "files:DIFF",
    "events": "events:EVENTS",
    "export": "files:EXPORT",
    "help": "help:HELP",
    "history": "images:HISTORY",
    "import": "archives:IMPORT",
    "info": "info:INFO",
    "inspect": "inspect:INSPECT",
    "kill": "lifecycle:KILL",
    "load": "archives:LOAD",
    "login": "login:LOGIN",
    "logout": "login:LOGOUT",
    "pause": "lifecycle:PAUSE",
    "port": "port:PORT",
    "prune": "prune:SYSTEM",
    "rename": "lifecycle:RENAME",
    "restart": "lifecycle:RESTART",
    "rmi": "images:RMI",
    "save": "archives:SAVE",
    "start": "attach:START",
    "stats": "stats:STATS",
    "tag": "images:TAG",
    "top": "top:TOP",
    "unpause": "lifecycle:UNPAUSE",
    "update": "lifecycle:UPDATE",
    "version": "version:VERSION",
    "wait": "lifecycle:WAIT",
}

_INSTANCE_VERBS = (
    "attach commit cp create diff exec export inspect kill logs pause port rename restart rm run start stats stop top "
    "unpause update wait"
).split()

GROUPS: dict[str, Group] = {
    "container": Group(
        "Manage instances (behind either wall)",
        {name: TOP[name] for name in _INSTANCE_VERBS}
        | {
            "ls": "ps:PS",
            "list": "ps:PS",
            "ps": "ps:PS",
            "remove": "lifecycle:RM",
            "prune": "prune:CONTAINER",
            "inspect": "inspect:CONTAINER",
        },
    ),
    "image": Group(
        "Manage images",
        {
            "bootstrap": "bootstrap:BOOTSTRAP",
            "build": "build:BUILD",
            "history": "images:HISTORY",
            "import": "archives:IMPORT",
            "inspect": "inspect:IMAGE",
            "load": "archives:LOAD",
            "ls": "images:IMAGES",
            "list": "images:IMAGES",
            "prune": "prune:IMAGE",
            "pull": "transfer:PULL",
            "push": "transfer:PUSH",
            "rm": "images:RMI",
            "remove": "images:RMI",
            "save": "archives:SAVE",
            "tag": "images:TAG",
        },
    ),
    "builder": Group(
        "Manage what builds keep",
        {"build": "build:BUILD", "prune": "build:PRUNE"},
    ),
    "network": Group(
        "Manage networks",
        {
            "connect": "networks:CONNECT",
            "create": "networks:CREATE",
            "disconnect": "networks:DISCONNECT",
            "inspect": "inspect:NETWORK",
            "ls": "networks:LS",
            "list": "networks:LS",
            "prune": "prune:NETWORK",
            "rm": "networks:RM",
            "remove": "networks:RM",
        },
    ),
    "volume": Group(
        "Manage volumes",
        {
            "clone": "volume_copies:CLONE",
            "create": "volumes:CREATE",
            "export": "volume_copies:EXPORT",
            "import": "volume_copies:IMPORT",
            "inspect": "inspect:VOLUME",
            "ls": "volumes:LS",
            "list": "volumes:LS",
            "prune": "prune:VOLUME",
            "rename": "volume_copies:RENAME",
            "resize": "volume_copies:RESIZE",
            "restore": "volume_copies:RESTORE",
            "rm-snapshot": "volume_copies:RM_SNAPSHOT",
            "snapshot": "volume_copies:SNAPSHOT",
            "snapshots": "volume_copies:SNAPSHOTS",
            "rm": "volumes:RM",
            "remove": "volumes:RM",
        },
    ),
    "system": Group(
        "Manage the daemon and its host",
        {
            "df": "df:DF",
            "dial-stdio": "dial_stdio:DIAL_STDIO",
            "doctor": "doctor:DOCTOR",
            "events": "events:EVENTS",
            "info": "info:INFO",
            "prune": "prune:SYSTEM",
        },
    ),
}

HIDDEN: dict[str, str] = {"__complete": "completion:COMPLETE"}

COMMON = ("run", "exec", "ps", "logs", "stop", "rm", "pull", "push", "images", "doctor")
"""The verbs that help shows first."""

ALIASES = frozenset({"list", "remove"})
"""Second names of verbs, not shown in help."""


def load(path: str) -> Command:
    """The command at ``module:ATTRIBUTE`` below cli.verbs."""
    module, _, attribute = path.partition(":")
    command: Command = getattr(import_module(f"enisle.cli.verbs.{module}"), attribute)
    return command
