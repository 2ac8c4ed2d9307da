"""Published ports: how people write them, and how lists show them. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?")
_PROTOCOLS = ("tcp", "udp", "sctp")

Bindings = dict[str, list[dict[str, str]]]


def publish(text: str) -> Bindings:
    """PortBindings of one ``-p``: ``80``, ``8080:80``, ``127.0.0.1::80``, ``[::1]:8000-8009:80-89/udp``.

    Also the long form ``target=80,published=8080,protocol=tcp``. Raises ValueError in Docker's wording.
    """
    if "=" in text:
        text = _long_form(text)
    body, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    six, ip, host, inside = _split(body)
    address = six or ip
    first, last = _range(inside, f"invalid containerPort: {inside}")
    if not host:
        return {f"{port}/{protocol}": [{"HostIp": address, "HostPort": ""}] for port in range(first, last + 1)}
    start, end = _range(host, f"invalid hostPort: {host}")
    if end - start != last - first:
        if last != first:
            raise ValueError(f"invalid ranges specified for container and host Ports: {inside} and {host}")
        # One port inside, a range outside: any free port of the range.
        return {f"{first}/{protocol}": [{"HostIp": address, "HostPort": f"{start}-{end}"}]}
    count = last - first + 1
    return {
        f"{first + index}/{protocol}": [{"HostIp": address, "HostPort": str(start + index)}] for index in range(count)
    }


def _split(body: str) -> tuple[str, str, str, str]:
    """IPv6 address, other address, host part and container part."""
    six = ""
    if body.startswith("["):
        six, bracket, rest = body[1:].partition("]:")
        if not bracket:
            raise ValueError(f"invalid IP address: {body}")
        body = rest
        parts = body.split(":")
        if len(parts) > 2:
            raise ValueError(f"invalid port specification: {body}")
        return six, "", parts[0] if len(parts) == 2 else "", parts[-1]
    parts = body.split(":")
    if len(parts) > 3 or not parts[-1]:
        raise ValueError(
            f"No port specified: {body}<empty>" if not parts[-1] else f"invalid port specification: {body}"
        )
    ip = parts[0] if len(parts) == 3 else ""
    host = parts[-2] if len(parts) > 1 else ""
    if ip and not re.fullmatch(r"\d+\.\d+\.\d+\.\d+", ip):
        raise ValueError(f"invalid IP address: {ip}")
    return "", ip, host, parts[-1]


def _long_form(text: str) -> str:
    fields = {"protocol": "tcp", "published": "", "target": ""}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if not equals or key not in ("target", "published", "protocol", "mode"):
            raise ValueError(f"invalid field '{part}'")
        fields[key] = value
    return f"{fields['published']}:{fields['target']}/{fields['protocol']}".removeprefix(":")


def _range(text: str, failure: str) -> tuple[int, int]:
    match = _RANGE.fullmatch(text)
    if match is None:
        raise ValueError(failure)
    first = int(match[1])
    last = int(match[2] or first)
    if not 0 <= first <= last <= 65535:
        raise ValueError(failure)
    return first, last


def expose(text: str) -> list[str]:
    """``80``, ``80/udp``, ``8000-8010`` as keys of ExposedPorts."""
    body, slash, protocol = text.partition("/")
    protocol = protocol.lower() if slash else "tcp"
    if protocol not in _PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    first, last = _range(body, f"invalid range format for --expose: {text}")
    return [f"{port}/{protocol}" for port in range(first, last + 1)]


def summary(ports: Iterable[Mapping[str, Any]]) -> str:
    """The ports of one instance on one line: neighbours as a range, both address families of 'everywhere' as one."""
    runs: list[tuple[str, str, int, int, int]] = []  # address, protocol, first outside (0: none), first inside, count
    seen = set()
    for address, protocol, outside, inside in sorted(_plain(port) for port in ports):
        key = (address, protocol, outside, inside)
        if key in seen:
            continue
        seen.add(key)
        if runs:
            last_address, last_protocol, first_out, first_in, count = runs[-1]
            neighbour = inside == first_in + count and outside == (first_out + count if first_out else 0)
            if (address, protocol) == (last_address, last_protocol) and neighbour and bool(first_out) == bool(outside):
                runs[-1] = (address, protocol, first_out, first_in, count + 1)
                continue
        runs.append((address, protocol, outside, inside, 1))
    return ", ".join(_run_text(*run) for run in sorted(runs, key=lambda run: (run[3], run[1], run[0])))


def _plain(port: Mapping[str, Any]) -> tuple[str, str, int, int]:
    address = str(port.get("IP") or "")
    outside = int(port.get("PublicPort") or 0)
    if outside and address in ("::", ""):
        address = "0.0.0.0"
    return address if outside else "", str(port.get("Type") or "tcp"), outside, int(port.get("PrivatePort") or 0)


def _run_text(address: str, protocol: str, outside: int, inside: int, count: int) -> str:
    within = f"{inside}-{inside + count - 1}" if count > 1 else str(inside)
    if not outside:
        return f"{within}/{protocol}"
    host = f"[{address}]" if ":" in address else address
    without = f"{outside}-{outside + count - 1}" if count > 1 else str(outside)
    return f"{host}:{without}->{within}/{protocol}"
