"""Every route answers with the status, headers and wording that Docker's clients rely on."""

from __future__ import annotations

import asyncio
import base64
import json
from urllib.parse import quote

import pytest

from enisle.contracts import RegistryAuth
from enisle.engine.logs import LogRecord
from enisle.errors import Invalid
from enisle.model.event import Event
from enisle.model.image import Platform
from enisle.model.instance import Status
from tests.unit.api.conftest import Client, head, read_chunk, read_head, until
from tests.unit.api.fake_engine import IMAGE_ID, START_NS


async def test_ping(client: Client) -> None:
    for method, body in (("GET", b"OK"), ("HEAD", b"")):
        answer = await client.request(method, "/_ping", version="")
        assert (answer.status, answer.body) == (200, body)
        assert answer.headers["Api-Version"] == "1.47"
        assert answer.headers["Ostype"] == "linux"
        assert answer.headers["Docker-Experimental"] == "true"
        assert answer.headers["Server"].startswith("Enisle/")


@pytest.mark.parametrize(
    ("version", "status", "words"),
    [
        ("/v1.23", 400, "client version 1.23 is too old. Minimum supported API version is 1.24"),
        ("/v1.99", 400, "client version 1.99 is too new. Maximum supported API version is 1.47"),
        ("/v2.0", 400, "too new"),
        ("/v1.24", 200, ""),
        ("/v1.47", 200, ""),
        ("", 200, ""),
    ],
)
async def test_versions(client: Client, version: str, status: int, words: str) -> None:
    answer = await client.get("/containers/json", version=version)
    assert answer.status == status
    if words:
        assert words in answer.message


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nope"), ("GET", "/"), ("DELETE", "/containers/json/x"), ("PATCH", "/version"), ("GET", "/containers//")],
)
async def test_unknown_routes(client: Client, method: str, path: str) -> None:
    answer = await client.request(method, path)
    assert (answer.status, answer.json) == (404, {"message": "page not found"})


async def test_life_of_a_container(client: Client) -> None:
    made = await client.post("/containers/create?name=web", {"Image": "busybox", "Cmd": ["sh"]})
    assert made.status == 201
    assert made.json["Warnings"] == []
    again = await client.post("/containers/create?name=web", {"Image": "busybox"})
    assert again.status == 409
    assert (await client.post("/containers/web/start")).status == 204
    assert (await client.post("/containers/web/start")).status == 304
    assert (await client.request("DELETE", "/containers/web")).status == 409
    assert (await client.post("/containers/web/stop?t=3&signal=INT")).status == 204
    assert client.engine.instances.calls[-1] == ("stop", "web", 3, "INT")
    assert (await client.request("DELETE", "/containers/web?v=1&force=1")).status == 204
    assert (await client.get("/containers/web/json")).message == "No such container: web"


async def test_start_failures_have_docker_status(client: Client) -> None:
    await client.post("/containers/create?name=bad", {"Image": "busybox", "Cmd": "missing"})
    answer = await client.post("/containers/bad/start")
    assert answer.status == 400
    assert "executable file not found" in answer.message


async def test_name_may_have_its_slash(client: Client) -> None:
    client.engine.instances.add("web")
    assert (await client.get("/containers//web/json")).json["Name"] == "/web"


async def test_wait_sends_its_head_before_the_exit(client: Client) -> None:
    client.engine.instances.add("web")
    reader, writer = await client.open()
    writer.write(head("POST", "/v1.47/containers/web/wait?condition=next-exit", {"Host": "d", "Content-Length": "0"}))
    assert (await read_head(reader)).status == 200
    client.engine.instances.end("web", 3)
    assert json.loads(await read_chunk(reader)) == {"StatusCode": 3}


