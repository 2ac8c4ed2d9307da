"""What clients of older API versions are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from enisle.api.docker import older
from enisle.api.docker.image_body import summary_json
from enisle.api.docker.inspect_body import inspect_json
from enisle.model.instance import EndpointRequest
from tests.unit.api.conftest import Client
from tests.unit.api.fake_engine import FakeImages, FakeInstances


def test_a_dangling_image_has_names_that_are_none() -> None:
    dangling = replace(FakeImages().image, repo_tags=(), repo_digests=())
    shown = summary_json(dangling, with_virtual=True)
    assert older.image_summary(shown, (1, 42))["RepoTags"] == ["<none>:<none>"]
    assert older.image_summary(shown, (1, 42))["RepoDigests"] == ["<none>@<none>"]
    assert older.image_summary(shown, (1, 43)) == shown
    named = summary_json(replace(dangling, repo_digests=("a@sha256:1",)), with_virtual=True)
    assert older.image_summary(named, (1, 24)) == named


def test_the_short_id_is_an_alias_on_networks_of_the_user() -> None:
    requests = (EndpointRequest(network="bridge"), EndpointRequest(network="mine", aliases=("db", "box")))
    instance = FakeInstances().add("web", hostname="box", endpoints=requests)
    shown = inspect_json(instance, directory="/d", exec_ids=[])
    old = older.container(shown, (1, 44))["NetworkSettings"]["Networks"]
    assert old["bridge"]["Aliases"] is None
    assert old["mine"]["Aliases"] == ["db", "box", instance.id[:12]]
    assert older.container(shown, (1, 45)) == shown
    assert shown["NetworkSettings"]["Networks"]["mine"]["Aliases"] == ["db", "box"], "the original is left alone"


def test_security_options_were_bare_names() -> None:
    facts = {"SecurityOptions": ["name=seccomp,profile=builtin"]}
    assert older.info(facts, (1, 24)) == {"SecurityOptions": ["seccomp"]}
    assert older.info(facts, (1, 25)) == facts


async def test_lists_of_old_versions(client: Client) -> None:
    for version, count in (("/v1.40", 0), ("/v1.41", 1)):
        assert len((await client.get("/images/json?filter=nothing", version=version)).json) == count
    assert (await client.get("/networks", version="/v1.24")).status == 200
    assert (await client.get("/info", version="/v1.24")).status == 200


@pytest.mark.parametrize("version", ["/v1.24", "/v1.47"])
async def test_a_start_with_a_host_config_is_refused(client: Client, version: str) -> None:
    client.engine.instances.add("web")
    refused = await client.post("/containers/web/start", {"Binds": ["/a:/b"]}, version=version)
    assert refused.status == 400
    assert refused.message.startswith("starting container with non-empty request body was deprecated")
    assert (await client.post("/containers/web/start", {}, version=version)).status == 304
