"""Memory shared again after a fork: what was only touched is dropped, what was changed is kept."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from enisle.drivers import native
from enisle.wire.plans import to_json
from tests.linux.keepers import SOURCE, host

PROGRAM = """
import gc, os, sys
sys.path.insert(0, sys.argv[2])
from enisle.launcher.pages import SharedPages

def private_kib():
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith("Private_Dirty"))

kept = [f"value {number}" for number in range(50_000)]
gc.freeze()
pages = SharedPages(sys.argv[1])
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
holders = list(kept)          # touches every one of them,
changed = kept[0] = "changed"
del holders                   # and leaves it as it was
touched = private_kib()
dropped = pages.drop_equal()
left = private_kib()
again = pages.drop_equal()
print(dropped, touched, left, again, flush=True)
assert kept[0] == "changed" and kept[1:] == [f"value {number}" for number in range(1, 50_000)]
assert sorted(kept, key=len)[-1] == "value 49999"
os._exit(0)
"""


def test_touched_pages_are_dropped_and_nothing_changes(tmp_path: Path) -> None:
    library = native.ensure(tmp_path).pages
    command = [sys.executable, "-I", "-S", "-c", PROGRAM, str(library), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    dropped, touched, left, again = map(int, done.stdout.split())
    assert dropped * 4 > 2000  # 50,000 strings of some 60 bytes are 3 MB
    assert left < touched - 2000
    assert again < dropped / 10  # they do not come back by themselves


def test_keepers_live_on_the_launchers_file(tmp_path: Path) -> None:
    with host(tmp_path) as made:
        plan = made.plan("sleep", "1000")
        keeper = made.keeper(plan)
        keeper.ask("start", wall="container", plan=to_json(plan))
        maps = Path(f"/proc/{keeper.pid}/maps").read_text().splitlines()
        keeper.ask("signal", signal=9)
        keeper.event("exit")
        keeper.close()
    assert mapped_kib(line for line in maps if "memfd:enisle-pages" in line) > 4000


def mapped_kib(lines: Iterable[str]) -> int:
    """What those lines of proc_pid_maps(5) map."""
    ranges = [line.split()[0].split("-") for line in lines]
    return sum(int(end, 16) - int(start, 16) for start, end in ranges) // 1024
