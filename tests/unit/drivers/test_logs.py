"""Log settings."""

from __future__ import annotations

import pytest

from enisle.drivers.logs import check
from enisle.errors import Invalid
from enisle.model.instance import LogConfig


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("syslog", {}, "logger: no log driver named 'syslog' is registered"),
        ("json-file", {"foo": "1"}, "unknown log opt 'foo' for json-file log driver"),
        ("", {"max-size": "ten"}, "invalid value for max-size"),
        ("", {"max-size": "0"}, "invalid value for max-size"),
        ("", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("", {"max-file": "²"}, "max-file"),
        ("", {"compress": "perhaps"}, "invalid value for compress"),
        ("", {"compress": "true", "max-file": "1"}, "compress cannot be true"),
        ("", {"compress": "true", "max-size": "-1"}, "compress cannot be true"),
        ("", {"mode": "odd"}, "logging mode not supported: odd"),
        ("", {"max-buffer-size": "4m"}, "max-buffer-size option is only supported"),
        ("", {"labels-regex": "("}, "invalid value for labels-regex"),
    ],
)
def test_refusals(driver: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(Invalid, match=message):
        check(LogConfig(driver=driver, options=options))


@pytest.mark.parametrize("options", [{}, {"max-size": "1.5GB"}, {"max-size": "-1"}, {"mode": "non-blocking"}])
def test_what_is_fine(options: dict[str, str]) -> None:
    for driver in ("", "json-file", "local", "none"):
        check(LogConfig(driver=driver, options=options))