async def test_waiting_ends_with_the_client(client: Client) -> None:
    client.engine.instances.add("web")
    reader, writer = await client.open()
    writer.write(head("POST", "/containers/web/wait", {"Host": "d", "Content-Length": "0"}))
    await read_head(reader)
    (waiter,) = client.engine.instances.waiters.values()
    writer.close()
    await asyncio.wait([waiter])
    assert waiter.cancelled()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/containers/json?limit=x", 'strconv.Atoi: parsing "x": invalid syntax'),
        ("/containers/json?limit=%D9%A3", 'strconv.Atoi: parsing "٣": invalid syntax'),
        ("/containers/json?filters=%7B", "invalid filter"),
        ("/containers/json?filters=" + quote('{"bogus":["x"]}'), "invalid filter 'bogus'"),
        ("/containers/json?filters=" + quote('{"status":["sleeping"]}'), "invalid filter 'status=sleeping'"),
        ("/containers/web/logs", "you must choose at least one stream"),
        ("/containers/web/logs?stdout=1&since=yesterday", "failed to parse value as time or duration"),
        ("/containers/web/archive", "missing path"),
        ("/containers/web/stats?stream=1&one-shot=1", "cannot have stream=true and one-shot=true"),
        ("/images/get", "no image names"),
        ("/events?since=20&until=10", "cannot be after `until`"),
        ("/system/df?type=nothing", "unknown object type: nothing"),
    ],
)
async def test_bad_queries(client: Client, path: str, words: str) -> None:
    client.engine.instances.add("web")
    answer = await client.get(path)
    assert answer.status == 400
    assert words in answer.message


@pytest.mark.parametrize(
    ("data", "content_type", "words"),
    [
        (b"{", "application/json", "invalid JSON"),
        (b'{"Image": 5}', "application/json", "invalid JSON: Image: Expected str, got int"),
        (b'{"Image":"b","HostConfig":{"Memory":"1"}}', "application/json", "HostConfig.Memory: Expected int, got str"),
        (b'{"Image":"b"} x', "application/json", "invalid JSON"),
        (b"[]", "application/json", "invalid JSON"),
        (b"\xff", "application/json", "invalid JSON"),
        (b'{"Image":"b"}', "text/plain", "unsupported Content-Type header (text/plain): must be 'application/json'"),
        (b"{}", "application/json", "config cannot be empty in order to create a container"),
        (b'{"Image":"b","HostConfig":{"Memory":9223372036854775808}}', "application/json", "HostConfig.Memory"),
        (b"[" * 100000, "application/json", "invalid JSON"),
    ],
)
async def test_bad_bodies(client: Client, data: bytes, content_type: str, words: str) -> None:
    answer = await client.post("/containers/create", data=data, headers={"Content-Type": content_type})
    assert answer.status == 400
    assert words in answer.message


async def test_body_limit(client: Client) -> None:
    data = b'{"Image":"' + b"x" * (9 << 20) + b'"}'
    answer = await client.post("/containers/create", data=data, headers={"Content-Type": "application/json"})
    assert answer.status == 413


async def test_other_sites_are_refused(client: Client) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await client.get("/version", headers=headers)
        assert answer.status == 403


async def test_bad_http_is_answered_in_json(client: Client) -> None:
    reader, writer = await client.open()
    writer.write(b"nonsense\r\n\r\n")
    answer = await read_head(reader)
    assert answer.status == 400
    assert answer.headers["Content-Type"] == "application/json"


async def test_a_fault_of_ours_shows_no_traceback(client: Client) -> None:
    client.engine.instances.all = lambda: 1 // 0  # type: ignore[method-assign,assignment,return-value]
    answer = await client.get("/containers/json")
    assert (answer.status, answer.json) == (500, {"message": "internal error: see the daemon's log"})


async def test_keep_alive_serves_several_requests(client: Client) -> None:
    reader, writer = await client.open()
    for _ in range(3):
        writer.write(head("GET", "/_ping", {"Host": "d"}))
        answer = await read_head(reader)
        assert await reader.readexactly(int(answer.headers["Content-Length"])) == b"OK"


async def test_expect_continue(client: Client) -> None:
    reader, writer = await client.open()
    fields = {"Host": "d", "Content-Length": "7", "Expect": "100-continue", "Content-Type": "application/x-tar"}
    writer.write(head("POST", "/v1.47/images/load?quiet=1", fields))
    assert (await read_head(reader)).status == 100
    writer.write(b"archive")
    assert (await read_head(reader)).status == 200
    assert json.loads(await read_chunk(reader)) == {"stream": "Loaded image: busybox:latest\n"}
    assert client.engine.images.loaded == b"archive"


