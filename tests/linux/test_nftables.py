"""nftables on the real kernel, in a namespace made here."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from enisle.linux.nftables import Nftables, NftablesError
from tests.linux.netns import Namespace

TABLE = """
table inet t {
  map m { type inet_proto . inet_service : ipv4_addr . inet_service; }
}
"""


@pytest.fixture
def host() -> Iterator[Namespace]:
    with Namespace() as namespace:
        yield namespace


def test_a_transaction_is_all_or_nothing(host: Namespace) -> None:
    def work() -> str:
        with Nftables() as nft:
            nft.run(TABLE)
            nft.run("add element inet t m { tcp . 80 : 10.0.0.2 . 8080 }")
            with pytest.raises(NftablesError) as caught:
                nft.run("delete element inet t m { tcp . 80 }; add element inet nope m { tcp . 1 : 10.0.0.2 . 1 }")
            assert "No such file or directory" in str(caught.value)
            return nft.run("list map inet t m")

    assert "tcp . 80 : 10.0.0.2 . 8080" in host.run(work)


def test_a_syntax_error_names_the_line(host: Namespace) -> None:
    def work() -> str:
        with Nftables() as nft, pytest.raises(NftablesError) as caught:
            nft.run("add tabel inet t")
        return str(caught.value)

    message = host.run(work)
    assert message.startswith("nftables: syntax error")
    assert "'add tabel inet t'" in message


def test_threads_take_turns(host: Namespace) -> None:
    def work() -> str:
        with Nftables() as nft:
            nft.run(TABLE)

            def add(first: int) -> None:
                for port in range(first, first + 50):
                    nft.run(f"add element inet t m {{ tcp . {port} : 10.0.0.2 . {port} }}")

            threads = [threading.Thread(target=add, args=(first,)) for first in (1000, 2000, 3000)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            return nft.run("list map inet t m")

    assert host.run(work).count("10.0.0.2") == 150


def test_closed(host: Namespace) -> None:
    def work() -> None:
        nft = Nftables()
        nft.close()
        nft.close()
        with pytest.raises(NftablesError, match="closed"):
            nft.run("list tables")

    host.run(work)
