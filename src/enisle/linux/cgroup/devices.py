"""Which devices a group may use: rules, and for cgroup v2 the BPF program that holds them (BPF_CGROUP_DEVICE)."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from enisle.linux.syscalls import bpf

_BPF_PROG_LOAD = 5
_BPF_PROG_ATTACH = 8
_BPF_PROG_TYPE_CGROUP_DEVICE = 15
_BPF_CGROUP_DEVICE = 6
_BPF_F_ALLOW_MULTI = 2
_KINDS = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}

_INSTRUCTION = struct.Struct("<BBhi")
_LOAD_WORD = 0x61  # dst = *(u32 *)(src + offset)
_MOVE, _MOVE_REGISTER = 0xB7, 0xBF
_AND, _SHIFT_RIGHT = 0x57, 0x77
_JUMP_UNLESS_EQUAL, _EXIT = 0x55, 0x95


@dataclass(frozen=True, slots=True)
class DeviceRule:
    """Allow ``access`` (of r, w, m) to devices of ``kind`` (a: all, b, c); major or minor -1 for any."""

    kind: str
    major: int
    minor: int
    access: str

    def __str__(self) -> str:
        return f"{self.kind} {_number(self.major)}:{_number(self.minor)} {self.access}"


def _number(value: int) -> str:
    return "*" if value < 0 else str(value)


def parse_rule(text: str) -> DeviceRule:
    """The rule "c 1:3 rwm", "b 8:* r", "a *:* rwm" or "a". ValueError for anything else."""
    words = text.split()
    if words == ["a"]:
        return DeviceRule("a", -1, -1, "rwm")
    if len(words) != 3 or words[0] not in ("a", "b", "c") or not words[2] or set(words[2]) - set(_ACCESS):
        raise ValueError(f"{text!r} is no device rule like 'c 1:3 rwm'")
    major, separator, minor = words[1].partition(":")
    if not separator or not all(part == "*" or (part.isascii() and part.isdigit()) for part in (major, minor)):
        raise ValueError(f"{text!r} is no device rule like 'c 1:3 rwm'")
    return DeviceRule(words[0], _parse_number(major), _parse_number(minor), words[2])


def _parse_number(text: str) -> int:
    return -1 if text == "*" else int(text)


def allows_everything(rules: Sequence[DeviceRule]) -> bool:
    """Whether a rule lifts the restriction altogether."""
    return any(
        rule.kind == "a" and rule.major < 0 and rule.minor < 0 and set(rule.access) == set("rwm") for rule in rules
    )


def program(rules: Sequence[DeviceRule]) -> bytes:
    """The BPF program that allows what a rule allows and nothing else, as an array of struct bpf_insn.

    It is called with struct bpf_cgroup_dev_ctx {access_type, major, minor}; access_type's lower half is the kind.
    """
    code = [
        _instruction(_LOAD_WORD, 2, source=1, offset=0),
        _instruction(_MOVE_REGISTER, 3, source=2),
        _instruction(_AND, 2, value=0xFFFF),
        _instruction(_SHIFT_RIGHT, 3, value=16),
        _instruction(_LOAD_WORD, 4, source=1, offset=4),
        _instruction(_LOAD_WORD, 5, source=1, offset=8),
    ]
    for rule in rules:
        code += _rule_code(rule)
    code += [_instruction(_MOVE, 0, value=0), _instruction(_EXIT, 0)]
    return b"".join(code)


def _rule_code(rule: DeviceRule) -> list[bytes]:
    tests: list[tuple[int, int]] = []  # (register, value it must have)
    if rule.kind != "a":
        tests.append((2, _KINDS[rule.kind]))
    if rule.major >= 0:
        tests.append((4, rule.major))
    if rule.minor >= 0:
        tests.append((5, rule.minor))
    forbidden = 7 & ~sum(_ACCESS[letter] for letter in set(rule.access))
    if forbidden:
        tests.append((6, 0))
    body: list[bytes] = []
    if forbidden:
        body += [_instruction(_MOVE_REGISTER, 6, source=3), _instruction(_AND, 6, value=forbidden)]
    verdict = [_instruction(_MOVE, 0, value=1), _instruction(_EXIT, 0)]
    for index, (register, value) in enumerate(tests):
        left = len(tests) - index - 1 + len(verdict)
        body.append(_instruction(_JUMP_UNLESS_EQUAL, register, offset=left, value=value))
    return body + verdict


def _instruction(code: int, destination: int, *, source: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return _INSTRUCTION.pack(code, destination | source << 4, offset, value)


class _LoadAttributes(ctypes.Structure):
    _fields_ = (
        ("prog_type", ctypes.c_uint32),
        ("insn_cnt", ctypes.c_uint32),
        ("insns", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
        ("log_level", ctypes.c_uint32),
        ("log_size", ctypes.c_uint32),
        ("log_buf", ctypes.c_uint64),
        ("kern_version", ctypes.c_uint32),
        ("prog_flags", ctypes.c_uint32),
    )


class _AttachAttributes(ctypes.Structure):
    _fields_ = (
        ("target_fd", ctypes.c_uint32),
        ("attach_bpf_fd", ctypes.c_uint32),
        ("attach_type", ctypes.c_uint32),
        ("attach_flags", ctypes.c_uint32),
    )


def attach_filter(cgroup_fd: int, rules: Sequence[DeviceRule]) -> None:
    """Restrict the group at that directory to the rules, for good: the filter lives as long as the group."""
    code = program(rules)
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    load = _LoadAttributes(
        prog_type=_BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt=len(code) // _INSTRUCTION.size,
        insns=ctypes.addressof(instructions),
        license=ctypes.addressof(licence),
    )
    program_fd = bpf(_BPF_PROG_LOAD, load)
    try:
        attach = _AttachAttributes(cgroup_fd, program_fd, _BPF_CGROUP_DEVICE, _BPF_F_ALLOW_MULTI)
        bpf(_BPF_PROG_ATTACH, attach)
    finally:
        os.close(program_fd)
