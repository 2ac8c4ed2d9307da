"""Which operations of the contract the tests have seen succeed: ``python -m tests.api.contract.coverage FILE``.

FILE is what ENISLE_TEST_OPERATIONS named while the tests ran. Fails when one is missing that is not excused here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from tests.api.contract.description import operations

EXCUSED_TAGS = frozenset({"Swarm", "Node", "Service", "Task", "Secret", "Config", "Plugin"})
"""We answer as a dockerd that is in no swarm and has no plugins; tests/api/test_operations.py asks for each."""

EXCUSED = {
    "GET /images/search": "there is no hub to ask: 501",
    "PUT /volumes/{name}": "only a swarm's volumes can be updated: 400",
}


def unexercised(lines: list[str]) -> list[str]:
    """The operations that have not been answered with success, without those that are excused."""
    seen = {line.rpartition(" ")[0] for line in lines}
    return [
        operation.name
        for operation in operations()
        if operation.name not in seen and operation.name not in EXCUSED and operation.tag not in EXCUSED_TAGS
    ]


def main() -> int:
    lines = sorted(set(Path(sys.argv[1]).read_text().splitlines()))
    missing = unexercised(lines)
    print(f"{len(lines)} operations and statuses seen; not exercised: {', '.join(missing) or 'none'}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
