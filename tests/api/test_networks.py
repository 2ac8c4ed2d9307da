"""Networks as people use them through the docker client: moving between them, links, ports, failures."""

from __future__ import annotations

from tests.api.places import Place


def test_moving_from_the_default_network_to_another(place: Place) -> None:
    back = place.network("back")
    db = place.start("db", "--network", back, "--network-alias", "store")
    web = place.start("web", "-p", "127.0.0.1::80")
    port = place.daemon.docker("port", web, "80").stdout
    assert "NXDOMAIN" in place.inside(web, "nslookup", "store", check=False)
    place.daemon.docker("network", "connect", "--alias", "front", back, web)
    assert "Name:\tstore" in place.inside(web, "nslookup", "store")
    place.daemon.docker("network", "disconnect", "bridge", web)
    assert "default via" in place.inside(web, "ip", "route")
    assert "Name:\tstore" in place.inside(web, "nslookup", "store"), "the nameserver of the network it left"
    assert "Name:\tfront" in place.inside(db, "nslookup", "front")
    assert place.daemon.docker("port", web, "80").stdout == port
    hosts = place.inside(web, "cat", "/etc/hosts").splitlines()
    address = place.inside(web, "ip", "-4", "-o", "addr", "show", "dev", "eth1").split()[3].partition("/")[0]
    assert [line.split()[0] for line in hosts if place.inside(web, "hostname").strip() in line] == [address]


def test_links_on_the_default_network(place: Place) -> None:
    up = place.start("up", "--expose", "80", "-e", "FOO=1")
    web = place.start("web", "--link", f"{up}:my-db")
    started_with = place.inside(web, "cat", "/proc/1/environ").split("\0")
    assert "MY_DB_ENV_FOO=1" in started_with
    assert any(entry.startswith("MY_DB_PORT_80_TCP=tcp://") for entry in started_with)
    assert "my-db" in place.inside(web, "cat", "/etc/hosts")
    assert place.daemon.docker("rm", "--link", f"{web}/my-db").stdout.strip() == f"{web}/my-db"
    assert place.daemon.docker("inspect", "-f", "{{.HostConfig.Links}}", web).stdout.strip() == "[]"


def test_what_failed_inside_is_told_whatever_the_network_met(place: Place) -> None:
    mount = f"type=volume,src=v-{place.suffix},dst=/x,volume-subpath=missing"
    place.daemon.docker("volume", "create", f"v-{place.suffix}")
    try:
        for _ in range(5):
            failed = place.daemon.docker("run", "--rm", "--mount", mount, "busybox", "true", check=False)
            assert "missing: no such file or directory" in failed.stderr
    finally:
        place.daemon.docker("volume", "rm", f"v-{place.suffix}")
