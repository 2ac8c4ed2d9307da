"""A nameserver on another machine, and how instances ask."""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dnslib import QTYPE, RCODE, RR, TXT, A, DNSRecord

from tests.linux.hosts import Host, Lan

_ANSWER_S = 15.0  # as long as keepers wait for it: in a VM without KVM the resolver takes seconds to start
LONG = "x" * 200


@contextmanager
def asking_host() -> Iterator[Host]:
    """A host whose own nameserver is the other machine."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)  # the resolver is nobody
        (Path(directory) / "resolv.conf").write_text(f"nameserver {Lan.address}\n")
        with Host(Path(directory)) as running:
            yield running


class Nameserver:
    """A nameserver on another machine: answers 192.0.2.77 for what it knows, and remembers what it was asked."""

    def __init__(self, lan: Lan) -> None:
        self.asked: list[str] = []
        self._udp, self._tcp = lan.run(self._listen, lan.address)
        lan.keep(self._udp)
        lan.keep(self._tcp)
        threading.Thread(target=self._serve_udp, daemon=True).start()
        threading.Thread(target=self._serve_tcp, daemon=True).start()

    @staticmethod
    def _listen(address: str) -> tuple[socket.socket, socket.socket]:
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((address, 53))
        tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        tcp.bind((address, 53))
        tcp.listen()
        return udp, tcp

    def _answer(self, data: bytes, *, tcp: bool) -> bytes:
        query = DNSRecord.parse(data)
        name = str(query.q.qname)
        self.asked.append(name)
        reply = query.reply()
        if name == "example.com.":
            reply.add_answer(RR(query.q.qname, QTYPE.A, ttl=60, rdata=A("192.0.2.77")))
        elif name == "long.example.com." and tcp:
            for _ in range(5):
                reply.add_answer(RR(query.q.qname, QTYPE.TXT, ttl=60, rdata=TXT(LONG)))
        elif name == "long.example.com.":
            reply.header.tc = 1
        else:
            reply.header.rcode = RCODE.NXDOMAIN
        return bytes(reply.pack())

    def _serve_udp(self) -> None:
        while True:
            try:
                data, peer = self._udp.recvfrom(4096)
                if not data:
                    return
                self._udp.sendto(self._answer(data, tcp=False), peer)
            except OSError:
                return

    def _serve_tcp(self) -> None:
        while True:
            try:
                connection, _ = self._tcp.accept()
            except OSError:
                return
            with connection:
                (length,) = struct.unpack("!H", connection.recv(2))
                reply = self._answer(connection.recv(length), tcp=True)
                connection.sendall(struct.pack("!H", len(reply)) + reply)


def ask(
    server: str, name: str, kind: str = "A", *, tcp: bool = False, patience_s: float = _ANSWER_S
) -> tuple[str, list[str]]:
    """The reply's code and the answers' data."""
    reply = DNSRecord.parse(DNSRecord.question(name, kind).send(server, 53, tcp=tcp, timeout=patience_s))
    return RCODE[reply.header.rcode], sorted(str(record.rdata) for record in reply.rr)
