"""Log settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from enisle.drivers.logs import check, log_plan
from enisle.errors import Invalid
from enisle.model.ids import ImageId, InstanceId
from enisle.model.instance import Instance, InstanceSpec, LogConfig


@pytest.mark.parametrize(
    ("driver", "options", "message"),
    [
        ("syslog", {}, "logger: no log driver named 'syslog' is registered"),
        ("local", {"tag": "x"}, "unknown log opt 'tag' for local log driver"),
        ("json-file", {"foo": "1"}, "unknown log opt 'foo' for json-file log driver"),
        ("", {"max-size": "ten"}, "invalid value for max-size"),
        ("", {"max-size": "0"}, "invalid value for max-size"),
        ("", {"max-size": "9" * 400}, "invalid value for max-size"),
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


def test_journald(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ENISLE_JOURNAL_SOCKET", str(tmp_path / "socket"))
    with pytest.raises(Invalid, match="journald is not enabled on this host"):
        check(LogConfig(driver="journald"))
    (tmp_path / "socket").touch()
    options = {"labels": "my.label", "tag": "{{.Name}}", "mode": "non-blocking"}
    check(LogConfig(driver="journald", options=options))
    with pytest.raises(Invalid, match="unknown log opt 'max-size' for journald log driver"):
        check(LogConfig(driver="journald", options={"max-size": "1m"}))
    spec = InstanceSpec(
        image="busybox",
        image_id=ImageId("sha256:1"),
        labels={"my.label": "x"},
        log=LogConfig(driver="journald", options=options),
    )
    plan = log_plan(Instance(id=InstanceId("a" * 64), name="web", created_at=0, spec=spec), None)
    assert (plan.driver, plan.path, plan.buffer_bytes) == ("journald", str(tmp_path / "socket"), 1 << 20)
    assert plan.extra == {
        "MY_LABEL": "x",
        "CONTAINER_ID": "a" * 12,
        "CONTAINER_ID_FULL": "a" * 64,
        "CONTAINER_NAME": "web",
        "CONTAINER_TAG": "web",
        "IMAGE_NAME": "busybox",
        "SYSLOG_IDENTIFIER": "web",
    }
