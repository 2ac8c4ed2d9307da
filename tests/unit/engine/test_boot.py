"""What starts before what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from enisle.drivers.fake import MISSING
from enisle.engine.boot import Dependency, dependencies
from enisle.engine.restart import ends_unhealthy
from enisle.model.ids import ImageId, InstanceId
from enisle.model.instance import EndpointRequest, Instance, InstanceSpec, RestartKind, RestartPolicy, Status
from tests.unit.engine.conftest import Bench, until


def record(name: str, **fields: Any) -> Instance:
    spec = InstanceSpec(image="busybox", image_id=ImageId(""), **fields)
    return Instance(id=InstanceId(name[0] * 64), name=name, created_at=0, spec=spec)


def compose(service: str, depends_on: str = "", project: str = "p") -> dict[str, str]:
    prefix = "com.docker.compose."
    return {f"{prefix}project": project, f"{prefix}service": service, f"{prefix}depends_on": depends_on}


def names(records: list[Instance]) -> dict[str, list[str]]:
    by_id = {each.id: each.name for each in records}
    return {
        by_id[InstanceId(key)]: [by_id[InstanceId(each.on)] for each in found]
        for key, found in dependencies(records).items()
    }


def test_what_an_instance_refers_to_comes_first() -> None:
    records = [
        record("a", network_mode="container:" + "b" * 64, volumes_from=("c:ro", "gone")),
        record("b", links=("/d:alias",), endpoints=(EndpointRequest(network="n", links=("c:see",)),)),
        record("c", ipc_mode="container:d", pid_mode="container:d"),
        record("d", network_mode="bridge"),
    ]
    assert names(records) == {"a": ["b", "c"], "b": ["d", "c"], "c": ["d", "d"], "d": []}


def test_services_of_compose() -> None:
    records = [
        record("web", labels=compose("web", "db:service_healthy:false,queue:service_started:true")),
        record("db", labels=compose("db")),
        record("queue", labels=compose("queue")),
        record("other", labels=compose("db", project="else")),
    ]
    assert names(records) == {"web": ["db", "queue"], "db": [], "queue": [], "other": []}
    assert dependencies(records)["w" * 64][0] == Dependency(on="d" * 64, healthy=True)


def test_a_circle_is_broken() -> None:
    records = [
        record("a", links=("b:b",)),
        record("b", links=("c:c",)),
        record("c", links=("a:a",)),
        record("d", links=("d:d",)),
    ]
    assert names(records) == {"a": ["b"], "b": ["c"], "c": [], "d": []}


async def test_one_that_cannot_start_holds_up_nobody(bench: Bench) -> None:
    always = RestartPolicy(kind=RestartKind.ALWAYS)
    broken, _running = await bench.run("broken", restart=always, labels=compose("broken"))
    after, _running = await bench.run("after", restart=always, labels=compose("after", "broken:service_healthy:false"))
    slot = bench.engine._core.slots.find(broken.id)
    await bench.engine._core.slots.change(slot, spec=replace(broken.spec, command=(MISSING,)))
    bench.driver.running.clear()
    await bench.reopen()
    await until(lambda: bench.engine._core.slots.find(after.id).status is Status.RUNNING)
    assert bench.engine._core.slots.find(broken.id).record.state.exit_code == 127


def test_who_is_ended_when_it_is_unhealthy() -> None:
    unhealthy = RestartPolicy(kind=RestartKind.UNHEALTHY, maximum_retries=2)
    assert ends_unhealthy(record("a", restart=unhealthy).spec, restart_count=1)
    assert not ends_unhealthy(record("a", restart=unhealthy).spec, restart_count=2)
    assert ends_unhealthy(record("a", labels={"enisle.restart": "unhealthy"}).spec, restart_count=9)
    assert not ends_unhealthy(record("a", restart=RestartPolicy(kind=RestartKind.ALWAYS)).spec, restart_count=0)
