"""Compiled filters on the real kernel: a child installs one and probes system calls (by their x86-64 numbers)."""

from __future__ import annotations

import base64
import ctypes
import errno
import json
import os
from collections.abc import Callable

from enisle.drivers.container.capabilities import DEFAULT
from enisle.drivers.container.security import seccomp_filter
from enisle.linux.seccomp import compile_profile

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER = 38, 22, 2


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _install(program: bytes) -> None:
    buffer = ctypes.create_string_buffer(program, len(program))
    structure = _Program(len(program) // 8, ctypes.addressof(buffer))
    assert _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert _libc.prctl(_PR_SET_SECCOMP, _FILTER, ctypes.byref(structure), 0, 0) == 0


def _errno_of(number: int, *args: int) -> int:
    """0 when the call worked; its result, if it is a descriptor, goes with the child."""
    result = _libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in args))
    return ctypes.get_errno() if result < 0 else 0


def behind(program: bytes, probe: Callable[[], dict[str, int]]) -> dict[str, int]:
    """What ``probe`` finds in a child behind the filter."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            _install(program)
            os.write(writing, json.dumps(probe()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        text = file.read()
    _pid, status = os.waitpid(pid, 0)
    assert status == 0
    found: dict[str, int] = json.loads(text)
    return found


def test_the_default_profile_stops_what_it_should() -> None:
    def probe() -> dict[str, int]:
        return {
            "getpid": _errno_of(39),
            "socket inet": _errno_of(41, 2, 1, 0),
            "socket netlink": _errno_of(41, 16, 3, 0),
            "socket alg": _errno_of(41, 38, 5, 0),
            "socket alg, high bits": _errno_of(41, 1 << 32 | 38, 5, 0),
            "socket vsock": _errno_of(41, 40, 1, 0),
            "unshare user": _errno_of(272, 0x10000000),
            "mount": _errno_of(165, 0, 0, 0, 0, 0),
            "bpf": _errno_of(321, 0, 0, 0),
            "keyctl": _errno_of(250, 0, 0, 0, 0, 0),
            "userfaultfd": _errno_of(323, 0),
            "io_uring_setup": _errno_of(425, 1, 0),
            "perf_event_open": _errno_of(298, 0, 0, 0, 0, 0),
            "clone3": _errno_of(435, 0, 0),
            "a call of the future": _errno_of(999),
            "TIOCSTI": _errno_of(16, 0, 0x5412, 0),
            "TIOCSTI, high bits": _errno_of(16, 0, 1 << 32 | 0x5412, 0),
        }

    allowed = {"getpid", "socket inet", "socket netlink"}
    missing = {"clone3", "a call of the future"}
    for name, found in behind(base64.b64decode(seccomp_filter("", DEFAULT)), probe).items():
        expected = 0 if name in allowed else errno.ENOSYS if name in missing else errno.EPERM
        assert found == expected, (name, errno.errorcode.get(found, found))


def test_programs_still_run_behind_the_default_profile() -> None:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(writing, 1)
        _install(base64.b64decode(seccomp_filter("", DEFAULT)))
        os.execv("/bin/sh", ["sh", "-c", "ls / | sort | head -1; (sleep 0; echo forked) & wait; cat /proc/self/comm"])
    os.close(writing)
    with open(reading) as file:
        lines = file.read().split()
    assert os.waitpid(pid, 0)[1] == 0
    assert lines[-2:] == ["forked", "cat"]


def test_a_profile_that_allows_and_denies_by_argument() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": ["getpriority"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 77,
                "args": [{"index": 0, "value": 2, "op": "SCMP_CMP_EQ"}],
            }
        ],
    }

    def probe() -> dict[str, int]:
        return {"user": _errno_of(140, 2, 0), "process": _errno_of(140, 0, 0)}

    assert behind(compile_profile(json.dumps(profile)), probe) == {"user": 77, "process": 0}
