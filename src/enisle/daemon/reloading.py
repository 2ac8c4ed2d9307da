"""SIGHUP: the settings file is read once more, and what can change while enisled runs is changed."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
from collections.abc import Callable
from dataclasses import fields, replace
from typing import TYPE_CHECKING

from enisle.errors import EnisleError
from enisle.model.event import Event

if TYPE_CHECKING:
    from enisle.build.builder import Builder
    from enisle.daemon.config import Config
    from enisle.daemon.wiring import Wired

log = logging.getLogger("enisle.daemon")


def level_of(config: Config) -> str:
    """The level of enisled's messages, as logging names it."""
    return "DEBUG" if config.debug else config.log.level.upper()


def applied(old: Config, new: Config) -> tuple[Config, list[str]]:
    """The settings in force after a reload, and the names of those that have changed but need a restart. Pure."""
    changed = replace(old, images=new.images, build=new.build, log=new.log, debug=new.debug)
    left = [field.name for field in fields(new) if getattr(new, field.name) != getattr(changed, field.name)]
    return changed, left


class Reloader:
    """Applies what :func:`applied` lets change: registries, mirrors, the limit of the build cache, debug and log level.

    TLS files are looked at for each connection anyway.
    """

    def __init__(self, config: Config, wired: Wired, builder: Builder, read: Callable[[], Config]) -> None:
        self._config = config
        self._wired = wired
        self._builder = builder
        self._read = read

    def listen(self) -> None:
        """Reload at each SIGHUP from now on."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)

    def reload(self) -> None:
        """Read and apply the settings; they stay as they are when the file is wrong."""
        try:
            config, left = applied(self._config, self._read())
        except EnisleError as error:
            log.error("the settings stay as they are: %s", error)
            return
        self._config = config
        logging.getLogger().setLevel(level_of(config))
        self._wired.reconfigure(config)
        self._builder.limit_bytes = config.build.cache_bytes
        if left:
            log.warning("these settings have changed, but need a restart of enisled: %s", ", ".join(left))
        log.info("the settings were read again")
        engine = self._wired.engine
        attributes = {
            "debug": json.dumps(config.debug),
            "insecure-registries": json.dumps(list(config.images.insecure_registries)),
            "live-restore": "true",
            "name": engine.system.host_name(),
            "registry-mirrors": json.dumps([f"{mirror.rstrip('/')}/" for mirror in config.images.mirrors]),
        }
        event = Event(kind="daemon", action="reload", actor=engine.system.host_id(), attributes=attributes)
        engine.events.publish(event)
