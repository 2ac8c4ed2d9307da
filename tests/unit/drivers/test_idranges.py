"""Ranges of ids: one each, kept as long as the instance is there, found again after anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from enisle.drivers.container import idranges
from enisle.drivers.container.idranges import FIRST, SIZE, IdRanges
from enisle.errors import Exhausted


def instance(data_root: Path, number: int, *, prefix: str = "00000000") -> str:
    instance_id = f"{prefix}{number:056x}"
    (data_root / "instances" / instance_id).mkdir(parents=True)
    return instance_id


def test_ranges_do_not_overlap_and_are_kept(tmp_path: Path) -> None:
    ranges = IdRanges(tmp_path)
    claimed = {name: ranges.claim(name) for name in (instance(tmp_path, number) for number in range(50))}
    assert len(set(claimed.values())) == 50
    assert all((first - FIRST) % SIZE == 0 and FIRST <= first < FIRST + 4096 * SIZE for first in claimed.values())
    again = IdRanges(tmp_path)
    assert {name: again.claim(name) for name in claimed} == claimed


def test_what_a_removed_instance_had_is_given_out_again(tmp_path: Path) -> None:
    ranges = IdRanges(tmp_path)
    gone = instance(tmp_path, 1)
    first = ranges.claim(gone)
    (tmp_path / "instances" / gone).rmdir()
    assert ranges.claim(instance(tmp_path, 2)) == first


def test_all_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idranges, "COUNT", 3)
    ranges = IdRanges(tmp_path)
    for number in range(3):
        ranges.claim(instance(tmp_path, number))
    with pytest.raises(Exhausted, match="All 3 ranges"):
        ranges.claim(instance(tmp_path, 3))
