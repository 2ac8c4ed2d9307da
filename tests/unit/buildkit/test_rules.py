"""The pure rules: attributes as options, which files a Dockerfile names, filters of the cache, names of steps."""

from __future__ import annotations

import pytest

from enisle.build.report import Place
from enisle.build.usage import CacheEntry
from enisle.buildkit.attributes import check_frontend, image_of, locations, options, unread_caches
from enisle.buildkit.context import paths_of
from enisle.buildkit.control import matcher
from enisle.buildkit.control_messages import Definition, Exporter, Vertex
from enisle.buildkit.export import check
from enisle.buildkit.job import result_of
from enisle.buildkit.report import Report
from enisle.buildkit.status import LOG_LIMIT_BYTES, Progress
from enisle.errors import EnisleError, Invalid, NotSupported
from enisle.formats.dockerfile.parse import parse
from enisle.model.ids import ImageId
from enisle.model.image import Platform
from enisle.model.resources import Ulimit


def test_attributes_become_options() -> None:
    result = result_of(ImageId("sha256:" + "a" * 64))
    assert result.ref is not None and result.ref.definition is not None
    made = options(
        {
            "target": "t",
            "build-arg:A": "1",
            "build-arg:ENISLE_BUILD_WALL": "vm",
            "label:l": "v",
            "no-cache": "one,two",
            "image-resolve-mode": "pull",
            "platform": "linux/arm64/v8",
            "force-network-mode": "host",
            "add-hosts": 'a=1.2.3.4,"b=::1"',
            "shm-size": "70",
            "ulimit": "nofile=10:20,core=-1",
            "cache-imports": '[{"Type": "registry", "Attrs": {"ref": "r"}}, {"Type": "gha", "Attrs": {}}]',
            "context:other": "input:base",
            "context:third::linux/amd64": "docker-image://x",
        },
        inputs={"base": result.ref.definition},
        entitlements=["network.host"],
        keep=True,
    )
    assert (made.target, made.arguments, made.labels, made.runtime) == ("t", {"A": "1"}, {"l": "v"}, "vm")
    assert (made.no_cache, made.no_cache_stages, made.pull) == (False, ("one", "two"), True)
    assert made.platform == Platform(os="linux", architecture="arm64", variant="v8")
    assert (made.network_mode, made.extra_hosts, made.shm_size_bytes) == ("host", ("a:1.2.3.4", "b:::1"), 70)
    assert made.ulimits == (Ulimit(name="nofile", soft=10, hard=20), Ulimit(name="core", soft=-1, hard=-1))
    assert made.contexts == {"other": f"docker-image://sha256:{'a' * 64}", "third": "docker-image://x"}
    assert made.cache_from == ("r",) and made.also_own_cache
    assert unread_caches({"cache-imports": '[{"Type": "gha"}, 5]'}) == ["gha", "None"]
    assert options({"no-cache": ""}, inputs={}, entitlements=[], keep=True).no_cache


@pytest.mark.parametrize(
    "attributes",
    [
        {"force-network-mode": "host"},
        {"force-network-mode": "bridge"},
        {"platform": "linux/amd64,linux/arm64"},
        {"platform": "a/b/c/d"},
        {"shm-size": "-1"},
        {"ulimit": "nofile"},
        {"add-hosts": "x"},
        {"add-hosts": "a=1.2.3.4\rb"},
        {"requestid": "frontend.outline"},
        {"attest:sbom": "generator=x"},
        {"context:x": "input:nothing"},
        {"cache-imports": "{"},
        {"build-arg:ENISLE_BUILD_WALL": "x"},
    ],
)
def test_attributes_that_cannot_be_honoured_are_refused(attributes: dict[str, str]) -> None:
    with pytest.raises(EnisleError):
        options(attributes, inputs={}, entitlements=[], keep=True)


