"""Whatever a client sends, it gets an answer of ours or Invalid; never another exception."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from enisle.api.decode import decode
from enisle.api.docker import request_types
from enisle.api.docker.create_body import instance_spec
from enisle.api.docker.detach_keys import raw_keys
from enisle.api.docker.host_config_body import config_json, host_config_json
from enisle.api.docker.image_filters import ACCEPTED as IMAGE_FILTERS
from enisle.api.docker.image_filters import matcher as image_matcher
from enisle.api.docker.images import join, parse_platform
from enisle.api.docker.list_filters import ACCEPTED, Named, matcher
from enisle.api.docker.registry_auth import from_header
from enisle.api.query import Query
from enisle.api.reply import encode
from enisle.api.times import parse_time
from enisle.errors import Invalid

WORDS = st.sampled_from(
    [
        "",
        "/",
        "/a",
        "a:b",
        "/a:/b:ro",
        "80/tcp",
        "8000-8010",
        "host",
        "container:x",
        "CMD",
        "0",
        "-1",
        "10m",
        "\0",
        "ü",
        "\\",
    ]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), WORDS, st.text(max_size=20))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def names(kind: Any) -> list[str]:
    return list(kind.__struct_encode_fields__)


def typed(kind: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with the members of a struct, each with any value."""
    return st.dictionaries(st.sampled_from(names(kind)), VALUES, max_size=4)


LISTS = st.lists(WORDS, max_size=3)
PLAUSIBLE = st.fixed_dictionaries(
    {"Image": st.just("x")},
    optional={
        "Env": LISTS,
        "ExposedPorts": st.dictionaries(WORDS, st.just({})),
        "Hostname": WORDS,
        "HostConfig": st.fixed_dictionaries(
            {},
            optional={
                "Binds": LISTS,
                "Tmpfs": st.dictionaries(WORDS, WORDS),
                "Mounts": st.lists(typed(request_types.Mount), max_size=2),
                "PortBindings": st.dictionaries(WORDS, st.lists(typed(request_types.PortBinding), max_size=2)),
                "NetworkMode": WORDS,
                "PidMode": WORDS,
                "Dns": LISTS,
                "ExtraHosts": LISTS,
                "SecurityOpt": LISTS,
                "CapAdd": LISTS,
                "CpusetCpus": WORDS,
                "LogConfig": typed(request_types.LogConfig),
                "Ulimits": st.lists(typed(request_types.Ulimit), max_size=2),
                "Devices": st.lists(typed(request_types.DeviceMapping), max_size=2),
                "Memory": st.integers(-(2**64), 2**64),
            },
        ),
    },
)
ANYTHING = st.fixed_dictionaries(
    {"Image": st.just("x")}, optional={"HostConfig": typed(request_types.HostConfig), "NetworkingConfig": VALUES}
)


@settings(max_examples=400, deadline=None)
@given(PLAUSIBLE | ANYTHING | typed(request_types.CreateBody) | VALUES)
def test_create_bodies(body: Any) -> None:
    try:
        spec = instance_spec(decode(json.dumps(body).encode(), request_types.CreateBody), cpus=4, warnings=[])
    except Invalid:
        return
    encode([host_config_json(spec), config_json(spec, "name")])


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([request_types.ExecCreateBody, request_types.NetworkCreateBody, request_types.UpdateBody]), VALUES
)
def test_other_bodies(kind: Any, body: Any) -> None:
    try:
        decode(json.dumps(body).encode(), kind)
    except Invalid:
        pass


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_texts(text: str) -> None:
    for parse in (parse_time, raw_keys, parse_platform):
        try:
            parse(text)  # type: ignore[operator]
        except Invalid:
            pass
    from_header(text)
    join(text, text)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(ACCEPTED | IMAGE_FILTERS)), LISTS | VALUES, max_size=3))
def test_filters(filters: dict[str, Any]) -> None:
    query = Query("filters=" + quote(json.dumps(filters)) + "&limit=x&%zz")
    for accepted, build in ((ACCEPTED, lambda f: matcher(f, Named())), (IMAGE_FILTERS, image_matcher)):
        try:
            build(query.filters(accepted))  # type: ignore[operator]
        except Invalid:
            pass


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_bytes(data: bytes) -> None:
    try:
        decode(data, request_types.CreateBody)
    except Invalid:
        pass
