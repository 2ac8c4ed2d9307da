"""Landlock on this kernel: what was not named cannot be reached."""

import os
from pathlib import Path

import pytest

from enisle.linux import landlock
from enisle.linux.syscalls import PR_SET_NO_NEW_PRIVS, prctl


def tried(path: Path, flags: int) -> str:
    try:
        os.close(os.open(path, flags))
    except OSError as error:
        return type(error).__name__
    return "ok"


@pytest.mark.parametrize("by_descriptor", [False, True])
def test_only_what_was_named_is_left(tmp_path: Path, by_descriptor: bool) -> None:
    for name in ("read", "write"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / "other").touch()
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        place = os.open(tmp_path / "read", os.O_PATH) if by_descriptor else str(tmp_path / "read")
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        rules = [
            (place, landlock.READ),
            (str(tmp_path / "write/file"), landlock.READ_WRITE),
            ("/not/there", landlock.READ),
        ]
        held = landlock.restrict_self(rules)
        answers = [str(held)]
        answers += [tried(tmp_path / "read/file", os.O_RDONLY), tried(tmp_path / "read/file", os.O_WRONLY)]
        answers += [tried(tmp_path / "write/file", os.O_RDWR), tried(tmp_path / "other", os.O_RDONLY)]
        answers += [tried(Path("/etc/passwd"), os.O_RDONLY)]
        os.write(writing, " ".join(answers).encode())
        os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    answers = os.read(reading, 1000).decode().split()
    os.close(reading)
    if landlock.abi() == 0:
        assert answers[0] == "False"
    else:
        assert answers == ["True", "ok", "PermissionError", "ok", "PermissionError", "PermissionError"]
