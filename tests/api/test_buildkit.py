"""Builds by BuildKit's protocol: the real buildx with its default settings, on a real enisled."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.api.agents import ASK, agent
from tests.api.walls import wait_until
from tests.contracts.images_support import docker_registry, htpasswd_auth
from tests.daemon import Daemon, run

BUILDX = os.environ.get("ENISLE_TEST_BUILDX", "")
assert BUILDX, "docker buildx was not found: source scripts/docker-plugins, or run ./run-tests"


class Buildx:
    """The plugin in a client's directory of its own, as users have it."""

    def __init__(self, daemon: Daemon, home: Path) -> None:
        self.daemon = daemon
        plugins = home / "cli-plugins"
        plugins.mkdir(parents=True)
        (plugins / "docker-buildx").symlink_to(BUILDX)
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "DOCKER_BUILDKIT"},
            "DOCKER_HOST": f"unix://{daemon.socket}",
            "DOCKER_CONFIG": str(home),
            "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
        }

    def __call__(
        self, *args: str, check: bool = True, cwd: Path | None = None, extra: dict[str, str] | None = None
    ) -> str:
        """What ``docker`` prints, on both streams. It fails unless ``check``."""
        done = run("docker", *args, check=check, cwd=cwd, env={**self.environment, **(extra or {})}, timeout_s=90)
        assert check or done.returncode != 0, done
        return done.stdout + done.stderr


@pytest.fixture
def buildx(daemon: Daemon, tmp_path_factory: pytest.TempPathFactory) -> Buildx:
    return Buildx(daemon, tmp_path_factory.mktemp("home"))


@pytest.fixture
def name(daemon: Daemon) -> Iterator[str]:
    made = f"kit-{uuid.uuid4().hex[:10]}"
    yield made
    for tag in ("latest", "two"):
        daemon.docker("rmi", "-f", f"{made}:{tag}", check=False)


def test_a_build_tells_its_steps_as_buildkit_names_them(buildx: Buildx, tmp_path: Path, name: str) -> None:
    (tmp_path / "a").write_text("a\n")
    (tmp_path / "unused").write_bytes(bytes(100_000))
    (tmp_path / "Dockerfile").write_text(
        f"FROM busybox AS first\nENV A=1\nRUN echo out; echo err >&2; echo {name}\nCOPY a /d/\nWORKDIR /w\n"
        "FROM first\nARG X\nRUN cat /d/a && echo x is $X\n"
    )
    metadata, image = tmp_path / "meta.json", tmp_path / "id"
    flags = ["--progress=plain", "-t", name, "-t", f"{name}:two", "--build-arg=X=7", "--label=l=v"]
    said = buildx("build", *flags, f"--metadata-file={metadata}", f"--iidfile={image}", str(tmp_path))
    for line in (
        "[internal] load build definition from Dockerfile",
        "[first 1/4] FROM busybox",
        f"[first 2/4] RUN echo out; echo err >&2; echo {name}",
        "[first 3/4] COPY a /d/",
        "[stage-1 1/1] RUN cat /d/a && echo x is $X",
        f"naming to docker.io/library/{name}:two",
    ):
        assert line in said
    assert "transferring context: 2B" in said and " x is 7\n" in said
    inspected = json.loads(buildx("inspect", f"{name}:two"))[0]
    assert inspected["Config"]["Labels"] == {"l": "v"} and inspected["Id"] == image.read_text().strip()
    assert json.loads(metadata.read_text())["containerimage.config.digest"] == inspected["Id"]
    again = buildx("build", *flags, str(tmp_path))
    assert again.count("CACHED") == 4
    assert "CACHED" not in buildx("build", "--no-cache", *flags, str(tmp_path))
    assert buildx("build", "--no-cache-filter=first", "--progress=plain", str(tmp_path)).count("CACHED") <= 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "FROM busybox\nRUN echo said\nRUN echo why >&2; exit 3\n",
            [
                'process "/bin/sh -c echo why >&2; exit 3" did not complete successfully: exit code: 3',
                "   3 | >>> RUN echo why >&2; exit 3",
                "[3/3] RUN echo why",
                "why",
            ],
        ),
        ("FROM busybox\nFOO bar\n", ["dockerfile parse error on line 2: unknown instruction: FOO"]),
        ("FROM busybox\nCOPY nothing /\n", ["nothing: file does not exist", "   2 | >>> COPY nothing /"]),
        ("FROM scratch AS one\nCOPY a /\n", ["failed to reach build target two in Dockerfile"]),
    ],
)
def test_a_failure_is_shown_at_its_line(buildx: Buildx, tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "Dockerfile").write_text(text)
    flags = ["--target=two"] if "AS one" in text else []
    said = buildx("build", "--progress=plain", *flags, str(tmp_path), check=False)
    assert all(word in said for word in words), said


