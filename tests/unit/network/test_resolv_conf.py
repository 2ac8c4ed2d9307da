"""resolv.conf read and written."""

from __future__ import annotations

from enisle.network.resolv_conf import outside, parse, render

TEXT = """\
# made by hand
nameserver 127.0.0.53   # the stub
nameserver 192.0.2.1
nameserver 2001:db8::1 ; six
nameserver fe80::1%eth0
nameserver not-an-address
nameserver
domain old.example
search a.example b.example
options edns0 ndots:2
options trust-ad
"""


def test_parse() -> None:
    found = parse(TEXT)
    assert found.nameservers == ("127.0.0.53", "192.0.2.1", "2001:db8::1", "fe80::1%eth0")
    assert found.search == ("a.example", "b.example")
    assert found.options == ("edns0", "ndots:2", "trust-ad")


def test_loopback_and_link_local_do_not_reach_instances() -> None:
    assert outside(parse(TEXT)) == ("192.0.2.1", "2001:db8::1")


def test_render() -> None:
    assert render(["10.0.0.1"], ["a.example", "b.example"], ["ndots:0"]) == (
        "nameserver 10.0.0.1\nsearch a.example b.example\noptions ndots:0\n"
    )
    assert render(["10.0.0.1"], ["."], []) == "nameserver 10.0.0.1\n"
    assert parse(render(parse(TEXT).nameservers, parse(TEXT).search, parse(TEXT).options)) == parse(TEXT)
