"""Programs that attack from inside, in C beside this file."""

from __future__ import annotations

import subprocess
from pathlib import Path


def compile_program(name: str, target: Path) -> Path:
    """Compile ``name``.c, static, so that it runs in any image."""
    source = Path(__file__).with_name(f"{name}.c")
    subprocess.run(["gcc", "-O1", "-static", "-Wall", "-o", target, source], check=True)
    return target
