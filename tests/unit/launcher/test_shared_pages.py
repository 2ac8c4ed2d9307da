"""Which of the launcher's memory is shared with keepers again."""

from __future__ import annotations

from enisle.launcher.pages import worthwhile

MAPS = """\
00400000-0041f000 r--p 00000000 00:01 1029 /memfd:enisle-launcher (deleted)
00946000-00a85000 rw-p 00545000 00:01 1029 /memfd:enisle-launcher (deleted)
00a85000-00aca000 rw-p 00000000 00:00 0
3ebc9000-3ef0d000 rw-p 00000000 00:00 0 [heap]
7f0f34000000-7f0f34021000 rw-p 00000000 00:00 0
7f0f34100000-7f0f34200000 rw-p 00000000 00:00 0
7f0f34300000-7f0f34400000 ---p 00000000 00:00 0
7f0f34b1f000-7f0f34b20000 rw-p 000de000 fe:00 339704 /usr/lib/x86_64-linux-gnu/libm.so.6
7ffd427e6000-7ffd42a07000 rw-p 00000000 00:00 0 [stack]
"""


def test_heap_arenas_and_the_interpreters_data() -> None:
    found = worthwhile(MAPS.splitlines(keepends=True), "/memfd:enisle-launcher (deleted)")
    assert found == [
        (0x946000, 0x13F000),  # initialised data
        (0xA85000, 0x45000),  # the zeroed data after it
        (0x3EBC9000, 0x344000),
        (0x7F0F34100000, 0x100000),  # large enough for an arena; the stack and what is small stay as they are
    ]
