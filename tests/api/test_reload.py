"""SIGHUP: what enisled takes over from its settings file without a restart."""

from __future__ import annotations

import json
import os
import signal
import time

from tests.api.walls import wait_until
from tests.daemon import Daemon


def reload(daemon: Daemon, text: str, said: str) -> None:
    """Write the settings, and wait until enisled says of them what it should."""
    (daemon.root / "enisle.toml").write_text(f'name = "{daemon.name}"\n{text}\n{daemon.extra_config}')
    before = len(daemon.log)
    assert daemon.process is not None
    os.kill(daemon.process.pid, signal.SIGHUP)
    wait_until(lambda: said in daemon.log[before:], timeout_s=20)


def test_settings_are_read_again(own_daemon: Daemon) -> None:
    docker = own_daemon.docker
    settings = '[images]\nmirrors = ["http://127.0.0.1:9"]\ninsecure_registries = ["registry.test:5000"]\n'
    reload(own_daemon, settings + '[log]\nlevel = "debug"\n[network]\nipv6 = true\n', "the settings were read again")
    assert "need a restart of enisled: network" in own_daemon.log
    info = json.loads(docker("info", "--format", "{{json .RegistryConfig}}").stdout)
    assert info["Mirrors"] == info["IndexConfigs"]["docker.io"]["Mirrors"] == ["http://127.0.0.1:9/"]
    assert info["IndexConfigs"]["registry.test:5000"]["Secure"] is False
    words = ("--since", "1", "--until", f"{time.time():.9f}", "--filter", "type=daemon", "--format", "{{json .}}")
    (event,) = [json.loads(line) for line in docker("events", *words).stdout.splitlines()]
    assert (event["Action"], event["Actor"]["ID"]) == ("reload", docker("info", "--format", "{{.ID}}").stdout.strip())
    assert event["Actor"]["Attributes"]["registry-mirrors"] == '["http://127.0.0.1:9/"]'
    ident = event["Actor"]["ID"]
    assert docker(
        "events",
        "--since",
        "1",
        "--until",
        f"{time.time():.9f}",
        "--filter",
        f"daemon={ident}",
        "--format",
        "{{.Action}}",
    ).stdout
    reload(own_daemon, "[images]\nmirrors = 5\n", "the settings stay as they are")
    assert docker("info", "--format", "{{json .RegistryConfig.Mirrors}}").stdout.strip() == '["http://127.0.0.1:9/"]'