def test_only_dockerfiles_are_built() -> None:
    check_frontend("dockerfile.v0", {})
    check_frontend("dockerfile.v0", {"build-arg:BUILDKIT_SYNTAX": "docker/dockerfile:1"})
    check_frontend("gateway.v0", {"source": "docker.io/docker/dockerfile:1.7-labs"})
    for frontend, attributes in (
        ("gateway.v0", {}),
        ("gateway.v0", {"source": "x/docker/dockerfile"}),
        ("dockerfile.v0", {"build-arg:BUILDKIT_SYNTAX": "foo"}),
        ("x", {}),
    ):
        with pytest.raises(NotSupported):
            check_frontend(frontend, attributes)
    with pytest.raises(EnisleError):
        image_of(Definition(operations=[b"\xff"]))
    for exporter in (
        Exporter(kind="squashfs"),
        Exporter(kind="oci", attributes={"tar": "false"}),
        Exporter(kind="image", attributes={"push": "true"}),
    ):
        with pytest.raises(NotSupported):
            check([exporter])
    with pytest.raises(Invalid):
        check([Exporter(kind="moby", attributes={"name": "UPPER"})])


def test_where_a_dockerfile_is_looked_for() -> None:
    assert locations({}).dockerfile_name == "dockerfile"
    assert locations({"context": "https://h/r.git"}).dockerfile_name == ""
    assert locations({"context": "https://h/r.git", "dockerfilekey": "d"}).dockerfile_name == "d"


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("FROM x\nRUN y", []),
        ("FROM x\nCOPY a b/ ./c/*.txt /\nADD ../d https://h/f git@h:o/r.git /", ["a", "b", "c/*.txt", "d"]),
        ("FROM x\nCOPY . /", None),
        ("FROM x\nCOPY a$B /", None),
        ("FROM x\nCOPY --parents a/**/*.c /", ["a"]),
        ("FROM x AS o\nCOPY . /\nFROM x\nCOPY --from=o /a /b\nCOPY <<E /c\nE\n", None),
        ("FROM x AS o\nCOPY . /\nFROM x\nCOPY e /", ["e"]),
        ("ARG O=o\nFROM x AS o\nCOPY f /\nFROM $O\nCOPY e /", ["e", "f"]),
        ("FROM x\nRUN --mount=source=m,target=/m --mount=type=cache,target=/c y", ["m"]),
        ("FROM x\nRUN --mount=target=/m y", None),
    ],
)
def test_only_files_that_a_dockerfile_names_are_fetched(text: str, paths: list[str] | None) -> None:
    assert paths_of(parse(text), "") == paths


def entry(**fields: object) -> CacheEntry:
    given = {"id": "abc", "kind": "regular", "text": "RUN x", "in_use": False, "shared": False, "size_bytes": 1}
    return CacheEntry(**(given | {"created_ns": 1, "used_ns": 1, "count": 0, "key": "k"} | fields))  # type: ignore[arg-type]


def test_filters_of_the_cache() -> None:
    assert matcher([], 0)(entry())
    assert matcher(["type==regular,id~=^ab"], 0)(entry()) and not matcher(["type!=regular"], 0)(entry())
    assert matcher(["inuse", "private"], 0)(entry()) and not matcher(["shared"], 0)(entry())
    assert matcher([], 10)(entry()) and not matcher([], 1 << 62)(entry())
    for text in ("nothing==x", "id~=(", "id=x", "id~=" + "x" * 300):
        with pytest.raises(Invalid):
            matcher([text], 0)


async def test_steps_have_buildkits_names_and_bounded_logs() -> None:
    progress = Progress("r")
    stages = parse("FROM x AS b\nENV a=b\nRUN <<E\necho 1\nE\nFROM b\nWORKDIR /w").stages
    report = Report(progress, lambda image: None)
    sections = [report.section(stages[0], alone=False, has_image=True)]
    sections.append(report.section(stages[1], alone=False, has_image=False))
    for stage, section in zip(stages, sections, strict=True):
        for instruction in (stage.base, *stage.instructions):
            section.step(instruction, Place(number=1, total=1))
            section.output("x" * (LOG_LIMIT_BYTES // 2 + 1), stderr=False)
            section.output("y" * (LOG_LIMIT_BYTES // 2 + 1), stderr=True)
            section.output("z", stderr=True)
    sections[0].end()
    report.abandon()
    progress.end()
    found: list[Vertex] = []
    logged = 0
    async for response in progress.responses():
        found += response.vertexes
        logged += sum(len(log.data) for log in response.logs)
        assert not any(log.data == b"z" for log in response.logs)
    ended = {vertex.name: vertex.error for vertex in found if vertex.completed is not None}
    assert ended == {
        "[b 1/2] FROM x": "",
        "[b 2/2] RUN <<E (echo 1...)": "",
        "[stage-1 1/1] WORKDIR /w": "context canceled",
    }
    assert logged < 3 * LOG_LIMIT_BYTES
