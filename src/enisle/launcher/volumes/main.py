"""The volume keeper: mounts volumes that need it, and copies, packs and unpacks them. One argument, the run root.

Started when first needed. It never enters an instance, so it needs no sealed interpreter as the launcher does.
Standard library only.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """Serve until told to quit."""
    script, run_root = os.path.abspath(__file__), sys.argv[1]
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(script)))))
    from enisle.launcher.volumes.keeper import VolumeKeeper

    VolumeKeeper(run_root).serve()


if __name__ == "__main__":
    main()
