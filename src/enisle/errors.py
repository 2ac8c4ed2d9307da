"""Every failure a user can see: kind, object, cause, remedy."""

from __future__ import annotations

import errno
from enum import StrEnum

_ENDS = (".", "!", "?", ":", ";")
_SPENT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.ENOSPC, errno.EDQUOT})


class Kind(StrEnum):
    """What went wrong, coarsely; the API maps each kind to one HTTP status."""

    NOT_FOUND = "not_found"
    INVALID = "invalid"
    CONFLICT = "conflict"
    DENIED = "denied"
    UNAUTHENTICATED = "unauthenticated"
    NOT_MODIFIED = "not_modified"
    NOT_SUPPORTED = "not_supported"
    UNAVAILABLE = "unavailable"
    EXHAUSTED = "exhausted"
    INTERNAL = "internal"


class EnisleError(Exception):
    """A failure to be shown to the user as one sentence.

    ``str(error)`` is that sentence: it names the object, the cause and, in ``remedy`` if any, what to do about it.
    """

    kind: Kind = Kind.INTERNAL

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        if not self.remedy:
            return self.message
        return f"{self.message}{'' if self.message.endswith(_ENDS) else '.'} {self.remedy}"


class NotFound(EnisleError):
    """The object named by the user does not exist."""

    kind = Kind.NOT_FOUND


class Invalid(EnisleError):
    """The request cannot be carried out as it is written."""

    kind = Kind.INVALID


class Conflict(EnisleError):
    """The object exists, but its state or another object stands in the way."""

    kind = Kind.CONFLICT


class Denied(EnisleError):
    """The caller may not do this."""

    kind = Kind.DENIED


class Unauthenticated(EnisleError):
    """A registry (or we) want credentials that were not given or are wrong."""

    kind = Kind.UNAUTHENTICATED


class NotModified(EnisleError):
    """What was asked for is so already."""

    kind = Kind.NOT_MODIFIED


class NotSupported(EnisleError):
    """This wall, kernel or host cannot do it, ever or as it is set up."""

    kind = Kind.NOT_SUPPORTED


class Unavailable(EnisleError):
    """A party we need (registry, launcher, hypervisor, guest) does not answer."""

    kind = Kind.UNAVAILABLE


class Exhausted(EnisleError):
    """Disk, memory, addresses, ports or descriptors have run out."""

    kind = Kind.EXHAUSTED


def exhaustion(error: BaseException) -> Exhausted | None:
    """What the host has run out of, if that is what a system call's failure says: no fault of ours."""
    if not isinstance(error, OSError) or error.errno not in _SPENT:
        return None
    return Exhausted((error.strerror or str(error)).lower())


class Internal(EnisleError):
    """A fault of ours."""

    kind = Kind.INTERNAL


class StartFailed(Invalid):
    """The workload's command could not be started.

    ``exit_code`` is what the instance records: 127 for a command that is missing, 126 for one that cannot be
    executed, 128 for a failure before the command was reached.
    """

    def __init__(self, message: str, *, exit_code: int = 128, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.exit_code = exit_code


_BY_KIND: dict[Kind, type[EnisleError]] = {
    cls.kind: cls
    for cls in (
        NotFound,
        Invalid,
        Conflict,
        Denied,
        Unauthenticated,
        NotModified,
        NotSupported,
        Unavailable,
        Exhausted,
        Internal,
    )
}


def of_kind(kind: str, message: str) -> EnisleError:
    """The error of that kind; an unknown kind gives ``Internal`` (errors cross our own wire as kind and message)."""
    try:
        return _BY_KIND[Kind(kind)](message)
    except ValueError:
        return Internal(message)
