"""enisled's settings: a TOML file, and flags that win over it."""

from __future__ import annotations

import argparse
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from enisle.errors import Invalid

DEFAULT_CONFIG = Path("/etc/enisle/enisle.toml")
RESERVED_RUNTIMES = ("enisle", "vm")
_RUNTIME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_NAME = re.compile(r"[a-z][a-z0-9]{0,9}")
"""Host names are made of it: a bridge is called <name>0, and a link's name has 15 characters at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Api:
    """``listen``: TCP addresses beside the unix socket, "HOST:PORT" or "[IPV6]:PORT" each, with mutual TLS only:
    ``ca`` has issued the certificates of clients, ``certificate`` and ``key`` are ours (PEM files)."""

    listen: tuple[str, ...] = ()
    ca: Path = Path()
    certificate: Path = Path()
    key: Path = Path()


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """``subnet``: of the default bridge, "" chooses a free one; ``ipv6`` gives it IPv6 as well. ``address_pools``:
    where subnets come from that nobody names, "BASE/LENGTH SIZE" each ("10.64.0.0/12 24", "fd12:3456::/48 64")."""

    subnet: str = ""
    ipv6: bool = False
    address_pools: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """``insecure_registries``: hosts spoken to by HTTP, or without checking their certificate; ``mirrors`` of
    docker.io are asked first."""

    insecure_registries: tuple[str, ...] = ()
    mirrors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Build:
    """``cache_bytes``: limit of what is kept for later builds; 0: a tenth of the disk, and 2 GiB at least."""

    cache_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """``userns``: "private" gives each container that does not say --userns host a user namespace of its own."""

    userns: str = "host"


@dataclass(frozen=True, kw_only=True, slots=True)
class Runtime:
    """An OCI runtime that --runtime can name: ``path`` of its program, ``options`` that go before the verb."""

    path: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Vm:
    """``accelerator``: "" proves KVM and falls back to TCG; "kvm" or "tcg" insists."""

    accelerator: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Log:
    """``level`` of enisled's own messages: debug, info, warning, error."""

    level: str = "info"


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Everything that can be set. ``name`` tells several engines on one host apart. ``default_runtime``: of instances
    that do not say; "" is our own container."""

    name: str = "enisle"
    data_root: Path = Path("/var/lib/enisle")
    run_root: Path = Path("/run/enisle")
    socket: Path = Path()
    group: str = "enisle"
    debug: bool = False
    default_runtime: str = ""
    runtimes: Mapping[str, Runtime] = field(default_factory=dict)
    api: Api = Api()
    network: Network = Network()
    images: Images = Images()
    build: Build = Build()
    container: Container = Container()
    vm: Vm = Vm()
    log: Log = Log()

    @property
    def socket_path(self) -> Path:
        """Where clients connect: run_root/enisle.sock unless set."""
        return self.socket if self.socket != Path() else self.run_root / "enisle.sock"


_SECTIONS: dict[str, type[Any]] = {
    "api": Api,
    "network": Network,
    "images": Images,
    "build": Build,
    "container": Container,
    "vm": Vm,
    "log": Log,
}


def parse_toml(text: str, source: str) -> Config:
    """The settings of a TOML document. Invalid names the setting that is unknown or of the wrong type."""
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise Invalid(f"{source}: {error}") from error
    given: dict[str, Any] = {}
    for key, value in values.items():
        section = _SECTIONS.get(key)
        if key == "runtimes":
            given[key] = _runtimes(value, source)
        elif section is None:
            given[key] = _checked(Config, key, value, f"{source}: {key}")
        elif isinstance(value, dict):
            given[key] = _section(section, value, f"{source}: {key}")
        else:
            raise Invalid(f"{source}: [{key}] is a table of settings, not a value")
    return Config(**given)


def _section(section: type[Any], values: dict[str, Any], where: str) -> Any:
    return section(**{name: _checked(section, name, value, f"{where}.{name}") for name, value in values.items()})


def _runtimes(values: object, source: str) -> dict[str, Runtime]:
    """[runtimes.NAME], one table each."""
    if not isinstance(values, dict) or not all(isinstance(table, dict) for table in values.values()):
        raise Invalid(f"{source}: runtimes are tables, one per name: [runtimes.NAME]")
    return {name: _section(Runtime, table, f"{source}: runtimes.{name}") for name, table in values.items()}


def _checked(section: type[Any], name: str, value: object, where: str) -> Any:
    """The value as its field wants it."""
    hint = get_type_hints(section).get(name)
    if hint is None or name in _SECTIONS or name == "runtimes":
        known = ", ".join(sorted(each.name for each in fields(section)))
        raise Invalid(f"{where}: no such setting", remedy=f"There are: {known}.")
    if hint is Path and isinstance(value, str) and value:
        return Path(value)
    if hint == tuple[str, ...] and isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    if hint in (str, bool) and type(value) is hint:
        return value
    if hint is int and type(value) is int and value >= 0:
        return value
    expected = {Path: "a path", str: "a text", bool: "true or false", int: "a number"}.get(hint, "a list of texts")
    raise Invalid(f"{where}: {value!r} is not {expected}")


def parser() -> argparse.ArgumentParser:
    """enisled's command line."""
    made = argparse.ArgumentParser(
        prog="enisled", description="The engine of Enisle: containers and VMs of OCI images."
    )
    made.add_argument("--data-root", type=Path, metavar="DIR", help="images, volumes, state (/var/lib/enisle)")
    made.add_argument("--run-root", type=Path, metavar="DIR", help="sockets of what runs (/run/enisle)")
    made.add_argument("--socket", type=Path, metavar="PATH", help="where clients connect (RUN_ROOT/enisle.sock)")
    made.add_argument("--config", type=Path, metavar="FILE", help=f"settings in TOML ({DEFAULT_CONFIG})")
    made.add_argument("--name", help="name of this engine, to tell several on one host apart (enisle)")
    made.add_argument("--debug", action="store_true", help="log everything")
    made.add_argument("--version", action="store_true", help="print the version and end")
    return made


