"""Builds by the docker client's classic builder, docker-py and our own client, on a real enisled."""

from __future__ import annotations

import functools
import http.server
import io
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
from docker.errors import BuildError

from tests.daemon import Daemon, run

os.environ.setdefault("DOCKER_BUILDKIT", "0")


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / "d" / "deep").mkdir(parents=True)
    (tmp_path / "d" / "x").write_text("x\n")
    (tmp_path / "d" / "deep" / "y.go").write_text("y\n")
    (tmp_path / "d" / "link").symlink_to("/etc/passwd")
    return tmp_path


@pytest.fixture
def name(daemon: Daemon) -> Iterator[str]:
    made = f"built-{uuid.uuid4().hex[:10]}"
    yield made
    daemon.docker("rmi", "-f", made, check=False)


def build(daemon: Daemon, context: Path, text: str, *args: str, check: bool = True) -> str:
    """What the docker client prints."""
    (context / "Dockerfile").write_text(text)
    done = daemon.docker("build", *args, str(context), check=check)
    return done.stdout + done.stderr


def shown(daemon: Daemon, image: str, *command: str) -> str:
    return daemon.docker("run", "--rm", "--network", "none", image, *command).stdout


def config(daemon: Daemon, image: str) -> dict[str, object]:
    return dict(json.loads(daemon.docker("inspect", image).stdout)[0]["Config"])


def test_the_classic_builders_words_and_its_cache(daemon: Daemon, context: Path, name: str) -> None:
    text = "FROM busybox\nRUN echo hi > /f && echo said\nCOPY a.txt /\nCMD cat /f"
    first = build(daemon, context, text, "-t", name)
    for line in ("Step 1/4 : FROM busybox", "said", "Removing intermediate container", f"Successfully tagged {name}"):
        assert line in first
    second = build(daemon, context, text, "-t", name)
    assert second.count("---> Using cache") == 3
    assert first.splitlines()[-2] == second.splitlines()[-2]  # Successfully built <the same id>
    assert shown(daemon, name) == "hi\n"
    (context / "a.txt").write_text("other\n")
    assert build(daemon, context, text).count("---> Using cache") == 1
    assert "Using cache" not in build(daemon, context, text, "--no-cache")


def test_the_whole_config(daemon: Daemon, context: Path, name: str) -> None:
    text = """FROM busybox
ARG V=1
ENV A=$V B="two words"
LABEL l="$A"
EXPOSE 80
VOLUME /v
USER nobody
WORKDIR /w
STOPSIGNAL SIGINT
HEALTHCHECK --interval=5s CMD true
SHELL ["/bin/sh", "-ec"]
ENTRYPOINT ["echo"]
CMD ["x"]
ONBUILD RUN true
"""
    build(daemon, context, text, "-t", name, "--build-arg", "V=7", "--label", "own=1")
    made = config(daemon, name)
    assert "A=7" in made["Env"] and "B=two words" in made["Env"]  # type: ignore[operator]
    assert made["Labels"] == {"l": "7", "own": "1"}
    assert made["ExposedPorts"] == {"80/tcp": {}} and made["Volumes"] == {"/v": {}}
    assert (made["User"], made["WorkingDir"], made["StopSignal"]) == ("nobody", "/w", "SIGINT")
    assert (made["Entrypoint"], made["Cmd"], made["OnBuild"]) == (["echo"], ["x"], ["RUN true"])
    assert made["Shell"] == ["/bin/sh", "-ec"]


def test_copying(daemon: Daemon, context: Path, name: str) -> None:
    with tarfile.open(context / "files.tgz", "w:gz") as tar:
        tar.add(context / "d" / "x", "in/x")
    text = """FROM busybox
COPY d /dir/
COPY --chown=1:2 --chmod=640 a.txt /owned
COPY --parents d/./deep/*.go /p/
COPY --exclude=deep d /e/
COPY a.txt files.tgz /several/
ADD files.tgz /unpacked/
ADD --unpack=false files.tgz /packed/
COPY <<one <<'two' /here/
$PATH
one
$PATH
two
RUN cat /here/two; stat -c '%u:%g %a' /owned; find /dir /p /e /several /unpacked /packed | sort; readlink /dir/link
"""
    said = build(daemon, context, text, "-t", name)
    assert "$PATH\n1:2 640\n" in said
    for path in ("/dir/deep/y.go", "/p/deep/y.go", "/e/x", "/several/a.txt", "/unpacked/in/x", "/packed/files.tgz"):
        assert f"\n{path}\n" in said
    assert "/e/deep" not in said and "\n/etc/passwd\n" in said
    assert shown(daemon, name, "cat", "/here/one").startswith("/")


