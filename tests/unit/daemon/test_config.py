"""enisled's settings and its hold on its directories."""

from __future__ import annotations

import dataclasses
import socket
import tomllib
from pathlib import Path

import pytest

from enisle.daemon import config as configuration
from enisle.daemon.listening import bind
from enisle.daemon.main import main
from enisle.daemon.notify import notify
from enisle.daemon.roots import held
from enisle.errors import Invalid, Unavailable


def test_defaults() -> None:
    config = configuration.Config()
    assert config.socket_path == Path("/run/enisle/enisle.sock")


def test_the_settings_in_the_readme_are_all_there_are() -> None:
    readme = (Path(__file__).parents[3] / "README.md").read_text()
    text = readme.partition("```toml\n")[2].partition("```")[0]
    config = configuration.parse_toml(text, "README.md")
    assert config.build.cache_bytes == 20_000_000_000
    assert config.runtimes["crun"].path == "/usr/bin/crun"
    shown = tomllib.loads(text)
    for setting in dataclasses.fields(config):
        value = getattr(config, setting.name)
        assert setting.name in shown or setting.name == "debug"  # level says the same
        for inner in dataclasses.fields(value) if dataclasses.is_dataclass(value) else ():
            assert inner.name in shown[setting.name]


def test_flags_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "enisle.toml"
    file.write_text(
        'name = "one"\ndata_root = "/a"\n[images]\ninsecure_registries = ["r:5000"]\n[log]\nlevel = "debug"\n'
    )
    config = configuration.load(["--config", str(file), "--data-root", "/b", "--run-root", "/run/x"])
    assert (config.name, config.data_root) == ("one", Path("/b"))
    assert config.socket_path == Path("/run/x/enisle.sock")
    assert config.images.insecure_registries == ("r:5000",) and config.log.level == "debug"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nmae = 'x'", "nmae: no such setting"),
        ("name = 5", "name: 5 is not a text"),
        ("debug = 'yes'", "is not true or false"),
        ("[images]\ninsecure_registries = 'x'", "is not a list of texts"),
        ("[network]\nsubnt = ''", "network.subnt: no such setting"),
        ("images = 3", "is a table of settings"),
        ("[vm]\naccelerator = 'hvf'", "neither kvm nor tcg"),
        ("name = 'Too-Long-Name'", "lower-case letters"),
        ("[log]\nlevel = 'loud'", "none of debug"),
        ("x = = y", "enisle.toml"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "enisle.toml"
    file.write_text(text)
    with pytest.raises(Invalid, match=words.replace("(", r"\(")):
        configuration.load(["--config", str(file)])


def test_a_settings_file_that_was_named_must_exist(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="does not exist"):
        configuration.load(["--config", str(tmp_path / "none.toml")])


def test_a_directory_has_one_holder(tmp_path: Path) -> None:
    root = tmp_path / "data"
    with held(root, "data root", 0o700):
        assert root.stat().st_mode & 0o777 == 0o700
        with pytest.raises(Unavailable, match="in use by another enisled"), held(root, "data root", 0o700):
            raise AssertionError("held twice")
    with held(root, "data root", 0o700):
        assert (root / "enisled.pid").read_text().strip().isdigit()


def test_a_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match="cannot be used"), held(tmp_path / "file" / "root", "data root", 0o700):
        raise AssertionError("held")


def test_a_second_daemon_says_so_in_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with held(tmp_path / "data", "data root", 0o700):
        code = main(["--data-root", str(tmp_path / "data"), "--run-root", str(tmp_path / "run")])
    captured = capsys.readouterr().err
    assert code == 1 and captured.count("\n") == 1 and "in use by another enisled" in captured


def test_the_socket_replaces_one_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "enisle.sock"
    for _ in range(2):
        sock = bind(path, "no-such-group")
        with sock, socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            assert path.stat().st_mode & 0o777 == 0o660
    assert [entry.name for entry in tmp_path.iterdir()] == ["enisle.sock"]


def test_notify(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("READY=1")
        assert listener.recv(100) == b"READY=1"
    notify("READY=1")
