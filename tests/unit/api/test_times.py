"""Times in and out."""

from __future__ import annotations

import pytest

from enisle.api.times import SECOND_NS, human_duration, parse_time, rfc3339, rfc3339_fixed
from enisle.errors import Invalid

NOW = 1_700_000_000 * SECOND_NS


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", 0),
        ("1700000000", NOW),
        ("1700000000.5", NOW + 500_000_000),
        ("1700000000.123456789", NOW + 123_456_789),
        ("10m", NOW - 600 * SECOND_NS),
        ("1h30m", NOW - 5400 * SECOND_NS),
        ("2023-11-14T22:13:20Z", NOW),
        ("2023-11-14T22:13:20.000000001Z", NOW + 1),
        ("2023-11-14T23:13:20+01:00", NOW),
        ("2023-11-14T22:13:20", NOW),
        ("2023-11-14", NOW - (22 * 3600 + 13 * 60 + 20) * SECOND_NS),
    ],
)
def test_parse(text: str, expected: int) -> None:
    assert parse_time(text, now_ns=NOW) == expected


@pytest.mark.parametrize(
    "text", ["yesterday", "2023-13-01", "1.2.3", "5 apples", "9" * 40, "2023-11-14T25:00:00Z", "\x1e5", " 5", "٣"]
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(Invalid):
        parse_time(text)


def test_format() -> None:
    assert rfc3339(0) == "0001-01-01T00:00:00Z"
    assert rfc3339(NOW + 120_000_000) == "2023-11-14T22:13:20.12Z"
    assert rfc3339_fixed(NOW) == "2023-11-14T22:13:20.000000000Z"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "Less than a second"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "About a minute"),
        (150, "2 minutes"),
        (3600, "About an hour"),
        (47 * 3600, "47 hours"),
        (3 * 86400, "3 days"),
        (20 * 86400, "2 weeks"),
        (90 * 86400, "3 months"),
        (800 * 86400, "2 years"),
    ],
)
def test_human(seconds: float, words: str) -> None:
    assert human_duration(seconds) == words