def test_a_layer_goes_through_links_of_the_image_and_leaves_its_directories_alone(
    daemon: Daemon, context: Path, name: str
) -> None:
    text = """FROM busybox
RUN mkdir -p /real && chmod 700 /real && chown 5:6 /real && ln -s real /lib2
COPY a.txt /lib2/
RUN test -L /lib2 && stat -c '%a %u:%g' /real && ls /real
"""
    assert "700 5:6\na.txt\n" in build(daemon, context, text)


def test_stages(daemon: Daemon, context: Path, name: str) -> None:
    text = """ARG BASE=busybox
FROM $BASE AS one
RUN echo 1 > /one
FROM $BASE AS never
RUN exit 1
FROM scratch AS data
COPY a.txt /a
FROM one
COPY --from=data /a /a
COPY --from=0 /one /copied
COPY --from=busybox /bin/busybox /bb
RUN --mount=from=data,target=/m cat /m/a /copied
"""
    said = build(daemon, context, text, "-t", name)
    assert "a\n1\n" in said and "never" not in said
    assert "Step 1/10 : ARG" in said
    build(daemon, context, text, "-t", name, "--target", "data")
    assert json.loads(daemon.docker("inspect", name).stdout)[0]["Size"] == 2
    assert "failed to reach build target nope" in build(daemon, context, text, "--target", "nope", check=False)


def test_stages_side_by_side(daemon: Daemon, context: Path) -> None:
    waits = "for i in $(seq 200); do test -e /meet/{other} && exit 0; sleep 0.05; done; exit 1"
    mount = f"--mount=type=cache,target=/meet,id={uuid.uuid4().hex}"
    text = f"""FROM busybox AS a
RUN {mount} touch /meet/a; {waits.format(other="b")}
FROM busybox AS b
RUN {mount} touch /meet/b; {waits.format(other="a")}
FROM busybox
COPY --from=a /etc/passwd /a
COPY --from=b /etc/passwd /b
"""
    assert "Successfully built" in build(daemon, context, text)


def test_mounts_leave_nothing_in_the_layer(daemon: Daemon, context: Path, name: str) -> None:
    identity = uuid.uuid4().hex
    text = f"""FROM busybox
RUN --mount=type=cache,target=/c/deep,id={identity} echo x >> /c/deep/n
RUN --mount=type=cache,target=/c/deep,id={identity} cat /c/deep/n > /seen
RUN --mount=type=tmpfs,target=/t echo y > /t/f
RUN --mount=target=/src,rw echo z > /src/new && cat /src/a.txt
RUN --mount=source=d/x,target=/one cat /one && ! touch /one/y && ! sh -c 'echo 1 > /one'
RUN test ! -e /c && test ! -e /t && test ! -e /src && test ! -e /one && cat /seen
"""
    said = build(daemon, context, text, "-t", name)
    assert "\nx\n" in said and "\na\n" in said
    assert not (context / "new").exists()


def test_a_cache_begins_with_what_a_stage_has(daemon: Daemon, context: Path) -> None:
    text = """FROM busybox AS base
RUN mkdir -p /deps/d && echo begun > /deps/d/f && chown 5:6 /deps/d/f
FROM busybox
ARG N=1
RUN --mount=type=cache,target=/c,from=base,source=/deps echo $N >> /c/d/f && cat /c/d/f && stat -c %u:%g /c/d/f
"""
    assert "\nbegun\n1\n5:6\n" in build(daemon, context, text)
    assert "\nbegun\n1\n2\n" in build(daemon, context, text, "--build-arg", "N=2")
    assert "\nother\n1\n5:6\n" in build(daemon, context, text.replace("begun", "other"))


