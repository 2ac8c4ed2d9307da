"""The rules of the source that no linter knows."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "enisle"
MODULES = sorted(SOURCE.rglob("*.py"))
LINES_AT_MOST = 500
LAUNCHER_SIDE = ("linux", "wire", "launcher", "archive")


def relative(path: Path) -> str:
    return str(path.relative_to(SOURCE))


def test_package_roots_are_empty() -> None:
    full = [
        relative(path)
        for path in MODULES
        if path.name == "__init__.py" and path.parent.name != "sdk" and path.read_text().strip()
    ]
    assert full == []


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_module_has_one_subject(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= LINES_AT_MOST, f"{relative(path)}: look for the second subject in it"


def test_no_unfinished_marks() -> None:
    mark = re.compile(r"\b(TODO|FIXME|XXX|NotImplementedError)\b")
    assert [relative(path) for path in MODULES if mark.search(path.read_text())] == []


def imported_roots(path: Path) -> set[str]:
    roots: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            roots.add(node.module.split(".")[0])
    return roots


@pytest.mark.parametrize("package", LAUNCHER_SIDE)
def test_launcher_side_imports_the_standard_library_only(package: str) -> None:
    allowed = set(sys.stdlib_module_names) | {"enisle"}
    foreign = {
        relative(path): sorted(imported_roots(path) - allowed)
        for path in (SOURCE / package).rglob("*.py")
        if imported_roots(path) - allowed
    }
    assert foreign == {}
