"""The filters of ``docker ps`` and ``docker container prune``."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from enisle.api.docker.network_settings import network_mode
from enisle.api.query import Filters, atoi, flag_filter, labels_match
from enisle.api.times import parse_time
from enisle.errors import Invalid
from enisle.model.instance import HealthStatus, Instance, Status
from enisle.model.numbers import decimal

Match = Callable[[Instance], bool]

ACCEPTED = frozenset(
    {
        "ancestor",
        "before",
        "exited",
        "expose",
        "health",
        "id",
        "is-task",
        "isolation",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    }
)
PRUNE_ACCEPTED = frozenset({"label", "label!", "until"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """What the names in filters stand for: looked up beforehand, since it takes the engine."""

    before: int = 0  # created_at of the instance, 0: no such filter
    since: int = 0
    images: frozenset[str] = frozenset()
    network_ids: frozenset[str] = frozenset()


def matcher(filters: Filters, named: Named) -> Match:
    """A test for one instance: values of one filter are alternatives (labels excepted), filters are all to hold."""
    tests: list[Match] = []
    for name, values in filters.items():
        if values:
            tests.append(_TESTS[name](values, named))
    if flag_filter(filters, "is-task"):
        tests.append(lambda _instance: False)
    return lambda instance: all(test(instance) for test in tests)


def prune_matcher(filters: Filters) -> Match:
    """Created before ``until``, with the labels wanted and without those unwanted."""
    until_ns = until(filters)
    wanted, unwanted = filters.get("label", []), filters.get("label!", [])

    def match(instance: Instance) -> bool:
        return (
            (not until_ns or instance.created_at < until_ns)
            and labels_match(wanted, instance.spec.labels)
            and not (unwanted and labels_match(unwanted, instance.spec.labels))
        )

    return match


def until(filters: Filters) -> int:
    """The ``until`` of a prune, ns since the epoch; 0 without one."""
    values = filters.get("until", [])
    if len(values) > 1:
        raise Invalid("more than one until filter specified")
    return parse_time(values[0]) if values else 0


def _by_id(values: list[str], _named: Named) -> Match:
    return lambda instance: any(instance.id.startswith(value) for value in values)


def _by_name(values: list[str], _named: Named) -> Match:
    patterns = [_pattern(value) for value in values]
    return lambda instance: any(pattern(instance.name) for pattern in patterns)


def _pattern(text: str) -> Callable[[str], bool]:
    """dockerd takes regular expressions, with or without the name's slash. What people write is a part of the name,
    with ^ or $ at most; just that is done here, since a foreign expression could take for ever."""
    starts, ends = text.startswith("^"), text.endswith("$")
    core = text.removeprefix("^").removesuffix("$")
    anchored = starts or core.startswith("/")
    core = core.removeprefix("/")
    if anchored and ends:
        return lambda name: name == core
    if anchored:
        return lambda name: name.startswith(core)
    if ends:
        return lambda name: name.endswith(core)
    return lambda name: core in name


def _by_label(values: list[str], _named: Named) -> Match:
    return lambda instance: labels_match(values, instance.spec.labels)


def _by_status(values: list[str], _named: Named) -> Match:
    known = {str(status) for status in Status}
    for value in values:
        if value not in known:
            raise Invalid(f"invalid filter 'status={value[:40]}'")
    return lambda instance: str(instance.state.status) in values


def _by_exit_code(values: list[str], _named: Named) -> Match:
    try:
        codes = {atoi(value) for value in values}
    except Invalid:
        raise Invalid(f"invalid filter 'exited={values[0][:40]}'") from None
    return lambda instance: bool(instance.state.finished_at) and instance.state.exit_code in codes


def _by_health(values: list[str], _named: Named) -> Match:
    known = {str(status) for status in HealthStatus}
    for value in values:
        if value not in known:
            raise Invalid(f"unrecognised filter value for health: {value[:40]}")

    def match(instance: Instance) -> bool:
        health = instance.state.health
        return str(health.status if health else HealthStatus.NONE) in values

    return match


def _by_ancestor(values: list[str], named: Named) -> Match:
    return lambda instance: instance.spec.image_id in named.images or instance.spec.image in values


def _by_before(_values: list[str], named: Named) -> Match:
    return lambda instance: instance.created_at < named.before


def _by_since(_values: list[str], named: Named) -> Match:
    return lambda instance: instance.created_at > named.since


def _by_volume(values: list[str], _named: Named) -> Match:
    return lambda instance: any(value in (mount.name, mount.target) for mount in instance.mounts for value in values)


def _by_network(values: list[str], named: Named) -> Match:
    def match(instance: Instance) -> bool:
        if any(endpoint.network_id in named.network_ids for endpoint in instance.endpoints):
            return True
        names = {request.network for request in instance.spec.endpoints}
        names |= {endpoint.network for endpoint in instance.endpoints}
        names.add(network_mode(instance.spec))
        return not names.isdisjoint(values)

    return match


def _by_published(values: list[str], _named: Named) -> Match:
    wanted = _ports(values)
    return lambda instance: any((port.host_port, port.protocol) in wanted for port in instance.bound_ports)


def _by_exposed(values: list[str], _named: Named) -> Match:
    wanted = {f"{port}/{protocol}" for port, protocol in _ports(values)}
    return lambda instance: not wanted.isdisjoint(instance.spec.exposed_ports)


def _ports(values: Iterable[str]) -> set[tuple[int, str]]:
    """Of "80", "80/tcp", "8000-8010/udp"."""
    ports = set()
    for value in values:
        numbers, _, protocol = value.partition("/")
        first, _, last = numbers.partition("-")
        low, high = decimal(first), decimal(last or first)
        if low is None or high is None or not low <= high < 65536:
            raise Invalid(f'invalid port specification: "{value[:40]}"')
        ports |= {(port, protocol or "tcp") for port in range(low, high + 1)}
    return ports


def _always(_values: list[str], _named: Named) -> Match:
    return lambda _instance: True


_TESTS: dict[str, Callable[[list[str], Named], Match]] = {
    "ancestor": _by_ancestor,
    "before": _by_before,
    "exited": _by_exit_code,
    "expose": _by_exposed,
    "health": _by_health,
    "id": _by_id,
    "is-task": _always,
    "isolation": _always,
    "label": _by_label,
    "name": _by_name,
    "network": _by_network,
    "publish": _by_published,
    "since": _by_since,
    "status": _by_status,
    "volume": _by_volume,
}
