"""What is on its way into the content store while somebody sweeps it."""

from __future__ import annotations

import os
import time
from pathlib import Path

from enisle.images.content import ContentStore, digest_of


def test_a_file_that_is_still_to_be_made_is_not_swept_away(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    path = store.temporary()
    store.sweep([])
    path.write_bytes(b"later")
    assert store.sweep([], age_s=0) == 0
    store.adopt(path, digest_of(b"later"))
    assert store.has(digest_of(b"later"))


def test_what_a_crash_left_behind_is_swept_away(tmp_path: Path) -> None:
    ContentStore(tmp_path).temporary().write_bytes(b"left")
    store = ContentStore(tmp_path)
    assert store.sweep([]) > 0
    assert os.listdir(tmp_path / "ingest") == []


def test_names_are_forgotten_once_their_files_are_long_gone(tmp_path: Path) -> None:
    store = ContentStore(tmp_path)
    for _ in range(3):
        store.temporary()
    store._given = dict.fromkeys(store._given, time.monotonic() - 7200)
    store.sweep([])
    assert store._given == {}