@pytest.mark.parametrize(
    "mount",
    [
        "source=../..,target=/m",
        "source=/../etc,target=/m",
        "source=d/../../..,target=/m",
        "source=d/link,target=/m",
        "type=bind,target=/m,bind-propagation=shared",
        "type=cache,target=/m,id=x,source=../..",
        "type=secret,id=x,required",
        "type=ssh,required",
        "from=nope:never,target=/m",
        "type=cache,target=/m,mode=99999",
        "type=tmpfs,target=/m,size=x",
        "type=cache,target=/proc",
    ],
)
def test_mounts_that_are_refused(daemon: Daemon, context: Path, mount: str) -> None:
    said = build(daemon, context, f"FROM busybox\nRUN --mount={mount} cat /m; ls -R /m", check=False)
    assert "Successfully built" not in said and "root:" not in said


def test_a_mounts_place_that_became_a_link_leads_no_removal_astray(
    daemon: Daemon, context: Path, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"
    (canary / "d").mkdir(parents=True)
    (canary / "d" / "f").write_text("alive")
    text = f"""# syntax=example.invalid/evil/frontend:1
FROM busybox
RUN --mount=type=tmpfs,target=/a/d mv /a /moved && ln -s {canary} /a
RUN --mount=type=cache,target=/b/d,id={uuid.uuid4().hex} --mount=target=/c/d mv /b /m2; ln -s {canary} /b; true
RUN readlink /a
"""
    assert f"\n{canary}\n" in build(daemon, context, text)
    assert (canary / "d" / "f").read_text() == "alive"


def test_links_in_the_context_do_not_lead_to_the_host(daemon: Daemon, context: Path) -> None:
    (context / "out").symlink_to("/root")
    (context / "up").symlink_to("../../../../../../etc")
    for source in ("d/link", "out/.bashrc", "up/passwd"):
        said = build(daemon, context, f"FROM busybox\nCOPY {source} /x\nRUN cat /x", check=False)
        assert "file not found in build context" in said
    assert "forbidden path outside the build context" in build(
        daemon, context, "FROM busybox\nCOPY ../../etc/passwd /", check=False
    )


def test_a_cache_id_is_no_path(daemon: Daemon, context: Path) -> None:
    text = "FROM busybox\nRUN --mount=type=cache,id=../../../../etc,target=/m touch /m/canary; ls -a /m"
    build(daemon, context, text)
    assert not Path("/etc/canary").exists() and not (daemon.data_root / "canary").exists()


def test_equal_inputs_and_an_epoch_give_equal_images(daemon: Daemon, context: Path) -> None:
    text = "FROM busybox\nRUN mkdir -p /a/b && echo 1 > /a/b/c && ln /a/b/c /a/d\nCOPY d /x/y/\nWORKDIR /w\nENV A=1"
    ids = set()
    for age in (1, 100):
        for path in (context / "a.txt", context / "d" / "x", context / "d"):
            os.utime(path, (time.time() - age, time.time() - age))
        said = build(daemon, context, text, "-q", "--no-cache", "--build-arg", "SOURCE_DATE_EPOCH=1000000000")
        ids.add(next(line for line in said.splitlines() if line.startswith("sha256:")))
    (context / "Dockerfile").write_text(text)
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1000000000", "ENISLE_HOST": f"unix://{daemon.socket}"}
    command = [sys.executable, "-m", "enisle.cli.main", "build", "-q", "--no-cache", str(context)]
    ids.add(run(*command, env=environment).stdout.strip())
    (image,) = ids
    assert json.loads(daemon.docker("inspect", image).stdout)[0]["Created"].startswith("2001-09-09T01:46:40")


def test_a_virtual_machine_builds_the_same_image(daemon: Daemon, context: Path) -> None:
    text = """FROM busybox
RUN mkdir -p /a/b/c /lib2 && echo hi > /a/b/c/f && echo 2 > /a/g && ln -s /a/g /a/l && ln /a/g /a/b-h && mkfifo /a/p
RUN rm -rf /a/b && mkdir -p /a/b/d && rm /a/b-h && echo x >> /etc/group && mv /lib2 /lib3 && rm /bin/zcat
RUN mkdir -p -m 1777 /z/y && chown -h 5:6 /a/l && chmod 4755 /a/g && mkdir "/z/a b" && touch -d @5 /z/y
"""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "1000000000", "ENISLE_HOST": f"unix://{daemon.socket}"}
    (context / "Dockerfile").write_text(text)
    command = [sys.executable, "-m", "enisle.cli.main", "build", "-q", "--no-cache", str(context)]
    assert run(*command, env=environment).stdout == run(*command, "--vm", env=environment).stdout


