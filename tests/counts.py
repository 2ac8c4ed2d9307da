"""How often the tests that attack and break things try: a few times on every run, the asked counts on a long one."""

from __future__ import annotations

import os

FULL = os.environ.get("ENISLE_TEST_ATTACKS") == "full"
"""``ENISLE_TEST_ATTACKS=full``: the long run of docs/SECURITY.md, which takes hours."""


def count(usual: int, full: int) -> int:
    """How many rounds: ``usual`` on every run, ``full`` on the long one."""
    return full if FULL else usual


def timeout_s(usual: float, full: float) -> float:
    """How long a test may take on each."""
    return full if FULL else usual
