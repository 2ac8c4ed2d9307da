"""Owners and permissions that COPY and ADD give: --chown (names from the image's own files) and --chmod."""

from __future__ import annotations

import re
from collections.abc import Iterator

from enisle.build.tree import Tree
from enisle.errors import Invalid
from enisle.model.numbers import decimal

_FILE_LIMIT_BYTES = 4 << 20
_ID_LIMIT = (1 << 32) - 2
_CLAUSE = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)")
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_WHO = {"u": 0o700, "g": 0o070, "o": 0o007, "a": 0o777}


def owner(text: str, tree: Tree) -> tuple[int, int]:
    """(uid, gid) of "user[:group]". Without a group: the primary one of a user's name; a number stands for both.
    Invalid."""
    user, _, group = text.partition(":")
    uid, primary = _user(user, tree)
    return uid, _group(group, tree) if group else primary


def _user(name: str, tree: Tree) -> tuple[int, int]:
    number = _number(name, "user")
    if number is not None:
        return number, number
    for fields in _lines(tree, b"passwd"):
        if fields[0] == name.encode() and len(fields) > 3:
            ids = [_number(field.decode("utf-8", "replace"), "user") for field in fields[2:4]]
            if ids[0] is not None and ids[1] is not None:
                return ids[0], ids[1]
    raise _unknown("uid", "user", name)


def _group(name: str, tree: Tree) -> int:
    number = _number(name, "group")
    if number is not None:
        return number
    for fields in _lines(tree, b"group"):
        if fields[0] == name.encode() and len(fields) > 2:
            found = _number(fields[2].decode("utf-8", "replace"), "group")
            if found is not None:
                return found
    raise _unknown("gid", "group", name)


def _number(name: str, kind: str) -> int | None:
    if not (name.isascii() and name.isdigit()):
        return None
    number = decimal(name)
    if number is None or number > _ID_LIMIT:
        raise Invalid(f"invalid chown: {name[:40]} is no {kind} id")
    return number


def _lines(tree: Tree, name: bytes) -> Iterator[list[bytes]]:
    for line in (tree.read((b"etc", name), limit=_FILE_LIMIT_BYTES) or b"").splitlines():
        yield line.split(b":")


def _unknown(letter: str, kind: str, name: str) -> Invalid:
    return Invalid(
        "unable to convert uid/gid chown string to host mapping: "
        f"can't find {letter} for {kind} {name}: no such {kind}: {name}"
    )


def mode(text: str, old: int, *, is_directory: bool) -> int:
    """Permissions after chmod(1)'s ``text``: octal digits or symbolic clauses. Invalid."""
    if re.fullmatch(r"0*[0-7]{1,4}", text):
        return int(text, 8)
    for clause in text.split(","):
        match = _CLAUSE.fullmatch(clause)
        if match is None:
            raise Invalid(f"invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
        old = _changed(old, match[1] or "a", match[2], match[3], is_directory=is_directory)
    return old


def _changed(old: int, who: str, operator: str, letters: str, *, is_directory: bool) -> int:
    reach = 0
    for letter in who:
        reach |= _WHO[letter]
    bits = 0
    for letter in letters:
        bits |= _BITS.get(letter, 0) & reach
        if letter == "X" and (is_directory or old & 0o111):
            bits |= 0o111 & reach
        if letter == "s":
            bits |= (0o4000 if "u" in who or "a" in who else 0) | (0o2000 if "g" in who or "a" in who else 0)
        if letter == "t":
            bits |= 0o1000
    if operator == "+":
        return old | bits
    if operator == "-":
        return old & ~bits
    return (old & ~reach) | bits
