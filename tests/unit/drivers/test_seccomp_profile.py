"""The default profile, compiled and run through an interpreter of classic BPF."""

from __future__ import annotations

import base64
import struct

import pytest

from enisle.drivers.container.capabilities import DEFAULT
from enisle.drivers.container.facts import HostFacts
from enisle.drivers.container.security import SecurityOptions, parse, seccomp_filter
from enisle.errors import Invalid, NotSupported
from enisle.linux import seccomp

X86_64, I386 = 0xC000003E, 0x40000003
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
EPERM, EINVAL, ENOSYS = 1, 22, 38


def run(program: bytes, number: int, *args: int, arch: int = X86_64) -> int:
    """What the kernel would decide (net/core/filter.c, for the instructions seccomp allows)."""
    data = struct.pack("<iIQ6Q", number, arch, 0, *args, *[0] * (6 - len(args)))
    code = list(struct.iter_unpack("=HBBI", program))
    accumulator, position = 0, 0
    while True:
        op, jump_true, jump_false, value = code[position]
        position += 1
        if op == 0x06:
            return value
        if op == 0x20:
            (accumulator,) = struct.unpack_from("<I", data, value)
        elif op == 0x54:
            accumulator &= value
        elif op == 0x05:
            position += value
        elif op in (0x15, 0x25, 0x35, 0x45):
            holds = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }
            position += jump_true if holds[op] else jump_false
        else:
            raise AssertionError(f"instruction {op:#x}")


def default(*added: str, without: str = "") -> bytes:
    return base64.b64decode(seccomp_filter("", [name for name in (*DEFAULT, *added) if name != without]))


SOCKET, CLONE, IOCTL, PERSONALITY = 41, 56, 16, 135


def test_ordinary_calls_are_free_and_dangerous_ones_are_not() -> None:
    program = default()
    for number in (0, 1, 2, 9, 39, 57, 59, 257, 262, 439):
        assert run(program, number) == ALLOW, number
    # mount, umount2, swapon, reboot, kexec_load, add_key, keyctl, unshare, setns, perf_event_open, bpf,
    # userfaultfd, io_uring_setup, fsopen, open_by_handle_at, init_module
    for number in (165, 166, 167, 169, 246, 248, 250, 272, 308, 298, 321, 323, 425, 430, 304, 175):
        assert run(program, number) == ERRNO | EPERM, number


@pytest.mark.parametrize("family", range(64))
def test_socket_families(family: int) -> None:
    expected = ERRNO | EPERM if family in (38, 40) or family > 45 else ALLOW
    assert run(default(), SOCKET, family) == expected
    assert run(default(), 359, family, arch=I386) == expected


@pytest.mark.parametrize("family", [38, 40])
def test_high_bits_of_a_family_do_not_get_past_the_filter(family: int) -> None:
    """The kernel looks at the low 32 bits of socket's arguments only; 64-bit comparisons must not see more."""
    assert run(default(), SOCKET, 1 << 32 | family) == ERRNO | EPERM


def test_i386_has_no_socketcall_to_reach_those_families_by() -> None:
    assert run(default(), 102, 1, arch=I386) == ERRNO | ENOSYS


def test_audit_sockets_need_the_capability() -> None:
    assert run(default(), SOCKET, 16, 3, 9) == ALLOW
    assert run(default(without="AUDIT_WRITE"), SOCKET, 16, 3, 9) == ERRNO | EINVAL
    assert run(default(without="AUDIT_WRITE"), SOCKET, 16, 3, 0) == ALLOW


def test_clone_may_not_make_namespaces_and_clone3_is_not_there() -> None:
    program = default()
    assert run(program, CLONE, 0x1200011) == ALLOW
    for flag in (0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x00020000):
        assert run(program, CLONE, flag | 17) == ERRNO | EPERM, hex(flag)
    assert run(program, 435) == ERRNO | ENOSYS
    assert run(default("SYS_ADMIN"), CLONE, 0x10000000) == ALLOW
    assert run(default("SYS_ADMIN"), 435) == ALLOW


