"""Rows about moving data: output, files, archives, registries. Seconds, one per round."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.engines import IMAGE, Engine, Podman
from benchmarks.material import LARGE, REGISTRY, REMOTE, Material, registry
from benchmarks.pace import paced
from benchmarks.table import Row

if TYPE_CHECKING:
    from collections.abc import Iterator

_OUTPUT_BYTES = 100 << 20
_LINE = "a line of eighty characters, as programs like to print them all day long, and more"
_PRINT = ["sh", "-c", f"yes '{_LINE}' | head -c {_OUTPUT_BYTES}"]
_LARGE_LOG = ("--log-opt", "max-size=2g")
_TLS = "--tls-verify=false"  # only podman wants to hear that the registry on loopback speaks HTTP

Measure = Callable[[Engine, int], list[float]]


_Take = Callable[[Engine, int, Material], list[float]]


def data_rows(material: Material) -> list[tuple[str, Row, Measure]]:
    """The rows of :data:`DATA`, with a quarter of the rounds of others, but three if so many were asked for."""

    def measure(take: _Take) -> Measure:
        return lambda engine, count: take(engine, min(count, max(3, count // 4)), material)

    return [
        (name, Row(title, unit="s", aim_ratio=1, of_fastest=True), measure(take))
        for name, (title, take) in DATA.items()
    ]


def _client(engine: Engine, *args: str) -> float:
    """Seconds that the client takes; its output goes nowhere."""
    begun = time.perf_counter()
    done = subprocess.run(
        [*engine.client, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **engine.client_env},
        timeout=600,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(args)[:200]}: {done.stderr.decode(errors='replace')[-500:]}")
    return time.perf_counter() - begun


@contextmanager
def _container(engine: Engine, *command: str, options: tuple[str, ...] = ()) -> Iterator[str]:
    instance = engine.run("run", "-d", "--network", "none", *options, IMAGE, *command).strip()
    try:
        yield instance
    finally:
        engine.run("rm", "-f", instance)


def _run(engine: Engine, count: int, _material: Material) -> list[float]:
    return [_client(engine, "run", "--rm", "--network", "none", *_LARGE_LOG, IMAGE, *_PRINT) for _ in paced(count)]


def _exec(engine: Engine, count: int, _material: Material) -> list[float]:
    with _container(engine, "sleep", "100000") as instance:
        return [_client(engine, "exec", instance, *_PRINT) for _ in paced(count)]


def _logs(engine: Engine, count: int, _material: Material) -> list[float]:
    with _container(engine, *_PRINT, options=_LARGE_LOG) as instance:
        engine.run("wait", instance)
        return [_client(engine, "logs", instance) for _ in paced(count)]


def _copy_in(engine: Engine, count: int, material: Material) -> list[float]:
    with _container(engine, "sleep", "100000") as instance:
        return [_client(engine, "cp", str(material.file), f"{instance}:/file{n}") for n in paced(count)]


def _copy_out(engine: Engine, count: int, material: Material) -> list[float]:
    with _container(engine, "sleep", "100000") as instance:
        _client(engine, "cp", str(material.file), f"{instance}:/file")
        return [_out(engine, f"{instance}:/file") for _ in paced(count)]


def _copy_tree_in(engine: Engine, count: int, material: Material) -> list[float]:
    with _container(engine, "sleep", "100000") as instance:
        return [_client(engine, "cp", str(material.tree), f"{instance}:/tree{n}") for n in paced(count)]


def _copy_tree_out(engine: Engine, count: int, material: Material) -> list[float]:
    with _container(engine, "sleep", "100000") as instance:
        _client(engine, "cp", str(material.tree), f"{instance}:/tree")
        return [_out(engine, f"{instance}:/tree") for _ in paced(count)]


def _out(engine: Engine, source: str) -> float:
    target = engine.root / "out"
    try:
        return _client(engine, "cp", source, str(target))
    finally:
        _remove(target)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _load(engine: Engine, count: int, material: Material) -> list[float]:
    times = []
    for _ in paced(count):
        with suppress(RuntimeError):
            engine.run("rmi", "-f", LARGE)
        times.append(_client(engine, "load", "-i", str(material.archive)))
    return times


def _save(engine: Engine, count: int, material: Material) -> list[float]:
    engine.run("load", "-i", str(material.archive))
    target = engine.root / "saved.tar"
    times = []
    for _ in paced(count):
        times.append(_client(engine, "save", "-o", str(target), LARGE))
        target.unlink()
    engine.run("rmi", "-f", LARGE)
    return times


def _registry_words(engine: Engine, verb: str) -> list[str]:
    return [verb, _TLS] if isinstance(engine, Podman) else [verb]


def _pull(engine: Engine, count: int, material: Material) -> list[float]:
    times = []
    with registry(material.registry, engine.inside()):
        for _ in paced(count):
            times.append(_client(engine, *_registry_words(engine, "pull"), REMOTE))
            engine.run("rmi", "-f", REMOTE)
    return times


def _push(engine: Engine, count: int, material: Material) -> list[float]:
    with registry(material.registry, engine.inside()):
        engine.run(*_registry_words(engine, "pull"), REMOTE)
    target, times = f"{REGISTRY}/bench/pushed:latest", []
    engine.run("tag", REMOTE, target)
    for number in paced(count):
        storage = engine.root / f"registry{number}"
        with registry(storage, engine.inside()):
            times.append(_client(engine, *_registry_words(engine, "push"), target))
        shutil.rmtree(storage)
    engine.run("rmi", "-f", target, REMOTE)
    return times


DATA: dict[str, tuple[str, _Take]] = {
    "data-run": ("run --rm printing 100 MB", _run),
    "data-exec": ("exec printing 100 MB", _exec),
    "data-logs": ("logs of 100 MB", _logs),
    "data-cp-in": ("cp of a file of 100 MB, in", _copy_in),
    "data-cp-out": ("cp of a file of 100 MB, out", _copy_out),
    "data-cp-tree-in": ("cp of 10,000 files, in", _copy_tree_in),
    "data-cp-tree-out": ("cp of 10,000 files, out", _copy_tree_out),
    "data-load": ("load of a 1 GB image", _load),
    "data-save": ("save of it", _save),
    "data-pull": ("pull of a 500 MB image, 5 layers", _pull),
    "data-push": ("push of it to an empty registry", _push),
}
"""The group ``data``: name, title, measure."""
