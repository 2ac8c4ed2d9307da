"""System call filters: profiles in Docker's JSON format, compiled by libseccomp (seccomp(2), seccomp_rule_add(3)).

A profile holds ``defaultAction``, ``defaultErrnoRet``, ``archMap`` or ``architectures``, and ``syscalls``: rules of
``names``, ``action``, ``errnoRet``, ``args`` and the conditions ``includes`` and ``excludes`` (``caps``, ``arches``,
``minKernel``). :func:`compile_profile` gives the classic BPF program that the kernel takes.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import platform
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_LIBRARY = "libseccomp.so.2"

_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_COMPARISONS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
# SCMP_ARCH_* as AUDIT_ARCH_* (linux/audit.h), and the names Go gives them, which profiles use in conditions.
_ARCHITECTURES = {
    "SCMP_ARCH_X86": (0x40000003, "x86"),
    "SCMP_ARCH_X86_64": (0xC000003E, "amd64"),
    "SCMP_ARCH_X32": (0x4000003E, "x32"),
    "SCMP_ARCH_ARM": (0x40000028, "arm"),
    "SCMP_ARCH_AARCH64": (0xC00000B7, "arm64"),
}
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}
_ATTR_NO_NEW_PRIVS = 3
_ATTR_OPTIMIZE = 8
_X32_BIT = 0x40000000

# struct seccomp_data: nr, arch, instruction pointer, six 64-bit arguments (little-endian machines).
_AT_NR, _AT_ARCH, _AT_ARGS = 0, 4, 16
_LOAD, _JUMP_EQ, _JUMP_GE, _RETURN = 0x20, 0x15, 0x35, 0x06
_INSTRUCTION = struct.Struct("=HBBI")


class ProfileError(ValueError):
    """A profile that is malformed, or that libseccomp does not take."""


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("datum_a", ctypes.c_uint64),
        ("datum_b", ctypes.c_uint64),
    )


@functools.cache
def _library() -> ctypes.CDLL:
    """libseccomp. Raises OSError when it is not installed."""
    library = ctypes.CDLL(_LIBRARY, use_errno=True)
    library.seccomp_init.argtypes = (ctypes.c_uint32,)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_release.argtypes = (ctypes.c_void_p,)
    library.seccomp_arch_add.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
    library.seccomp_attr_set.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32)
    library.seccomp_syscall_resolve_name.argtypes = (ctypes.c_char_p,)
    library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
    library.seccomp_export_bpf.argtypes = (ctypes.c_void_p, ctypes.c_int)
    library.seccomp_rule_add_array.argtypes = (
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(_Comparison),
    )
    return library


def available() -> bool:
    """Whether libseccomp can be loaded."""
    try:
        _library()
    except OSError:
        return False
    return True


def compile_profile(
    text: str | bytes,
    capabilities: Iterable[str] = (),
    *,
    deny_ioctls: Sequence[int] = (),
    missing: Sequence[str] = (),
) -> bytes:
    """The BPF program (an array of struct sock_filter) of a profile, for a process with these capabilities.

    ``capabilities`` are names without CAP_. ``deny_ioctls``: ioctl requests that fail with EPERM besides. ``missing``:
    system calls that give ENOSYS, whatever the profile says (libseccomp lets socketcall through with what it
    multiplexes, arguments unseen). Calls newer than any the profile names get ENOSYS where the default is to fail, so
    that programs fall back.
    Cached. Raises ProfileError, or OSError without libseccomp.
    """
    data = text.encode() if isinstance(text, str) else text
    return _compile(data, frozenset(capabilities), tuple(deny_ioctls), tuple(missing))


@functools.lru_cache(maxsize=64)
def _compile(
    text: bytes, capabilities: frozenset[str], deny_ioctls: tuple[int, ...], missing: tuple[str, ...]
) -> bytes:
    profile = _parse(text)
    native = _native()
    try:
        architectures = _architectures(profile, native)
        default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
        rules = list(_rules(profile, native, capabilities))
    except (TypeError, AttributeError, ValueError) as error:
        raise error if isinstance(error, ProfileError) else ProfileError(f"it is malformed: {error}") from error
    program = _build(default, architectures, rules)
    newest = _newest(rules, architectures) if default >> 16 == _ACTIONS["SCMP_ACT_ERRNO"] >> 16 else {}
    return _prologue(architectures, newest, deny_ioctls, missing) + program


def resolve_profile(text: str | bytes, capabilities: Iterable[str] = ()) -> dict[str, Any]:
    """linux.seccomp of the OCI runtime spec for a process with these capabilities: the profile without conditions.

    Libseccomp is not asked: whoever reads it compiles it. Raises ProfileError.
    """
    profile = _parse(text)
    native, held = _native(), frozenset(capabilities)
    try:
        made: dict[str, Any] = {
            "defaultAction": profile["defaultAction"],
            "architectures": _architectures(profile, native),
            "syscalls": [_resolved(rule) for rule in _rules_that_apply(profile, native, held)],
        }
        _action(made["defaultAction"], profile.get("defaultErrnoRet"))
    except (TypeError, AttributeError, ValueError) as error:
        raise error if isinstance(error, ProfileError) else ProfileError(f"it is malformed: {error}") from error
    if profile.get("defaultErrnoRet") is not None:
        made["defaultErrnoRet"] = int(profile["defaultErrnoRet"])
    return made


def _resolved(rule: dict[str, Any]) -> dict[str, Any]:
    """One rule of a profile as the runtime spec has it."""
    _action(rule.get("action"), rule.get("errnoRet"))
    _alternatives(rule.get("args") or [])
    names = rule.get("names") or ([rule["name"]] if rule.get("name") else [])
    made: dict[str, Any] = {"names": [str(name) for name in names], "action": rule["action"]}
    if rule.get("errnoRet") is not None:
        made["errnoRet"] = int(rule["errnoRet"])
    if rule.get("args"):
        keys = ("index", "value", "valueTwo", "op")
        made["args"] = [{key: arg[key] for key in keys if arg.get(key) is not None} for arg in rule["args"]]
    return made


def _parse(text: str | bytes) -> dict[str, Any]:
    try:
        profile = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"it is no JSON: {error}") from error
    if not isinstance(profile, dict) or "defaultAction" not in profile:
        raise ProfileError("it has no defaultAction")
    return profile


def _native() -> str:
    native = _NATIVE.get(platform.machine())
    if native is None:
        raise ProfileError(f"no filters are made for {platform.machine()}")
    return native


def _architectures(profile: dict[str, Any], native: str) -> list[str]:
    """The architectures the filter covers, the native one first."""
    names = [native]
    for entry in profile.get("archMap") or []:
        if entry.get("architecture") == native:
            names += entry.get("subArchitectures") or []
    names += profile.get("architectures") or []
    return [name for name in dict.fromkeys(names) if name in _ARCHITECTURES]


def _action(name: Any, errno_value: Any) -> int:
    try:
        action = _ACTIONS[name]
    except (KeyError, TypeError):
        raise ProfileError(f"the action {name!r} is not known") from None
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        action |= (errno.EPERM if errno_value is None else int(errno_value)) & 0xFFFF
    return action


def _rules(
    profile: dict[str, Any], native: str, capabilities: frozenset[str]
) -> Iterator[tuple[int, list[str], list[_Comparison]]]:
    """The rules that apply here: action, names, comparisons (all must hold)."""
    for rule in _rules_that_apply(profile, native, capabilities):
        names = rule.get("names") or ([rule["name"]] if rule.get("name") else [])
        action = _action(rule.get("action"), rule.get("errnoRet"))
        for comparisons in _alternatives(rule.get("args") or []):
            yield action, [str(name) for name in names], comparisons


def _rules_that_apply(profile: dict[str, Any], native: str, capabilities: frozenset[str]) -> Iterator[dict[str, Any]]:
    for rule in profile.get("syscalls") or []:
        if not isinstance(rule, dict):
            raise ProfileError("an entry of syscalls is no object")
        if _applies(rule, native, capabilities):
            yield rule


def _applies(rule: dict[str, Any], native: str, capabilities: frozenset[str]) -> bool:
    includes, excludes = rule.get("includes") or {}, rule.get("excludes") or {}
    go_name = _ARCHITECTURES[native][1]

    def held(names: Iterable[str]) -> Iterator[bool]:
        return (name.removeprefix("CAP_") in capabilities for name in names)

    if any(held(excludes.get("caps") or ())) or go_name in (excludes.get("arches") or ()):
        return False
    if excludes.get("minKernel") and _kernel() >= _version(excludes["minKernel"]):
        return False
    if not all(held(includes.get("caps") or ())):
        return False
    if includes.get("arches") and go_name not in includes["arches"]:
        return False
    return not includes.get("minKernel") or _kernel() >= _version(includes["minKernel"])


@functools.cache
def _kernel() -> tuple[int, int]:
    return _version(os.uname().release)


def _version(text: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    digits = "".join(c if c.isdigit() else " " for c in rest).split()
    try:
        return int(major), int(digits[0]) if digits else 0
    except ValueError:
        raise ProfileError(f"{text!r} is no kernel version") from None


def _alternatives(args: list[dict[str, Any]]) -> list[list[_Comparison]]:
    """Comparisons of one rule; libseccomp takes one per argument, so repeated ones become rules of their own."""
    comparisons = []
    for arg in args:
        try:
            comparisons.append(
                _Comparison(
                    int(arg["index"]), _COMPARISONS[arg["op"]], int(arg["value"]), int(arg.get("valueTwo") or 0)
                )
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ProfileError(f"an argument condition is malformed: {arg!r}") from error
    if len({comparison.arg for comparison in comparisons}) < len(comparisons):
        return [[comparison] for comparison in comparisons]
    return [comparisons]


def _build(default: int, architectures: list[str], rules: list[tuple[int, list[str], list[_Comparison]]]) -> bytes:
    library = _library()
    context = library.seccomp_init(default)
    if not context:
        raise ProfileError("libseccomp does not take its defaultAction")
    try:
        library.seccomp_attr_set(context, _ATTR_NO_NEW_PRIVS, 0)
        library.seccomp_attr_set(context, _ATTR_OPTIMIZE, 2)  # a binary tree; older libraries refuse and do without
        for name in architectures[1:]:
            result = library.seccomp_arch_add(context, _ARCHITECTURES[name][0])
            if result not in (0, -errno.EEXIST):
                raise ProfileError(f"libseccomp does not take the architecture {name}: {os.strerror(-result)}")
        for action, names, comparisons in rules:
            if action != default:
                _add(library, context, action, names, comparisons)
        return _export(library, context)
    finally:
        library.seccomp_release(context)


def _add(
    library: ctypes.CDLL, context: int, action: int, names: Sequence[str], comparisons: Sequence[_Comparison]
) -> None:
    array = (_Comparison * max(len(comparisons), 1))(*comparisons)
    for name in names:
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:  # a system call this library does not know of cannot be let through
            continue
        result = library.seccomp_rule_add_array(context, action, number, len(comparisons), array)
        if result not in (0, -errno.EEXIST):
            raise ProfileError(f"libseccomp does not take the rule for {name}: {os.strerror(-result)}")


def _export(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        result = library.seccomp_export_bpf(context, fd)
        if result:
            raise ProfileError(f"libseccomp could not make the filter: {os.strerror(-result)}")
        size = os.fstat(fd).st_size
        return os.pread(fd, size, 0)
    finally:
        os.close(fd)


def _newest(rules: list[tuple[int, list[str], list[_Comparison]]], architectures: list[str]) -> dict[str, int]:
    """Per architecture, the highest system call number that the profile names."""
    library = _library()
    names = {name.encode() for _action, rule_names, _comparisons in rules for name in rule_names}
    newest = {}
    for architecture in architectures:
        if architecture == "SCMP_ARCH_X32":
            continue
        token = _ARCHITECTURES[architecture][0]
        newest[architecture] = max(
            (library.seccomp_syscall_resolve_name_arch(token, name) for name in names), default=-1
        )
    return newest


def _prologue(
    architectures: list[str], newest: dict[str, int], deny_ioctls: Sequence[int], missing: Sequence[str]
) -> bytes:
    """What libseccomp cannot say, before its program; jumps are relative, so programs can be put end to end."""
    code: list[tuple[int, int, int, int]] = []
    for architecture in architectures:
        if architecture == "SCMP_ARCH_X32":
            continue
        token = _ARCHITECTURES[architecture][0]
        block = _prologue_block(token, newest.get(architecture, -1), deny_ioctls, missing)
        if block:
            code += [(_LOAD, 0, 0, _AT_ARCH), (_JUMP_EQ, 0, len(block) + 1, token), (_LOAD, 0, 0, _AT_NR), *block]
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in code)


def _prologue_block(
    token: int, newest: int, deny_ioctls: Sequence[int], missing: Sequence[str]
) -> list[tuple[int, int, int, int]]:
    """For one architecture, with the number loaded: numbers beyond the newest known and missing ones give ENOSYS,
    the ioctl requests EPERM. Only the low 32 bits of a request are compared, as the kernel does (CVE-2019-10063 was
    about the others)."""
    library = _library()
    no_such_call = (_RETURN, 0, 0, _ACTIONS["SCMP_ACT_ERRNO"] | errno.ENOSYS)
    refused = (_RETURN, 0, 0, _ACTIONS["SCMP_ACT_ERRNO"] | errno.EPERM)
    block: list[tuple[int, int, int, int]] = []
    if newest >= 0:
        # x32 numbers have a high bit and are left to libseccomp's own part.
        block += [(_JUMP_GE, 2, 0, _X32_BIT), (_JUMP_GE, 0, 1, newest + 1), no_such_call]
    for name in missing:
        number = library.seccomp_syscall_resolve_name_arch(token, name.encode())
        if number >= 0:  # negative numbers stand for calls that this architecture does not have
            block += [(_JUMP_EQ, 0, 1, number), no_such_call]
    if deny_ioctls:
        number = library.seccomp_syscall_resolve_name_arch(token, b"ioctl")
        block += [(_JUMP_EQ, 0, 1 + 2 * len(deny_ioctls), number), (_LOAD, 0, 0, _AT_ARGS + 8)]
        for request in deny_ioctls:
            block += [(_JUMP_EQ, 0, 1, request), refused]
    return block