def test_failures_name_command_code_and_line(daemon: Daemon, context: Path) -> None:
    said = build(daemon, context, "FROM busybox\n\nRUN exit 7", check=False)
    assert "The command '/bin/sh -c exit 7' returned a non-zero code: 7" in said
    assert ">>>    3 | RUN exit 7" in said
    assert "dockerfile parse error on line 2: unknown instruction: NOPE" in build(
        daemon, context, "FROM busybox\nNOPE x", check=False
    )
    assert not daemon.docker("ps", "-aq", "--filter", "status=exited").stdout
    assert "can't find uid for user nosuch" in build(
        daemon, context, "FROM busybox\nCOPY --chown=nosuch a.txt /", check=False
    )


def test_docker_py_hears_of_failures_and_gets_images(daemon: Daemon) -> None:
    client = docker.DockerClient(base_url=f"unix://{daemon.socket}", version="1.47", timeout=60)
    image, _log = client.images.build(fileobj=io.BytesIO(b"FROM busybox\nLABEL a=b"), labels={"c": "d"}, rm=True)
    assert image.labels == {"a": "b", "c": "d"}
    with pytest.raises(BuildError, match="non-zero code: 3"):
        client.images.build(fileobj=io.BytesIO(b"FROM busybox\nRUN exit 3"), rm=True)
    client.images.remove(image.id)
    client.close()


def leftovers(daemon: Daemon) -> dict[str, object]:
    """What a build may have left: instances, images, files under way."""
    images = daemon.data_root / "images"
    return {
        "instances": daemon.docker("ps", "-aq").stdout.split(),
        "images": sorted(daemon.docker("images", "-aq", "--no-trunc").stdout.split()),
        "layers": sorted(os.listdir(images / "layers")),
        "files": [
            *os.listdir(images / "ingest"),
            *os.listdir(images / "staging"),
            *os.listdir(daemon.data_root / "build" / "tmp"),
        ],
    }


SLOW = "FROM busybox\nRUN echo {mark} > /x\nCOPY a.txt /\nRUN --mount=target=/m echo here; sleep 1000"


