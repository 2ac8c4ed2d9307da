"""Run one image behind both walls, and show side by side what each gives and costs."""

from __future__ import annotations

import socket
import sys
import time
from dataclasses import dataclass
from typing import Any

from enisle.errors import EnisleError
from enisle.sdk import Client

# Prints the kernel's release, then waits for one line, so that the instance can be looked at while it lives.
COMMAND = ["sh", "-c", "uname -r; read line"]
HEADER_BYTES = 8  # Docker's stream framing: kind, three zeros, length


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one wall showed. Seconds and bytes."""

    kernel: str
    first_output_s: float
    memory_bytes: int
    disk_bytes: int
    exit_code: int


def first_line(connection: socket.socket, received: bytes) -> str:
    """The first line of framed output."""
    while b"\n" not in received[HEADER_BYTES:]:
        data = connection.recv(4096)
        if not data:
            break
        received += data
    return received[HEADER_BYTES:].partition(b"\n")[0].decode()


def memory_peak(stats: dict[str, Any]) -> int:
    """The most memory the host has given to the instance so far, bytes."""
    memory = stats.get("memory_stats") or {}
    of_qemu = (memory.get("stats") or {}).get("host_peak_rss")  # a VM costs what its hypervisor takes
    return int(of_qemu or memory.get("max_usage") or memory.get("usage") or 0)


def run(enisle: Client, image: str, *, runtime: str) -> Seen:
    """One instance from its making to its removal."""
    body = {
        "Image": image,
        "Cmd": COMMAND,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "HostConfig": {"Runtime": runtime} if runtime else {},
    }
    begun = time.monotonic()
    instance = enisle.instances.create(body)["Id"]
    try:
        connection, received = enisle.instances.attach(instance, stdin=True, stdout=True, stderr=False)
        with connection:
            enisle.instances.start(instance)
            kernel = first_line(connection, received)
            first_output_s = time.monotonic() - begun
            peak = memory_peak(dict(enisle.instances.stats_once(instance)))
            disk = enisle.instances.get(instance, size=True).get("SizeRw") or 0
            connection.sendall(b"\n")
            code = enisle.instances.wait(instance)["StatusCode"]
    finally:
        enisle.instances.remove(instance, force=True)
    return Seen(kernel=kernel, first_output_s=first_output_s, memory_bytes=peak, disk_bytes=int(disk), exit_code=code)


def human(count: int) -> str:
    """Bytes for people."""
    if count >= 1 << 20:
        return f"{count / (1 << 20):.1f} MiB"
    return f"{count / (1 << 10):.1f} KiB"


def main() -> int:
    image = sys.argv[1]
    try:
        with Client() as enisle:
            container = run(enisle, image, runtime="")
            vm = run(enisle, image, runtime="vm")
    except EnisleError as error:
        print(f"two_walls: {error}", file=sys.stderr)
        return 1
    rows = [
        ("", "container", "VM"),
        ("kernel seen inside", container.kernel, vm.kernel),
        ("request to first output", f"{container.first_output_s * 1000:.0f} ms", f"{vm.first_output_s:.2f} s"),
        ("peak memory on the host", human(container.memory_bytes), human(vm.memory_bytes)),
        ("disk used", human(container.disk_bytes), human(vm.disk_bytes)),
        ("exit code", str(container.exit_code), str(vm.exit_code)),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    print(f"\nThe image {image}, the same command, behind both walls:\n")
    for row in rows:
        print("  " + "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


if __name__ == "__main__":
    sys.exit(main())
