"""Who a process runs as: the user's words, looked up in the instance's own passwd and group files.

Those files are the image's: they may be huge, malformed or no files at all. They are read once, up to a limit, and
what cannot be understood is passed over. A number is always a number, never a name (CVE-2016-3697).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from enisle.launcher.container.failure import ChildFailure

MAX_FILE_BYTES = 4 << 20
MAX_ID = 2**31 - 1
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_LIKE_A_NUMBER = re.compile(r"[+\-]?\s*\d+\s*")

Read = Callable[[str, int], bytes]


@dataclass(frozen=True, slots=True)
class Word:
    """What names a user or a group: a number, or else a name."""

    name: str
    number: int | None


@dataclass(frozen=True, slots=True)
class Identity:
    """``groups`` holds all supplementary ones, the primary included."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True)
class _Account:
    name: str
    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class _GroupEntry:
    name: str
    gid: int
    members: tuple[str, ...]


def resolve(user: str, extra_groups: Sequence[str], read: Read) -> Identity:
    """The identity for "", "1000", "name", "1000:1000" or "name:group". ``read`` gives a file's first bytes.

    ChildFailure for a name that is not there and for a number out of range.
    """
    user_word, colon, group_word = user.partition(":")
    account = _account(user_word or "0", read)
    groups: list[int] = []
    gid = account.gid
    if colon and group_word:
        gid = _group_id(group_word, read)
    elif account.name:
        groups = [entry.gid for entry in _groups(read) if account.name in entry.members]
    groups = [gid, *groups, *(_group_id(word, read) for word in extra_groups)]
    return Identity(account.uid, gid, tuple(dict.fromkeys(groups)), account.home or "/")


def words(user: str, extra_groups: Sequence[str]) -> tuple[Word, Word | None]:
    """The user and the group, if one is named, for who looks them up; the further groups are only checked. ChildFailure
    as of ``resolve``."""
    user_word, colon, group_word = user.partition(":")
    user_word = user_word or "0"
    group = Word(group_word, _number(group_word, "gid")) if colon and group_word else None
    for word in extra_groups:
        _number(word, "gid")
    return Word(user_word, _number(user_word, "uid")), group


def no_user(word: str) -> ChildFailure:
    return ChildFailure(f"unable to find user {word}: no matching entries in passwd file", exit_code=126, whole=True)


def no_group(word: str) -> ChildFailure:
    return ChildFailure(f"Unable to find group {word}: no matching entries in group file", exit_code=126, whole=True)


def _account(word: str, read: Read) -> _Account:
    number = _number(word, "uid")
    for account in _accounts(read):
        if (number is not None and account.uid == number) or (number is None and account.name == word):
            return account
    if number is None:
        raise no_user(word)
    return _Account("", number, 0, "/")


def _group_id(word: str, read: Read) -> int:
    number = _number(word, "gid")
    if number is not None:
        return number
    for entry in _groups(read):
        if entry.name == word:
            return entry.gid
    raise no_group(word)


def _number(word: str, what: str) -> int | None:
    """The id that ``word`` writes, None for a name. What merely looks like a number is refused, never guessed at."""
    if _NUMBER.fullmatch(word):
        number = int(word)
        if number > MAX_ID:
            raise ChildFailure(f"{what} {word} is out of range: uids and gids must be in range 0-{MAX_ID}")
        return number
    if _LIKE_A_NUMBER.fullmatch(word) or not word.isprintable():
        raise ChildFailure(f"{what} {word!r} is neither a number nor a name")
    return None


def _lines(read: Read, path: str, count: int) -> Iterator[list[str]]:
    for line in read(path, MAX_FILE_BYTES).split(b"\n"):
        fields = line.decode("utf-8", "surrogateescape").split(":")
        if len(fields) >= count and fields[0] and not fields[0].startswith("#"):
            yield fields


def _accounts(read: Read) -> Iterator[_Account]:
    for fields in _lines(read, "/etc/passwd", 4):
        uid, gid = _id(fields[2]), _id(fields[3])
        if uid is not None and gid is not None:
            yield _Account(fields[0], uid, gid, fields[5] if len(fields) > 5 else "")


def _groups(read: Read) -> Iterator[_GroupEntry]:
    for fields in _lines(read, "/etc/group", 3):
        gid = _id(fields[2])
        if gid is not None:
            members = fields[3].strip().split(",") if len(fields) > 3 else []
            yield _GroupEntry(fields[0], gid, tuple(members))


def _id(text: str) -> int | None:
    return int(text) if _NUMBER.fullmatch(text) and int(text) <= MAX_ID else None
