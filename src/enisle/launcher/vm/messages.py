"""Words for failures that a guest reports as numbers."""

from __future__ import annotations

import errno
import os

from enisle.launcher.vm.protocol import Failure, Stage
from enisle.launcher.wall import WallError

_CREATE = "failed to create task for container: failed to create shim task: OCI runtime create failed: "
_EXEC = "OCI runtime exec failed: exec failed: "
_START = "unable to start container process: "


def start_error(failure: Failure, *, main: bool = True) -> WallError:
    """Why a process, the main one or a further one, could not be started, in the wording that clients of Docker know;
    126, 127 or 128."""
    reason, code = _reason(failure)
    kind = "invalid" if code in (126, 127) else "internal"
    if failure.stage in (Stage.USER, Stage.GROUP):
        return WallError(kind, reason, code)
    return WallError(kind, f"{_CREATE if main else _EXEC}{reason}: unknown", code)


def _reason(failure: Failure) -> tuple[str, int]:
    name, cause = failure.detail, os.strerror(failure.errno).lower()
    if failure.stage == Stage.USER:
        if failure.errno == errno.ERANGE:
            return f"unable to find user {name}: uids and gids must be in range 0-2147483647", 126
        return f"unable to find user {name}: no matching entries in passwd file", 126
    if failure.stage == Stage.GROUP:
        return f"Unable to find group {name}: no matching entries in group file", 126
    if failure.stage == Stage.CWD:
        code = 127 if failure.errno == errno.ENOENT else 126
        return f'{_START}chdir to cwd ("{name}") set in config.json failed: {cause}', code
    if failure.stage == Stage.EXEC:
        return _exec_reason(name, failure.errno, cause)
    if failure.stage == Stage.LIMIT:
        return f"{_START}error setting rlimit type {name}: {cause}", 128
    return f"{_START}{name}: {cause}", 128


def _exec_reason(name: str, number: int, cause: str) -> tuple[str, int]:
    if number == errno.ENOENT and "/" not in name:
        return f'{_START}exec: "{name}": executable file not found in $PATH', 127
    if number in (errno.ENOENT, errno.ENOTDIR):
        return f'{_START}exec: "{name}": stat {name}: {cause}', 127
    if number == errno.EISDIR:
        return f'{_START}exec: "{name}": is a directory', 126
    if number == errno.EACCES:
        return f'{_START}exec: "{name}": permission denied', 126
    return f"{_START}exec {name}: {cause}", 126 if number == errno.ENOEXEC else 128


def setup_error(failure: Failure) -> WallError:
    """Why the guest could not make its root."""
    return WallError(
        "internal", f"the virtual machine could not {failure.detail}: {os.strerror(failure.errno).lower()}", 128
    )
