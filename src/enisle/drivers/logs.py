"""Log settings: the options of Docker's log drivers, checked and made into a plan. The same for both walls."""

from __future__ import annotations

import os
import re
from pathlib import Path

from enisle.errors import Invalid
from enisle.model.instance import Instance, LogConfig
from enisle.model.numbers import decimal
from enisle.wire.plans import LogPlan

DEFAULT_MAX_BYTES = 10 << 20
DEFAULT_MAX_FILES = 5
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgtp]?)i?b?", re.IGNORECASE | re.ASCII)
_UNITS = {unit: 1 << (10 * power) for power, unit in enumerate(("", "k", "m", "g", "t", "p"))} | {"b": 1}
DEFAULT_BUFFER_BYTES = 1 << 20
JOURNAL_SOCKET = "/run/systemd/journal/socket"
_LOCAL_MAX_BYTES = 20 << 20
_SHARED_OPTIONS = frozenset({"mode", "max-buffer-size"})
_ROTATION_OPTIONS = frozenset({"max-size", "max-file", "compress"})
_ATTRIBUTE_OPTIONS = frozenset({"labels", "labels-regex", "env", "env-regex", "tag"})
_OPTIONS = {
    "json-file": _SHARED_OPTIONS | _ROTATION_OPTIONS | _ATTRIBUTE_OPTIONS,
    "local": _SHARED_OPTIONS | _ROTATION_OPTIONS,
    "journald": _SHARED_OPTIONS | _ATTRIBUTE_OPTIONS,
}
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


def check(config: LogConfig) -> None:
    """Refuse drivers and options that are not there, in Docker's words."""
    driver = config.driver or "json-file"
    if driver == "none":
        return
    if driver not in _OPTIONS:
        raise Invalid(f"logger: no log driver named '{driver[:60]}' is registered")
    if driver == "journald" and not os.path.exists(journal_socket()):
        raise Invalid("journald is not enabled on this host")
    for name in config.options:
        if name not in _OPTIONS[driver]:
            raise Invalid(f"unknown log opt '{name[:60]}' for {driver} log driver")
    mode = config.options.get("mode", "")
    if mode not in ("", "blocking", "non-blocking"):
        raise Invalid(f"logger: logging mode not supported: {mode}")
    if "max-buffer-size" in config.options and mode != "non-blocking":
        raise Invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
    if "max-buffer-size" in config.options:
        _size("max-buffer-size", config.options["max-buffer-size"])
    max_bytes, max_files, compress = _rotation(config)
    if "compress" in config.options and compress and (max_files < 2 or max_bytes <= 0):
        raise Invalid("compress cannot be true when max-file is less than 2 or max-size is not set")
    for name in ("labels-regex", "env-regex"):
        try:
            re.compile(config.options.get(name, ""))
        except re.error as error:
            raise Invalid(f"invalid value for {name}: {error}") from error


def log_plan(instance: Instance, path: Path | None) -> LogPlan:
    """Where the output of the instance goes, and what each line carries besides it."""
    config = instance.spec.log
    if config.driver == "journald":
        return _journal_plan(instance)
    if path is None or config.driver == "none":
        return LogPlan(driver="none")
    max_bytes, max_files, compress = _rotation(config)
    return LogPlan(
        driver=config.driver or "json-file",
        path=str(path),
        max_bytes=max_bytes,
        max_files=max_files,
        compress=compress and max_files > 1 and max_bytes > 0,
        extra=_attributes(instance),
    )


def journal_socket() -> str:
    """Where the host's journal takes entries; ENISLE_JOURNAL_SOCKET names another place."""
    return os.environ.get("ENISLE_JOURNAL_SOCKET", JOURNAL_SOCKET)


def _journal_plan(instance: Instance) -> LogPlan:
    options = instance.spec.log.options
    tag = _tag(options.get("tag", "") or "{{.ID}}", instance)
    fields = {_field_name(name): value for name, value in _attributes(instance).items() if name != "tag"}
    fields |= {
        "CONTAINER_ID": instance.id[:12],
        "CONTAINER_ID_FULL": instance.id,
        "CONTAINER_NAME": instance.name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": instance.spec.image,
        "SYSLOG_IDENTIFIER": tag,
    }
    waiting = _size("max-buffer-size", options["max-buffer-size"]) if "max-buffer-size" in options else 0
    return LogPlan(
        driver="journald",
        path=journal_socket(),
        extra={name: value for name, value in fields.items() if name},
        buffer_bytes=(waiting or DEFAULT_BUFFER_BYTES) if options.get("mode") == "non-blocking" else 0,
    )


def _field_name(name: str) -> str:
    """A label's or variable's name as the journal takes it; the journal keeps those that begin with _ for itself."""
    return re.sub(r"[^A-Z0-9_]", "_", name.upper()).lstrip("_0123456789")[:64]


def _rotation(config: LogConfig) -> tuple[int, int, bool]:
    options = config.options
    is_local = config.driver == "local"
    max_bytes, max_files = _LOCAL_MAX_BYTES if is_local else DEFAULT_MAX_BYTES, DEFAULT_MAX_FILES
    if "max-size" in options:
        max_bytes = 0 if options["max-size"].strip() == "-1" else _size("max-size", options["max-size"])
    if "max-file" in options:
        text = options["max-file"]
        max_files = decimal(text) or 0
        if not 1 <= max_files <= 10_000:
            raise Invalid(f"max-file cannot be less than 1, or is no number: {text[:40]!r}")
    return max_bytes, max_files, _boolean("compress", options.get("compress", "true" if is_local else "false"))


def _size(name: str, text: str) -> int:
    match = _SIZE.fullmatch(text.strip()) if len(text) < 30 else None  # a float of any length may be infinite
    if match is None:
        raise Invalid(f"invalid value for {name}: invalid size: '{text[:60]}'")
    size = int(float(match[1]) * _UNITS[match[2].lower()])
    if size <= 0:
        raise Invalid(f"invalid value for {name}: {text} is not more than 0")
    return size


def _boolean(name: str, text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise Invalid(f"invalid value for {name}: {text!r} is neither true nor false")


def _attributes(instance: Instance) -> dict[str, str]:
    """The ``attrs`` of each line: chosen labels and environment variables, and the tag."""
    options = instance.spec.log.options
    labels = instance.spec.labels
    environment = dict(entry.partition("=")[::2] for entry in instance.spec.env)
    attributes = _chosen(labels, options.get("labels", ""), options.get("labels-regex", ""))
    attributes |= _chosen(environment, options.get("env", ""), options.get("env-regex", ""))
    tag = options.get("tag", "")
    if tag:
        attributes["tag"] = _tag(tag, instance)
    return attributes


def _chosen(values: dict[str, str], names: str, pattern: str) -> dict[str, str]:
    wanted = {name.strip() for name in names.split(",") if name.strip()}
    expression = re.compile(pattern) if pattern else None
    return {
        name: value
        for name, value in values.items()
        if name in wanted or (expression is not None and expression.search(name) is not None)
    }


def _tag(template: str, instance: Instance) -> str:
    """The tag's Go template; fields that are not known stay as they are written."""
    image = instance.spec.image_id.partition(":")[2]
    fields = {
        "ID": instance.id[:12],
        "FullID": instance.id,
        "Name": instance.name,
        "ImageID": image[:12],
        "ImageFullID": instance.spec.image_id,
        "ImageName": instance.spec.image,
        "DaemonName": "enisle",
    }
    return re.sub(r"\{\{\s*\.(\w+)\s*\}\}", lambda match: fields.get(match[1], match[0]), template)