async def test_an_archive_that_cannot_be_loaded_is_told_in_the_stream(client: Client) -> None:
    def fail(*_: object, **__: object) -> None:
        raise Invalid("the archive is cut short")

    client.engine.images.load = fail  # type: ignore[method-assign,assignment]
    answer = await client.request("POST", "/images/load")
    assert (answer.status, answer.json["error"]) == (200, "the archive is cut short")


async def test_chunked_upload(client: Client) -> None:
    client.engine.instances.add("web")
    reader, writer = await client.open()
    fields = {"Host": "d", "Transfer-Encoding": "chunked"}
    writer.write(head("PUT", "/v1.47/containers/web/archive?path=/tmp", fields) + b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    assert (await read_head(reader)).status == 200
    assert client.engine.instances.received == b"abcde"


async def test_files(client: Client) -> None:
    client.engine.instances.add("web")
    stat = await client.request("HEAD", "/containers/web/archive?path=etc/passwd")
    decoded = json.loads(base64.b64decode(stat.headers["X-Docker-Container-Path-Stat"]))
    assert decoded["name"] == "/etc/passwd"
    got = await client.get("/containers/web/archive?path=/etc/passwd")
    assert (got.status, got.body) == (200, b"tar bytes")
    assert got.headers["Content-Type"] == "application/x-tar"
    assert "X-Docker-Container-Path-Stat" in got.headers
    assert (await client.get("/containers/web/archive?path=/missing")).status == 404
    assert (await client.get("/containers/web/export")).body == b"tar bytes"
    changes = (await client.get("/containers/web/changes")).json
    assert changes == [{"Path": "/etc", "Kind": 0}, {"Path": "/etc/new", "Kind": 1}]


async def test_logs(client: Client) -> None:
    client.engine.instances.add("web")
    client.engine.instances.add("term", tty=True)
    client.engine.instances.records_of_log = [
        LogRecord(stream=1, time_ns=START_NS + 5, data=b"out\n", attributes={"b": "2", "a": "1"}),
        LogRecord(stream=2, time_ns=START_NS, data=b"err\n"),
    ]
    framed = await client.get("/containers/web/logs?stdout=1&stderr=1&tail=5&since=1.5")
    assert framed.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
    assert framed.body == b"\1\0\0\0\0\0\0\4out\n\2\0\0\0\0\0\0\4err\n"
    assert client.engine.instances.calls[-1][2]["tail"] == 5
    assert client.engine.instances.calls[-1][2]["since_ns"] == 1_500_000_000
    raw = await client.get("/containers/term/logs?stdout=1&timestamps=1&details=1&tail=all")
    assert raw.headers["Content-Type"] == "application/vnd.docker.raw-stream"
    assert raw.body.splitlines()[0] == b"2023-11-14T22:13:20.000000005Z a=1,b=2 out"
    assert client.engine.instances.calls[-1][2]["tail"] is None


async def test_stats(client: Client) -> None:
    client.engine.instances.add("web")
    client.engine.instances.add("ended", Status.EXITED)
    answer = (await client.get("/containers/web/stats?stream=0&one-shot=1")).json
    assert answer["cpu_stats"]["cpu_usage"]["total_usage"] == 5_000_000
    assert answer["cpu_stats"]["system_cpu_usage"] > 0
    assert answer["memory_stats"]["limit"] > 1 << 20
    assert answer["networks"]["eth0"]["tx_bytes"] == 20
    assert answer["blkio_stats"]["io_service_bytes_recursive"] == [
        {"major": 8, "minor": 0, "op": "read", "value": 4096}
    ]
    ended = (await client.get("/containers/ended/stats?stream=0")).json
    assert ended["read"] == "0001-01-01T00:00:00Z"
    assert ended["memory_stats"] == {}


async def test_exec_checks(client: Client) -> None:
    client.engine.instances.add("web")
    assert (await client.post("/containers/web/exec", {"Cmd": []})).message == "No exec command specified"
    assert (await client.post("/containers/nobody/exec", {"Cmd": ["x"]})).status == 404
    assert (await client.post("/exec/none/start", {})).message == "No such exec instance: none"
    made = await client.post("/containers/web/exec", {"Cmd": ["ls", "-l"], "Tty": True})
    shown = (await client.get(f"/exec/{made.json['Id']}/json")).json
    assert shown["ProcessConfig"]["arguments"] == ["-l"]
    assert shown["ExitCode"] is None
    assert (await client.get("/containers/web/json")).json["ExecIDs"] == [made.json["Id"]]
    assert (await client.post(f"/exec/{made.json['Id']}/resize?h=10&w=99999")).status == 400


async def test_pull_streams_progress(client: Client) -> None:
    auth = base64.urlsafe_b64encode(json.dumps({"username": "me", "password": "?>?~"}).encode()).decode()
    path = "/images/create?fromImage=localhost:5000/x&tag=1&platform=linux/arm64/v8"
    answer = await client.post(path, headers={"X-Registry-Auth": auth})
    lines = [json.loads(line) for line in answer.body.splitlines()]
    assert lines[0] == {"status": "Pulling from library/busybox", "id": "latest"}
    assert len(lines) == 2
    assert client.engine.images.pulled == [
        (
            "localhost:5000/x:1",
            Platform(os="linux", architecture="arm64", variant="v8"),
            RegistryAuth(username="me", password="?>?~"),
        )
    ]


async def test_pull_failures(client: Client) -> None:
    client.engine.images.pulled.clear()
    await client.post("/images/create?fromImage=localhost:5000/x")
    assert [each[0] for each in client.engine.images.pulled] == ["localhost:5000/x:1", "localhost:5000/x:2"]
    early = await client.post("/images/create?fromImage=missing&tag=latest")
    assert early.status == 404
    late = await client.post("/images/create?fromImage=broken&tag=latest")
    assert late.status == 200
    assert json.loads(late.body.splitlines()[-1]) == {
        "errorDetail": {"message": "layer not found"},
        "error": "layer not found",
    }


@pytest.mark.parametrize(
    ("name", "tag", "joined"),
    [
        ("busybox", "1", "busybox:1"),
        ("busybox", "", "busybox"),
        ("localhost:5000/x", "", "localhost:5000/x"),
        ("localhost:5000/x", "1", "localhost:5000/x:1"),
        ("x:1", "2", "x:2"),
        ("x", "sha256:abc", "x@sha256:abc"),
    ],
)
async def test_push_joins_name_and_tag(client: Client, name: str, tag: str, joined: str) -> None:
    answer = await client.post(f"/images/{name}/push?tag={tag}")
    assert json.loads(answer.body)["status"] == f"The push refers to repository [{joined}]"


async def test_login(client: Client) -> None:
    good = await client.post("/auth", {"username": "me", "password": "right", "serveraddress": "localhost:5000"})
    assert (good.status, good.json["Status"]) == (200, "Login Succeeded")
    assert (await client.post("/auth", {"username": "me", "password": "wrong"})).status == 401


async def test_distribution(client: Client) -> None:
    answer = (await client.get("/distribution/localhost:5000/x/json")).json
    assert answer["Platforms"] == [{"architecture": "arm64", "os": "linux", "variant": "v8"}]
    assert answer["Descriptor"]["size"] == 5


async def test_images(client: Client) -> None:
    (listed,) = (await client.get("/images/json")).json
    assert listed["Id"] == IMAGE_ID
    assert "VirtualSize" not in listed
    (old,) = (await client.get("/images/json", version="/v1.43")).json
    assert old["VirtualSize"] == old["Size"]
    shown = (await client.get("/images/busybox/json")).json
    assert shown["ContainerConfig"]["Volumes"] == shown["Config"]["Volumes"]
    for pattern, count in (("busy*", 1), ("busybox:l?test", 1), ("*/busybox", 0), ("busybox", 1), ("busybox:1", 0)):
        found = (await client.get("/images/json?filters=" + quote(json.dumps({"reference": [pattern]})))).json
        assert len(found) == count, pattern
    assert (await client.get("/images/nope/with/slashes/json")).message == "No such image: nope/with/slashes"
    removed = (await client.request("DELETE", "/images/busybox")).json
    assert removed == [{"Untagged": "busybox:latest"}, {"Deleted": IMAGE_ID}]
    assert (await client.get("/images/busybox/get")).body == b"archive of images"
    assert (await client.get("/images/get?names=busybox&names=nope")).status == 404
    assert (await client.post("/images/busybox/tag?repo=x&tag=y")).status == 201
    assert (await client.get("/images/search?term=x")).status == 501


async def test_networks(client: Client) -> None:
    body = {"Name": "n1", "IPAM": {"Config": [{"Subnet": "10.9.0.0/16", "Gateway": "10.9.0.1"}]}, "Labels": None}
    made = await client.post("/networks/create", body)
    assert made.status == 201
    shown = (await client.get("/networks/n1")).json
    assert shown["IPAM"]["Config"] == [{"Subnet": "10.9.0.0/16", "Gateway": "10.9.0.1"}]
    for config in (
        {"Subnet": "10.9.0.1/16"},
        {"Subnet": "10.9.0.0/16", "Gateway": "10.8.0.1"},
        {"Gateway": "10.8.0.1"},
    ):
        assert (await client.post("/networks/create", {"Name": "n2", "IPAM": {"Config": [config]}})).status == 400
    assert (await client.post("/networks/n1/connect", {"Container": "web", "EndpointConfig": None})).status == 200
    assert (await client.post("/networks/nope/x/y", {})).status == 404
    assert (await client.request("DELETE", "/networks/n1")).status == 204
    assert (await client.get("/networks/n1")).message == "network n1 not found"


async def test_volumes(client: Client) -> None:
    made = await client.post("/volumes/create", {"Name": "data", "Labels": {"a": "b"}})
    assert (made.status, made.json["Scope"]) == (201, "local")
    anonymous = (await client.post("/volumes/create", {})).json["Name"]
    assert len((await client.get("/volumes")).json["Volumes"]) == 2
    assert (await client.post("/volumes/prune")).json["VolumesDeleted"] == [anonymous]
    everything = quote('{"all":["true"]}')
    assert len((await client.post(f"/volumes/prune?filters={everything}")).json["VolumesDeleted"]) == 2
    assert (await client.request("DELETE", "/volumes/data")).status == 204
    assert (await client.get("/volumes/data")).message == "get data: no such volume"


async def test_events_end_with_the_client(client: Client) -> None:
    client.engine.events.events = [
        Event(kind="container", action="exec_create: sh", actor="abc", attributes={"name": "web"}, time=START_NS),
        Event(kind="image", action="pull", actor="x", time=START_NS),
    ]
    filters = quote('{"event":{"exec_create":true},"container":{"web":true}}')
    done = await client.get(f"/events?until=1700000001&filters={filters}")
    (only,) = [json.loads(line) for line in done.body.splitlines()]
    assert (only["Action"], only["timeNano"], only["id"]) == ("exec_create: sh", START_NS, "abc")
    reader, writer = await client.open()
    writer.write(head("GET", "/events", {"Host": "d"}))
    await read_head(reader)
    await read_chunk(reader)
    writer.close()
    await until(lambda: client.engine.events.closed == 2)


async def test_refusals(client: Client) -> None:
    swarm = await client.get("/swarm")
    assert swarm.status == 503
    assert swarm.message.startswith("This node is not a swarm manager.")
    assert (await client.get("/services/x/logs")).status == 503
    assert (await client.get("/plugins")).json == []
    assert (await client.post("/build", data=b"tar")).status == 501
    assert (await client.get("/plugins/a/b/json")).status == 404


async def test_native(client: Client) -> None:
    (line,) = (await client.get("/enisle/v1/doctor", version="")).json
    assert (line["name"], line["ok"], line["remedy"]) == ("kvm", False, "load kvm")
    made = await client.post("/enisle/v1/images/bootstrap", {"name": "busybox"}, version="")
    assert json.loads(made.body.splitlines()[-1]) == {"aux": {"ID": IMAGE_ID}}
