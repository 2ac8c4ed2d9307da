"""Addresses given out, kept and given back."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enisle.errors import Conflict, Exhausted, Invalid
from enisle.model.network import AddressPool
from enisle.network.addresses import Subnet, mac_of


def subnet(text: str = "10.1.0.0/24", **fields: object) -> Subnet:
    return Subnet(AddressPool(subnet=text, gateway="10.1.0.1", **fields))  # type: ignore[arg-type]


def test_in_sequence_and_not_again_at_once() -> None:
    pool = subnet()
    assert pool.take("a") == "10.1.0.2/24"
    assert pool.take("b") == "10.1.0.3/24"
    pool.release("b", "10.1.0.3/24")
    assert pool.take("c") == "10.1.0.4/24"


def test_what_was_given_back_comes_again_when_the_others_are_gone() -> None:
    pool = subnet("10.1.0.0/29")  # .1 to .6, .1 is the gateway
    taken = [pool.take(str(number)) for number in range(5)]
    with pytest.raises(Exhausted):
        pool.take("late")
    pool.release("2", taken[2])
    assert pool.take("late") == taken[2]


def test_a_static_address() -> None:
    pool = subnet()
    assert pool.take("a", "10.1.0.9") == "10.1.0.9/24"
    with pytest.raises(Conflict, match="Address already in use"):
        pool.take("b", "10.1.0.9")
    for edge in ("10.1.0.0", "10.1.0.255", "10.1.0.1"):
        with pytest.raises(Conflict):
            pool.take("b", edge)
    with pytest.raises(Invalid, match="no configured subnet"):
        pool.take("b", "10.2.0.9")
    assert [pool.take(str(number)) for number in range(7)] == [f"10.1.0.{number}/24" for number in range(2, 9)]
    assert pool.take("after") == "10.1.0.10/24"


def test_a_range_and_reserved_addresses() -> None:
    pool = subnet(ip_range="10.1.0.128/30", reserved={"printer": "10.1.0.129"})
    assert [pool.take(str(number)) for number in range(3)] == ["10.1.0.128/24", "10.1.0.130/24", "10.1.0.131/24"]
    assert pool.take("static", "10.1.0.5") == "10.1.0.5/24"  # outside the range, inside the subnet
    with pytest.raises(Exhausted):
        pool.take("more")


def test_only_the_holder_gives_back() -> None:
    pool = subnet()
    address = pool.take("a")
    pool.release("b", address)
    with pytest.raises(Conflict):
        pool.take("b", "10.1.0.2")


def test_restored_addresses_are_held_and_passed_over() -> None:
    pool = subnet()
    pool.restore("a", "10.1.0.7/24")
    assert pool.take("b") == "10.1.0.8/24"
    assert pool.in_use()
    pool.release("a", "10.1.0.7/24")
    pool.release("b", "10.1.0.8/24")
    assert not pool.in_use()


def test_ipv6() -> None:
    pool = Subnet(AddressPool(subnet="fd00:1::/64", gateway="fd00:1::1"))
    assert pool.take("a") == "fd00:1::2/64"
    assert pool.take("b", "fd00:1::ffff") == "fd00:1::ffff/64"


@pytest.mark.parametrize(
    "fields",
    [
        {"subnet": "10.1.0.1/24"},
        {"subnet": "10.1.0.0/33"},
        {"subnet": "10.1.0.0/24", "gateway": "10.2.0.1"},
        {"subnet": "10.1.0.0/24", "ip_range": "10.2.0.0/25"},
        {"subnet": "10.1.0.0/24", "ip_range": "fd00::/80"},
    ],
)
def test_what_makes_no_sense_is_refused(fields: dict[str, str]) -> None:
    with pytest.raises(Invalid):
        Subnet(AddressPool(**fields))  # type: ignore[arg-type]


def test_point_to_point_subnets_have_two_addresses() -> None:
    pool = Subnet(AddressPool(subnet="10.1.0.0/31", gateway="10.1.0.0"))
    assert pool.take("a") == "10.1.0.1/31"


def test_thousands_are_fast() -> None:
    pool = Subnet(AddressPool(subnet="10.0.0.0/16", gateway="10.0.0.1"))
    began = time.process_time()
    taken = [pool.take(str(number)) for number in range(20_000)]
    assert len(set(taken)) == 20_000
    assert time.process_time() - began < 2


@given(st.lists(st.booleans(), max_size=60))
def test_nobody_shares(steps: list[bool]) -> None:
    pool = subnet("10.1.0.0/28")
    held: list[tuple[str, str]] = []
    for number, take in enumerate(steps):
        if take and len(held) < 13:
            held.append((str(number), pool.take(str(number))))
        elif held:
            pool.release(*held.pop(0))
        assert len({address for _, address in held}) == len(held)
        assert not {"10.1.0.0/28", "10.1.0.1/28", "10.1.0.15/28"} & {address for _, address in held}


def test_the_mac_follows_from_the_address() -> None:
    assert mac_of("172.17.0.2/16") == "02:42:ac:11:00:02"
