"""Builds that are measured: all from the cache, many small steps, many small files."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.engines import IMAGE, Engine
from benchmarks.measures import timed
from benchmarks.pace import paced

_STEPS = 20
_FILES = 10_000
_NAME = "bench-built"


def cached_steps(engine: Engine, count: int) -> list[float]:
    """20 steps (RUN, COPY, ENV), all of them done before."""
    lines = [(f"RUN echo {step} > /{step}", f"COPY f{step} /", f"ENV E{step}=1")[step % 3] for step in range(_STEPS)]
    with _context(lines, {f"f{step}": f"{step}\n" for step in range(_STEPS)}) as context:
        _build(engine, context)
        return [timed(lambda: _build(engine, context)) for _ in paced(count)]


def small_runs(engine: Engine, count: int) -> list[float]:
    """20 RUNs that do next to nothing, none of them done before."""
    with _context([f"RUN echo {step} > /{step}" for step in range(_STEPS)], {}) as context:
        return [timed(lambda: _build(engine, context, "--no-cache")) for _ in paced(min(count, 3))]


def many_files(engine: Engine, count: int) -> list[float]:
    """COPY of a context of 10,000 files of 1 KiB in 100 directories, not done before."""
    with _many() as context:
        return [timed(lambda: _build(engine, context, "--no-cache")) for _ in paced(min(count, 5))]


def many_files_cached(engine: Engine, count: int) -> list[float]:
    """The same, done before."""
    with _many() as context:
        _build(engine, context)
        return [timed(lambda: _build(engine, context)) for _ in paced(min(count, 5))]


@contextmanager
def _many() -> Iterator[Path]:
    files = {f"d{number % 100}/f{number}": f"{number}\n" * (1024 // len(f"{number}\n")) for number in range(_FILES)}
    with _context(["COPY . /all"], files) as context:
        yield context


@contextmanager
def _context(lines: list[str], files: dict[str, str]) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="enisle-bench-", dir="/var/tmp"))
    try:
        for name, text in files.items():
            path = directory / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        (directory / "Dockerfile").write_text("\n".join([f"FROM {IMAGE}", *lines]) + "\n")
        yield directory
    finally:
        shutil.rmtree(directory)


def _build(engine: Engine, context: Path, *flags: str) -> None:
    engine.run("build", "--network", "none", "-t", _NAME, *flags, str(context))
