"""The pure rules of building: variables, stages, configs, commands, keys, messages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enisle.build import git, graph
from enisle.build.cache import BuildCache, key_of
from enisle.build.options import BuildOptions
from enisle.build.remote import file_name
from enisle.build.run_mounts import Mounted
from enisle.build.run_step import RunStep, defaults_of, spec_of
from enisle.build.scope import Arguments, Scope
from enisle.build.stage import run_words
from enisle.build.transcript import Transcript, excerpt
from enisle.errors import Denied, Invalid, Unavailable
from enisle.formats.dockerfile.config import changed, working_directory
from enisle.formats.dockerfile.instructions import Arg, Dockerfile, Run
from enisle.formats.dockerfile.parse import parse
from enisle.model.ids import ImageId
from enisle.model.image import ImageConfig, Platform

HOST = Platform()


def arguments(given: dict[str, str | None], text: str = "FROM x") -> Arguments:
    made = Arguments(given, Platform(architecture="arm64"), HOST, "\\")
    for instruction in parse(text).arguments:
        made.declare_global(instruction)
    return made


def declared(shared: Arguments, text: str, env: tuple[str, ...] = ()) -> Scope:
    scope = Scope(shared)
    for instruction in parse(text).stages[-1].instructions:
        assert isinstance(instruction, Arg)
        scope.declare(instruction, env)
    return scope


def test_arguments_before_from_count_where_they_are_named_again() -> None:
    text = "ARG V=1\nARG W=$V.0\nFROM x:$W\nARG V"
    shared = arguments({}, text)
    scope = declared(shared, text)
    assert shared.expand_global("x:$W") == "x:1.0"
    assert (scope.expand("$V", ()), scope.expand("$W", ())) == ("1", "")


def test_what_the_client_gives_wins_over_defaults_and_env_wins_over_all() -> None:
    scope = declared(arguments({"A": "client"}), "FROM x\nARG A=default\nARG B=${A}2")
    assert scope.run_arguments(()) == {"A": "client", "B": "client2"}
    assert scope.expand("$A", ("A=env",)) == "env"
    assert "A" not in scope.run_arguments(("A=env",))


def test_proxies_are_seen_but_are_no_part_of_keys() -> None:
    scope = declared(arguments({"HTTP_PROXY": "p"}), "FROM x")
    assert scope.run_environment(()) == ("HTTP_PROXY=p",)
    assert scope.run_arguments(()) == {}


def test_platform_arguments() -> None:
    scope = declared(arguments({}), "FROM x\nARG TARGETARCH\nARG BUILDPLATFORM")
    assert scope.run_arguments(()) == {"BUILDPLATFORM": "linux/amd64", "TARGETARCH": "arm64"}


def test_unused_arguments_are_told() -> None:
    shared = arguments({"X": "1", "Y": "2", "no_proxy": "", "SOURCE_DATE_EPOCH": "0", "NONE": None})
    declared(shared, "FROM x\nARG Y")
    assert shared.unused() == ["X"]


STAGES = """\
FROM a AS one
FROM b AS two
COPY --from=one /x /x
FROM c AS unused
FROM two AS last
RUN --mount=from=0,target=/m true
"""


def test_only_needed_stages() -> None:
    dockerfile = parse(STAGES)
    same = str
    assert graph.needed(dockerfile, 3, same) == [0, 1, 3]
    assert graph.needed(dockerfile, graph.target_index(dockerfile, "two"), same) == [0, 1]
    assert graph.target_index(dockerfile, "") == 3
    assert graph.target_index(dockerfile, "2") == 2
    with pytest.raises(Invalid, match="failed to reach build target nope"):
        graph.target_index(dockerfile, "nope")


def test_a_stage_may_only_need_earlier_ones() -> None:
    dockerfile = parse("FROM a\nCOPY --from=later /x /x\nFROM b AS later")
    assert graph.needed(dockerfile, 0, str) == [0]


def config(text: str, base: ImageConfig | None = None) -> ImageConfig:
    made = base or ImageConfig()
    for instruction in parse(f"FROM x\n{text}").stages[0].instructions:
        made, _ = changed(made, instruction, lambda word: word)
    return made


def test_configs() -> None:
    assert config("ENV A=1 B=2\nENV A=3").env == ("A=3", "B=2")
    assert config("EXPOSE 80 90-92/udp").exposed_ports == ("80/tcp", "90/udp", "91/udp", "92/udp")
    assert config("CMD echo hi").command == ("/bin/sh", "-c", "echo hi")
    assert config('SHELL ["/bin/bash", "-ec"]\nCMD x').command == ("/bin/bash", "-ec", "x")
    assert config("ENTRYPOINT x", ImageConfig(command=("old",))).command is None
    assert config("HEALTHCHECK NONE").healthcheck is not None
    assert config("ONBUILD RUN x").on_build == ("RUN x",)
    with pytest.raises(Invalid, match="invalid containerPort: 70000"):
        config("EXPOSE 70000")
    with pytest.raises(Invalid):
        config("STOPSIGNAL NOSUCH")


def test_working_directories_are_absolute_and_cannot_climb() -> None:
    base = ImageConfig(working_dir="/a/b")
    assert working_directory(base, "c") == "/a/b/c"
    assert working_directory(base, "/x/../../y") == "/y"
    with pytest.raises(Invalid):
        working_directory(base, "")


def run_of(text: str) -> Run:
    (instruction,) = parse(f"FROM x\n{text}").stages[0].instructions
    assert isinstance(instruction, Run)
    return instruction


def test_here_documents_of_run() -> None:
    bare = ImageConfig()
    assert run_words(run_of("RUN <<EOF\na\nb\nEOF"), bare) == (("/bin/sh", "-c", "a\nb\n"), {})
    words, scripts = run_words(run_of("RUN <<EOF\n#!/bin/x\nb\nEOF"), bare)
    assert (words, scripts) == (("/dev/pipes/EOF",), {"EOF": "#!/bin/x\nb\n"})
    words, _ = run_words(run_of("RUN cat <<A > /x\ntext\nA"), bare)
    assert words[-1] == "cat <<A > /x\ntext\nA\n"


def test_the_instance_of_a_run() -> None:
    step = RunStep(image=ImageId("sha256:1"), config=ImageConfig(), words=("true",), environment=("A=1",))
    spec = spec_of(step, BuildOptions(runtime="vm", network_mode="net"), Mounted(env_files={"T": "/s/t"}))
    assert (spec.runtime, spec.network_mode, spec.entrypoint, spec.log.driver) == ("vm", "net", (), "none")
    assert spec.command is not None and "'/s/t'" in spec.command[2] and spec.command[-1] == "true"
    assert defaults_of(ImageConfig(volumes=("/v",), env=("A=1",))) == ImageConfig(env=("A=1",))


def test_keys_tell_everything_apart() -> None:
    parents = [key_of("run", parent, None, ("x",)) for parent in ("sha256:1", "sha256:2", None)]
    assert len({*parents, key_of("run", "sha256:1", 0, ("x",)), key_of("copy", "sha256:1", None, ("x",))}) == 5


def test_the_cache_is_read_again_and_forgets(tmp_path: Path) -> None:
    path = tmp_path / "cache"
    cache = BuildCache(path)
    one, two = ImageId("sha256:1"), ImageId("sha256:2")
    cache.put(key_of("a"), one)
    cache.put(key_of("b"), two)
    path.open("ab").write(b"half a line")
    again = BuildCache(path)
    assert (again.get(key_of("a")), {record.image for record in again.records()}) == (one, {one, two})
    again.forget([one])
    assert {record.image for record in BuildCache(path).records()} == {two}
    assert path.stat().st_mode & 0o777 == 0o600


def test_stages_speak_in_the_order_of_the_file() -> None:
    said: list[dict[str, Any]] = []
    transcript = Transcript(said.append)
    [stage] = parse("FROM x").stages
    first, second = (transcript.section(stage, alone=False, has_image=True) for _ in range(2))
    second.note("2a")
    first.note("1a")
    second.end()
    first.output("1b", stderr=True)
    first.end()
    assert [message["stream"] for message in said] == ["1a", "\x1b[91m1b\x1b[0m", "2a"]


def test_the_line_that_failed_is_shown() -> None:
    shown = excerpt("a\nb\nc\nd\ne\nf", "Dockerfile", 3, around=1)
    assert shown.splitlines()[0] == "Dockerfile:3"
    assert ">>>    3 | c" in shown and "       2 | b" in shown and "| a" not in shown


@pytest.mark.parametrize(
    ("text", "url", "ref", "subdirectory"),
    [
        ("https://h/r.git", "https://h/r.git", "", ""),
        ("https://h/r.git#main:a/b", "https://h/r.git", "main", "a/b"),
        ("git@h:o/r.git#:sub", "git@h:o/r.git", "", "sub"),
        ("github.com/o/r#v1", "https://github.com/o/r", "v1", ""),
    ],
)
def test_git_urls(text: str, url: str, ref: str, subdirectory: str) -> None:
    parsed = git.parse(text)
    assert parsed is not None
    assert (parsed.url, parsed.ref, parsed.subdirectory) == (url, ref, subdirectory)


@pytest.mark.parametrize("text", ["https://h/file.tar", "dir/file", "--upload-pack=x", "ext::sh -c x", "/a/b.git"])
def test_what_is_no_git_url(text: str) -> None:
    assert git.parse(text) is None


@pytest.mark.parametrize(
    "text",
    ["https://h/r.git#--upload-pack=x", "https://h/r.git#main:../..", "git://h/r.git#a\nb", "ssh://ext::x/r.git"],
)
def test_git_urls_that_are_refused(text: str) -> None:
    with pytest.raises(Invalid, match="invalid git"):
        git.parse(text)


def test_names_of_downloads() -> None:
    assert file_name("http://h/a/b.txt?x=1") == "b.txt"
    assert file_name("http://h/a/") == ""
    assert file_name("http://h/%2e%2e") == ""


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "169.254.169.254",
        "0.0.0.0",
        "[::ffff:127.0.0.1]",
        "[::ffff:a9fe:a9fe]",
        "127.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "[fe80::1]",
    ],
)
async def test_a_dockerfile_cannot_fetch_from_this_host(host: str, tmp_path: Path) -> None:
    from enisle.build.remote import download

    with pytest.raises((Denied, Unavailable), match=r"address of this host alone|not a canonical IPv4 address"):
        await download(f"http://{host}:1/x", tmp_path / "x", allow_local=False)


def test_a_dockerfile_is_data() -> None:
    assert isinstance(parse("# syntax=docker.io/evil/frontend\nFROM x"), Dockerfile)
