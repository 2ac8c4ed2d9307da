"""Verbs that do one thing to each of several objects."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from enisle.cli.command import warn
from enisle.errors import EnisleError, NotModified


def each(names: Iterable[str], act: Callable[[str], object], *, say: bool = True) -> int:
    """Do it to each and print its name; a failure is told and the rest still done. The exit code."""
    failed = 0
    for name in names:
        try:
            act(name)
        except NotModified:
            # It is so already, which is what was asked for.
            pass
        except EnisleError as error:
            warn(f"enisle: {error}")
            failed = 1
            continue
        if say:
            print(name, flush=True)
    return failed