def test_what_is_not_offered_is_refused_in_one_sentence(buildx: Buildx, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("# syntax=docker/dockerfile:1\nFROM busybox\nRUN true\n")
    for flags, words in (
        (["--build-arg=BUILDKIT_SYNTAX=foo/bar"], "failed to solve: the frontend dockerfile.v0 foo/bar is not offered"),
        (["--allow=security.insecure"], "failed to solve: security.insecure is not allowed"),
        (["--platform=linux/amd64,linux/arm64"], "Multi-platform build is not supported"),
        (["--cache-from=type=local,src=/nowhere,digest=sha256:" + "0" * 64], ""),
        (["--build-arg=ENISLE_BUILD_WALL=paper"], "it is container or vm"),
    ):
        said = buildx("build", *flags, str(tmp_path), check=not words)
        assert words in said and (words or "the cache of the kind local is not read" in said)
    assert "traceback" not in buildx.daemon.log.lower()


def test_secrets_and_agents_come_over_the_session(buildx: Buildx, tmp_path: Path) -> None:
    context = tmp_path / "context"
    context.mkdir()
    (context / "Dockerfile").write_text(
        "FROM busybox\nCOPY ask /\n"
        "RUN --mount=type=secret,id=file cat /run/secrets/file\n"
        "RUN --mount=type=secret,id=env,env=E echo $E\n"
        "RUN --mount=type=secret,id=none test ! -e /run/secrets/none\n"
        "RUN --mount=type=ssh,required /ask $SSH_AUTH_SOCK | od -An -tx1\n"
        "RUN test ! -e /run/secrets/file && test -z $SSH_AUTH_SOCK\n"
    )
    (tmp_path / "secret").write_text("hush\n")
    (tmp_path / "ask.c").write_text(ASK)
    run("musl-gcc", "-static", "-o", str(context / "ask"), str(tmp_path / "ask.c"))
    with agent(tmp_path / "agent") as socket:
        flags = [f"--secret=id=file,src={tmp_path}/secret", "--secret=id=env", f"--ssh=default={socket}"]
        said = buildx("build", "--progress=plain", *flags, str(context), extra={"env": "from env"})
        refused = buildx("build", "--no-cache", *flags[:2], str(context), check=False, extra={"env": "x"})
    assert " hush\n" in said and " from env\n" in said and " 00 00 00 05 0c 00 00 00 00" in said
    assert "ssh agent default: not found" in refused


def test_results_are_sent_as_a_directory_and_as_a_tar(buildx: Buildx, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM busybox AS made\nRUN mkdir -p /o/d && head -c 3000000 /dev/urandom > /o/d/big && ln -s big /o/d/link\n"
        "RUN ln /o/d/big /o/hard && chmod 4750 /o/d/big && sha256sum /o/d/big | cut -c1-64 > /o/sum\n"
        "FROM scratch\nCOPY --from=made /o /\n"
    )
    out = tmp_path / "out"
    buildx("build", "-o", str(out), str(tmp_path))
    digest = run("sha256sum", str(out / "d" / "link")).stdout[:64]
    assert (out / "sum").read_text().strip() == digest
    assert (out / "hard").stat().st_ino == (out / "d" / "big").stat().st_ino
    assert (out / "hard").stat().st_mode & 0o7777 == 0o4750
    buildx("build", "-o", f"type=tar,dest={tmp_path}/out.tar", str(tmp_path))
    with tarfile.open(tmp_path / "out.tar") as archive:
        assert sorted(archive.getnames()) == ["d", "d/big", "d/link", "hard", "sum"]


def test_contexts_of_every_kind(buildx: Buildx, tmp_path: Path, name: str) -> None:
    main, other = tmp_path / "main", tmp_path / "other"
    for directory in (main, other):
        directory.mkdir()
        (directory / "f").write_text(f"{directory.name}\n")
        (directory / "ignored").touch()
        (directory / ".dockerignore").write_text("ignored\n.dockerignore\n")
    text = "FROM busybox\nCOPY . /m/\nCOPY --from=other . /o/\nRUN ls -A /m /o; cat /m/f /o/f\n"
    (main / "Dockerfile").write_text(text)
    flags = ["--progress=plain", f"--build-context=other={other}"]
    said = buildx("build", *flags, "-t", name, str(main))
    assert " main\n" in said and " other\n" in said and " ignored\n" not in said
    (main / "Dockerfile").write_text("FROM other AS x\nRUN cat /o/f\n")
    said = buildx("build", "--progress=plain", f"--build-context=other=docker-image://{name}", str(main))
    assert " other\n" in said
    with tarfile.open(tmp_path / "context.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add(main, ".")
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nRUN cat /o/f\n")
    for source in ("context.tar", "Dockerfile"):
        command = ["build", "--no-cache", "--progress=plain", f"--build-context=other=docker-image://{name}", "-"]
        with (tmp_path / source).open("rb") as file:
            assert " other\n" in run("docker", *command, stdin=file, env=buildx.environment).stderr


def test_files_for_triggers_of_a_base_are_fetched(buildx: Buildx, tmp_path: Path, name: str) -> None:
    (tmp_path / "f").write_text("asked for by the base\n")
    (tmp_path / "Dockerfile").write_text("FROM busybox\nONBUILD COPY f /f\nONBUILD RUN cat /f\n")
    buildx("build", "-t", name, str(tmp_path))
    (tmp_path / "Dockerfile").write_text(f"FROM {name}\nRUN cat /f\n")
    assert " asked for by the base\n" in buildx("build", "--progress=plain", str(tmp_path))


def test_targets_of_a_bake_file_are_made_from_each_other(buildx: Buildx, tmp_path: Path, name: str) -> None:
    targets = {
        "base": {"dockerfile-inline": "FROM busybox\nRUN echo based > /base\n"},
        "on": {"dockerfile-inline": "FROM base\nRUN cat /base\n", "tags": [name]},
        "from": {"dockerfile-inline": "FROM busybox\nCOPY --from=base /base /b\n", "tags": [f"{name}:two"]},
    }
    for target in ("on", "from"):
        targets[target]["contexts"] = {"base": "target:base"}  # type: ignore[assignment]
    document = {"group": {"default": {"targets": ["on", "from"]}}, "target": targets}
    (tmp_path / "docker-bake.json").write_text(json.dumps(document))
    assert " based\n" in buildx("buildx", "bake", "--progress=plain", cwd=tmp_path)
    for image, path in ((name, "/base"), (f"{name}:two", "/b")):
        assert buildx("run", "--rm", "--network=none", image, "cat", path) == "based\n"


def test_a_run_in_a_virtual_machine(buildx: Buildx, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN grep -c panic= /proc/cmdline\n")
    assert " 1\n" in buildx("build", "--progress=plain", "--build-arg=ENISLE_BUILD_WALL=vm", str(tmp_path))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_client_that_goes_leaves_nothing(buildx: Buildx, tmp_path: Path, number: signal.Signals) -> None:
    daemon = buildx.daemon
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN echo begun; sleep 1000\n")
    before = set(daemon.docker("ps", "-aq").stdout.split())
    command = ["docker", "buildx", "build", "--progress=plain", str(tmp_path)]
    with subprocess.Popen(
        command, env=buildx.environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
        start_new_session=True,
    ) as client:  # fmt: skip
        assert client.stderr is not None
        assert any(" begun" in line for line in client.stderr)
        os.killpg(client.pid, number)
        client.stderr.read()
    temporary = daemon.data_root / "build" / "tmp"
    wait_until(lambda: set(daemon.docker("ps", "-aq").stdout.split()) <= before, timeout_s=20)
    wait_until(lambda: not os.listdir(temporary), timeout_s=20)


async def test_registries_ask_for_what_the_client_knows(buildx: Buildx, tmp_path: Path, name: str) -> None:
    async with docker_registry(tmp_path / "registry", htpasswd_auth(tmp_path / "registry", "me", "secret")) as host:
        image = f"{host}/kit:1"
        (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN echo {name} > /name\n")
        stranger = await asyncio.to_thread(buildx, "build", "--push", "-t", image, str(tmp_path), check=False)
        assert "no basic auth credentials" in stranger or "unauthorized" in stranger
        await asyncio.to_thread(buildx, "login", "-u", "me", "-p", "secret", host)
        try:
            await asyncio.to_thread(buildx, "build", "--push", "-t", image, str(tmp_path))
            buildx("rmi", image)
            (tmp_path / "Dockerfile").write_text(f"FROM {image}\nRUN cat /name\n")
            said = await asyncio.to_thread(buildx, "build", "--progress=plain", "--pull", str(tmp_path))
            assert f" {name}\n" in said
        finally:
            buildx("logout", host)
            buildx.daemon.docker("rmi", "-f", image, check=False)
        refused = await asyncio.to_thread(buildx, "build", "--pull", str(tmp_path), check=False)
        assert "failed to solve" in refused and "credentials" in refused + "credentials" * ("unauthorized" in refused)


def test_what_is_known_of_builders_and_their_cache(buildx: Buildx, tmp_path: Path) -> None:
    assert "running" in buildx("buildx", "ls") and "linux/amd64" in buildx("buildx", "inspect")
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nRUN echo {uuid.uuid4().hex}\n")
    buildx("build", "-q", str(tmp_path))
    assert "Total:" in buildx("buildx", "du")
    assert "regular" in buildx("buildx", "du", "--verbose", "--filter=type=regular")
    assert "Total:" in buildx("buildx", "prune", "-f", "--filter=type=exec.cachemount")
