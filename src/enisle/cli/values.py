"""Values of flags: text as people write it -> what the API wants. Pure; raises ValueError with the reason."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from enisle.cli.human import size

_SIGNAL = re.compile(r"[A-Za-z0-9+-]+")


def whole(text: str) -> int:
    """A whole number."""
    try:
        return int(text, 10)
    except ValueError:
        raise ValueError(f"'{text}' is not a whole number") from None


def cpus(text: str) -> int:
    """Billionths of a CPU from ``1.5``."""
    try:
        value = float(text)
    except ValueError:
        raise ValueError(f"failed to parse {text} as a rational number") from None
    if not 0 <= value < 1 << 20:
        raise ValueError("it must be a number of CPUs, 0 or more")
    return round(value * 1_000_000_000)


def swap(text: str) -> int:
    """Bytes, or -1 for no limit."""
    return -1 if text == "-1" else size(text)


def swappiness(text: str) -> int:
    """0 to 100, or -1 for the default."""
    value = whole(text)
    if not -1 <= value <= 100:
        raise ValueError("invalid value: valid memory swappiness range is 0-100")
    return value


def environment(values: Iterable[str], files: Iterable[str], inherited: Mapping[str, str]) -> list[str]:
    """NAME=VALUE pairs; files first. A bare NAME takes its value from our environment.

    One that has none there is left out of files, and else kept bare: the daemon takes it out of the image's variables.
    """
    lines = [line for path in files for line in read_lines(path, "env")]
    found = []
    for number, line in enumerate([*lines, *values]):
        name, equals, _ = line.partition("=")
        if not name:
            raise ValueError(f"invalid environment variable: {line}")
        if equals or name in inherited:
            found.append(line if equals else f"{name}={inherited[name]}")
        elif number >= len(lines):
            found.append(line)
    return found


def read_lines(path: str, what: str) -> list[str]:
    """The lines of an --env-file or --label-file without comments and empty ones."""
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.rstrip("\n").lstrip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(
            f"the {what} file {path} cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from error
    kept = [line for line in lines if line and not line.startswith("#")]
    for line in kept:
        if re.search(r"\s", line.partition("=")[0]):
            raise ValueError(f"the {what} file {path} has a name with white space: {line.partition('=')[0]!r}")
    return kept


def pairs(values: Iterable[str], files: Iterable[str] = ()) -> dict[str, str]:
    """``a=b`` words as a mapping; a word without = has the value ""."""
    lines = [line for path in files for line in read_lines(path, "label")]
    return {name: value for name, _, value in (line.partition("=") for line in [*lines, *values])}


def device(text: str) -> dict[str, str]:
    """``/dev/a[:/dev/b][:rwm]`` as a DeviceMapping."""
    host, *rest = text.split(":")
    inside, access = host, "rwm"
    if len(rest) == 1 and rest[0] and set(rest[0]) <= set("rwm"):
        access = rest[0]
    elif rest:
        inside = rest[0] or host
        access = rest[1] if len(rest) == 2 else "rwm"
    if len(rest) > 2 or not host or not access or set(access) - set("rwm"):
        raise ValueError(f"invalid device specification: {text}")
    return {"PathOnHost": host, "PathInContainer": inside, "CgroupPermissions": access}


def device_rate(text: str) -> dict[str, object]:
    """``/dev/sda:1mb`` as a ThrottleDevice; the rate takes size units."""
    path, colon, rate = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise ValueError(f"bad format: {text} (expected /dev/DEVICE:RATE)")
    return {"Path": path, "Rate": size(rate)}


def device_weight(text: str) -> dict[str, object]:
    """``/dev/sda:500`` as a WeightDevice."""
    path, colon, weight = text.rpartition(":")
    if not colon or not path.startswith("/dev/"):
        raise ValueError(f"bad format: {text} (expected /dev/DEVICE:WEIGHT)")
    value = whole(weight)
    if value and not 10 <= value <= 1000:
        raise ValueError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": value}


def ulimit(text: str) -> dict[str, object]:
    """``nofile=1024[:2048]`` as a Ulimit; -1 is unlimited."""
    name, equals, limits = text.partition("=")
    soft, colon, hard = limits.partition(":")
    if not name or not equals:
        raise ValueError(f"invalid ulimit argument: {text} (expected NAME=SOFT[:HARD])")
    values = [_limit(soft), _limit(hard if colon else soft)]
    if values[1] != -1 and (values[0] == -1 or values[0] > values[1]):
        raise ValueError(f"ulimit soft limit must be less than or equal to hard limit: {soft} > {hard or soft}")
    return {"Name": name, "Soft": values[0], "Hard": values[1]}


def _limit(text: str) -> int:
    return -1 if text == "unlimited" else whole(text)


def restart_policy(text: str) -> dict[str, object]:
    """``on-failure:3`` as a RestartPolicy."""
    name, colon, count = text.partition(":")
    if name not in ("", "no", "always", "unless-stopped", "on-failure", "unhealthy"):
        raise ValueError("expected no, on-failure[:COUNT], unhealthy[:COUNT], always or unless-stopped")
    if colon and name not in ("on-failure", "unhealthy"):
        raise ValueError("maximum retry count can only be used with 'on-failure'")
    return {"Name": name or "no", "MaximumRetryCount": whole(count) if colon else 0}


def volume(text: str) -> str:
    """``-v``: a relative host path (./src, ../src, ~ is the shell's) becomes absolute."""
    source, colon, rest = text.partition(":")
    if (colon and source in (".", "..")) or source.startswith(("./", "../")):
        if not colon:
            raise ValueError(f"invalid volume specification: {text}")
        return f"{os.path.abspath(source)}:{rest}"
    return text


def network(text: str) -> dict[str, object]:
    """``--network``: a name, or ``name=net,alias=a,ip=10.0.0.5,...``; name and EndpointSettings."""
    if "=" not in text:
        return {"name": text}
    found: dict[str, object] = {"name": ""}
    aliases: list[str] = []
    options: dict[str, str] = {}
    local: list[str] = []
    for part in text.split(","):
        key, _, value = part.partition("=")
        match key.strip().lower():
            case "name":
                found["name"] = value
            case "alias":
                aliases.append(value)
            case "ip" | "ip6" | "mac-address":
                found[key] = value
            case "link-local-ip":
                local.append(value)
            case "driver-opt":
                option, _, setting = value.partition("=")
                options[option] = setting
            case _:
                raise ValueError(f"invalid field {key}")
    if not found["name"]:
        raise ValueError("network name is missing (name=...)")
    return found | {"aliases": aliases, "driver-opt": options, "link-local-ip": local}


def gpus(text: str) -> dict[str, object]:
    """``all``, a count, or ``device=0,capabilities=...`` as a DeviceRequest."""
    if text == "all" or text.lstrip("-").isdigit():
        return {"Count": -1 if text == "all" else int(text), "Capabilities": [["gpu"]]}
    request: dict[str, object] = {"Count": 0, "Capabilities": [["gpu"]]}
    for part in text.split(","):
        key, _, value = part.partition("=")
        match key:
            case "device":
                request["DeviceIDs"] = value.split("+")
            case "count":
                request["Count"] = -1 if value == "all" else whole(value)
            case "driver":
                request["Driver"] = value
            case "capabilities":
                request["Capabilities"] = [["gpu", *value.split("+")]]
            case _:
                raise ValueError(f"unexpected key '{key}' in '{text}'")
    return request


def signal(text: str) -> str:
    """A signal's name or number."""
    if not _SIGNAL.fullmatch(text):
        raise ValueError("expected the name or number of a signal")
    return text


def existing_directory_of(path: str) -> str:
    """A path to be written: its directory must be there."""
    directory = os.path.dirname(path) or "."
    if not os.path.isdir(directory):
        raise ValueError(f"directory {directory} does not exist")
    return path
