"""``--security-opt``: no-new-privileges, seccomp, and what other engines' hosts have (apparmor, label)."""

from __future__ import annotations

import base64
import functools
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from typing import Any

from enisle.drivers.container.facts import HostFacts
from enisle.errors import Invalid, NotSupported
from enisle.linux import seccomp

_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
_UNCONFINED = "unconfined"


@dataclass(frozen=True, kw_only=True, slots=True)
class SecurityOptions:
    """``seccomp``: "" for our default profile, "unconfined", or a profile's JSON text."""

    no_new_privileges: bool = False
    seccomp: str = ""


def parse(options: Iterable[str], facts: HostFacts) -> SecurityOptions:
    """The options as Docker's clients send them. Invalid for what is malformed, NotSupported for what we lack."""
    no_new_privileges, profile = False, ""
    for option in options:
        if option == "no-new-privileges":
            no_new_privileges = True
            continue
        if option == "disable":  # SELinux labels
            continue
        key, separator, value = option.partition("=") if "=" in option else option.partition(":")
        if not separator:
            raise Invalid(f'invalid --security-opt 1: "{option[:200]}"')
        if key == "no-new-privileges" and value in _BOOLEANS:
            no_new_privileges = _BOOLEANS[value]
        elif key == "seccomp":
            profile = "" if value == "builtin" else value
        elif key == "apparmor":
            _check_apparmor(value, facts)
        elif key != "label":  # there is no SELinux here to label for; Docker ignores it then as well
            raise Invalid(f'invalid --security-opt 2: "{option[:200]}"')
    return SecurityOptions(no_new_privileges=no_new_privileges, seccomp=profile)


def _check_apparmor(profile: str, facts: HostFacts) -> None:
    if facts.apparmor and profile not in ("", _UNCONFINED):
        raise NotSupported(
            f"AppArmor profile {profile!r} cannot be applied: AppArmor is not supported.",
            remedy="Use --security-opt apparmor=unconfined, or a seccomp profile.",
        )


def seccomp_filter(profile: str, capabilities: Iterable[str]) -> str:
    """The BPF program as base64; "" for none. Invalid for a profile that cannot be used."""
    if profile == _UNCONFINED:
        return ""
    return _encoded(profile, frozenset(capabilities))


@functools.lru_cache(maxsize=64)
def _encoded(profile: str, capabilities: frozenset[str]) -> str:
    try:
        if profile:
            program = seccomp.compile_profile(profile, capabilities)
        else:
            program = seccomp.compile_profile(
                _default(), capabilities, deny_ioctls=(_TIOCSTI, _TIOCLINUX), missing=("socketcall",)
            )
    except seccomp.ProfileError as error:
        raise Invalid(f"Decoding seccomp profile failed: {error}") from error
    except OSError as error:
        raise NotSupported(
            f"seccomp filters cannot be made: {error}.", remedy="Install libseccomp2 (Debian: apt install libseccomp2)."
        ) from error
    return base64.b64encode(program).decode("ascii")


def runtime_filter(profile: str, capabilities: Iterable[str]) -> dict[str, Any]:
    """The same profile as linux.seccomp of the runtime spec, {} for none; what only our own compiler can say is not
    in it (unknown calls, requests of ioctl)."""
    if profile == _UNCONFINED:
        return {}
    try:
        return seccomp.resolve_profile(profile or _default(), capabilities)
    except seccomp.ProfileError as error:
        raise Invalid(f"Decoding seccomp profile failed: {error}") from error


@functools.cache
def _default() -> bytes:
    return resources.files("enisle.drivers.container").joinpath("seccomp.json").read_bytes()
