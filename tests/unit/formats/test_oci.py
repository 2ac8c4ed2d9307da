"""Manifests and configs: what is read is what was written, and nothing odd is read at all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.errors import Invalid
from enisle.formats.oci import (
    DOCKER_MANIFEST,
    OCI_CONFIG,
    OCI_INDEX,
    OCI_LAYER,
    OCI_MANIFEST,
    Index,
    Manifest,
    encode_index,
    encode_manifest,
    parse_manifest,
)
from enisle.formats.oci_config import ImageDocument, chain_ids, encode_config, parse_config
from enisle.model.ids import Digest
from enisle.model.image import Descriptor, HistoryEntry, ImageConfig, Platform
from enisle.model.instance import Healthcheck

A, B = Digest("sha256:" + "a" * 64), Digest("sha256:" + "b" * 64)
MANIFEST = Manifest(
    media_type=OCI_MANIFEST,
    config=Descriptor(media_type=OCI_CONFIG, digest=A, size=10),
    layers=(Descriptor(media_type=OCI_LAYER + "+gzip", digest=B, size=20),),
)


def test_manifests_and_indexes_round_trip() -> None:
    assert parse_manifest(encode_manifest(MANIFEST)) == MANIFEST
    child = Descriptor(media_type=OCI_MANIFEST, digest=A, size=5, platform=Platform(architecture="arm", variant="v7"))
    index = Index(media_type=OCI_INDEX, manifests=(child,))
    assert parse_manifest(encode_index(index)) == index


def test_the_media_type_may_come_from_the_sender_only() -> None:
    document = json.loads(encode_manifest(MANIFEST))
    del document["mediaType"]
    assert (
        parse_manifest(json.dumps(document).encode(), DOCKER_MANIFEST + "; charset=utf-8").media_type == DOCKER_MANIFEST
    )
    with pytest.raises(Invalid, match="was sent as"):
        parse_manifest(encode_manifest(MANIFEST), OCI_INDEX)


IMAGE = ImageDocument(
    config=ImageConfig(
        user="1000:0",
        exposed_ports=("80/tcp",),
        env=("PATH=/bin", "EMPTY="),
        entrypoint=("/init",),
        command=(),
        volumes=("/data",),
        working_dir="/srv",
        labels={"a": "b"},
        stop_signal="SIGINT",
        healthcheck=Healthcheck(test=("CMD", "true"), interval_ns=10**9, retries=3),
        on_build=("RUN x",),
        shell=("/bin/bash", "-c"),
    ),
    platform=Platform(architecture="arm64", variant="v8"),
    created="2024-01-01T00:00:00Z",
    author="me",
    diff_ids=(A, B),
    history=(HistoryEntry(created_by="x"), HistoryEntry(empty_layer=True, comment="c")),
)


def test_configs_round_trip_but_for_empty_lists() -> None:
    found = parse_config(encode_config(IMAGE))
    assert found.config.command is None
    assert encode_config(found) == encode_config(IMAGE)
    assert (found.platform, found.history, found.diff_ids) == (IMAGE.platform, IMAGE.history, IMAGE.diff_ids)
    assert found.config.healthcheck == IMAGE.config.healthcheck


def test_docker_s_nulls_are_read() -> None:
    document: dict[str, Any] = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Env": None,
            "Cmd": None,
            "Labels": None,
            "Volumes": None,
            "ExposedPorts": None,
            "Healthcheck": None,
        },
        "history": None,
        "rootfs": {"type": "layers", "diff_ids": None},
    }
    assert parse_config(json.dumps(document).encode()).config == ImageConfig()


def test_labels_of_an_image_do_not_steer_the_engine() -> None:
    document = json.loads(encode_config(IMAGE))
    document["config"]["Labels"] = {"enisle.isolation": "none", "ok": "1"}
    assert parse_config(json.dumps(document).encode()).config.labels == {"ok": "1"}


@pytest.mark.parametrize(
    "change",
    [
        {"rootfs": None},
        {"rootfs": {"type": "other", "diff_ids": []}},
        {"rootfs": {"type": "layers", "diff_ids": ["sha256:../../x"]}},
        {"rootfs": {"type": "layers", "diff_ids": [1]}},
        {"config": []},
        {"config": {"Env": "A=b"}},
        {"config": {"Env": [1]}},
        {"config": {"User": 0}},
        {"config": {"Labels": {"a": 1}}},
        {"config": {"ArgsEscaped": "yes"}},
        {"config": {"Healthcheck": {"Interval": True}}},
        {"history": {}},
        {"history": [1]},
        {"created": 5},
    ],
    ids=json.dumps,
)
def test_malformed_configs(change: dict[str, Any]) -> None:
    document = json.loads(encode_config(IMAGE)) | change
    with pytest.raises(Invalid):
        parse_config(json.dumps(document).encode())


def test_chain_ids() -> None:
    # image-spec config.md: ChainID(L0|L1) = Digest(ChainID(L0) + " " + DiffID(L1))
    one, two = chain_ids((A, B))
    assert one == A
    assert two == "sha256:ccd722928bd92476ba1745586fed6e45a102504185ad88cd89e01ff116fd146c"
    assert chain_ids(()) == []


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=10,
)


@given(st.sampled_from(["layers", "manifests", "config", "mediaType", "schemaVersion"]), values)
@settings(max_examples=300, deadline=None)
def test_odd_manifests_are_invalid_or_read(key: str, value: Any) -> None:
    try:
        parse_manifest(json.dumps(json.loads(encode_manifest(MANIFEST)) | {key: value}).encode())
    except Invalid:
        pass


@given(st.sampled_from(["config", "rootfs", "history", "os", "architecture", "os.features", "variant"]), values)
@settings(max_examples=300, deadline=None)
def test_odd_configs_are_invalid_or_read(key: str, value: Any) -> None:
    try:
        parse_config(json.dumps(json.loads(encode_config(IMAGE)) | {key: value}).encode())
    except Invalid:
        pass


@given(st.binary(max_size=200))
@settings(max_examples=200, deadline=None)
def test_garbage_is_invalid(data: bytes) -> None:
    for parse in (parse_manifest, parse_config):
        with pytest.raises(Invalid):
            parse(data)
