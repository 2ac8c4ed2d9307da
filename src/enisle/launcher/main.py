"""The launcher: a small process that forks keepers, fast. Run by path; arguments: the run root, pages.c and
container/program compiled ("" for none).

It re-executes itself from a sealed copy of the interpreter in memory: a process that enters an instance is visible
there through /proc/PID/exe, and through that no container may reach (and overwrite) the host's interpreter
(CVE-2019-5736). Standard library only; everything a keeper or its child needs is imported before the first fork.
"""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

_SEALED_NAME = "enisle-launcher"


def _running_sealed() -> bool:
    return os.readlink("/proc/self/exe").startswith(f"/memfd:{_SEALED_NAME}")


def _execute_sealed(script: str, arguments: list[str]) -> None:
    """Become the same program, run by a copy of the interpreter that nobody can write. Does not return."""
    from enisle.launcher.sealed import sealed_copy

    copy = sealed_copy("/proc/self/exe", _SEALED_NAME)
    interpreter = os.path.realpath(sys.executable)  # argv[0] tells Python where its library is
    os.execve(copy, [interpreter, "-I", "-S", script, *arguments], os.environ)


class _Later(ModuleType):
    """A module that is loaded when first used: dataclasses names inspect, hardly ever uses it, and it is a tenth of
    our memory.
    """

    def __getattr__(self, name: str) -> Any:
        del sys.modules[self.__name__]
        module = importlib.import_module(self.__name__)
        self.__dict__.update(module.__dict__)
        return getattr(module, name)


def main() -> None:
    """Serve launch requests until told to quit."""
    script, arguments = os.path.abspath(__file__), sys.argv[1:]
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(script))))
    if not _running_sealed():
        _execute_sealed(script, arguments)
    sys.modules["inspect"] = _Later("inspect")
    from enisle.launcher.launcher import Launcher

    Launcher(*arguments).serve()


if __name__ == "__main__":
    main()
