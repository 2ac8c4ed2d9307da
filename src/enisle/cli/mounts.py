"""``--mount`` and ``--tmpfs`` -> Docker's Mount objects. Pure."""

from __future__ import annotations

import csv
import os
from typing import Any

from enisle.cli.human import size

_KINDS = ("bind", "volume", "tmpfs", "image")
_FLAGS = frozenset({"readonly", "ro", "volume-nocopy", "bind-nonrecursive", "bind-create-src"})


def mount(text: str) -> dict[str, Any]:
    """``type=bind,source=/a,target=/b,readonly`` as a Mount. Raises ValueError with Docker's reasons."""
    found: dict[str, Any] = {"Type": "volume", "Source": "", "Target": ""}
    try:
        parts = next(csv.reader([text]))
    except csv.Error as error:
        raise ValueError(f"{text!r} is no list of key=value pairs") from error
    for part in parts:
        key, equals, value = part.partition("=")
        key = key.strip().lower()
        if not equals and key not in _FLAGS:
            raise ValueError(f"invalid field '{part}' must be a key=value pair")
        _field(found, key, value if equals else "true")
    return _checked(found)


def _field(found: dict[str, Any], key: str, value: str) -> None:
    match key:
        case "type":
            found["Type"] = value.lower()
        case "source" | "src":
            found["Source"] = value
        case "target" | "dst" | "destination":
            found["Target"] = value
        case "readonly" | "ro":
            found["ReadOnly"] = _boolean(key, value)
        case "consistency":
            found["Consistency"] = value
        case "bind-propagation":
            _options(found, "Bind")["Propagation"] = value.lower()
        case "bind-nonrecursive":
            _options(found, "Bind")["NonRecursive"] = _boolean(key, value)
        case "bind-create-src":
            _options(found, "Bind")["CreateMountpoint"] = _boolean(key, value)
        case "bind-recursive":
            _recursive(_options(found, "Bind"), value)
        case "volume-nocopy":
            _options(found, "Volume")["NoCopy"] = _boolean(key, value)
        case "volume-subpath":
            _options(found, "Volume")["Subpath"] = value
        case "image-subpath":
            _options(found, "Image")["Subpath"] = value
        case "volume-label":
            name, _, label = value.partition("=")
            _options(found, "Volume").setdefault("Labels", {})[name] = label
        case "volume-driver":
            _driver(found)["Name"] = value
        case "volume-opt":
            name, _, setting = value.partition("=")
            _driver(found).setdefault("Options", {})[name] = setting
        case "tmpfs-size":
            _options(found, "Tmpfs")["SizeBytes"] = size(value)
        case "tmpfs-mode":
            _options(found, "Tmpfs")["Mode"] = _octal(value)
        case _:
            raise ValueError(f"unexpected key '{key}' in '{key}={value}'")


def _checked(found: dict[str, Any]) -> dict[str, Any]:
    kind = found["Type"]
    if kind not in _KINDS:
        raise ValueError(f"invalid mount type '{kind}': expected bind, volume, tmpfs or image")
    if not found["Target"]:
        raise ValueError("target is required")
    for name in ("Bind", "Volume", "Tmpfs", "Image"):
        if f"{name}Options" in found and name.lower() != kind:
            raise ValueError(f"cannot mix '{name.lower()}-*' options with mount type '{kind}'")
    if kind == "bind":
        if not found["Source"]:
            raise ValueError("source is required for a bind mount")
        if found["Source"].startswith("."):
            found["Source"] = os.path.abspath(found["Source"])
    if kind == "tmpfs" and found["Source"]:
        raise ValueError("a tmpfs mount has no source")
    return found


def _options(found: dict[str, Any], name: str) -> dict[str, Any]:
    options: dict[str, Any] = found.setdefault(f"{name}Options", {})
    return options


def _driver(found: dict[str, Any]) -> dict[str, Any]:
    driver: dict[str, Any] = _options(found, "Volume").setdefault("DriverConfig", {})
    return driver


def _recursive(options: dict[str, Any], value: str) -> None:
    match value.lower():
        case "enabled":
            return
        case "disabled":
            options["NonRecursive"] = True
        case "writable":
            options["ReadOnlyNonRecursive"] = True
        case "readonly":
            options["ReadOnlyForceRecursive"] = True
        case _:
            raise ValueError(f"invalid value for bind-recursive: {value}")


def _boolean(key: str, value: str) -> bool:
    if value.lower() in ("1", "true"):
        return True
    if value.lower() in ("0", "false"):
        return False
    raise ValueError(f"invalid value for {key}: {value}")


def _octal(value: str) -> int:
    try:
        return int(value, 8)
    except ValueError:
        raise ValueError(f"invalid value for tmpfs-mode: {value}") from None


def tmpfs(text: str) -> tuple[str, str]:
    """``/path[:options]`` as (path, options)."""
    path, _, options = text.partition(":")
    if not path.startswith("/"):
        raise ValueError(f"invalid tmpfs path '{path}': mount path must be absolute")
    return path, options
