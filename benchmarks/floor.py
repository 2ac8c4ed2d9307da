"""Compile and run floor.c: the kernel's share of a container's life."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

from benchmarks.engines import command


def floor(archive: Path, scratch: Path, count: int) -> list[float]:
    """Milliseconds per life of ``true`` from the image, with no engine at all."""
    root, work = scratch / "floor-root", scratch / "floor-work"
    root.mkdir()
    work.mkdir()
    _unpack(archive, root)
    for name in ("proc", "dev", "sys"):
        (root / name).mkdir(exist_ok=True)
    program = scratch / "floor"
    command("gcc", "-O2", "-Wall", "-Wextra", "-o", str(program), str(Path(__file__).with_name("floor.c")))
    lines = command(str(program), str(root), str(work), str(count + 2), "/bin/true").split()
    return [int(line) / 1e6 for line in lines[2:]]


def _unpack(archive: Path, root: Path) -> None:
    """The layers of a docker-archive that we have made ourselves."""
    layer = root.parent / "floor-layer.tar"
    with tarfile.open(archive) as outer:
        manifest = json.load(outer.extractfile("manifest.json"))  # type: ignore[arg-type]
        for name in manifest[0]["Layers"]:
            layer.write_bytes(outer.extractfile(name).read())  # type: ignore[union-attr]
            command("tar", "-xf", str(layer), "-C", str(root))
