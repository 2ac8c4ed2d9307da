"""The version of the installed package."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed


def version() -> str:
    """As pip knows it; "0.0.0" when run from a source tree that is not installed."""
    try:
        return installed("enisle")
    except PackageNotFoundError:
        return "0.0.0"