def load(arguments: Sequence[str]) -> Config:
    """The settings in force. Invalid: a setting is wrong, or the file named is missing."""
    options = parser().parse_args(arguments)
    config = _from_file(options.config)
    given = {name: getattr(options, name) for name in ("data_root", "run_root", "socket", "name")}
    config = replace(config, **{name: value for name, value in given.items() if value is not None})
    if options.debug:
        config = replace(config, debug=True)
    return _check(config)


def _from_file(path: Path | None) -> Config:
    try:
        return parse_toml((path or DEFAULT_CONFIG).read_text(), str(path or DEFAULT_CONFIG))
    except FileNotFoundError:
        if path is not None:
            raise Invalid(f"settings file {path} does not exist") from None
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"settings file {path or DEFAULT_CONFIG} cannot be read: {error}") from error


def _check(config: Config) -> Config:
    if not _NAME.fullmatch(config.name):
        raise Invalid(f"name {config.name!r} is not 1 to 10 lower-case letters and digits, a letter first")
    if config.api.listen and Path() in (config.api.ca, config.api.certificate, config.api.key):
        raise Invalid("api.listen needs api.ca, api.certificate and api.key: TCP is served with mutual TLS only")
    if config.container.userns not in ("host", "private"):
        raise Invalid(f"container.userns {config.container.userns!r} is neither host nor private")
    for name, runtime in config.runtimes.items():
        if not _RUNTIME_NAME.fullmatch(name) or name in RESERVED_RUNTIMES:
            raise Invalid(f"runtimes.{name}: no runtime can be called so", remedy="enisle and vm are our own walls.")
        if not runtime.path.startswith("/"):
            raise Invalid(f"runtimes.{name}.path {runtime.path!r} is not the absolute path of a program")
    known = {"", "runc", *RESERVED_RUNTIMES, *config.runtimes}
    if config.default_runtime not in known:
        raise Invalid(f"default_runtime {config.default_runtime!r} is none of {', '.join(sorted(known - {''}))}")
    if config.vm.accelerator not in ("", "kvm", "tcg"):
        raise Invalid(f"vm.accelerator {config.vm.accelerator!r} is neither kvm nor tcg")
    if config.log.level not in ("debug", "info", "warning", "error"):
        raise Invalid(f"log.level {config.log.level!r} is none of debug, info, warning, error")
    return replace(
        config,
        data_root=config.data_root.absolute(),
        run_root=config.run_root.absolute(),
        socket=config.socket_path.absolute(),
    )
