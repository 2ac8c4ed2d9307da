"""An instance's hosts, hostname and resolv.conf: files of the host that it has mounted over those of its image."""

from __future__ import annotations

import os
from pathlib import Path

from enisle.engine.addressing import gateway_network
from enisle.engine.core import Core
from enisle.engine.etc import hostname_file, hosts_file
from enisle.engine.links import Link, host_lines
from enisle.model.instance import Instance, publisher

_NAMES = ("hosts", "resolv.conf", "hostname")


async def write(core: Core, record: Instance, links: list[Link]) -> None:
    """Write the files for a start; one that shares a network shares the other's."""
    directory = core.directory(record.id)
    directory.mkdir(parents=True, exist_ok=True, mode=0o711)
    mode = record.spec.network_mode
    if mode.startswith("container:"):
        other = core.directory(core.slots.find(mode.removeprefix("container:")).id)
        contents = {name: (other / name).read_bytes() if (other / name).exists() else b"" for name in _NAMES}
    else:
        contents = await _contents(core, record, links)
    for name, content in contents.items():
        _write(directory / name, content)


async def follow(core: Core, before: Instance, after: Instance) -> None:
    """Make the files of a running instance fit the networks it is on now; those it has changed itself stay.

    A VM has copies, which were given to it at its start.
    """
    old, new = await _contents(core, before, []), await _contents(core, after, [])
    sharing = [slot.id for slot in core.slots if slot.record.spec.network_mode == f"container:{after.id}"]
    for instance_id in (after.id, *sharing):
        for name in _NAMES:
            path = core.directory(instance_id) / name
            if old[name] != new[name] and path.exists() and path.read_bytes() == old[name]:
                _write(path, new[name])


async def _contents(core: Core, record: Instance, links: list[Link]) -> dict[str, bytes]:
    network = await gateway_network(core, record)
    exit_by = publisher(record.endpoints)  # by a macvlan nobody reaches the host itself
    gateways = [each for each in (exit_by.gateway4, exit_by.gateway6) if each] if exit_by else ["127.0.0.1"]
    hosts = hosts_file(record.spec, record.endpoints, host_lines(links), gateways)
    resolv_conf = await core.network_provider.resolv_conf(network, record.spec)
    return {
        "hosts": hosts.encode(),
        "resolv.conf": resolv_conf.encode(),
        "hostname": hostname_file(record.spec).encode(),
    }


def _write(path: Path, content: bytes) -> None:
    """Write in place: a running instance that shares the file's network has this very file mounted."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
    try:
        os.write(fd, content)
    finally:
        os.close(fd)
