"""enisled under cProfile: ``profiled.py OUTPUT ARGUMENT…``. It ends by os._exit, so the figures are written before."""

from __future__ import annotations

import cProfile
import os
import runpy
import sys
from typing import NoReturn


def main() -> None:
    output, sys.argv = sys.argv[1], ["enisled", *sys.argv[2:]]
    profiler = cProfile.Profile()
    leave = os._exit

    def exit_with_figures(code: int) -> NoReturn:
        profiler.disable()
        profiler.dump_stats(output)
        leave(code)

    os._exit = exit_with_figures
    profiler.enable()
    runpy.run_module("enisle.daemon.main", run_name="__main__")


if __name__ == "__main__":
    main()