def start_build(daemon: Daemon, context: Path) -> subprocess.Popen[str]:
    """A build that has come to its last step."""
    (context / "Dockerfile").write_text(SLOW.format(mark=uuid.uuid4().hex))
    environment = {**os.environ, "DOCKER_HOST": f"unix://{daemon.socket}", "DOCKER_BUILDKIT": "0"}
    process = subprocess.Popen(
        ["docker", "build", str(context)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line == "here\n":
            return process
    raise AssertionError("the build ended early")


def test_a_build_that_is_called_off_leaves_nothing(own_daemon: Daemon, context: Path) -> None:
    before = leftovers(own_daemon)
    process = start_build(own_daemon, context)
    process.send_signal(signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 20
    while leftovers(own_daemon) != before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert leftovers(own_daemon) == before


def test_a_build_whose_daemon_dies_leaves_nothing(own_daemon: Daemon, context: Path) -> None:
    before = leftovers(own_daemon)
    process = start_build(own_daemon, context)
    own_daemon.kill()
    process.wait()
    own_daemon.start()
    assert leftovers(own_daemon) == before


def test_secrets_are_seen_by_their_run_alone(own_daemon: Daemon, context: Path) -> None:
    planted = [uuid.uuid4().hex for _ in range(3)]
    (context / "Dockerfile").write_text(
        "FROM busybox\n"
        "RUN --mount=type=secret,id=a,required wc -c < /run/secrets/a\n"
        'RUN --mount=type=secret,id=b,env=TOKEN test "${#TOKEN}" = 32\n'
        "RUN --mount=type=secret,id=c,target=/etc/c,mode=0444,uid=5 stat -c '%a %u' /etc/c\n"
        "RUN test ! -e /run/secrets && test ! -e /etc/c && test -z $TOKEN\n"
    )
    (context / ".dockerignore").write_text("secret-*\n")
    (context / "secret-a").write_text(planted[0])
    own_daemon.environment["ENISLE_TEST_B"] = ""
    os.environ["ENISLE_TEST_B"] = planted[1]
    secrets = [f"id=a,src={context}/secret-a", "id=b,env=ENISLE_TEST_B", f"id=c,src={context}/secret-c"]
    (context / "secret-c").write_text(planted[2])
    flags = [word for secret in secrets for word in ("--secret", secret)]
    said = own_daemon.enisle("build", "-t", "secretive", *flags, str(context)).stdout
    assert "\n32\n" in said and "\n444 5\n" in said
    own_daemon.docker("save", "-o", str(context / "saved.tar"), "secretive")
    assert os.listdir(own_daemon.run_root / "build") == []
    for secret in planted:
        for place in (own_daemon.root, context / "saved.tar"):
            assert run("grep", "-rlaF", secret, str(place), check=False).stdout == ""
    with tarfile.open(context / "saved.tar") as tar:
        for member in tar:
            content = tar.extractfile(member)
            assert content is None or not any(secret.encode() in _plain(content.read()) for secret in planted)


def _plain(data: bytes) -> bytes:
    import gzip

    return gzip.decompress(data) if data.startswith(b"\x1f\x8b") else data


def test_our_own_client(daemon: Daemon, context: Path, name: str) -> None:
    (context / "Dockerfile").write_text("FROM busybox\nCOPY . /all\nRUN find /all | sort\nRUN exit 5")
    (context / ".dockerignore").write_text("d\n!d/x\nDockerfile\n")
    done = daemon.enisle("build", str(context), check=False)
    assert done.returncode == 5 and "non-zero code: 5" in done.stderr
    assert "/all\n/all/.dockerignore\n/all/a.txt\n/all/d\n/all/d/x\n" in done.stdout
    other = context / "Other"
    other.write_text("FROM busybox\nCMD echo other")
    image = daemon.enisle("build", "-q", "-t", name, "-f", str(other), str(context)).stdout.strip()
    assert image.startswith("sha256:") and shown(daemon, name) == "other\n"
    assert daemon.enisle("build", "-", check=False, input="FROM busybox\nCMD x").returncode == 0


def test_squash(daemon: Daemon, context: Path, name: str) -> None:
    text = "FROM busybox\nRUN mkdir /x && echo 1 > /x/gone && echo 2 > /x/kept\nRUN rm /x/gone /bin/ash\nENV A=1"
    build(daemon, context, text, "--squash", "-t", name)
    layers = json.loads(daemon.docker("inspect", name).stdout)[0]["RootFS"]["Layers"]
    assert len(layers) == 2
    assert shown(daemon, name, "sh", "-c", "ls /x; test -e /bin/ash || echo no ash") == "kept\nno ash\n"
    assert "A=1" in config(daemon, name)["Env"]  # type: ignore[operator]


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    directory = tmp_path / "web"
    directory.mkdir()
    (directory / "file.txt").write_text("served\n")
    (directory / "Dockerfile").write_text("FROM busybox\nLABEL from=web")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(directory))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_import_from_a_server(daemon: Daemon, web: str, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "web" / "root.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("empty"))
    output = daemon.docker("import", "-c", "LABEL a=b", f"{web}/root.tar", "imported:url").stdout
    assert "Downloading from" in output
    assert config(daemon, "imported:url")["Labels"] == {"a": "b"}
    daemon.docker("rmi", "imported:url")
    done = daemon.docker("import", f"{web}/missing.tar", "imported:url", check=False)
    assert done.returncode == 1
    assert "404" in done.stderr


SERVED = "sha256:ab53c8e3b92e3fc3a9a7ff5e5d5f2c8f4ea7a2b3a3a2f8f3f8d0b1e6c0f7d9aa"


def test_downloads(daemon: Daemon, context: Path, web: str) -> None:
    text = f"FROM busybox\nADD {web}/file.txt /x/\nRUN cat /x/file.txt; stat -c %a /x/file.txt"
    assert "served\n600\n" in build(daemon, context, text, "--network", "host")
    assert "an address of this host alone" in build(daemon, context, text, check=False)
    wrong = f"FROM busybox\nADD --checksum={SERVED} {web}/file.txt /x/"
    assert "digest mismatch" in build(daemon, context, wrong, "--network", "host", check=False)
    assert "failed to GET with status 404" in build(
        daemon, context, f"FROM busybox\nADD {web}/nope /", "--network", "host", check=False
    )


def test_a_remote_dockerfile(daemon: Daemon, web: str, name: str) -> None:
    daemon.enisle("build", "-t", name, f"{web}/Dockerfile")
    assert config(daemon, name)["Labels"] == {"from": "web"}


def test_a_git_repository(daemon: Daemon, tmp_path: Path, name: str) -> None:
    source = tmp_path / "source"
    (tmp_path / "c").mkdir()
    (source / "sub").mkdir(parents=True)
    (source / "sub" / "Dockerfile").write_text("FROM busybox\nCOPY . /all\nRUN ls -a /all")
    (source / "sub" / ".dockerignore").write_text("ignored\n")
    (source / "sub" / "ignored").write_text("")
    (source / "sub" / "kept").write_text("")
    git = ["git", "-C", str(source), "-c", "user.name=t", "-c", "user.email=t@t", "-c", "init.defaultBranch=main"]
    run(*git, "init", "-q")
    run(*git, "add", ".")
    run(*git, "commit", "-qm", "all")
    web = tmp_path / "repo"
    run("git", "clone", "-q", "--bare", str(source), str(web / "r.git"))
    run("git", "-C", str(web / "r.git"), "update-server-info")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(web))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/r.git"
        said = daemon.enisle("build", "-t", name, f"{url}#main:sub").stdout
        assert "\nkept\n" in said and "\nignored\n" not in said and ".git\n" not in said
        (tmp_path / "Dockerfile").write_text(
            f"FROM busybox\nADD {url}#main:sub /a\nADD --keep-git-dir {url} /b\nRUN ls -a /a; ls -a /b"
        )
        added = daemon.enisle(
            "build", "--network", "host", "-f", str(tmp_path / "Dockerfile"), str(tmp_path / "c")
        ).stdout
        assert added.count(".git\n") == 1 and "\nkept\n" in added
        denied = daemon.enisle("build", "-f", str(tmp_path / "Dockerfile"), str(tmp_path / "c"), check=False)
        assert "an address of this host alone" in denied.stderr
        failed = daemon.enisle("build", f"{url}#nosuch", check=False)
        assert failed.returncode == 1 and "failed to fetch remote repository" in failed.stderr
    finally:
        server.shutdown()
        server.server_close()


def test_steps_are_out_of_sight_and_live_as_long_as_their_result(own_daemon: Daemon, context: Path) -> None:
    text = "FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2"
    build(own_daemon, context, text, "-t", "result")
    assert len(own_daemon.docker("images", "-q").stdout.split()) == 2
    assert len(own_daemon.docker("images", "-aq").stdout.split()) == 3
    own_daemon.docker("image", "prune", "-f")
    assert build(own_daemon, context, text, "-t", "result").count("Using cache") == 2
    own_daemon.stop()
    own_daemon.start()
    assert build(own_daemon, context, text, "-t", "result").count("Using cache") == 2
    own_daemon.docker("rmi", "result")
    assert len(own_daemon.docker("images", "-aq").stdout.split()) == 1


def test_every_run_in_a_virtual_machine(daemon: Daemon, context: Path, name: str) -> None:
    identity = uuid.uuid4().hex
    (context / "Dockerfile").write_text(
        "FROM busybox\n"
        "COPY a.txt /a.txt\n"
        f"RUN --mount=type=cache,target=/c,id={identity} --mount=target=/m,source=d/x cat /m /proc/version > /c/v; "
        "cat /c/v /a.txt > /kept; rm /bin/ash\n"
    )
    daemon.enisle("build", "--vm", "-t", name, str(context), timeout_s=110)
    kernel, ours = shown(daemon, name, "sed", "-n", "2p", "/kept"), Path("/proc/version").read_text()
    assert kernel.startswith("Linux version") and kernel != ours
    assert shown(daemon, name, "head", "-n1", "/kept") == "x\n"
    assert "no ash" in shown(daemon, name, "sh", "-c", "test -e /bin/ash || echo no ash")
    assert not daemon.docker("ps", "-aq").stdout


AGENT = """
import os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
print("ready", flush=True)
while True:
    connection, _ = server.accept()
    connection.sendall(connection.recv(100).upper())
    connection.close()
"""

ASK = r"""
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(int count, char **words) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer[100];
    strncpy(address.sun_path, words[count - 1], sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(fd, (struct sockaddr *)&address, sizeof address) || write(fd, "hello\n", 6) != 6) return 1;
    ssize_t size = read(fd, answer, sizeof answer);
    return size < 0 || write(1, answer, size) != size;
}
"""


def test_an_agents_socket_is_seen_by_its_run_alone_with_the_owner_it_asks_for(
    daemon: Daemon, context: Path, tmp_path: Path
) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox AS asks\n"
        "COPY ask /ask\n"
        "RUN --mount=type=ssh,required --mount=type=ssh,id=x,target=/s,uid=7,mode=0660 "
        "/ask $SSH_AUTH_SOCK; stat -c '%a %u %F' /s\n"
        "FROM asks\n"
        "RUN test ! -e /s && test ! -e /run/buildkit && test -z $SSH_AUTH_SOCK\n"
    )
    (tmp_path / "ask.c").write_text(ASK)
    run("musl-gcc", "-static", "-o", str(context / "ask"), str(tmp_path / "ask.c"))
    socket = tmp_path / "agent"
    with subprocess.Popen([sys.executable, "-c", AGENT, str(socket)], stdout=subprocess.PIPE, text=True) as agent:
        try:
            assert agent.stdout is not None and agent.stdout.readline() == "ready\n"
            flags = ["--ssh", f"default={socket}", "--ssh", f"x={socket}"]
            said = daemon.enisle("build", *flags, str(context)).stdout
            in_vm = daemon.enisle("build", "--vm", "--target", "asks", *flags, str(context), timeout_s=110).stdout
        finally:
            agent.kill()
    for text in (said, in_vm):
        assert "\nHELLO\n" in text and "\n660 7 socket\n" in text


def test_mounts_of_images_are_the_images_own_files(daemon: Daemon, context: Path) -> None:
    text = """FROM busybox AS two
COPY d /d
RUN echo more > /more
FROM busybox
RUN --mount=from=two,source=/d,target=/m cat /m/x && ! touch /m/x
RUN --mount=from=two,target=/m cat /m/d/x /m/more && ! touch /m/more
RUN --mount=from=two,source=/d/x,target=/m cat /m && ! touch /m
RUN --mount=from=two,target=/m,rw touch /m/new && ls /m
RUN test ! -e /m
"""
    before = set(os.listdir(daemon.data_root / "images" / "layers"))
    said = build(daemon, context, text)
    assert "\nx\n" in said and "\nx\nmore\n" in said and "\nnew\n" in said
    assert build(daemon, context, text).count("Using cache") == 7
    for layer in set(os.listdir(daemon.data_root / "images" / "layers")) - before:
        assert not (daemon.data_root / "images" / "layers" / layer / "new").exists()


@pytest.mark.parametrize(
    ("instruction", "message"),
    [
        ("ADD --checksum=sha256:zz http://example.invalid/x /", "invalid checksum sha256:zz"),
        (f"ADD --checksum={'sha256:' + 'a' * 64} a.txt /", "checksum can't be specified for non-HTTP(S) sources"),
        ("COPY --from=9 /a /", "no such stage before this one"),
        ("RUN --network=bridge true", "invalid network mode 'bridge'"),
        ("RUN --network=host true", "build with --network host"),
        ("RUN --security=insecure true", "stays behind its wall"),
        ("RUN --mount=type=cache,target=/a,sharing=x true", "unsupported sharing value"),
        ("COPY --chmod=9999 a.txt /", "invalid chmod parameter"),
        ("USER", "USER requires at least one argument"),
        ("ENV a=${b", "substitution"),
        ("EXPOSE 99999", "invalid containerPort: 99999"),
        ("STOPSIGNAL NOPE", "Invalid signal: NOPE"),
        ("HEALTHCHECK NOPE", "Unknown type 'NOPE' in HEALTHCHECK"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD"),
        ("SHELL sh", "SHELL requires the arguments to be in JSON form"),
        ("FROM busybox AS 9a", "invalid name for build stage"),
        ("RUN <<EOF\nx", "unterminated heredoc EOF"),
        ("COPY --nope a.txt /", "unknown flag: --nope"),
        ("ADD ext::sh /x", "file not found in build context"),
        ("ADD git@-oProxyCommand=x:y.git /x", "file not found in build context"),
        ("ADD http://127.0.0.1/x.git#-uroot /x", "invalid git reference"),
        ("ADD http://127.0.0.1/x.git#main:../.. /x", "leads out of the repository"),
    ],
)
def test_bad_dockerfiles_are_refused_with_their_line(
    daemon: Daemon, context: Path, instruction: str, message: str
) -> None:
    said = build(daemon, context, f"FROM busybox\n\n{instruction}\n", check=False)
    assert message in said and ("line 3" in said or ">>>    3 | " in said) and "Traceback" not in said