@pytest.mark.parametrize("request_number", [0x5412, 0x541C, 1 << 32 | 0x5412])
def test_input_cannot_be_pushed_into_a_terminal(request_number: int) -> None:
    assert run(default(), IOCTL, 0, request_number) == ERRNO | EPERM
    assert run(default(), 54, 0, request_number, arch=I386) == ERRNO | EPERM
    assert run(default(), IOCTL, 0, 0x5401) == ALLOW


def test_calls_newer_than_the_profile_look_missing() -> None:
    assert run(default(), 900) == ERRNO | ENOSYS
    assert run(default(), 900, arch=I386) == ERRNO | ENOSYS


def test_x32_is_closed() -> None:
    assert run(default(), 0x40000000 | 1) >> 16 not in (ALLOW >> 16,)
    assert run(default(), 1, arch=0xC00000B7) >> 16 not in (ALLOW >> 16,)


def test_capabilities_open_what_they_are_for() -> None:
    for name, number in (("SYS_BOOT", 169), ("SYS_MODULE", 175), ("BPF", 321), ("DAC_READ_SEARCH", 304)):
        assert run(default(name), number) == ALLOW, name
    assert run(default(without="SYS_CHROOT"), 161) == ERRNO | EPERM
    assert run(default(), 161) == ALLOW


def test_personality_only_with_harmless_values() -> None:
    for value, allowed in ((0, True), (8, True), (0xFFFFFFFF, True), (0x0400000, False)):
        assert (run(default(), PERSONALITY, value) == ALLOW) is allowed


def test_a_profile_of_the_users() -> None:
    text = '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_ERRNO","errnoRet":5}]}'
    program = base64.b64decode(seccomp_filter(text, []))
    assert run(program, 83) == ERRNO | 5
    assert run(program, 0) == ALLOW
    assert run(program, 900) == ALLOW


def test_repeated_conditions_on_one_argument_are_alternatives() -> None:
    text = (
        '{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{"names":["personality"],"action":"SCMP_ACT_ALLOW",'
        '"args":[{"index":0,"value":3,"op":"SCMP_CMP_EQ"},{"index":0,"value":4,"op":"SCMP_CMP_EQ"}]}]}'
    )
    program = seccomp.compile_profile(text)
    assert [run(program, PERSONALITY, value) == ALLOW for value in (2, 3, 4, 5)] == [False, True, True, False]


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        "{}",
        '{"defaultAction":"SCMP_ACT_WHATEVER"}',
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[7]}',
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"]}]}',
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","args":[{}]}]}',
        '{"defaultAction":"SCMP_ACT_ALLOW","archMap":7}',
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":7,"action":"SCMP_ACT_ERRNO"}]}',
        '{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":"x"}',
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_ERRNO","includes":[1]}]}',
    ],
)
def test_malformed_profiles_are_refused(text: str) -> None:
    with pytest.raises(Invalid, match="Decoding seccomp profile failed"):
        seccomp_filter(text, [])


def test_unconfined_is_no_filter() -> None:
    assert seccomp_filter("unconfined", DEFAULT) == ""


def test_security_options() -> None:
    facts = HostFacts()
    assert parse([], facts) == SecurityOptions()
    assert parse(["no-new-privileges"], facts).no_new_privileges
    assert parse(["no-new-privileges:true"], facts).no_new_privileges
    assert not parse(["no-new-privileges=false"], facts).no_new_privileges
    assert parse(["seccomp=unconfined", "label=disable", "apparmor=unconfined"], facts).seccomp == "unconfined"
    assert parse(["seccomp=builtin"], facts).seccomp == ""
    with pytest.raises(Invalid, match='invalid --security-opt 1: "foo"'):
        parse(["foo"], facts)
    for bad in ("foo=bar", "no-new-privileges=maybe"):
        with pytest.raises(Invalid, match=f'invalid --security-opt 2: "{bad}"'):
            parse([bad], facts)
    with pytest.raises(NotSupported, match="AppArmor"):
        parse(["apparmor=mine"], HostFacts(apparmor=True))
